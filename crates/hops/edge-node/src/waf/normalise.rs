//! Brings a text into the forms that rules are written for.
//!
//! `lower` comes first. Its result is the variant `decoded`; the others are made from it, and
//! only where they differ from it.

use memchr::{memchr, memmem};

/// A form of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub(super) enum Variant {
    /// Decoded, in lower case, white space compressed.
    Decoded = 1,
    /// Without the comments of SQL; plus signs are spaces if there are no others.
    Sql = 2,
    /// Without what shells drop: quotes, backslashes, carets, empty variables.
    Shell = 4,
    /// As a file system reads it: slashes alone, `.` and `..` resolved.
    Path = 8,
}

/// Writes a text in lower case. A run of white space becomes one space, or one line feed if it
/// contains a line end.
pub(super) fn lower(text: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.reserve(text.len());
    let mut white: Option<u8> = None;
    for (index, byte) in text.iter().enumerate() {
        let space = match byte {
            b' ' | b'\t' | 0x0b | 0x0c => b' ',
            b'\r' | b'\n' => b'\n',
            // A space of Latin-1, which MySQL takes for one, unless it is part of UTF-8.
            0xa0 if index == 0 || text[index - 1].is_ascii() => b' ',
            byte => {
                if let Some(space) = white.take() {
                    into.push(space);
                }
                into.push(byte.to_ascii_lowercase());
                continue;
            }
        };
        if white != Some(b'\n') {
            white = Some(space);
        }
    }
    into.extend(white);
}

/// Writes the variant `sql`. Returns whether it differs.
pub(super) fn sql(text: &[u8], into: &mut Vec<u8>) -> bool {
    let plus = memchr(b'+', text).is_some() && memchr(b' ', text).is_none();
    let has_comment = memmem::find(text, b"/*").is_some();
    let has_line = memchr(b'\n', text).is_some()
        && (memmem::find(text, b"--").is_some() || memchr(b'#', text).is_some());
    if !(plus || has_comment || has_line) {
        return false;
    }
    into.clear();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        at += match rest {
            [b'/', b'*', b'!', digits @ ..] => {
                // MySQL runs what stands in such a comment.
                push_space(into);
                let digits = digits
                    .iter()
                    .take(6)
                    .take_while(|byte| byte.is_ascii_digit());
                3 + digits.count()
            }
            [b'/', b'*', comment @ ..] => {
                push_space(into);
                memmem::find(comment, b"*/").map_or(rest.len(), |end| end + 4)
            }
            [b'*', b'/', ..] => {
                push_space(into);
                2
            }
            [b'#', comment @ ..] | [b'-', b'-', comment @ ..] => {
                let skipped = rest.len() - comment.len();
                match memchr(b'\n', comment) {
                    Some(end) => {
                        push_space(into);
                        skipped + end + 1
                    }
                    None => {
                        into.extend_from_slice(&rest[..skipped]);
                        skipped
                    }
                }
            }
            [b'+', ..] if plus => {
                push_space(into);
                1
            }
            [b' ' | b'\n', ..] => {
                push_space(into);
                1
            }
            [byte, ..] => {
                into.push(*byte);
                1
            }
            [] => break,
        };
    }
    true
}

fn push_space(into: &mut Vec<u8>) {
    if into.last() != Some(&b' ') {
        into.push(b' ');
    }
}

/// Writes the variant `shell`. Returns whether it differs.
pub(super) fn shell(text: &[u8], into: &mut Vec<u8>) -> bool {
    into.clear();
    let mut at = 0;
    let mut in_braces = false;
    while at < text.len() {
        let rest = &text[at..];
        at += match rest {
            [b'\\', b'\n', ..] => 2,
            [b'\'' | b'"' | b'\\' | b'^', ..] => 1,
            [b'$', b'@' | b'*' | b'!' | b'#', ..] => 2,
            [b'$', b'i', b'f', b's', tail @ ..] => {
                push_space(into);
                4 + usize::from(matches!(tail, [b'0'..=b'9', ..]))
            }
            [b'$', b'{', b'i', b'f', b's', tail @ ..] => {
                push_space(into);
                memchr(b'}', &tail[..tail.len().min(16)]).map_or(5, |end| end + 6)
            }
            [b'$', b'1'..=b'9', ..] => 2,
            // Brace expansion, as in `{cat,/etc/passwd}`.
            [b'{', b'a'..=b'z' | b'/', ..] if into.last() != Some(&b'$') => {
                let group = &rest[..rest.len().min(128)];
                in_braces = memchr(b'}', group).is_some_and(|end| {
                    let group = &group[..end];
                    memchr(b',', group).is_some() && memchr(b':', group).is_none()
                });
                if !in_braces {
                    into.push(b'{');
                }
                1
            }
            [b'}', ..] if in_braces => {
                in_braces = false;
                1
            }
            [b',', ..] if in_braces => {
                push_space(into);
                1
            }
            [byte, ..] => {
                into.push(*byte);
                1
            }
            [] => break,
        };
    }
    into.as_slice() != text
}

/// Writes the variant `path`. Returns whether it differs.
pub(super) fn path(text: &[u8], into: &mut Vec<u8>) -> bool {
    let differs = memchr(b'\\', text).is_some()
        || memmem::find(text, b"//").is_some()
        || memmem::find(text, b"./").is_some();
    if !differs {
        return false;
    }
    into.clear();
    for segment in text.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => {
                let end = into.iter().rposition(|byte| *byte == b'/');
                into.truncate(end.unwrap_or(0));
            }
            segment => {
                into.push(b'/');
                into.extend_from_slice(segment);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(make: fn(&[u8], &mut Vec<u8>) -> bool, text: &str) -> String {
        let mut into = Vec::new();
        match make(text.as_bytes(), &mut into) {
            true => String::from_utf8_lossy(&into).into_owned(),
            false => text.to_owned(),
        }
    }

    #[test]
    fn white_space_is_compressed_and_letters_are_lower() {
        let mut into = Vec::new();
        lower(b"UNION\t \x0bAll\r\n  SELECT\xa01 ", &mut into);
        assert_eq!(into, b"union all\nselect 1 ");
        lower("à la".as_bytes(), &mut into);
        assert_eq!(into, "à la".as_bytes());
    }

    #[test]
    fn comments_of_sql_are_spaces() {
        for (text, expected) in [
            ("union/**/select", "union select"),
            ("/*!50000union*/ /*!select*/ 1", " union select 1"),
            ("union--x\nselect", "union select"),
            ("union#x\nselect", "union select"),
            ("1;select+sleep(1)", "1;select sleep(1)"),
            ("1 + 1", "1 + 1"),
            ("a/*b", "a "),
            ("c# and -- dashes", "c# and -- dashes"),
        ] {
            assert_eq!(made(sql, text), expected, "{text}");
        }
    }

    #[test]
    fn what_shells_drop_is_dropped() {
        for (text, expected) in [
            ("c'a't /e\\tc/pa\"ss\"wd", "cat /etc/passwd"),
            ("cat${ifs}/etc$ifs$9x", "cat /etc x"),
            ("{cat,/etc/passwd}", "cat /etc/passwd"),
            ("wh$@oami", "whoami"),
            ("${x}", "${x}"),
            ("{\"a\":1,\"b\":2}", "{a:1,b:2}"),
        ] {
            assert_eq!(made(shell, text), expected, "{text}");
        }
    }

    #[test]
    fn paths_are_resolved() {
        for (text, expected) in [
            ("../../etc/./passwd", "/etc/passwd"),
            ("/var/www/../../etc//passwd", "/etc/passwd"),
            ("..\\..\\windows\\win.ini", "/windows/win.ini"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(made(path, text), expected, "{text}");
        }
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        for unit in ["/*", "../", "{a,", "$ifs", "--\n", "\\", "a/"] {
            let text = unit.repeat(128 * 1024 / unit.len());
            let mut into = Vec::new();
            for make in [sql, shell, path] {
                make(text.as_bytes(), &mut into);
                assert!(into.len() <= text.len() + 1, "{unit}");
            }
        }
    }
}
