//! Doubts about fingerprints of SQL that ordinary texts have too.
//!
//! libinjection looks at the kinds of the first five tokens. Sums, prose with a dash, and names
//! with an apostrophe have such fingerprints as well. Its word counts only if the text has more of
//! SQL.

use memchr::{memchr, memchr_iter, memmem};

/// Words that prose has rarely, or not in the places where SQL has them. In order.
const STRONG: [&[u8]; 29] = [
    b"benchmark",
    b"binary",
    b"coercibility",
    b"collate",
    b"concurrent",
    b"current_date",
    b"current_user",
    b"declare",
    b"find_in_set",
    b"infile",
    b"information_schema",
    b"isnull",
    b"localtime",
    b"localtimestamp",
    b"nvarchar",
    b"outfile",
    b"regexp",
    b"rlike",
    b"rownum",
    b"select",
    b"sounds",
    b"sp_password",
    b"sqlite_version",
    b"sysdate",
    b"union",
    b"utc_date",
    b"varchar",
    b"waitfor",
    b"xp_cmdshell",
];

/// More words than this, none of them SQL, are prose.
const PROSE_WORDS: usize = 3;

/// Signs that a text in lower case is SQL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    has_word: bool,
    has_open_quote: bool,
    ends_in_comment: bool,
}

impl Evidence {
    /// Looks for evidence. `None`: the text is no attack, whatever its tokens are.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let (strong, plain) = words(text);
        if plain > PROSE_WORDS && plain > strong * 3 {
            return None;
        }
        let found = Self {
            has_word: strong > 0,
            has_open_quote: has_open_quote(text) && !is_name(text),
            ends_in_comment: ends_in_comment(text),
        };
        (found.has_word || found.has_open_quote || found.ends_in_comment).then_some(found)
    }

    /// Returns whether a text with these tokens, which libinjection takes for an attack, is one.
    pub(super) fn confirms(self, tokens: &[u8]) -> bool {
        let is_long = tokens.len() > 2 || tokens.contains(&b'X');
        let joins = |token: &u8| matches!(token, b'&' | b'o' | b'c' | b'U' | b'f' | b'(');
        let is_ended = tokens.first() == Some(&b's') && tokens[1..].iter().any(joins);
        self.ends_in_comment || is_long && (self.has_word || self.has_open_quote && is_ended)
    }
}

/// Counts the words of a text that are certainly SQL, and those that aren't.
fn words(text: &[u8]) -> (usize, usize) {
    let mut strong = 0;
    let mut plain = 0;
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_' || !byte.is_ascii();
    for word in text
        .split(|byte| !is_word(byte))
        .filter(|word| word.len() > 2)
    {
        match word.len() > 4 && STRONG.binary_search(&word).is_ok() {
            true => strong += 1,
            false => plain += 1,
        }
    }
    (strong, plain)
}

/// Returns whether a quote closes a string that the text didn't open.
fn has_open_quote(text: &[u8]) -> bool {
    let is_odd = |quote: u8| memchr_iter(quote, text).count() % 2 == 1;
    is_odd(b'\'') || is_odd(b'"')
}

/// Returns whether each quote stands between letters, as in names and in contractions.
fn is_name(text: &[u8]) -> bool {
    memchr_iter(b'\'', text).all(|at| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(at + 1);
        let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
        is_letter(before) && is_letter(after)
    }) && memchr(b'"', text).is_none()
}

/// Returns whether a short text ends in a comment after a number, a quote or a parenthesis.
fn ends_in_comment(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    for comment in [&b"--"[..], b"/*", b"*/"] {
        if let Some(head) = text.strip_suffix(comment) {
            let last = head.trim_ascii_end().last();
            return match comment {
                b"*/" => memmem::find(head, b"/*").is_some_and(|at| at > 0 && at < 24),
                _ => last.is_some_and(|byte| matches!(byte, b'\'' | b'"' | b')' | b'0'..=b'9')),
            };
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::injection;
    use super::*;

    fn is_attack(text: &str) -> bool {
        let found = injection::sql(text.as_bytes());
        let evidence = Evidence::of(text.as_bytes());
        found.is_some_and(|found| evidence.is_some_and(|it| it.confirms(found.tokens())))
    }

    #[test]
    fn quotes_and_words_of_sql_are_attacks() {
        for text in [
            "x' or 1 regexp 1",
            "x' and 1=(select 1)--",
            "1 union select null,version()",
            "' regexp '^a",
            "1) --",
            "7 /*x*/",
        ] {
            assert!(is_attack(text), "{text}");
        }
    }

    #[test]
    fn prose_sums_and_names_are_not() {
        for text in [
            "the exec summary; please read",
            "log(100)=2",
            "5 < 6 and 7 > 2",
            "rock 'n' roll = fun",
            "D'Angelo & O'Brien",
            "36\" x 48\" frame",
            "go home!!! (and take your hats with you)",
            "it's easier to explain this. -- a friend (or two)",
        ] {
            assert!(!is_attack(text), "{text}");
        }
    }
}
