//! Decodes what hides a text: percent signs, escapes, entities, unusual UTF-8 and Base64.
//!
//! Everything here works in place and never makes a text longer.

use super::bytes::hex;

/// Decodes once, in place: percent encoding, `%u0041`, entities of HTML, escapes of JavaScript and
/// JSON, overlong UTF-8 and full-width letters. Drops NUL. Returns whether anything changed.
pub(super) fn round(text: &mut Vec<u8>) -> bool {
    let mut from = 0;
    let mut to = 0;
    let mut changed = false;
    while from < text.len() {
        let byte = text[from];
        let rest = &text[from..];
        let found = match byte {
            b'%' => percent(rest),
            b'&' => entity(rest),
            b'\\' => escape(rest),
            0 => Some((None, 1)),
            0xc0 | 0xc1 | 0xe0 | 0xe2 | 0xef | 0xf0 => unusual(rest),
            _ => None,
        };
        match found {
            Some((decoded, used)) => {
                changed = true;
                from += used;
                if let Some(code) = decoded {
                    to += put(code, &mut text[to..from]);
                }
            }
            None => {
                text[to] = byte;
                from += 1;
                to += 1;
            }
        }
    }
    text.truncate(to);
    changed
}

/// Decodes percent encoding, and plus signs to spaces if it is a form's, as a server does.
pub(super) fn form(encoded: &[u8], plus: bool, text: &mut Vec<u8>) {
    text.clear();
    text.reserve(encoded.len());
    let mut from = 0;
    while from < encoded.len() {
        match encoded[from] {
            b'+' if plus => text.push(b' '),
            b'%' => match byte(&encoded[from + 1..]) {
                Some(byte) => {
                    text.push(byte);
                    from += 2;
                }
                None => text.push(b'%'),
            },
            byte => text.push(byte),
        }
        from += 1;
    }
}

/// The character that was decoded, if there is one, and how many bytes it took.
type Decoded = Option<(Option<u32>, usize)>;

/// Writes a character. Returns how many bytes it has. `room` always suffices: each form of
/// encoding is at least as long as the UTF-8.
fn put(code: u32, room: &mut [u8]) -> usize {
    let code = narrow(code);
    if let Ok(byte) = u8::try_from(code) {
        room[0] = byte;
        return 1;
    }
    let Some(character) = char::from_u32(code).filter(|found| found.len_utf8() <= room.len())
    else {
        room[0] = b'?';
        return 1;
    };
    character.encode_utf8(room).len()
}

/// Replaces a full-width form and typographic quotes by the ASCII that servers may take them for.
const fn narrow(code: u32) -> u32 {
    match code {
        0xff01..=0xff5e => code - 0xfee0,
        0x2018 | 0x2019 | 0x02bc => b'\'' as u32,
        0x201c | 0x201d => b'"' as u32,
        0x3000 => b' ' as u32,
        _ => code,
    }
}

/// Reads two hexadecimal digits.
fn byte(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

/// Reads as many hexadecimal digits as `width`.
fn code(digits: &[u8], width: usize) -> Option<u32> {
    let digits = digits.get(..width)?;
    digits
        .iter()
        .try_fold(0, |code, digit| Some(code << 4 | u32::from(hex(*digit)?)))
}

fn percent(rest: &[u8]) -> Decoded {
    if matches!(rest.get(1), Some(b'u' | b'U')) {
        return code(rest.get(2..)?, 4).map(|code| (not_nul(code), 6));
    }
    byte(&rest[1..]).map(|byte| (not_nul(u32::from(byte)), 3))
}

fn escape(rest: &[u8]) -> Decoded {
    match rest.get(1)? {
        b'x' | b'X' => byte(&rest[2..]).map(|byte| (not_nul(u32::from(byte)), 4)),
        b'u' | b'U' if rest.get(2) == Some(&b'{') => {
            let digits = rest[3..]
                .iter()
                .take(6)
                .take_while(|digit| hex(**digit).is_some());
            let width = digits.count();
            let is_closed = rest.get(3 + width) == Some(&b'}');
            let code = code(&rest[3..], width).filter(|_| width > 0 && is_closed)?;
            Some((not_nul(code), width + 4))
        }
        b'u' | b'U' => code(&rest[2..], 4).map(|code| (not_nul(code), 6)),
        b'0'..=b'3' => {
            let digits = rest.get(1..4)?;
            let code = digits.iter().try_fold(0, |code, digit| match digit {
                b'0'..=b'7' => Some(code << 3 | u32::from(digit - b'0')),
                _ => None,
            })?;
            Some((not_nul(code), 4))
        }
        b'/' => Some((Some(u32::from(b'/')), 2)),
        _ => None,
    }
}

fn not_nul(code: u32) -> Option<u32> {
    (code != 0).then_some(code)
}

/// Entities that stand for what attacks need.
const ENTITIES: [(&[u8], u8); 36] = [
    (b"amp", b'&'),
    (b"apos", b'\''),
    (b"ast", b'*'),
    (b"bsol", b'\\'),
    (b"colon", b':'),
    (b"comma", b','),
    (b"commat", b'@'),
    (b"dollar", b'$'),
    (b"equals", b'='),
    (b"excl", b'!'),
    (b"grave", b'`'),
    (b"gt", b'>'),
    (b"lbrace", b'{'),
    (b"lbrack", b'['),
    (b"lcub", b'{'),
    (b"lowbar", b'_'),
    (b"lpar", b'('),
    (b"lsqb", b'['),
    (b"lt", b'<'),
    (b"nbsp", b' '),
    (b"newline", b'\n'),
    (b"num", b'#'),
    (b"percnt", b'%'),
    (b"period", b'.'),
    (b"plus", b'+'),
    (b"quest", b'?'),
    (b"quot", b'"'),
    (b"rbrace", b'}'),
    (b"rbrack", b']'),
    (b"rcub", b'}'),
    (b"rpar", b')'),
    (b"rsqb", b']'),
    (b"semi", b';'),
    (b"sol", b'/'),
    (b"tab", b'\t'),
    (b"vert", b'|'),
];

/// Longest number of an entity, in digits, leading zeros included. Browsers have no limit.
const ENTITY_DIGITS_MAX: usize = 10;

fn entity(rest: &[u8]) -> Decoded {
    if rest.get(1) != Some(&b'#') {
        let name = &rest[1..rest.len().min(10)];
        let end = name.iter().position(|byte| *byte == b';')?;
        let name = &name[..end];
        let found = ENTITIES
            .iter()
            .find(|(entity, _)| entity.eq_ignore_ascii_case(name))?;
        return Some((Some(u32::from(found.1)), end + 2));
    }
    let is_hex = matches!(rest.get(2), Some(b'x' | b'X'));
    let (start, radix) = if is_hex { (3, 16) } else { (2, 10) };
    let mut end = start;
    let mut code: u32 = 0;
    while let Some(digit) = rest
        .get(end)
        .and_then(|byte| (*byte as char).to_digit(radix))
    {
        if end - start == ENTITY_DIGITS_MAX {
            return None;
        }
        code = code.saturating_mul(radix).saturating_add(digit);
        end += 1;
    }
    if end == start {
        return None;
    }
    let used = end + usize::from(rest.get(end) == Some(&b';'));
    // A character above 255 may be longer than its entity without leading zeros is, but not by
    // much: `&#256` has five bytes, and no character has more than four.
    Some((not_nul(code), used))
}

/// Decodes overlong UTF-8 of ASCII, and full-width letters. What is ordinary stays.
fn unusual(rest: &[u8]) -> Decoded {
    let low = |index: usize| rest.get(index).map(|byte| u32::from(byte & 0x3f));
    let is_tail = |range: std::ops::Range<usize>| {
        rest.get(range)
            .is_some_and(|bytes| bytes.iter().all(|byte| byte & 0xc0 == 0x80))
    };
    match rest[0] {
        0xc0 | 0xc1 => {
            // Decoders that accept overlong forms often don't check the second byte.
            let second = *rest.get(1)?;
            let code = u32::from(rest[0] & 0x1f) << 6 | u32::from(second & 0x3f);
            (second >= 0x80).then_some((not_nul(code), 2))
        }
        0xe0 if is_tail(1..3) => {
            let code = low(1)? << 6 | low(2)?;
            (code < 0x80).then_some((not_nul(code), 3))
        }
        // Characters without a width, which hide words.
        0xe2 if matches!(
            rest.get(1..3),
            Some([0x80, 0x8b..=0x8f] | [0x81, 0xa0..=0xa4])
        ) =>
        {
            Some((None, 3))
        }
        0xef if rest.get(1..3) == Some(&[0xbb, 0xbf]) => Some((None, 3)),
        0xef if is_tail(1..3) => {
            let code = 0xf000 | low(1)? << 6 | low(2)?;
            (0xff01..=0xff5e).contains(&code).then_some((Some(code), 3))
        }
        0xf0 if is_tail(1..4) => {
            let code = low(1)? << 12 | low(2)? << 6 | low(3)?;
            (code < 0x80).then_some((not_nul(code), 4))
        }
        _ => None,
    }
}

/// Shortest Base64 that is worth a look. `${7*7}` has eight characters.
const BASE64_MIN: usize = 8;

/// Decodes Base64 if what comes out is text. Padding may be missing; both alphabets are taken.
pub(super) fn base64(encoded: &[u8], text: &mut Vec<u8>) -> bool {
    text.clear();
    let padded = encoded.len();
    let encoded = encoded.trim_ascii_end();
    let end = encoded
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    let encoded = &encoded[..end];
    if encoded.len() < BASE64_MIN - 2 || padded < BASE64_MIN || encoded.len() % 4 == 1 {
        return false;
    }
    let mut bits: u32 = 0;
    let mut count = 0;
    for byte in encoded {
        let Some(value) = sextet(*byte) else {
            return false;
        };
        bits = bits << 6 | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            // The shift and the mask leave one byte.
            #[allow(clippy::cast_possible_truncation)]
            let byte = (bits >> count & 0xff) as u8;
            let is_text = (b' '..0x7f).contains(&byte) || matches!(byte, b'\t' | b'\n' | b'\r');
            if !is_text {
                return false;
            }
            text.push(byte);
        }
    }
    true
}

const fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(text: &str) -> String {
        let mut text = text.as_bytes().to_vec();
        round(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn each_encoding_is_decoded() {
        for (encoded, text) in [
            ("%27%2f", "'/"),
            ("%u0027%uff07", "''"),
            ("&#39;&#x27;&#0000039;&lt;&LPAR;", "'''<("),
            ("\\x27\\u0027\\u{27}\\047\\/", "''''/"),
            ("a\0b", "ab"),
            ("\u{ff1c}script\u{ff1e}", "<script>"),
        ] {
            assert_eq!(once(encoded), text, "{encoded}");
        }
        let mut overlong = b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf".to_vec();
        assert!(round(&mut overlong));
        assert_eq!(overlong, b"///");
    }

    #[test]
    fn what_encodes_nothing_stays() {
        for text in [
            "100%",
            "50% off",
            "%u12",
            "Q&A",
            "&nothing;",
            "&#;",
            "a\\b",
            "\\u12",
            "über",
            "日本",
            "&#99999999999;",
            "\\u{}",
            "\\u{110000}x",
        ] {
            let mut bytes = text.as_bytes().to_vec();
            round(&mut bytes);
            assert!(bytes.len() <= text.len(), "{text}");
            if text != "\\u{110000}x" {
                assert_eq!(bytes, text.as_bytes(), "{text}");
            }
        }
    }

    #[test]
    fn forms_are_decoded_once() {
        let mut text = Vec::new();
        form(b"a+b%2520c%", true, &mut text);
        assert_eq!(text, b"a b%20c%");
        form(b"a+b", false, &mut text);
        assert_eq!(text, b"a+b");
    }

    #[test]
    fn base64_of_text_alone_is_decoded() {
        let mut text = Vec::new();
        assert!(base64(b"JHs3Kjd9", &mut text));
        assert_eq!(text, b"${7*7}");
        assert!(base64(b"PHNjcmlwdD4=", &mut text));
        assert_eq!(text, b"<script>");
        for not in [
            "username",
            "session",
            "0123456789abcdef",
            "QUJD",
            "a b c d e f",
            "",
        ] {
            assert!(!base64(not.as_bytes(), &mut text), "{not}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_grows_or_panics(text: Vec<u8>, seeds in "[%&\\\\#ux;0-9a-f{}]{0,40}") {
            for text in [text, seeds.into_bytes()] {
                let mut decoded = text.clone();
                while round(&mut decoded) {
                    proptest::prop_assert!(decoded.len() < text.len());
                }
            }
        }
    }
}
