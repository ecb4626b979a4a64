//! Heads of messages as bytes: a first line and fields, in their order and as they were written.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::fields::Fields;

/// The head of an answer: its status line and its fields, without the empty line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: Bytes,
    /// The status code.
    pub status: u16,
    fields: Box<[Span]>,
}

/// Where a field stands in a head.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    name: Range<u32>,
    value: Range<u32>,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The status line isn't one of HTTP/1.
    #[error("expected a status line of HTTP/1")]
    StatusLine,
    /// A field isn't one of HTTP.
    #[error("expected fields of HTTP")]
    Fields,
}

/// Most fields of a head.
const FIELDS_MAX: usize = 256;

impl Head {
    /// Reads a head. The empty line at its end may be there or not.
    ///
    /// # Errors
    /// If it isn't a head of HTTP/1.
    pub fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        let end = memchr::memchr(b'\n', &bytes).ok_or(HeadError::StatusLine)?;
        let status = status_of(&bytes[..end]).ok_or(HeadError::StatusLine)?;
        let mut whole = BytesMut::from(&bytes[..]);
        while whole.ends_with(b"\n") || whole.ends_with(b"\r") {
            whole.truncate(whole.len() - 1);
        }
        whole.extend_from_slice(b"\r\n\r\n");
        let whole = whole.freeze();
        let mut parsed = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let fields_at = (end + 1).min(whole.len());
        let parsed = match httparse::parse_headers(&whole[fields_at..], &mut parsed) {
            Ok(httparse::Status::Complete((_, parsed))) => parsed,
            // There is no field at all, and the status line's end was cut.
            _ if fields_at + 2 >= whole.len() => &[],
            _ => return Err(HeadError::Fields),
        };
        let mut builder = Builder::with_line(whole[..end].trim_ascii_end());
        for field in parsed {
            builder.push(field.name.as_bytes(), field.value);
        }
        Ok(builder.finish(status))
    }

    /// Begins a head with a status and a reason.
    pub fn build(status: u16, reason: &[u8]) -> Builder {
        let mut line = format!("HTTP/1.1 {status} ").into_bytes();
        line.extend_from_slice(reason);
        Builder::with_line(&line)
    }

    /// Returns the reason, which may be empty and need not be UTF-8.
    pub fn reason(&self) -> &[u8] {
        let end = memchr::memchr(b'\r', &self.bytes).unwrap_or(self.bytes.len());
        self.bytes.get(13..end).unwrap_or_default()
    }

    /// Returns the status line and the fields, each with its line's end.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns a field's value as bytes that share the head's memory.
    pub fn shared(&self) -> impl Iterator<Item = (&[u8], Bytes)> {
        self.fields.iter().map(|span| {
            let value = span.value.start as usize..span.value.end as usize;
            (self.slice(&span.name), self.bytes.slice(value))
        })
    }

    /// Makes a head of the same status with the fields that `keep` lets pass.
    pub fn filtered(&self, keep: impl Fn(&[u8], &[u8]) -> bool) -> Builder {
        let mut builder = Self::build(self.status, self.reason());
        for (name, value) in self.iter().filter(|(name, value)| keep(name, value)) {
            builder.push(name, value);
        }
        builder
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

impl Fields for Head {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let spans = self.fields.iter();
        spans.map(|span| (self.slice(&span.name), self.slice(&span.value)))
    }
}

/// A head that is being made.
#[derive(Debug)]
pub struct Builder {
    bytes: BytesMut,
    fields: Vec<Span>,
}

impl Builder {
    fn with_line(line: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_slice(line);
        bytes.put_slice(b"\r\n");
        Self {
            bytes,
            fields: Vec::new(),
        }
    }

    /// Adds a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let at = |bytes: &BytesMut| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = at(&self.bytes);
        self.bytes.put_slice(name);
        let name = start..at(&self.bytes);
        self.bytes.put_slice(b": ");
        let start = at(&self.bytes);
        self.bytes.put_slice(value);
        let value = start..at(&self.bytes);
        self.bytes.put_slice(b"\r\n");
        self.fields.push(Span { name, value });
    }

    /// Ends the head.
    pub fn finish(self, status: u16) -> Head {
        Head {
            bytes: self.bytes.freeze(),
            status,
            fields: self.fields.into(),
        }
    }
}

/// Reads the status of `HTTP/1.x NNN reason`.
fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (&minor, rest) = rest.split_first()?;
    let code = rest.strip_prefix(b" ")?.get(..3)?;
    if !minor.is_ascii_digit() || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = str::from_utf8(code).ok()?.parse().ok()?;
    (100..=999).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_kept_byte_by_byte() {
        let text = b"HTTP/1.1 299 All \xffright\r\nSet-Cookie: a\r\nX: \xfe\r\nset-COOKIE: b\r\n";
        for end in ["", "\r\n"] {
            let head = [text.as_slice(), end.as_bytes()].concat();
            let head = Head::parse(head.into()).expect("a head");
            assert_eq!(head.bytes(), text.as_slice());
            assert_eq!(
                (head.status, head.reason()),
                (299, b"All \xffright".as_slice())
            );
            let cookies: Vec<_> = head.all("set-cookie").collect();
            assert_eq!(cookies, [b"a", b"b"]);
        }
    }

    #[test]
    fn a_head_may_have_no_fields() {
        for text in [
            "HTTP/1.0 200\r\n\r\n",
            "HTTP/1.1 204 \r\n",
            "HTTP/1.1 200 OK\n\n",
        ] {
            let head = Head::parse(text.into()).expect(text);
            assert_eq!(head.iter().count(), 0, "{text}");
        }
        for text in [
            "",
            "HTTP/1.1 20\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n",
        ] {
            assert!(Head::parse(text.into()).is_err(), "{text}");
        }
    }
}
