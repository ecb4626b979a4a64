//! Walks JSON without recursion.

use memchr::memchr2;

use super::{
    bytes::hex,
    inspect::{Encoding, Inspection},
    place::Place,
    verdict::Check,
};

/// JSON that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A value that has begun.
#[derive(Clone, Copy, Debug)]
struct Open {
    is_object: bool,
    /// Where the name of the values inside stands in the text, without quotes.
    name: (usize, usize),
}

/// The kind of thing that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// A value, or the end of an array.
    FirstValue,
    Name,
    /// A name, or the end of an object.
    FirstName,
    /// A comma, or the end of what is open.
    Rest,
}

/// A position in the structure of a text.
#[derive(Debug)]
struct Walk {
    open: Vec<Open>,
    /// Where the last name stands in the text.
    name: (usize, usize),
    next: Next,
}

impl Walk {
    fn open(&mut self, is_object: bool) {
        let name = self.name;
        self.open.push(Open { is_object, name });
        self.next = match is_object {
            true => Next::FirstName,
            false => Next::FirstValue,
        };
    }

    fn close(&mut self, is_object: bool) -> Result<(), Malformed> {
        let closed = self.open.pop().ok_or(Malformed)?;
        self.name = closed.name;
        self.next = Next::Rest;
        match closed.is_object == is_object {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    fn comma(&mut self) -> Result<(), Malformed> {
        let inside = self.open.last().ok_or(Malformed)?;
        self.next = match inside.is_object {
            true => Next::Name,
            false => Next::Value,
        };
        Ok(())
    }
}

impl Inspection<'_> {
    /// Inspects the names and strings of a JSON text. `places` are those of a name and a value.
    ///
    /// # Errors
    /// The text isn't JSON. What came before was inspected.
    pub(super) fn json(&mut self, text: &[u8], places: (Place, Place)) -> Result<(), Malformed> {
        let mut walk = Walk {
            open: Vec::new(),
            name: (0, 0),
            next: Next::Value,
        };
        let mut count = 0;
        let mut at = white(text, 0);
        while at < text.len() && !self.is_done() {
            match (walk.next, text[at]) {
                (Next::Value | Next::FirstValue, bracket @ (b'{' | b'[')) => {
                    if walk.open.len() >= self.limits().json_depth {
                        self.breach(Check::JsonDepth, places.1);
                        return Ok(());
                    }
                    walk.open(bracket == b'{');
                    at += 1;
                }
                (Next::FirstValue | Next::Rest, b']') | (Next::FirstName | Next::Rest, b'}') => {
                    walk.close(text[at] == b'}')?;
                    at += 1;
                }
                (Next::Rest, b',') => {
                    walk.comma()?;
                    at += 1;
                }
                (Next::Name | Next::FirstName, b'"') => {
                    let end = string(text, at + 1)?;
                    walk.name = (at + 1, end);
                    count += 1;
                    self.json_string(places.0, b"", &text[at + 1..end]);
                    at = white(text, end + 1);
                    if text.get(at) != Some(&b':') {
                        return Err(Malformed);
                    }
                    at += 1;
                    walk.next = Next::Value;
                }
                (Next::Value | Next::FirstValue, b'"') => {
                    let end = string(text, at + 1)?;
                    count += 1;
                    let name = &text[walk.name.0..walk.name.1];
                    self.json_string(places.1, name, &text[at + 1..end]);
                    at = end + 1;
                    walk.next = Next::Rest;
                }
                (Next::Value | Next::FirstValue, _) => {
                    at = scalar(text, at)?;
                    walk.next = Next::Rest;
                }
                _ => return Err(Malformed),
            }
            if count > self.limits().json_values {
                self.breach(Check::JsonValues, places.1);
                return Ok(());
            }
            at = white(text, at);
        }
        let is_whole = walk.open.is_empty() && walk.next == Next::Rest;
        if is_whole || self.is_done() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn json_string(&mut self, place: Place, name: &[u8], string: &[u8]) {
        if memchr::memchr(b'\\', string).is_none() {
            return self.value(place, name, string, Encoding::None);
        }
        let mut text = std::mem::take(&mut self.texts.json);
        unescape(string, &mut text);
        self.value(place, name, &text, Encoding::None);
        self.texts.json = text;
    }
}

/// Returns the position of the first byte at or after `at` that isn't white space.
fn white(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Returns the position of the quote that ends the string which begins at `at`.
fn string(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        let found = memchr2(b'"', b'\\', text.get(at..).ok_or(Malformed)?).ok_or(Malformed)?;
        match text[at + found] {
            b'"' => return Ok(at + found),
            _ => at += found + 2,
        }
    }
}

/// Returns the end of the number or word at `at`.
fn scalar(text: &[u8], at: usize) -> Result<usize, Malformed> {
    let rest = &text[at..];
    for word in [&b"true"[..], b"false", b"null"] {
        if rest.starts_with(word) {
            return Ok(at + word.len());
        }
    }
    let is_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = rest.iter().take_while(is_number).count();
    if length == 0 {
        Err(Malformed)
    } else {
        Ok(at + length)
    }
}

/// Resolves the escapes of a string. Those that JSON doesn't have stay.
fn unescape(string: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut at = 0;
    while at < string.len() {
        let rest = &string[at..];
        at += match rest {
            [b'\\', b'u', a, b, c, d, ..] => {
                let digits = [*a, *b, *c, *d].map(hex);
                let code = digits
                    .into_iter()
                    .try_fold(0, |code, digit| Some(code << 4 | u32::from(digit?)));
                match code {
                    Some(code) => {
                        // Halves of pairs become marks; no attack needs them.
                        let letter = char::from_u32(code).unwrap_or('?');
                        into.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                        6
                    }
                    None => {
                        into.push(b'\\');
                        1
                    }
                }
            }
            [b'\\', letter, ..] => {
                match letter {
                    b'n' => into.push(b'\n'),
                    b't' => into.push(b'\t'),
                    b'r' => into.push(b'\r'),
                    b'b' | b'f' => into.push(b' '),
                    b'"' | b'\\' | b'/' => into.push(*letter),
                    letter => into.extend_from_slice(&[b'\\', *letter]),
                }
                2
            }
            [byte, ..] => {
                into.push(*byte);
                1
            }
            [] => break,
        };
    }
}
