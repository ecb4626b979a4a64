//! Bodies: which kind they are, and what encloses them.

use std::{io::Read as _, mem::take};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use memchr::memchr;

use super::{
    bytes::{self, DECODE, SQL},
    inspect::{Encoding, Inspection},
    multipart,
    place::Place,
    request::Told,
    verdict::Check,
};

/// A kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Json,
    Multipart,
    Xml,
    Text,
    /// Nobody said. Its first bytes may tell.
    Unknown,
    /// Pictures, archives and the like.
    Binary,
}

impl Inspection<'_> {
    /// Inspects a body.
    pub(super) fn body(&mut self, body: &[u8], told: Told<'_>) {
        let limit = self.limits().body_bytes;
        if body.len() > limit {
            self.breach(Check::BodyBytes, Place::Request);
        }
        let body = &body[..body.len().min(limit)];
        let encoding = told.content_encoding.trim_ascii();
        if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
            return self.decoded_body(body, told.content_type);
        }
        let mut inflated = take(&mut self.texts.body);
        inflated.clear();
        inflate(encoding, body, limit, &mut inflated);
        if inflated.len() > limit {
            inflated.truncate(limit);
            self.breach(Check::Inflate, Place::Request);
        }
        match inflated.is_empty() {
            // It isn't what it says. A server may read it as it is.
            true => self.decoded_body(body, told.content_type),
            false => self.decoded_body(&inflated, told.content_type),
        }
        self.texts.body = inflated;
    }

    fn decoded_body(&mut self, body: &[u8], content_type: &[u8]) {
        let kind = match kind(content_type) {
            Kind::Unknown => guess(body),
            kind => kind,
        };
        match kind {
            Kind::Form => self.pairs(body, (Place::FormName, Place::Form)),
            Kind::Json => {
                if self.json(body, (Place::JsonName, Place::Json)).is_err() {
                    self.value(Place::Text, b"", body, Encoding::Percent);
                }
            }
            Kind::Multipart => {
                if !self.multipart(content_type, body) {
                    self.value(Place::Text, b"", body, Encoding::Percent);
                }
            }
            Kind::Xml => self.xml(body),
            Kind::Text | Kind::Unknown => self.text(body),
            Kind::Binary => {}
        }
    }

    /// Inspects a text, line by line as well if it has some.
    fn text(&mut self, body: &[u8]) {
        self.value(Place::Text, b"", body, Encoding::Form);
    }
}

/// Returns the kind of body that a content type names.
fn kind(content_type: &[u8]) -> Kind {
    let end = memchr(b';', content_type).unwrap_or(content_type.len());
    let name = content_type[..end].trim_ascii().to_ascii_lowercase();
    let (family, member) = match memchr(b'/', &name) {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&name[..], &b""[..]),
    };
    let ends = |suffix: &[u8]| member.ends_with(suffix);
    match (family, member) {
        (b"application", b"x-www-form-urlencoded") => Kind::Form,
        (b"multipart", _) => Kind::Multipart,
        (_, b"json") => Kind::Json,
        _ if ends(b"+json") => Kind::Json,
        _ if ends(b"xml") => Kind::Xml,
        (b"image" | b"audio" | b"video" | b"font", _) => Kind::Binary,
        (b"text", _) => Kind::Text,
        _ => Kind::Unknown,
    }
}

/// Guesses the kind of a body by its beginning, as lenient servers do.
fn guess(body: &[u8]) -> Kind {
    if !multipart::is_text(body) {
        return Kind::Binary;
    }
    let body = body.trim_ascii_start();
    match body.first() {
        Some(b'{' | b'[') => return Kind::Json,
        Some(b'<') => return Kind::Xml,
        _ => {}
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]%+".contains(byte);
    match memchr(b'=', body) {
        Some(equals) if equals > 0 && body[..equals].iter().all(is_name) => Kind::Form,
        _ => Kind::Text,
    }
}

/// Decompresses a body up to one byte more than `limit`. What can't be decoded ends it.
fn inflate(encoding: &[u8], body: &[u8], limit: usize, into: &mut Vec<u8>) {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let is = |known: &[u8]| encoding.eq_ignore_ascii_case(known);
    // An error leaves what was decoded before, which is what a lenient server would see.
    let _ = if is(b"gzip") || is(b"x-gzip") {
        MultiGzDecoder::new(body).take(most).read_to_end(into)
    } else if is(b"deflate") {
        let zlib = ZlibDecoder::new(body).take(most).read_to_end(into);
        if into.is_empty() {
            DeflateDecoder::new(body).take(most).read_to_end(into)
        } else {
            zlib
        }
    } else if is(b"br") {
        let size = 4096;
        brotli_decompressor::Decompressor::new(body, size)
            .take(most)
            .read_to_end(into)
    } else {
        Ok(0)
    };
}

impl Inspection<'_> {
    /// Inspects XML: texts, values of attributes and declarations.
    fn xml(&mut self, body: &[u8]) {
        let mut rest = body;
        let mut name: &[u8] = b"";
        while !self.is_done() {
            let Some(start) = memchr(b'<', rest) else {
                self.xml_text(name, rest);
                return;
            };
            self.xml_text(name, &rest[..start]);
            rest = &rest[start..];
            if let Some(data) = rest.strip_prefix(b"<![CDATA[") {
                let end = memchr::memmem::find(data, b"]]>").unwrap_or(data.len());
                self.xml_text(name, &data[..end]);
                rest = data.get(end + 3..).unwrap_or_default();
                continue;
            }
            let end = memchr(b'>', rest).map_or(rest.len(), |end| end + 1);
            let tag = &rest[..end];
            rest = &rest[end..];
            if tag.starts_with(b"<!") || tag.starts_with(b"<?") && !tag.starts_with(b"<?xml ") {
                self.value(Place::Text, b"", tag, Encoding::None);
                continue;
            }
            let inner = &tag[1..tag.len() - usize::from(tag.ends_with(b">"))];
            let width = inner.iter().position(u8::is_ascii_whitespace);
            let (tag_name, attributes) = inner.split_at(width.unwrap_or(inner.len()));
            if tag_name.first() != Some(&b'/') {
                name = tag_name;
            }
            self.value(Place::JsonName, b"", tag_name, Encoding::None);
            self.attributes(attributes);
        }
    }

    fn xml_text(&mut self, name: &[u8], text: &[u8]) {
        let text = text.trim_ascii();
        self.value(Place::Text, name, text, Encoding::None);
    }

    fn attributes(&mut self, mut rest: &[u8]) {
        while let Some(equals) = memchr(b'=', rest) {
            let name = rest[..equals].trim_ascii();
            let tail = rest[equals + 1..].trim_ascii_start();
            let Some(quote @ (b'"' | b'\'')) = tail.first().copied() else {
                return self.value(Place::Text, name, tail, Encoding::None);
            };
            let end = memchr(quote, &tail[1..]).map_or(tail.len(), |end| end + 1);
            self.value(Place::Text, name, &tail[1..end], Encoding::None);
            rest = tail.get(end + 1..).unwrap_or_default();
            if self.is_done() {
                return;
            }
        }
        if bytes::kinds(rest) & (SQL | DECODE) != 0 {
            self.value(Place::Text, b"", rest, Encoding::None);
        }
    }
}
