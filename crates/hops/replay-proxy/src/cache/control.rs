//! The directives of `Cache-Control` (RFC 9111, section 5.2; RFC 5861).

use crate::{fields::Fields, head::Head};

/// The directives of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Seconds that an answer is fresh, or at most may be old.
    pub max_age: Option<u64>,
    /// Seconds that an answer may be stale; the most that fits if any will do.
    pub max_stale: Option<u64>,
    /// Seconds that an answer must stay fresh.
    pub min_fresh: Option<u64>,
    /// Whether a stale answer must not be used.
    pub must_revalidate: bool,
    /// Whether an answer may only be stored if its status is understood.
    pub must_understand: bool,
    /// Whether an answer must be validated before it is used.
    pub no_cache: bool,
    /// Whether nothing may be stored.
    pub no_store: bool,
    /// Whether only what is stored is wanted.
    pub only_if_cached: bool,
    /// Whether an answer is for one client.
    pub private: bool,
    /// Whether caches that several clients share must validate.
    pub proxy_revalidate: bool,
    /// Whether an answer is for everybody.
    pub public: bool,
    /// Seconds that an answer is fresh in caches that several clients share.
    pub s_maxage: Option<u64>,
    /// Seconds that a stale answer may be used if there is no other.
    pub stale_if_error: Option<u64>,
    /// Seconds that a stale answer may be used while it is fetched again.
    pub stale_while_revalidate: Option<u64>,
    /// Fields that must not be stored, in lower case.
    pub hidden: Vec<String>,
}

impl Directives {
    /// Reads the directives of a message.
    pub fn read<F: Fields + ?Sized>(fields: &F) -> Self {
        let mut directives = Self::default();
        for value in fields.all("cache-control") {
            directives.add(value);
        }
        directives
    }

    /// Adds those of one field.
    pub fn add(&mut self, value: &[u8]) {
        for (name, argument) in split(value) {
            self.set(&name, argument.as_deref());
        }
    }

    /// Leaves the fields that must not be stored out of a head.
    pub(crate) fn without_hidden(&self, head: &Head) -> Head {
        if self.hidden.is_empty() {
            return head.clone();
        }
        let is_hidden = |name: &[u8]| {
            let mut names = self.hidden.iter();
            names.any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(name))
        };
        head.filtered(|name, _| !is_hidden(name))
            .finish(head.status)
    }

    fn set(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "max-age" => least(&mut self.max_age, seconds(argument)),
            "max-stale" => self.max_stale = Some(argument.map_or(u64::MAX, |_| seconds(argument))),
            "min-fresh" => self.min_fresh = Some(seconds(argument)),
            "must-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-cache" => match argument {
                Some(names) => self.hide(names),
                None => self.no_cache = true,
            },
            "no-store" => self.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "private" => match argument {
                Some(names) => self.hide(names),
                None => self.private = true,
            },
            "proxy-revalidate" => self.proxy_revalidate = true,
            "public" => self.public = true,
            "s-maxage" => least(&mut self.s_maxage, seconds(argument)),
            "stale-if-error" => least(&mut self.stale_if_error, seconds(argument)),
            "stale-while-revalidate" => {
                least(&mut self.stale_while_revalidate, seconds(argument));
            }
            _ => {}
        }
    }

    fn hide(&mut self, names: &str) {
        let names = names
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase());
        self.hidden.extend(names.filter(|name| !name.is_empty()));
    }
}

/// Keeps the smaller of repeated values: it is never wrong to ask again.
fn least(slot: &mut Option<u64>, value: u64) {
    *slot = Some(slot.map_or(value, |known| known.min(value)));
}

/// Reads a number of seconds. One that can't be understood makes an answer stale (RFC 9111, section
/// 4.2.1), and one that is too large is as good as for ever.
fn seconds(argument: Option<&str>) -> u64 {
    let Some(text) = argument else {
        return 0;
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX)
}

/// The largest number of seconds, as RFC 9111, section 1.2.2 has it.
const SECONDS_MAX: u64 = 1 << 31;

/// Splits a list of directives into names, in lower case, and arguments, without quotes.
fn split(value: &[u8]) -> Vec<(String, Option<String>)> {
    let text = String::from_utf8_lossy(value);
    let mut directives = Vec::new();
    let mut rest = text.as_ref();
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_ascii_lowercase();
        rest = &rest[end..];
        let mut argument = None;
        if let Some(after) = rest.strip_prefix('=') {
            let (found, left) = self::argument(after);
            argument = Some(found);
            rest = left;
        }
        rest = match rest.find(',') {
            Some(at) => &rest[at + 1..],
            None => "",
        };
        if !name.is_empty() {
            directives.push((name, argument));
        }
    }
    directives
}

/// Reads an argument, a token or a quoted string. Returns the rest, too.
fn argument(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        // Spaces belong to the argument where there should be none: then it is no number.
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let (mut argument, mut is_escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if is_escaped => {
                argument.push(character);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            '"' => return (argument, &quoted[at + 1..]),
            _ => argument.push(character),
        }
    }
    // The string has no end, so it hides all that follows.
    (argument, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Directives {
        let mut directives = Directives::default();
        directives.add(text.as_bytes());
        directives
    }

    #[test]
    fn directives_are_read_as_the_standard_says() {
        for (text, max_age) in [
            ("max-age=10", Some(10)),
            ("MAX-AGE=\"10\"", Some(10)),
            ("max-age=0010", Some(10)),
            ("max-age=10, max-age=5", Some(5)),
            ("max-age=99999999999999999999", Some(SECONDS_MAX)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age='10'", Some(0)),
            ("max-age", Some(0)),
            ("max-age =10", Some(10)),
            ("max-age= 10", Some(0)),
            ("a=\"max-age=5\", max-age=10", Some(10)),
            ("a=\"x\\\", max-age=5\",max-age=10", Some(10)),
            ("a=\"x, max-age=5", None),
            ("xmax-age=10", None),
            ("", None),
        ] {
            assert_eq!(of(text).max_age, max_age, "{text}");
        }
        assert!(of("No-StOrE").no_store);
        assert!(of(",, ,no-cache,,").no_cache);
        let hidden = of("no-cache=\"A, b\", private=c");
        assert!(!hidden.no_cache && !hidden.private);
        assert_eq!(hidden.hidden, ["a", "b", "c"]);
        assert_eq!(of("max-stale").max_stale, Some(u64::MAX));
    }
}
