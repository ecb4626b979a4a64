//! The tokenisers of libinjection, for SQL and HTML, with what they lack: bounds, and doubt.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libinjectionrs::{SqliFlags, SqliState};
use memchr::{memchr, memchr2, memchr3};

/// Longest text that is tokenised as SQL. Five tokens decide, but folding may take many more, and
/// a word with many dots takes quadratic time.
const SQL_BYTES_MAX: usize = 1024;

/// Longest text that is tokenised as HTML. States call each other, a frame for each byte.
const HTML_BYTES_MAX: usize = 2048;

/// Returns the fingerprint if a text is SQL injection by libinjection.
///
/// A long text is looked at from its start and from before its first quote.
pub(super) fn sql(text: &[u8]) -> Option<Fingerprint> {
    let first = sql_in(&text[..text.len().min(SQL_BYTES_MAX)]);
    if first.is_some() || text.len() <= SQL_BYTES_MAX {
        return first;
    }
    let quote = memchr2(b'\'', b'"', text)?;
    let start = quote.saturating_sub(8);
    sql_in(&text[start..text.len().min(start + SQL_BYTES_MAX)])
}

fn sql_in(text: &[u8]) -> Option<Fingerprint> {
    // A panic there would be a defect of the library; it must not take the server down.
    catch_unwind(AssertUnwindSafe(|| {
        let mut state = SqliState::new(text, SqliFlags::FLAG_NONE);
        let is_found = state.detect();
        is_found.then_some(Fingerprint(state.fingerprint))
    }))
    .ok()
    .flatten()
}

/// Returns whether a text is cross-site scripting by libinjection.
pub(super) fn html(text: &[u8]) -> bool {
    // It takes the declaration of any XML for an attack.
    let text = match text.starts_with(b"<?xml ") {
        true => &text[memchr(b'>', text).map_or(text.len(), |end| end + 1)..],
        false => text,
    };
    let window = |start: usize| {
        let text = &text[start..text.len().min(start + HTML_BYTES_MAX)];
        let detect = || libinjectionrs::detect_xss(text).is_injection();
        catch_unwind(AssertUnwindSafe(detect)).unwrap_or(false)
    };
    if memchr3(b'<', b'=', b'>', text).is_none() {
        return false;
    }
    window(0)
        || text.len() > HTML_BYTES_MAX
            && memchr(b'<', &text[HTML_BYTES_MAX..]).is_some_and(|at| window(HTML_BYTES_MAX + at))
}

/// The kinds of the first tokens of a text that libinjection takes for SQL injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// Returns the tokens, a letter each.
    pub(super) fn tokens(&self) -> &[u8] {
        let end = memchr(0, &self.0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fingerprints that libinjection's authors publish, or that its C code gives.
    #[test]
    fn the_port_agrees_with_the_original() {
        for (text, tokens) in [
            (
                "-1' and 1=1 union/* foo */select load_file('/etc/passwd')--",
                "s&1UE",
            ),
            ("1' or '1'='1", "s&sos"),
            ("1 union select 1,2,3", "1UE1"),
        ] {
            let found = sql(text.as_bytes()).expect("an attack");
            assert_eq!(found.tokens(), tokens.as_bytes(), "{text}");
        }
        for text in ["hello world", "1234", "Ann Lee", "a@example.com"] {
            assert_eq!(sql(text.as_bytes()), None, "{text}");
        }
        for text in [
            "<script>",
            "<a href=javascript:x>",
            "<img src=x onerror=y>",
            "' onload='x",
        ] {
            assert!(html(text.as_bytes()), "{text}");
        }
        for text in ["a < b", "x = 1", "<p>text</p>", "<?xml version='1.0'?><a/>"] {
            assert!(!html(text.as_bytes()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(
            text: Vec<u8>,
            seeds in "[-'\"`<>!/=&#;a-z0-9() \\\\.\\[\\]{}@*qnxbue]{0,200}",
        ) {
            // Called without the guard, which would hide a panic.
            for text in [&text[..], seeds.as_bytes()] {
                SqliState::new(text, SqliFlags::FLAG_NONE).detect();
                libinjectionrs::detect_xss(text);
            }
        }
    }
}
