//! Stored answers, ready to be sent.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{fields::Fields, head::Head};

/// How a body was framed when it was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// In chunks, whose boundaries may mean something.
    Chunked,
    /// Until the connection's end.
    Close,
    /// With a length, or without a body.
    #[default]
    Length,
}

/// An answer that is in memory.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The status line and the end-to-end fields.
    pub head: Head,
    /// How its body came.
    pub framing: Framing,
    /// The body, perhaps in a mapped file.
    pub body: Bytes,
    /// The trailers, as lines.
    pub trailers: Option<Bytes>,
    /// When its pieces came.
    pub timing: Option<Timing>,
    /// The whole head of an answer that is sent at once, with a length.
    pub ready: Bytes,
}

/// The pieces in which a body came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timing(pub Vec<Piece>);

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Microseconds after the head.
    pub at_us: u64,
    /// Its length.
    pub bytes: u64,
}

impl Framing {
    /// Returns the number by which it is stored.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Length => 0,
            Self::Chunked => 1,
            Self::Close => 2,
        }
    }

    /// Returns the framing of a number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Length, Self::Chunked, Self::Close]
            .get(usize::from(number))
            .copied()
    }
}

impl Stored {
    /// Makes an answer ready.
    pub fn new(head: Head, framing: Framing, body: Bytes) -> Self {
        let ready = ready(&head, body.len());
        Self {
            head,
            framing,
            body,
            trailers: None,
            timing: None,
            ready,
        }
    }

    /// Returns the memory that it takes, mapped bodies left out.
    pub fn memory(&self, is_mapped: bool) -> usize {
        let body = if is_mapped { 0 } else { self.body.len() };
        let pieces = self.timing.as_ref().map_or(0, |timing| timing.0.len() * 16);
        2 * self.head.bytes().len() + body + pieces + OVERHEAD_BYTES
    }

    /// Returns whether all of it can be sent at once, as `ready` and `body`.
    pub fn is_plain(&self) -> bool {
        self.trailers.is_none() && self.framing != Framing::Chunked
    }
}

/// The memory of an entry besides its bytes: spans, the index, an allocation each.
const OVERHEAD_BYTES: usize = 512;

/// Returns whether an answer with this status has no body at all (RFC 9110, section 6.4.1).
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Makes the whole head of an answer with a length, ready to be written.
pub fn ready(head: &Head, length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.bytes().len() + 40);
    bytes.put_slice(head.bytes());
    if !head.has("content-length") && !is_bodiless(head.status) {
        bytes.put_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    bytes.put_slice(b"\r\n");
    bytes.freeze()
}

impl Timing {
    /// Writes the pieces as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 4);
        let mut put = |mut number: u64| {
            while number >= 0x80 {
                bytes.push((number & 0x7f) as u8 | 0x80);
                number >>= 7;
            }
            bytes.push((number & 0x7f) as u8);
        };
        let mut before = 0;
        for piece in &self.0 {
            put(piece.at_us.saturating_sub(before));
            put(piece.bytes);
            before = piece.at_us;
        }
        bytes
    }

    /// Reads pieces. Returns `None` if the bytes aren't pieces of a body with this length.
    pub fn decode(bytes: &[u8], length: u64) -> Option<Self> {
        let mut bytes = bytes.iter();
        let mut number = |first: u8| {
            let (mut number, mut shift, mut byte) = (u64::from(first & 0x7f), 7, first);
            while byte >= 0x80 {
                byte = *bytes.next()?;
                number |= u64::from(byte & 0x7f).checked_shl(shift)?;
                shift += 7;
            }
            Some((number, bytes.next().copied()))
        };
        let (mut pieces, mut at_us, mut all) = (Vec::new(), 0_u64, 0_u64);
        let mut next = number(0)?.1;
        while let Some(first) = next {
            let (after, then) = number(first)?;
            let (piece, rest) = number(then?)?;
            at_us = at_us.checked_add(after)?;
            all = all.checked_add(piece)?;
            pieces.push(Piece {
                at_us,
                bytes: piece,
            });
            next = rest;
        }
        (all == length).then_some(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_back_as_written() {
        let pieces = [(0, 3), (5, 0), (1_000_000, 70_000), (u64::MAX / 2, 1)];
        let pieces = pieces.map(|(at_us, bytes)| Piece { at_us, bytes });
        let timing = Timing(pieces.to_vec());
        let bytes = timing.encode();
        assert_eq!(Timing::decode(&bytes, 70_004), Some(timing));
        assert_eq!(Timing::decode(&bytes, 70_005), None);
        for end in 1..bytes.len() {
            Timing::decode(&bytes[..end], 70_004);
        }
        assert_eq!(Timing::decode(&[], 0), Some(Timing::default()));
        assert_eq!(Timing::decode(&[0xff; 40], 0), None);
    }

    #[test]
    fn an_answer_is_ready_with_one_length() {
        let head = Head::parse("HTTP/1.1 200 OK\r\nA: b\r\n".into()).expect("a head");
        let stored = Stored::new(head, Framing::Chunked, "body".into());
        assert_eq!(
            stored.ready,
            "HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 4\r\n\r\n"
        );
        let head = Head::parse("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n".into()).expect("a head");
        let stored = Stored::new(head, Framing::Length, "body".into());
        assert_eq!(stored.ready, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        let head = Head::parse("HTTP/1.1 204 No Content\r\n".into()).expect("a head");
        let stored = Stored::new(head, Framing::Length, Bytes::new());
        assert_eq!(stored.ready, "HTTP/1.1 204 No Content\r\n\r\n");
    }
}
