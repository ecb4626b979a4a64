//! The one form of a path, for the routes, the cache key and whoever else judges a path.

/// Returns the path in its normal form: `%41` is `A` (letters, digits and `-._~` need no escape),
/// other escapes have capital letters, what is not ASCII is escaped, and `.` and `..` are
/// resolved. Empty segments stay: to an origin, `/a//b` may be another path than `/a/b`. A percent
/// sign that begins no escape is escaped itself, or `%%32e` would become an escape.
///
/// A path that is normal is returned itself; others are written to `scratch`.
pub fn normalise<'a>(path: &'a str, scratch: &'a mut String) -> &'a str {
    if is_normal(path) {
        return path;
    }
    scratch.clear();
    let mut at = 0;
    while let Some(byte) = path.as_bytes().get(at) {
        at += 1;
        match (byte, escaped(&path.as_bytes()[at..])) {
            (b'%', None) => escape(b'%', scratch),
            (b'%', Some(byte)) => {
                at += 2;
                match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    true => scratch.push(char::from(byte)),
                    false => escape(byte, scratch),
                }
            }
            (byte, _) if byte.is_ascii() => scratch.push(char::from(*byte)),
            (byte, _) => escape(*byte, scratch),
        }
    }
    resolve_dots(scratch);
    scratch
}

/// Returns the path as routes see it: in its normal form and without empty segments, because many
/// origins take `//a` for `/a`, and a limit for `/a` would be none.
pub fn routed<'a>(path: &'a str, scratch: &'a mut String) -> &'a str {
    if memchr::memmem::find(path.as_bytes(), b"//").is_none() {
        return normalise(path, scratch);
    }
    let mut normal = String::new();
    let normal = normalise(path, &mut normal);
    scratch.clear();
    for character in normal.chars() {
        if character != '/' || !scratch.ends_with('/') {
            scratch.push(character);
        }
    }
    scratch
}

/// Returns whether nothing has to be done, and in some cases not although it is so.
#[inline]
fn is_normal(path: &str) -> bool {
    let mut before = 0;
    for byte in path.bytes() {
        if byte == b'%' || !byte.is_ascii() || (byte == b'.' && before == b'/') {
            return false;
        }
        before = byte;
    }
    true
}

/// Returns the byte that the two digits at the beginning stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| {
        let digit = char::from(*digits.get(index)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    Some(digit(0)? * 16 + digit(1)?)
}

fn escape(byte: u8, to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    to.push('%');
    to.push(char::from(DIGITS[usize::from(byte >> 4)]));
    to.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Removes `.` and `..` segments in place, as RFC 3986, section 5.2.4, does.
fn resolve_dots(path: &mut String) {
    if !path.starts_with('/') || !path.contains("/.") {
        return;
    }
    // Never longer than what was read.
    let mut kept = String::with_capacity(path.len());
    let mut rest = Some(&path[1..]);
    while let Some(text) = rest {
        let (segment, next) = match text.split_once('/') {
            Some((segment, next)) => (segment, Some(next)),
            None => (text, None),
        };
        match segment {
            "." => {}
            ".." => kept.truncate(kept.rfind('/').unwrap_or(0)),
            segment => {
                kept.push('/');
                kept.push_str(segment);
            }
        }
        // What a dot ends is a folder.
        if next.is_none() && matches!(segment, "." | "..") {
            kept.push('/');
        }
        rest = next;
    }
    if kept.is_empty() {
        kept.push('/');
    }
    *path = kept;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_take_their_normal_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/%2e%2E/%61", "/a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%zz%4", "/a%25zz%254"),
            ("/%%32e", "/%252e"),
            ("/a//b/", "/a//b/"),
            ("/a//../b", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/\u{e9}", "/%C3%A9"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normalise(path, &mut String::new()), expected, "{path}");
        }
    }

    #[test]
    fn routes_see_no_empty_segments() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("//", "/"),
            ("//a/..//%62", "/b"),
            ("/a%2f/b", "/a%2F/b"),
        ] {
            assert_eq!(routed(path, &mut String::new()), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_normal(path in "[/.%2eEa0fF\u{e9}]{0,24}") {
            let (mut first, mut second) = (String::new(), String::new());
            let once = normalise(&path, &mut first);
            prop_assert!(!once.starts_with('/') || once.split('/').all(|s| s != "." && s != ".."));
            prop_assert_eq!(normalise(once, &mut second), once);
        }
    }
}
