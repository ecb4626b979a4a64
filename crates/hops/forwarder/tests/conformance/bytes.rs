//! How the tables write bytes.
//!
//! A line break stands for CRLF, since most lines of HTTP end so. A backslash at the end of a line
//! joins it to the next one. `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` stand for single bytes, and
//! `\{N*TEXT}` for N times TEXT.

/// Largest number of repetitions: a table must not fill the memory.
const REPEATED_MAX: usize = 16 << 20;

/// Returns the bytes that a text of the tables stands for.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\n' => bytes.extend(b"\r\n"),
            '\\' => rest = escaped(rest, &mut bytes)?,
            _ => bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

/// Decodes the rest of an escape, and returns the text behind it.
fn escaped<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let character = rest
        .chars()
        .next()
        .ok_or("a text ends with a lone backslash")?;
    let after = &rest[character.len_utf8()..];
    let byte = match character {
        '\n' => return Ok(after),
        'r' => b'\r',
        'n' => b'\n',
        't' => b'\t',
        '0' => 0,
        '\\' => b'\\',
        'x' => {
            let digits = after.get(..2).ok_or("'\\x': expected two hex digits")?;
            let byte = u8::from_str_radix(digits, 16);
            bytes.push(byte.map_err(|_| format!("'\\x{digits}': expected two hex digits"))?);
            return Ok(&after[2..]);
        }
        '{' => return repeated(after, bytes),
        other => {
            return Err(format!(
                "'\\{other}': expected one of \\r \\n \\t \\0 \\\\ \\x \\{{"
            ));
        }
    };
    bytes.push(byte);
    Ok(after)
}

fn repeated<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let parts = rest.split_once('}').and_then(|(inside, after)| {
        let (times, text) = inside.split_once('*')?;
        Some((times.parse::<usize>().ok()?, text, after))
    });
    let (times, text, after) = parts.ok_or("'\\{': expected '\\{TIMES*TEXT}'")?;
    let part = self::bytes(text)?;
    if times.saturating_mul(part.len()) > REPEATED_MAX {
        return Err(format!(
            "'\\{{{times}*…': expected at most {REPEATED_MAX} bytes"
        ));
    }
    bytes.extend(part.repeat(times));
    Ok(after)
}

/// Longest text that a message shows.
const SHOWN_MAX: usize = 2_000;

/// Shows bytes as the tables write them, shortened.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_MAX)];
    let text = cut.escape_ascii().to_string();
    let text = text.replace("\\'", "'").replace("\\\"", "\"");
    match bytes.len() - cut.len() {
        0 => text,
        more => format!("{text}… and {more} bytes more"),
    }
}

#[test]
fn escapes_are_decoded() {
    assert_eq!(bytes("a\nb\\\nc").as_deref(), Ok(&b"a\r\nbc"[..]));
    assert_eq!(
        bytes(r"\r\n\t\0\\\xff").as_deref(),
        Ok(&b"\r\n\t\0\\\xff"[..])
    );
    assert_eq!(bytes(r"<\{3*ab}>").as_deref(), Ok(&b"<ababab>"[..]));
    for wrong in ["\\", r"\q", r"\xg0", r"\x1", r"\{3ab}", r"\{99999999*ab}"] {
        assert!(bytes(wrong).is_err(), "{wrong}");
    }
}
