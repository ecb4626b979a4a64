//! A strict reader of HTTP/1 messages, for both ends of the test.

/// A field: its name and its value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// The head of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The request line or status line.
    pub(crate) line: Vec<u8>,
    pub(crate) fields: Vec<Field>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// The part of a body that has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// Number of bytes that it took on the wire.
    pub(crate) used: usize,
    /// Whether nothing is missing. A body that lasts until the end never knows.
    pub(crate) is_whole: bool,
}

impl Head {
    /// Reads a head, and returns it with its length on the wire, or nothing if it isn't whole.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let (line, rest) = line(&bytes[..end + 2]).ok_or("no line")?;
        let fields = fields(rest)?;
        let head = Self {
            line: line.to_owned(),
            fields,
        };
        Ok(Some((head, end + 4)))
    }

    /// Returns the values of all fields of this name, in order.
    pub(crate) fn values(&self, name: &[u8]) -> Vec<&[u8]> {
        values(&self.fields, name)
    }

    /// Returns the status of an answer.
    pub(crate) fn status(&self) -> Result<u16, String> {
        let mut words = self.line.split(|byte| *byte == b' ');
        let version = words.next().unwrap_or(&[]);
        let status = words.next().and_then(|word| std::str::from_utf8(word).ok());
        let status = status.filter(|word| word.len() == 3 && version.starts_with(b"HTTP/1."));
        let status = status.and_then(|word| word.parse().ok());
        status.ok_or_else(|| format!("'{}' is no status line", self.line.escape_ascii()))
    }

    /// Says how long the body is, if the fields say so.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, String> {
        let codings = self.values(b"transfer-encoding");
        let lengths = self.values(b"content-length");
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(None),
            ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            ([], [length]) => {
                let text = std::str::from_utf8(length).ok();
                let digits = text.filter(|text| text.bytes().all(|it| it.is_ascii_digit()));
                // A length beyond all limits is never reached.
                let length = digits.map(|text| text.parse().unwrap_or(usize::MAX));
                let length = length.map(Framing::Length).map(Some);
                length.ok_or_else(|| "a content-length that is no number".to_owned())
            }
            _ => Err("an ambiguous length".to_owned()),
        }
    }
}

impl Body {
    /// Reads as much of a body as has arrived.
    pub(crate) fn read(bytes: &[u8], framing: Framing) -> Result<Self, String> {
        match framing {
            Framing::UntilEnd => Ok(Self::plain(bytes, false)),
            Framing::Length(length) => {
                let is_whole = bytes.len() >= length;
                Ok(Self::plain(&bytes[..length.min(bytes.len())], is_whole))
            }
            Framing::Chunked => Self::chunked(bytes),
        }
    }

    fn plain(bytes: &[u8], is_whole: bool) -> Self {
        Self {
            bytes: bytes.to_owned(),
            trailers: Vec::new(),
            used: bytes.len(),
            is_whole,
        }
    }

    fn chunked(bytes: &[u8]) -> Result<Self, String> {
        let mut body = Self::default();
        let mut rest = bytes;
        while let Some((size, after)) = line(rest) {
            let digits = size.split(|byte| b"; \t".contains(byte)).next();
            let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            let size = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let size = size.ok_or("a chunk whose size is no number")?;
            if size == 0 {
                let end = if after.starts_with(b"\r\n") {
                    Some(0)
                } else {
                    find(after, b"\r\n\r\n").map(|end| end + 2)
                };
                if let Some(end) = end {
                    body.trailers = trailers(&after[..end]);
                    body.is_whole = true;
                    body.used = bytes.len() - after.len() + end + 2;
                } else {
                    body.used = bytes.len();
                }
                return Ok(body);
            }
            body.bytes.extend(&after[..size.min(after.len())]);
            match after.get(size..).map(|end| end.split_at_checked(2)) {
                Some(Some((b"\r\n", next))) => rest = next,
                Some(Some(_)) => return Err("a chunk that doesn't end with its size".to_owned()),
                _ => break,
            }
        }
        body.used = bytes.len();
        Ok(body)
    }
}

/// Returns the values of all fields of this name, in order.
pub(crate) fn values<'a>(fields: &'a [Field], name: &[u8]) -> Vec<&'a [u8]> {
    let named = fields
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_slice()).collect()
}

/// Splits `Name: value`.
pub(crate) fn field(line: &[u8]) -> Result<Field, String> {
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or_else(|| format!("'{}' is no field", line.escape_ascii()))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
        return Err(format!("'{}' is no field name", name.escape_ascii()));
    }
    Ok((name.to_owned(), value.trim_ascii().to_owned()))
}

/// Returns where `part` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn fields(mut bytes: &[u8]) -> Result<Vec<Field>, String> {
    let mut found = Vec::new();
    while let Some((line, rest)) = line(bytes) {
        found.push(field(line)?);
        bytes = rest;
    }
    Ok(found)
}

/// Reads trailers. Those that are no fields are kept as names, so that a case can expect them.
fn trailers(mut bytes: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    while let Some((line, rest)) = line(bytes) {
        found.push(field(line).unwrap_or_else(|_| (line.to_owned(), Vec::new())));
        bytes = rest;
    }
    found
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = find(bytes, b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

#[test]
fn messages_are_read() {
    let text = b"HTTP/1.1 200 OK\r\nA: 1\r\na:  2 \r\nTransfer-Encoding: chunked\r\n\r\n\
                 3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nrest";
    let (head, used) = Head::read(text).expect("valid").expect("whole");
    assert_eq!(head.status(), Ok(200));
    assert_eq!(head.values(b"A"), [&b"1"[..], b"2"]);
    let framing = head.framing().expect("clear").expect("there");
    let body = Body::read(&text[used..], framing).expect("valid");
    assert!(body.is_whole);
    assert_eq!(body.bytes, b"abc");
    assert_eq!(values(&body.trailers, b"t"), [&b"1"[..]]);
    assert_eq!(&text[used + body.used..], b"rest");
    let cut = Body::read(b"3\r\nabc\r\n0\r\n", framing).expect("so far");
    assert!(!cut.is_whole && cut.bytes == b"abc");
    assert!(Body::read(b"3\r\nabcd\r\n", framing).is_err());
}
