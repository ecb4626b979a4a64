//! Reads TOML, and says what is wrong with it in the words of those who write such files.

use serde::de::DeserializeOwned;

use super::{is_plain_name, limits::NAME_BYTES_MAX, similar::nearest};

/// Parses a definition; returns what is wrong with it, and where.
pub(super) fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let (whole, message) = (error.to_string(), error.message());
        // Before the message is the place with the line as it stands in the file.
        let (place, rest) = match whole.rfind(message) {
            Some(at) => (&whole[..at], &whole[at + message.len()..]),
            None => ("", ""),
        };
        let rest = rest.trim_end().replace('`', "'");
        format!("{place}{}{rest}", plain(message.trim_end()))
    })
}

/// Checks the name of a definition's file, without its ending.
pub(super) fn check_file_name(name: &str) -> Result<(), String> {
    let expected = match is_plain_name(name) && !name.starts_with('.') {
        true if name.len() <= NAME_BYTES_MAX => return Ok(()),
        true => format!("at most {NAME_BYTES_MAX} bytes, found {}", name.len()),
        false => "letters, digits, spaces, '-', '_', '.' and '+', and no '.' first".to_owned(),
    };
    Err(format!(
        "a definition is named after its file: expected {expected}; rename the file"
    ))
}

/// Types, as they are called in files.
const TYPES: [(&str, &str); 8] = [
    ("a sequence", "a list"),
    ("a map", "a table"),
    ("struct ", "a table"),
    ("a string", "text"),
    ("string or table", "text or a table"),
    ("path string", "text"),
    ("a boolean", "'true' or 'false'"),
    ("f64", "a number"),
];

/// Types of whole numbers, with their ranges.
const WHOLE_NUMBERS: [(&str, &str); 9] = [
    ("u8", " from 0 to 255"),
    ("u16", " from 0 to 65535"),
    ("u32", " from 0 to 4294967295"),
    ("u64", " from 0"),
    ("usize", " from 0"),
    ("i32", ""),
    ("i64", ""),
    ("i128", ""),
    ("u128", " from 0"),
];

/// Beginnings of what was found, with words for them.
const FOUND: [(&str, &str); 5] = [
    ("string ", "text "),
    ("integer ", "whole number "),
    ("floating point ", "number "),
    ("sequence", "a list"),
    ("map", "a table"),
];

/// Returns a message of serde's without names of Rust's types.
fn plain(message: &str) -> String {
    for kind in ["invalid type: ", "invalid value: "] {
        let found = message.strip_prefix(kind);
        let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) else {
            continue;
        };
        let found = found.replace(" as i128", "").replace(" as u128", "");
        let is = FOUND.iter().find(|(begins, _)| found.starts_with(begins));
        let found = is.map_or_else(
            || found.clone(),
            |(begins, word)| format!("{word}{}", &found[begins.len()..]),
        );
        let expected = expected_type(expected, kind == "invalid value: ");
        return format!("{kind}{found}, expected {expected}").replace('`', "'");
    }
    let hint = hint(message).unwrap_or_default();
    let message = message.replace('`', "'");
    match message.split_once(", expected ") {
        Some((unknown, expected)) => format!("{unknown}{hint}, expected {expected}"),
        None => message,
    }
}

fn expected_type(expected: &str, is_out_of_range: bool) -> String {
    let whole = WHOLE_NUMBERS.iter().find(|(name, _)| *name == expected);
    if let Some((_, range)) = whole {
        let range = if is_out_of_range { range } else { "" };
        return format!("a whole number{range}");
    }
    let named = TYPES
        .iter()
        .find(|(begins, _)| expected.starts_with(begins));
    named.map_or_else(|| expected.to_owned(), |(_, word)| (*word).to_owned())
}

/// Returns the name that is nearest to an unknown one, among those that a message lists.
fn hint(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"))?;
    let (name, rest) = rest.split_once('`')?;
    let (_, listed) = rest.split_once(", expected ")?;
    // Every second piece is a name.
    Some(nearest(name, listed.split('`').skip(1).step_by(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_no_type_of_rust() {
        for (message, expected) in [
            (
                "invalid type: string \"direct\", expected a sequence",
                "invalid type: text \"direct\", expected a list",
            ),
            (
                "invalid type: integer `99999999999999999999` as i128, expected u32",
                "invalid type: whole number '99999999999999999999', expected a whole number",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "invalid value: whole number '-1', expected a whole number from 0 to 4294967295",
            ),
            (
                "invalid type: floating point `1.5`, expected usize",
                "invalid type: number '1.5', expected a whole number",
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "invalid type: boolean 'true', expected text",
            ),
            (
                "invalid type: integer `5`, expected struct WireRequest",
                "invalid type: whole number '5', expected a table",
            ),
            (
                "unknown field `blok`, expected one of `question`, `blocks`",
                "unknown field 'blok' (did you mean 'blocks'?), expected one of 'question', \
                 'blocks'",
            ),
            (
                "unknown variant `setp`, expected `ramp` or `step`",
                "unknown variant 'setp' (did you mean 'step'?), expected 'ramp' or 'step'",
            ),
            ("missing field `front`", "missing field 'front'"),
        ] {
            assert_eq!(plain(message), expected);
        }
    }

    #[test]
    fn the_line_of_the_file_is_shown_as_it_is() {
        let error = from_text::<toml::Table>("a = `b`\n").expect_err("no TOML");
        assert!(error.contains("1 | a = `b`"), "{error}");
    }
}
