//! Keeps the heads of answers as the bytes that came, for hops that must lose nothing of them:
//! hyper writes names in lower case and groups repeated fields.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use memchr::memmem;

/// The head of an answer as it came, from the status line to the empty line. It is an extension of
/// the answer if [`PoolLimits::keeps_heads`](crate::PoolLimits::keeps_heads) is set.
#[derive(Clone, Debug)]
pub struct RawHead(pub Bytes);

/// Follows what a connection receives, until the end of a head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Rc<RefCell<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    bytes: Vec<u8>,
    /// Length of the head, once it is whole.
    end: Option<usize>,
}

/// Most bytes of heads that are kept: more than hyper takes.
const HEAD_BYTES_MAX: usize = 256 * 1024;

impl Tap {
    /// Begins with the next answer.
    pub(crate) fn begin(&self) {
        let mut noted = self.0.borrow_mut();
        noted.bytes.clear();
        noted.end = None;
    }

    /// Notes bytes that came.
    pub(crate) fn note(&self, bytes: &[u8]) {
        let mut noted = self.0.borrow_mut();
        if noted.end.is_some() || bytes.is_empty() || noted.bytes.len() > HEAD_BYTES_MAX {
            return;
        }
        let mut from = noted.bytes.len().saturating_sub(3);
        noted.bytes.extend_from_slice(bytes);
        while let Some(end) = end_of_head(&noted.bytes, from) {
            if !is_interim(&noted.bytes) {
                noted.end = Some(end);
                return;
            }
            noted.bytes.drain(..end);
            from = 0;
        }
    }

    /// Returns the head that came last.
    pub(crate) fn head(&self) -> Option<RawHead> {
        let noted = self.0.borrow();
        let head = noted.bytes.get(..noted.end?)?;
        Some(RawHead(Bytes::copy_from_slice(head)))
    }
}

/// Returns where a head ends. hyper takes a line feed alone for the end of a line.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = &bytes[from..];
    let usual = memmem::find(rest, b"\r\n\r\n").map(|at| from + at + 4);
    let bare = memmem::find(rest, b"\n\n").map(|at| from + at + 2);
    let mixed = memmem::find(rest, b"\n\r\n").map(|at| from + at + 3);
    [usual, bare, mixed].into_iter().flatten().min()
}

/// Returns whether a head is of an interim answer, which another one follows.
fn is_interim(head: &[u8]) -> bool {
    head.get(9) == Some(&b'1') && !head.get(9..).is_some_and(|rest| rest.starts_with(b"101"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_kept_as_it_came_and_without_interim_ones() {
        let sent = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n\
            HTTP/1.1 200 Fine\r\nSet-Cookie: \xff\r\nSET-cookie: b\r\n\r\nbody\r\n\r\n";
        for size in 1..sent.len() {
            let tap = Tap::default();
            tap.begin();
            sent.chunks(size).for_each(|bytes| tap.note(bytes));
            let RawHead(head) = tap.head().expect("whole");
            let expected = b"HTTP/1.1 200 Fine\r\nSet-Cookie: \xff\r\nSET-cookie: b\r\n\r\n";
            assert_eq!(head, expected.as_slice(), "pieces of {size}");
        }
    }

    #[test]
    fn half_a_head_is_none() {
        let tap = Tap::default();
        tap.begin();
        tap.note(b"HTTP/1.1 200 OK\r\nA: b\r\n");
        assert!(tap.head().is_none());
        tap.note(b"\r\n");
        assert!(tap.head().is_some());
    }
}
