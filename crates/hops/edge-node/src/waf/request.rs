//! Walks a request: its target, headers and body.

use memchr::{memchr, memmem};

use super::{
    bytes::{self, DECODE, SQL},
    inspect::{Encoding, Inspection},
    place::Place,
    verdict::Check,
};

/// A request, as it is inspected.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, H> {
    /// The method.
    pub method: &'a [u8],
    /// The path and query, as the client sent them.
    pub target: &'a [u8],
    /// The names and values of the headers: anything that can be iterated, such as
    /// `headers.iter().copied()`.
    pub headers: H,
    /// The body as the client sent it, or its beginning.
    pub body: &'a [u8],
}

/// Statements of headers about the body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) content_type: &'a [u8],
    pub(super) content_encoding: &'a [u8],
    length: Option<&'a [u8]>,
    has_transfer_encoding: bool,
}

impl Inspection<'_> {
    /// Inspects a request.
    pub(super) fn request<'a, H>(&mut self, request: Request<'a, H>)
    where
        H: IntoIterator<Item = (&'a [u8], &'a [u8])>,
    {
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if !request.method.iter().all(is_token) {
            self.breach(Check::Method, Place::Request);
        }
        self.target(request.target);
        let mut told = Told::default();
        for (name, value) in request.headers {
            self.header(name, value, &mut told);
            if self.is_done() {
                return;
            }
        }
        if !request.body.is_empty() {
            self.body(request.body, told);
        }
    }

    fn target(&mut self, target: &[u8]) {
        let (path, query) = match memchr(b'?', target) {
            Some(mark) => (&target[..mark], &target[mark + 1..]),
            None => (target, &b""[..]),
        };
        // The target of a request to a proxy names a host.
        let path = match memmem::find(path, b"://") {
            Some(scheme) if !path.starts_with(b"/") => {
                let rest = &path[scheme + 3..];
                &rest[memchr(b'/', rest).unwrap_or(rest.len())..]
            }
            _ => path,
        };
        self.value(Place::Path, b"", path, Encoding::Percent);
        if bytes::kinds(path) & (SQL | DECODE) == 0 {
            for segment in path.split(|byte| *byte == b'/').filter(|it| it.len() >= 8) {
                self.hidden(Place::Path, segment);
            }
        } else {
            for segment in path.split(|byte| *byte == b'/') {
                if segment.len() + 1 < path.len() {
                    self.value(Place::Path, b"", segment, Encoding::Percent);
                }
            }
        }
        if !query.is_empty() {
            self.pairs(query, (Place::QueryName, Place::Query));
        }
    }

    fn header<'a>(&mut self, name: &'a [u8], value: &'a [u8], told: &mut Told<'a>) {
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            self.breach(Check::HeaderBytes, Place::Header);
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => self.value(Place::Host, name, value, Encoding::None),
            6 if is(b"cookie") => self.cookies(value),
            7 if is(b"referer") => self.referer(name, value),
            10 if is(b"user-agent") => self.user_agent(name, value),
            12 if is(b"content-type") => {
                told.content_type = value;
                self.value(Place::KnownHeader, name, value, Encoding::None);
            }
            14 if is(b"content-length") => {
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let is_same = told.length.is_none_or(|other| other == value);
                if !is_number || !is_same {
                    self.breach(Check::ContentLength, Place::Header);
                }
                told.length = Some(value);
            }
            16 if is(b"content-encoding") => told.content_encoding = value,
            17 if is(b"transfer-encoding") => told.has_transfer_encoding = true,
            _ if is_structured(name) => {
                self.value(Place::KnownHeader, name, value, Encoding::None);
            }
            _ => self.value(Place::Header, name, value, Encoding::Percent),
        }
        if told.has_transfer_encoding && told.length.is_some() {
            self.breach(Check::Framing, Place::Header);
        }
    }

    /// Inspects a `Referer`: its path and its query, as if they were the request's own.
    fn referer(&mut self, name: &[u8], value: &[u8]) {
        let rest = [&b"https://"[..], b"http://"]
            .iter()
            .find_map(|scheme| value.strip_prefix(*scheme));
        let Some(rest) = rest else {
            return self.value(Place::Referer, name, value, Encoding::Form);
        };
        let (page, query) = match memchr(b'?', rest) {
            Some(mark) => (&rest[..mark], &rest[mark + 1..]),
            None => (rest, &b""[..]),
        };
        self.value(Place::Referer, name, page, Encoding::Percent);
        if !query.is_empty() {
            self.pairs(query, (Place::Referer, Place::Referer));
        }
    }

    /// Inspects a `User-Agent`. Browsers' own need no tokenising.
    fn user_agent(&mut self, name: &[u8], value: &[u8]) {
        self.value(Place::UserAgent, name, value, Encoding::Percent);
    }
}

/// Returns whether a header has a grammar of its own, in which `+` and `%` are themselves.
fn is_structured(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 6] = [
        b"accept",
        b"sec-",
        b"if-",
        b"cache-",
        b"access-",
        b"content-",
    ];
    PREFIXES.iter().any(|prefix| {
        name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix)
    })
}
