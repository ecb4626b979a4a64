//! Queries, forms and cookies: texts of names and values.

use memchr::memchr;

use super::{
    bytes,
    inspect::{Encoding, Inspection},
    place::Place,
    verdict::Check,
};

impl Inspection<'_> {
    /// Inspects the names and values of a query or form.
    pub(super) fn pairs(&mut self, text: &[u8], (name_in, value_in): (Place, Place)) {
        let mut without_value = 0;
        let mut count = 0;
        for pair in text.split(|byte| *byte == b'&') {
            if pair.is_empty() {
                continue;
            }
            count += 1;
            if count > self.limits().parameters {
                return self.breach(Check::Parameters, value_in);
            }
            let Some(equals) = memchr(b'=', pair) else {
                without_value += 1;
                self.value(name_in, b"", pair, Encoding::Form);
                continue;
            };
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            self.value(name_in, b"", name, Encoding::Form);
            self.value(value_in, name, value, Encoding::Form);
            if bytes::kinds(name) & (bytes::SQL | bytes::DECODE) != 0 {
                without_value += 1;
            }
            if self.is_done() {
                return;
            }
        }
        // A payload that isn't encoded has been cut at its own `&` and `=`.
        let is_cut = without_value > 0 && (count > 1 || memchr(b'=', text).is_some());
        if is_cut && bytes::kinds(text) & (bytes::SQL | bytes::DECODE) != 0 {
            self.value(value_in, b"", text, Encoding::Form);
        }
    }

    /// Inspects the names and values of a header `Cookie`.
    pub(super) fn cookies(&mut self, text: &[u8]) {
        let mut is_cut = false;
        for (count, pair) in text.split(|byte| *byte == b';').enumerate() {
            if count >= self.limits().parameters {
                return self.breach(Check::Parameters, Place::Cookie);
            }
            let pair = pair.trim_ascii();
            let (name, value) = match memchr(b'=', pair) {
                Some(equals) => (&pair[..equals], &pair[equals + 1..]),
                None => (&b""[..], pair),
            };
            is_cut |= name.is_empty() || bytes::kinds(name) & bytes::SQL != 0;
            self.value(Place::CookieName, b"", name, Encoding::Percent);
            self.value(Place::Cookie, name, value, Encoding::Form);
            if self.is_done() {
                return;
            }
        }
        if is_cut {
            // From the first value on, for a payload that holds semicolons.
            let start = memchr(b'=', text).map_or(0, |equals| equals + 1);
            self.value(Place::Cookie, b"", &text[start..], Encoding::Form);
        }
    }
}
