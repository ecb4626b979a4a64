//! Multipart forms: names, file names and values.

use memchr::{memchr, memmem};

use super::{
    inspect::{Encoding, Inspection},
    place::Place,
    verdict::Check,
};

/// A part's header, as far as it matters.
#[derive(Debug, Default)]
struct Part<'a> {
    name: &'a [u8],
    file_name: Option<&'a [u8]>,
}

impl Inspection<'_> {
    /// Inspects a multipart body. Returns false if it isn't one, of this content type.
    pub(super) fn multipart(&mut self, content_type: &[u8], body: &[u8]) -> bool {
        let Some(boundary) = parameter(content_type, b"boundary").filter(|it| !it.is_empty())
        else {
            self.breach(Check::Multipart, Place::Header);
            return false;
        };
        let delimiter = [b"--", boundary].concat();
        let finder = memmem::Finder::new(&delimiter);
        let Some(first) = finder.find(body) else {
            return false;
        };
        let mut rest = &body[first + delimiter.len()..];
        let mut count = 0;
        while !rest.starts_with(b"--") && !rest.is_empty() && !self.is_done() {
            count += 1;
            if count > self.limits().parameters {
                self.breach(Check::Parameters, Place::Multipart);
                return true;
            }
            let end = finder.find(rest);
            self.part(&rest[..end.unwrap_or(rest.len())]);
            let Some(end) = end else {
                // A body that was cut by a limit, or one that servers may read differently.
                self.breach(Check::Multipart, Place::Multipart);
                return true;
            };
            rest = &rest[end + delimiter.len()..];
        }
        true
    }

    fn part(&mut self, part: &[u8]) {
        let part = part
            .strip_prefix(b"\r\n")
            .or_else(|| part.strip_prefix(b"\n"))
            .unwrap_or(part);
        let (head, value) = match memmem::find(part, b"\r\n\r\n") {
            Some(end) => (&part[..end], &part[end + 4..]),
            None => match memmem::find(part, b"\n\n") {
                Some(end) => (&part[..end], &part[end + 2..]),
                None => (&b""[..], part),
            },
        };
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        let found = self.part_head(head);
        self.value(Place::MultipartName, b"", found.name, Encoding::None);
        match found.file_name {
            Some(file_name) => {
                self.value(Place::FileName, found.name, file_name, Encoding::Percent);
                if is_text(value) {
                    self.value(Place::File, found.name, value, Encoding::None);
                }
            }
            None => self.value(Place::Multipart, found.name, value, Encoding::Form),
        }
    }

    fn part_head<'a>(&mut self, head: &'a [u8]) -> Part<'a> {
        let mut part = Part::default();
        for line in head.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            let Some(colon) = memchr(b':', line) else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-disposition") {
                part.name = parameter(value, b"name").unwrap_or_default();
                part.file_name =
                    parameter(value, b"filename").or_else(|| parameter(value, b"filename*"));
            } else {
                self.value(Place::KnownHeader, name, value, Encoding::None);
            }
        }
        part
    }
}

/// Returns whether a file's content is text: no control characters at its beginning.
pub(super) fn is_text(content: &[u8]) -> bool {
    let head = &content[..content.len().min(512)];
    !head
        .iter()
        .any(|byte| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'))
}

/// Returns a parameter of a header's value, without quotes.
pub(super) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = value;
    loop {
        let start = memchr(b';', rest)?;
        rest = rest[start + 1..].trim_ascii_start();
        let Some(equals) = memchr(b'=', rest) else {
            continue;
        };
        let found = rest[..equals].trim_ascii();
        let is_sought = found.eq_ignore_ascii_case(name);
        let tail = rest[equals + 1..].trim_ascii_start();
        if let Some(quoted) = tail.strip_prefix(b"\"") {
            let end = closing_quote(quoted);
            if is_sought {
                return Some(&quoted[..end]);
            }
            rest = &quoted[end..];
        } else if is_sought {
            let end = memchr(b';', tail).unwrap_or(tail.len());
            return Some(tail[..end].trim_ascii());
        }
    }
}

/// Returns the position of the quote that ends a quoted string, or the end of the text.
fn closing_quote(quoted: &[u8]) -> usize {
    let mut at = 0;
    while at < quoted.len() {
        match quoted[at] {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    quoted.len()
}
