//! The comparison of an answer with the expected one.

use hyper::header::CONTENT_ENCODING;

use crate::{catalog::ExpectedAnswer, observe::http::Answer};

/// Maximum number of header fields that the load generator reads, with either client.
const FIELDS_MAX: usize = 100;

/// Returns why the load generator could not read an answer that is right otherwise.
pub(super) fn unreadable(answer: &Answer) -> Option<String> {
    let fields = answer.headers.len();
    (fields > FIELDS_MAX).then(|| {
        format!(
            "the answer has {fields} header fields, but the load generator reads at most \
             {FIELDS_MAX}: this path can't be loaded until its answers have fewer"
        )
    })
}

/// Describes how an answer differs from the expected one.
pub(super) fn difference(answer: &Answer, expected: &ExpectedAnswer) -> Option<String> {
    if answer.status != expected.status {
        let is_text = std::str::from_utf8(&answer.beginning).is_ok();
        let shown = if is_text {
            answer.beginning.as_slice()
        } else {
            b"(not text)"
        };
        let beginning = String::from_utf8_lossy(shown);
        // The text becomes part of a single line.
        let printable = |char: char| if char.is_control() { ' ' } else { char };
        let beginning: String = beginning.chars().take(200).map(printable).collect();
        return Some(format!(
            "status {} instead of {}: {beginning}",
            answer.status, expected.status
        ));
    }
    if let Some(length_bytes) = expected.length_bytes
        && answer.length_bytes != length_bytes
    {
        return Some(format!(
            "{} bytes instead of {length_bytes}{}",
            answer.length_bytes,
            encoding(answer)
        ));
    }
    if expected
        .sha256
        .as_ref()
        .is_some_and(|sha256| answer.sha256 != *sha256)
    {
        return Some(format!(
            "the body differs from the expected one{}",
            encoding(answer)
        ));
    }
    for (name, value) in &expected.headers {
        let mut found = answer.headers.get_all(name).iter();
        match value {
            None if found.next().is_none() => return Some(format!("no header '{name}'")),
            Some(value) if !found.any(|it| it.as_bytes() == value.as_bytes()) => {
                let values = answer.headers.get_all(name).iter();
                let values = values.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
                let values: Vec<String> = values.collect();
                let found = values.join("', '");
                return Some(format!("header '{name}' is not '{value}' but '{found}'"));
            }
            _ => {}
        }
    }
    answer
        .is_followed
        .then(|| "answer without a request: more bytes followed the correct ones".to_owned())
}

/// Says how the body is encoded. Decoded it may be right, but a hop that spends time on that does
/// more than others.
fn encoding(answer: &Answer) -> String {
    let Some(encoding) = answer.headers.get(CONTENT_ENCODING) else {
        return String::new();
    };
    let encoding: String = String::from_utf8_lossy(encoding.as_bytes())
        .chars()
        .take(40)
        .collect();
    format!(
        " (content-encoding: {encoding}; requests accept compressed answers, as under load: turn \
         compression off in the hop)"
    )
}
