//! Reads a plain request, and writes it as the upstream gets it.

use std::mem::MaybeUninit;

use hyper::{Method, Uri};
use memchr::memchr_iter;

use crate::{
    fields::{Client, Forwarding},
    serve::is_host,
};

/// A request that can be passed on as bytes: HTTP/1.1, with a path for a target, without a body or
/// with one that has come whole, and without fields that ask for more than passing it on.
#[derive(Debug)]
pub struct PlainRequest<'a> {
    /// The method, one that is in common use.
    pub method: &'a str,
    /// The path and the query.
    pub target: &'a str,
    /// The value of `Host`. It may be empty.
    pub host: &'a str,
    /// Who asks.
    pub client: &'a Client,
    fields: &'a [httparse::Header<'a>],
    body: &'a [u8],
    /// Whether the client wants the connection to end after the answer.
    closes: bool,
}

/// Properties of a request that are needed once its bytes are gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) is_head: bool,
    /// Whether asking twice is the same as asking once (RFC 9110, section 9.2.2).
    pub(crate) is_idempotent: bool,
    pub(crate) closes: bool,
}

/// Bytes of a client, as they were found.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// More has to come.
    Partial,
    /// hyper is to see to it, whatever it is.
    Special,
    /// A plain request of so many bytes, and what was made of it.
    Plain(usize, T),
}

/// Most fields of a plain request.
pub(crate) const FIELDS_MAX: usize = 100;

/// The meaning of a field to whoever passes a request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Nothing: it is passed on as it is.
    None,
    Host,
    Connection,
    Length,
    /// It concerns one connection only, and is left out.
    HopByHop,
    /// It says for whom a request is forwarded.
    Forwarded(By),
    /// It asks for more than passing the request on.
    Special,
}

/// Fields that say for whom a request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Forwarded,
    For,
    Host,
    Proto,
}

/// Reads a request from the bytes that have come, and hands it to `then` if it is plain. `None`
/// from there makes it special.
pub(crate) fn read<T>(
    bytes: &[u8],
    head_bytes_max: usize,
    client: &Client,
    then: impl FnOnce(&PlainRequest<'_>) -> Option<T>,
) -> Found<T> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let length = match head.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= head_bytes_max => length,
        Ok(httparse::Status::Partial) if has_only_whole_lines(bytes) => {
            return match bytes.len() {
                length if length > head_bytes_max => Found::Special,
                _ => Found::Partial,
            };
        }
        _ => return Found::Special,
    };
    if !bytes[0].is_ascii_uppercase() || !has_only_whole_lines(&bytes[..length]) {
        return Found::Special;
    }
    let plain = PlainRequest::of(&head, &bytes[length..], client);
    let Some(request) = plain else {
        return Found::Special;
    };
    match then(&request) {
        Some(made) => Found::Plain(length + request.body.len(), made),
        None => Found::Special,
    }
}

/// Returns whether each line feed ends a line as it should (RFC 9112, section 2.2).
fn has_only_whole_lines(bytes: &[u8]) -> bool {
    let mut ends = memchr_iter(b'\n', bytes);
    ends.all(|end| end > 0 && bytes[end - 1] == b'\r')
}

impl<'a> PlainRequest<'a> {
    /// Describes a request by its head and what follows that. `None` if it isn't plain.
    fn of<'b: 'a>(
        head: &'a httparse::Request<'_, 'b>,
        rest: &'a [u8],
        client: &'a Client,
    ) -> Option<Self> {
        let method = head.method.filter(|method| is_common(method))?;
        let target = head.path.filter(|target| is_path(target))?;
        if head.version != Some(1) {
            return None;
        }
        let (mut host, mut length, mut closes) = (None, 0, false);
        let mut has = (false, false);
        for field in head.headers.iter() {
            match meaning(field.name) {
                Meaning::Host => {
                    if host.is_some() || !is_host(field.value) {
                        return None;
                    }
                    host = str::from_utf8(field.value).ok();
                }
                Meaning::Length => {
                    if std::mem::replace(&mut has.0, true) {
                        return None;
                    }
                    length = digits(field.value)?;
                }
                Meaning::Connection => {
                    if std::mem::replace(&mut has.1, true) {
                        return None;
                    }
                    closes = field.value.eq_ignore_ascii_case(b"close");
                    if !closes && !field.value.eq_ignore_ascii_case(b"keep-alive") {
                        return None;
                    }
                }
                Meaning::Special => return None,
                Meaning::None | Meaning::HopByHop | Meaning::Forwarded(_) => {}
            }
        }
        Some(Self {
            method,
            target,
            host: host?,
            client,
            fields: head.headers,
            body: rest.get(..length)?,
            closes,
        })
    }

    /// Returns the first value of a field.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let mut fields = self.fields.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value)
    }

    /// Lists the names and values of all fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// Returns the body, which has come whole.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the method in hyper's form.
    pub(crate) fn to_method(&self) -> Method {
        self.method.parse().unwrap_or_default()
    }

    /// Returns the target in hyper's form.
    pub(crate) fn to_uri(&self) -> Uri {
        self.target.parse().unwrap_or_default()
    }

    /// Returns what must be known of the request later.
    pub(crate) fn sent(&self) -> Sent {
        let is_idempotent = matches!(self.method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS");
        Sent {
            is_head: self.method == "HEAD",
            // A body that was sent may have had an effect all the same, as far as hyper's side of
            // the proxy goes. Both sides keep to one rule.
            is_idempotent: is_idempotent && self.body.is_empty(),
            closes: self.closes,
        }
    }

    /// Appends the request as the upstream gets it. `via` is the hop's own entry in `Via`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, forwarding: Forwarding, via: &[u8]) {
        let fields = self.fields.iter();
        let length = fields.map(|field| field.name.len() + field.value.len() + 4);
        let own_bytes = 160 + via.len() + 2 * self.host.len();
        let length: usize = length.sum::<usize>() + self.target.len() + self.body.len() + own_bytes;
        out.reserve(length);
        for part in [self.method, " ", self.target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut has = (false, false);
        for field in self.fields {
            match meaning(field.name) {
                Meaning::HopByHop | Meaning::Connection => continue,
                Meaning::Forwarded(_) if forwarding == Forwarding::Replace => continue,
                Meaning::Forwarded(By::Host) => has.0 = true,
                Meaning::Forwarded(By::Proto) => has.1 = true,
                _ => {}
            }
            write_field(out, field.name, field.value);
        }
        if forwarding != Forwarding::Pass {
            write_field(out, "via", via);
            write_field(out, "x-forwarded-for", self.client.text());
            if !has.0 {
                write_field(out, "x-forwarded-host", self.host.as_bytes());
            }
            if !has.1 {
                write_field(out, "x-forwarded-proto", b"http");
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body);
    }
}

/// Appends a field.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Returns the value of a length. `None` if it isn't a number, or too large for a body that has
/// come whole.
fn digits(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 9 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

fn is_common(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH"
    )
}

/// Returns whether a target is a path, perhaps with a query (RFC 3986, section 3.3).
fn is_path(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| IS_IN_PATHS[usize::from(byte)])
}

/// The characters that may be in a path or a query.
const PATH: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789\
    -._~!$&'()*+,;=:@/%?";

/// Whether a byte may be in a path or a query.
const IS_IN_PATHS: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < PATH.len() {
        table[PATH[at] as usize] = true;
        at += 1;
    }
    table
};

fn meaning(name: &str) -> Meaning {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    // Most names have another length than all of these.
    match name.len() {
        2 if is("te") => Meaning::Special,
        4 if is("host") => Meaning::Host,
        6 if is("expect") => Meaning::Special,
        7 if is("upgrade") || is("trailer") => Meaning::Special,
        9 if is("forwarded") => Meaning::Forwarded(By::Forwarded),
        10 if is("connection") => Meaning::Connection,
        10 if is("keep-alive") => Meaning::HopByHop,
        14 if is("content-length") => Meaning::Length,
        15 if is("x-forwarded-for") => Meaning::Forwarded(By::For),
        16 if is("x-forwarded-host") => Meaning::Forwarded(By::Host),
        16 if is("proxy-connection") => Meaning::HopByHop,
        17 if is("x-forwarded-proto") => Meaning::Forwarded(By::Proto),
        17 if is("transfer-encoding") => Meaning::Special,
        _ => Meaning::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new("10.0.0.1:5".parse().expect("an address"))
    }

    /// Returns a request as the upstream gets it, and how much was left; `None` if it is special.
    fn passed(bytes: &str, forwarding: Forwarding) -> Option<(String, usize)> {
        let client = client();
        let found = read(bytes.as_bytes(), 16 * 1024, &client, |request| {
            let mut out = Vec::new();
            request.write(&mut out, forwarding, b"1.1 hop");
            Some(String::from_utf8(out).expect("text"))
        });
        match found {
            Found::Plain(used, out) => Some((out, bytes.len() - used)),
            Found::Special => None,
            Found::Partial => panic!("partial: {bytes:?}"),
        }
    }

    #[test]
    fn a_plain_request_is_passed_on() {
        let request = "GET /a%2f//b?c HTTP/1.1\r\nHoSt: a:1\r\nX-Own:  1 \r\nconnection: Close\r\n\
                       Keep-Alive: 5\r\nX-Own: 2\r\n\r\n";
        let (out, _) = passed(request, Forwarding::Pass).expect("plain");
        let expected = "GET /a%2f//b?c HTTP/1.1\r\nHoSt: a:1\r\nX-Own: 1\r\nX-Own: 2\r\n\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_client_is_believed_only_if_told_so() {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=9.9.9.9\r\n\
                       x-forwarded-for: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n";
        let head = "GET / HTTP/1.1\r\nHost: a\r\n";
        let own = "Forwarded: for=9.9.9.9\r\nx-forwarded-for: 9.9.9.9\r\n\
                   X-Forwarded-Proto: https\r\n";
        let via = "via: 1.1 hop\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-host: a\r\n";
        let said = |forwarding| passed(request, forwarding).expect("plain").0;
        assert_eq!(said(Forwarding::Pass), format!("{head}{own}\r\n"));
        assert_eq!(said(Forwarding::Trust), format!("{head}{own}{via}\r\n"));
        let replaced = format!("{head}{via}x-forwarded-proto: http\r\n\r\n");
        assert_eq!(said(Forwarding::Replace), replaced);
    }

    #[test]
    fn a_body_that_has_come_whole_is_passed_on_and_what_follows_is_left() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\n";
        let (out, left) = passed(&format!("{head}abcGET /"), Forwarding::Pass).expect("plain");
        assert_eq!((out, left), (format!("{head}abc"), 5));
        assert_eq!(passed(&format!("{head}ab"), Forwarding::Pass), None);
    }

    #[test]
    fn what_asks_for_more_is_special() {
        for line in [
            "transfer-encoding: chunked",
            "Expect: 100-continue",
            "upgrade: websocket",
            "TE: trailers",
            "trailer: a",
            "host: b",
            "connection: x-own",
            "connection: close, te",
            "content-length: 0x1",
            "content-length: +1",
            "content-length:",
            "content-length: 0\r\ncontent-length: 0",
            "connection: close\r\nconnection: close",
            "a: b\n c: d",
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
            assert_eq!(passed(&request, Forwarding::Pass), None, "{line}");
        }
        for first in [
            "GET / HTTP/1.0",
            "GET * HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "GET /\" HTTP/1.1",
            "GET /# HTTP/1.1",
            "BREW / HTTP/1.1",
            "CONNECT /a HTTP/1.1",
            "\r\nGET / HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            let request = format!("{first}\r\nHost: a\r\n\r\n");
            assert_eq!(passed(&request, Forwarding::Pass), None, "{first}");
        }
        for lines in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\x16\x03\x01",
        ] {
            assert_eq!(passed(lines, Forwarding::Pass), None, "{lines:?}");
        }
    }

    #[test]
    fn a_head_that_has_not_come_whole_is_waited_for_up_to_its_limit() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let client = client();
        for length in 1..head.len() {
            let found = read(&head.as_bytes()[..length], 16, &client, |_| Some(()));
            match length {
                ..=16 => assert!(matches!(found, Found::Partial), "{length}"),
                _ => assert!(matches!(found, Found::Special), "{length}"),
            }
        }
    }
}
