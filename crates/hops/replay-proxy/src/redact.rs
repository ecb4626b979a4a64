//! Replaces secret values: in what is stored by a placeholder, in keys by a keyed hash, so that
//! requests with the same secret still match.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    fields::{Fields, Pairs},
    head::Head,
    json,
    rules::{Redaction, Rules},
    store::rows,
};

/// The key of the store's hashes.
pub type HashKey = [u8; 32];

/// Why a body can't be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is JSON that is encoded or damaged, so its secrets can't be found")]
pub struct Unreadable;

/// Hashes a secret.
pub(crate) fn hash(key: &HashKey, secret: &[u8]) -> String {
    shortened(blake3::keyed_hash(key, secret))
}

/// Writes a hash with 96 bits, which no two of a store's bodies will share.
pub(crate) fn shortened(hash: blake3::Hash) -> String {
    hash.to_hex()[..24].to_owned()
}

/// Replaces the values of parameters in a query or a form.
pub(crate) fn parameters<'a>(
    text: &'a str,
    names: &[String],
    replace: impl Fn(&str) -> String,
) -> Cow<'a, str> {
    if names.is_empty() || text.is_empty() {
        return Cow::Borrowed(text);
    }
    let pairs = text.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if is_named(names, name) => {
            Cow::Owned(format!("{name}={}", replace(value)))
        }
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

/// Returns whether a parameter's name, which may be percent-encoded, is one of `names`.
fn is_named(names: &[String], name: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    names.iter().any(|hidden| *hidden == decoded)
}

/// Redacts a target's query.
pub(crate) fn target(rules: &Redaction, target: String) -> String {
    match target.split_once('?') {
        Some((path, query)) if !rules.query.is_empty() => {
            let query = parameters(query, &rules.query, |_| rules.placeholder().to_owned());
            format!("{path}?{query}")
        }
        _ => target,
    }
}

/// Redacts fields of a request and writes them as lines.
pub(crate) fn lines(rules: &Redaction, fields: &Pairs) -> Vec<u8> {
    let mut lines = Vec::with_capacity(
        fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum(),
    );
    for (name, value) in fields {
        let value = match rules.hides_header(name) {
            true => rules.placeholder().as_bytes(),
            false => value,
        };
        rows::line(name, value, &mut lines);
    }
    lines
}

/// Redacts the head of an answer. `length` is the length of a body that was changed.
pub(crate) fn head(rules: &Redaction, head: Head, length: Option<usize>) -> Head {
    let hides = head.iter().any(|(name, _)| rules.hides_header(name));
    if !hides && length.is_none() {
        return head;
    }
    let mut redacted = Head::build(head.status, head.reason());
    for (name, value) in head.iter() {
        if rules.hides_header(name) {
            redacted.push(name, rules.placeholder().as_bytes());
        } else if let Some(length) = length.filter(|_| name.eq_ignore_ascii_case(b"content-length"))
        {
            redacted.push(name, length.to_string().as_bytes());
        } else {
            redacted.push(name, value);
        }
    }
    redacted.finish(head.status)
}

/// Returns whether bodies with these fields may have secrets.
pub(crate) fn concerns(rules: &Rules, fields: &impl Fields) -> bool {
    let Some(kind) = fields.get("content-type") else {
        return false;
    };
    let kind = kind.to_ascii_lowercase();
    let has = |part: &[u8]| memchr::memmem::find(&kind, part).is_some();
    !rules.redact.json.is_empty() && has(b"json")
        || !rules.redact.form.is_empty() && has(b"x-www-form-urlencoded")
}

/// Redacts a body whose fields [`concerns`] finds.
///
/// # Errors
/// If the body can't be read: it is encoded, or no JSON.
pub(crate) fn body(
    rules: &Redaction,
    fields: &impl Fields,
    body: &Bytes,
) -> Result<Bytes, Unreadable> {
    if body.is_empty() {
        return Ok(body.clone());
    }
    let coding = fields.get("content-encoding");
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Unreadable);
    }
    let kind = fields
        .get("content-type")
        .unwrap_or_default()
        .to_ascii_lowercase();
    if memchr::memmem::find(&kind, b"json").is_none() {
        let form = str::from_utf8(body).map_err(|_| Unreadable)?;
        let form = parameters(form, &rules.form, |_| rules.placeholder().to_owned());
        return Ok(form.into_owned().into());
    }
    let mut value: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let mut has_changed = false;
    for pointer in &rules.json {
        json::each(&mut value, pointer, &mut |value| {
            has_changed = true;
            *value = Value::from(rules.placeholder());
        });
    }
    Ok(match has_changed {
        true => value.to_string().into(),
        false => body.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced() {
        let text = "[redact]\nheaders = ['Authorization']\nquery = ['to ken']\njson = ['/a/*/s']";
        let rules = Rules::parse(text).expect("valid");
        assert_eq!(
            target(&rules.redact, "/p?to%20ken=x&b=1".to_owned()),
            "/p?to%20ken=REDACTED&b=1"
        );
        let head =
            Head::parse("HTTP/1.1 200 OK\r\nAUTHORIZATION: x\r\nContent-Length: 9\r\n".into());
        let head = super::head(&rules.redact, head.expect("a head"), Some(3));
        let expected = "HTTP/1.1 200 OK\r\nAUTHORIZATION: REDACTED\r\nContent-Length: 3\r\n";
        assert_eq!(head.bytes(), expected.as_bytes());
        let json = vec![(b"content-type".to_vec(), b"application/json".to_vec())];
        assert!(concerns(&rules, &json));
        let body = body(&rules.redact, &json, &r#"{"a":[{"s":"x"}]}"#.into());
        assert_eq!(body.expect("JSON"), r#"{"a":[{"s":"REDACTED"}]}"#);
        assert!(super::body(&rules.redact, &json, &"{".into()).is_err());
    }
}
