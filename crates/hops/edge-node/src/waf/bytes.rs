//! Sorts bytes by what they may be part of, so that one pass over a text tells which work it needs.

/// May begin something that is decoded: `%`, `&`, a backslash, or bytes of unusual UTF-8.
pub(super) const DECODE: u8 = 1;
/// May be part of SQL that isn't words alone.
pub(super) const SQL: u8 = 2;
/// May be part of HTML: `<`, `=`, `>`.
pub(super) const HTML: u8 = 4;
/// Quotes and other characters that a shell drops.
pub(super) const SHELL: u8 = 8;
/// Upper case, or white space that isn't one space.
pub(super) const FOLD: u8 = 16;
/// A separator of path segments.
pub(super) const SLASH: u8 = 32;
/// A plus sign, which is a space in forms.
pub(super) const PLUS: u8 = 64;
/// Can't be part of Base64.
pub(super) const NOT_BASE64: u8 = 128;

const TABLE: [u8; 256] = table();

const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index: usize = 0;
    while index < 256 {
        // The loop's bound is that of a byte.
        #[allow(clippy::cast_possible_truncation)]
        let byte = index as u8;
        let mut bits = 0;
        if matches!(
            byte,
            b'%' | b'&' | b'\\' | 0 | 0xc0 | 0xc1 | 0xe0 | 0xe2 | 0xef | 0xf0
        ) {
            bits |= DECODE;
        }
        if matches!(
            byte,
            b'\''
                | b'"'
                | b'`'
                | b';'
                | b'('
                | b'='
                | b'<'
                | b'>'
                | b'|'
                | b'&'
                | b'#'
                | b'*'
                | b'!'
                | b'^'
                | b'@'
                | b'\\'
                | b'{'
        ) {
            bits |= SQL;
        }
        if matches!(byte, b'<' | b'=' | b'>') {
            bits |= HTML;
        }
        if matches!(byte, b'\'' | b'"' | b'\\' | b'^' | b'$' | b'{') {
            bits |= SHELL;
        }
        if byte.is_ascii_uppercase() || byte < b' ' || byte == 0xa0 {
            bits |= FOLD;
        }
        if matches!(byte, b'/' | b'\\') {
            bits |= SLASH;
        }
        if byte == b'+' {
            bits |= PLUS;
        }
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')) {
            bits |= NOT_BASE64;
        }
        table[index] = bits;
        index += 1;
    }
    table
}

/// Returns what some byte of a text may be part of.
pub(super) fn kinds(text: &[u8]) -> u8 {
    let mut last = 0;
    let mut kinds = 0;
    for byte in text {
        kinds |= TABLE[usize::from(*byte)];
        // A run of spaces is one.
        if *byte == b' ' && last == b' ' {
            kinds |= FOLD;
        }
        last = *byte;
    }
    kinds
}

/// Returns the value of a hexadecimal digit.
pub(super) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_ordinary_punctuation_need_no_work() {
        assert_eq!(
            kinds("a list, of dates: 12.5 or 7-9 über".as_bytes()) & !NOT_BASE64,
            0
        );
    }

    #[test]
    fn each_kind_is_seen() {
        assert_eq!(kinds(b"50%") & DECODE, DECODE);
        assert_eq!(kinds(b"O'Neil") & SQL, SQL);
        assert_eq!(kinds(b"a<b") & HTML, HTML);
        assert_eq!(kinds(b"a\tb") & FOLD, FOLD);
        assert_eq!(kinds(b"a/b") & SLASH, SLASH);
    }

    #[test]
    fn hexadecimal_digits_have_a_value() {
        assert_eq!(hex(b'0'), Some(0));
        assert_eq!(hex(b'f'), Some(15));
        assert_eq!(hex(b'F'), Some(15));
        assert_eq!(hex(b'g'), None);
    }
}
