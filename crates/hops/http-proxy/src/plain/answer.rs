//! Reads the head of an upstream's answer, and writes it as the client gets it.

use std::mem::MaybeUninit;

use super::{chunks::Chunks, request::write_field};

/// How an answer's body goes on.
#[derive(Clone, Debug)]
pub(crate) enum Rest {
    /// For so many bytes.
    Bytes(u64),
    Chunks(Chunks),
    /// Until the upstream closes. The client gets it in chunks.
    UntilClosed,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The bytes that it took.
    pub(crate) bytes: usize,
    pub(crate) rest: Rest,
    /// Whether the upstream takes another request on the connection.
    pub(crate) is_kept: bool,
}

/// Bytes of an upstream that are no answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(&'static str);

/// Properties of the client that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct For<'a> {
    /// Whether it asked for the head alone.
    pub(crate) is_head: bool,
    /// Whether its connection ends after the answer.
    pub(crate) closes: bool,
    /// The time of now as a value of `Date`.
    pub(crate) date: &'a str,
}

/// Most fields in the head of an answer.
const FIELDS_MAX: usize = 100;

/// Most names that `Connection` may list.
const NAMED_MAX: usize = 16;

/// The meaning of a field to whoever passes an answer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Nothing: it is passed on as it is.
    None,
    Connection,
    Length,
    Coding,
    HopByHop,
    Date,
}

/// Properties of an answer's transfer, as its fields have them.
#[derive(Debug, Default)]
struct Transfer<'a> {
    length: Option<u64>,
    is_chunked: bool,
    has_date: bool,
    is_closed: bool,
    is_kept: bool,
    /// Names of fields that concern one connection only.
    named: [&'a [u8]; NAMED_MAX],
    named_count: usize,
}

/// Reads a head from the bytes that have come, and appends what the client gets. Returns `None`
/// while more has to come.
pub(crate) fn pass(
    bytes: &[u8],
    client: For<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Head>, Invalid> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut head,
        bytes,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Invalid("its head is not HTTP")),
    };
    let (Some(status @ 100..), Some(version)) = (head.code, head.version) else {
        return Err(Invalid("its head is not HTTP"));
    };
    let transfer = Transfer::of(head.headers, version)?;
    let is_interim = (100..200).contains(&status);
    let has_no_body = client.is_head || is_interim || matches!(status, 204 | 304);
    let rest = match (transfer.is_chunked, transfer.length) {
        _ if has_no_body => Rest::Bytes(0),
        (true, _) => Rest::Chunks(Chunks::default()),
        (false, Some(length)) => Rest::Bytes(length),
        (false, None) => Rest::UntilClosed,
    };
    let is_kept = match version {
        1 => !transfer.is_closed,
        _ => transfer.is_kept && !transfer.is_closed,
    };
    // A body may follow where there must be none.
    let is_odd = status == 204 && (transfer.is_chunked || transfer.length.is_some_and(|it| it > 0));
    let is_kept = is_kept && !is_odd && !matches!(rest, Rest::UntilClosed);

    out.extend_from_slice(b"HTTP/1.1 ");
    let digits = [100, 10, 1].map(|place| b'0' + (status / place % 10) as u8);
    out.extend_from_slice(&digits);
    out.push(b' ');
    out.extend_from_slice(reason(bytes));
    out.extend_from_slice(b"\r\n");
    transfer.write(head.headers, status, out);
    if !is_interim {
        if !transfer.has_date {
            write_field(out, "date", client.date.as_bytes());
        }
        if matches!(rest, Rest::UntilClosed) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if client.closes {
            out.extend_from_slice(b"connection: close\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Head {
        status,
        bytes: length,
        rest,
        is_kept,
    }))
}

/// Returns the reason as it came, though it may not be UTF-8. The head has been parsed.
fn reason(head: &[u8]) -> &[u8] {
    let mut lines = head
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    // "HTTP/1.1 200 "
    line.get(13..).unwrap_or_default()
}

/// Appends an answer of our own, with a line of text.
pub(crate) fn write_own(out: &mut Vec<u8>, status: u16, text: &str, client: For<'_>) {
    let reason = hyper::StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    let head = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\ndate: {}\r\n",
        reason.unwrap_or_default(),
        text.len() + 1,
        client.date,
    );
    out.extend_from_slice(head.as_bytes());
    if client.closes {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !client.is_head {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}

impl<'a> Transfer<'a> {
    fn of(fields: &[httparse::Header<'a>], version: u8) -> Result<Self, Invalid> {
        let mut transfer = Self::default();
        for field in fields {
            match meaning(field.name) {
                Meaning::Length => {
                    let length = digits(field.value).ok_or(Invalid("its length is invalid"))?;
                    if transfer.length.is_some_and(|before| before != length) {
                        return Err(Invalid("it has two lengths"));
                    }
                    transfer.length = Some(length);
                }
                Meaning::Coding => {
                    let is_known = field.value.eq_ignore_ascii_case(b"chunked");
                    if transfer.is_chunked || !is_known || version == 0 {
                        return Err(Invalid("its transfer coding is unknown"));
                    }
                    transfer.is_chunked = true;
                }
                Meaning::Connection => transfer.note_connection(field.value)?,
                Meaning::Date => transfer.has_date = true,
                Meaning::None | Meaning::HopByHop => {}
            }
        }
        Ok(transfer)
    }

    fn note_connection(&mut self, value: &'a [u8]) -> Result<(), Invalid> {
        for name in value.split(|&byte| byte == b',') {
            let name = name.trim_ascii();
            if name.eq_ignore_ascii_case(b"close") {
                self.is_closed = true;
            } else if name.eq_ignore_ascii_case(b"keep-alive") {
                self.is_kept = true;
            } else if !name.is_empty() {
                let slot = self.named.get_mut(self.named_count);
                *slot.ok_or(Invalid("its Connection field names too many fields"))? = name;
                self.named_count += 1;
            }
        }
        Ok(())
    }

    /// Appends the fields that the client gets.
    fn write(&self, fields: &[httparse::Header<'_>], status: u16, out: &mut Vec<u8>) {
        let named = &self.named[..self.named_count];
        let mut has_length = false;
        for field in fields {
            match meaning(field.name) {
                Meaning::Connection | Meaning::HopByHop => continue,
                // RFC 9112, section 6.3: chunks count more than a length. One length is enough, and
                // RFC 9110, section 8.6, and RFC 9112, section 6.1, allow neither here.
                Meaning::Length | Meaning::Coding if status < 200 || status == 204 => continue,
                Meaning::Length if self.is_chunked || has_length => continue,
                Meaning::Length => has_length = true,
                Meaning::Coding | Meaning::Date => {}
                Meaning::None => {
                    let name = field.name.as_bytes();
                    if named.iter().any(|named| named.eq_ignore_ascii_case(name)) {
                        continue;
                    }
                }
            }
            write_field(out, field.name, field.value);
        }
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

fn meaning(name: &str) -> Meaning {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is("te") => Meaning::HopByHop,
        4 if is("date") => Meaning::Date,
        7 if is("upgrade") => Meaning::HopByHop,
        10 if is("connection") => Meaning::Connection,
        10 if is("keep-alive") => Meaning::HopByHop,
        14 if is("content-length") => Meaning::Length,
        16 if is("proxy-connection") => Meaning::HopByHop,
        17 if is("transfer-encoding") => Meaning::Coding,
        _ => Meaning::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a client gets, and how the body goes on.
    fn passed(lines: &[&str], is_head: bool) -> Result<(String, Head), Invalid> {
        let bytes = format!("{}\r\n\r\n", lines.join("\r\n"));
        let client = For {
            is_head,
            closes: false,
            date: "now",
        };
        let mut out = Vec::new();
        let head = pass(bytes.as_bytes(), client, &mut out)?.expect("whole");
        Ok((String::from_utf8(out).expect("text"), head))
    }

    #[test]
    fn an_answer_is_passed_on_without_the_fields_of_its_connection() {
        let lines = [
            "HTTP/1.1 299 So It Is",
            "Date: then",
            "Connection: X-Own, close",
            "X-Own: 1",
            "Set-Cookie: a",
            "Keep-Alive: 5",
            "set-cookie: b",
            "Content-Length: 3",
        ];
        let (out, head) = passed(&lines, false).expect("an answer");
        let expected = "HTTP/1.1 299 So It Is\r\nDate: then\r\nSet-Cookie: a\r\nset-cookie: b\r\n\
                        Content-Length: 3\r\n\r\n";
        assert_eq!(out, expected);
        assert!(!head.is_kept && matches!(head.rest, Rest::Bytes(3)));
    }

    #[test]
    fn the_end_of_an_answer_is_where_rfc_9112_has_it() {
        for (lines, is_head, rest, is_kept) in [
            (
                &["HTTP/1.1 200 OK", "content-length: 9"][..],
                true,
                "0",
                true,
            ),
            (&["HTTP/1.1 304 N", "content-length: 9"], false, "0", true),
            (&["HTTP/1.1 204 N"], false, "0", true),
            (
                &["HTTP/1.1 200 OK", "transfer-encoding: Chunked"],
                false,
                "chunks",
                true,
            ),
            (
                &[
                    "HTTP/1.1 200 OK",
                    "content-length: 9",
                    "transfer-encoding: chunked",
                ],
                false,
                "chunks",
                true,
            ),
            (
                &["HTTP/1.1 200 OK", "content-length: 9", "content-length: 9"],
                false,
                "9",
                true,
            ),
            (&["HTTP/1.1 200 OK"], false, "closed", false),
            (&["HTTP/1.0 200 OK", "content-length: 1"], false, "1", false),
            (
                &[
                    "HTTP/1.0 200 OK",
                    "content-length: 1",
                    "connection: keep-alive",
                ],
                false,
                "1",
                true,
            ),
        ] {
            let (out, head) = passed(lines, is_head).expect("an answer");
            let found = match head.rest {
                Rest::Bytes(length) => length.to_string(),
                Rest::Chunks(_) => "chunks".to_owned(),
                Rest::UntilClosed => "closed".to_owned(),
            };
            assert_eq!((found.as_str(), head.is_kept), (rest, is_kept), "{lines:?}");
            let lengths = out.matches("content-length").count();
            let is_chunked = out.contains("ransfer-encoding");
            assert!(lengths + usize::from(is_chunked) <= 1, "{lines:?}: {out}");
            assert!(out.contains("date: now\r\n"), "{out}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for lines in [
            &["HTTP/1.1 200 OK", "content-length: 1", "content-length: 2"][..],
            &["HTTP/1.1 200 OK", "content-length: -1"],
            &["HTTP/1.1 200 OK", "content-length: 99999999999999999999"],
            &["HTTP/1.1 200 OK", "transfer-encoding: gzip, chunked"],
            &[
                "HTTP/1.1 200 OK",
                "transfer-encoding: chunked",
                "transfer-encoding: chunked",
            ],
            &["HTTP/1.0 200 OK", "transfer-encoding: chunked"],
            &["HTTP/2 200 OK"],
            &["nonsense"],
        ] {
            assert!(passed(lines, false).is_err(), "{lines:?}");
        }
    }
}
