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
#[error("the body is encoded or damaged, or multipart, so its secrets can't be found")]
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

/// A body's kind, as far as it may have secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Json,
    Multipart,
    /// Text, or anything.
    Unknown,
}

impl Kind {
    /// Returns the kind of a body with these fields; `None` if it is of a type without secrets.
    fn of(fields: &impl Fields) -> Option<Self> {
        let Some(kind) = fields.get("content-type") else {
            return Some(Self::Unknown);
        };
        let kind = kind.to_ascii_lowercase();
        let has = |part: &[u8]| memchr::memmem::find(&kind, part).is_some();
        if has(b"json") {
            Some(Self::Json)
        } else if has(b"x-www-form-urlencoded") {
            Some(Self::Form)
        } else if has(b"multipart/form-data") {
            Some(Self::Multipart)
        } else if kind.trim_ascii().is_empty() || has(b"text/plain") {
            Some(Self::Unknown)
        } else {
            None
        }
    }
}

/// Returns whether bodies with these fields may have secrets.
pub(crate) fn concerns(rules: &Rules, fields: &impl Fields) -> bool {
    let (json, form) = (!rules.redact.json.is_empty(), !rules.redact.form.is_empty());
    // Most have no rules.
    (json || form)
        && match Kind::of(fields) {
            Some(Kind::Json) => json,
            Some(Kind::Multipart) => form,
            Some(Kind::Form | Kind::Unknown) => true,
            None => false,
        }
}

/// Redacts a body whose fields [`concerns`] finds.
///
/// # Errors
/// If the body can't be read: it is encoded, not what its type says, or multipart.
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
    let kind = Kind::of(fields);
    if kind == Some(Kind::Multipart) {
        return Err(Unreadable);
    }
    // Whatever the type says: programs that send JSON as a form or as text are many.
    match serde_json::from_slice(body) {
        Ok(value) => Ok(json_body(rules, value).unwrap_or_else(|| body.clone())),
        Err(_) if kind == Some(Kind::Json) => Err(Unreadable),
        Err(_) => match str::from_utf8(body) {
            Ok(form) => {
                let form = parameters(form, &rules.form, |_| rules.placeholder().to_owned());
                Ok(form.into_owned().into())
            }
            Err(_) if kind == Some(Kind::Form) => Err(Unreadable),
            Err(_) => Ok(body.clone()),
        },
    }
}

/// Redacts JSON. Returns `None` if there is nothing to redact.
fn json_body(rules: &Redaction, mut value: Value) -> Option<Bytes> {
    let mut has_changed = false;
    for pointer in &rules.json {
        json::each(&mut value, pointer, &mut |value| {
            has_changed = true;
            *value = Value::from(rules.placeholder());
        });
    }
    has_changed.then(|| value.to_string().into())
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

    #[test]
    fn bodies_are_redacted_by_what_they_are() {
        let rules = Rules::parse("[redact]\njson = ['/s']\nform = ['s']").expect("valid");
        let (json, form) = (r#"{"s":"x"}"#, "a=1&s=x");
        let (json_after, form_after) = (r#"{"s":"REDACTED"}"#, "a=1&s=REDACTED");
        for (kind, sent, expected) in [
            ("application/x-www-form-urlencoded", json, Some(json_after)),
            ("application/x-www-form-urlencoded", form, Some(form_after)),
            ("text/plain; charset=utf-8", json, Some(json_after)),
            ("text/plain", form, Some(form_after)),
            ("text/plain", "words & more", Some("words & more")),
            ("", json, Some(json_after)),
            ("application/json", form, None),
            ("multipart/form-data; boundary=b", "--b", None),
        ] {
            let fields = vec![(b"content-type".to_vec(), kind.as_bytes().to_vec())];
            assert!(concerns(&rules, &fields), "{kind}");
            let got = body(&rules.redact, &fields, &sent.into()).ok();
            assert_eq!(
                got.as_deref(),
                expected.map(str::as_bytes),
                "{kind}: {sent}"
            );
        }
        assert!(concerns(&rules, &Pairs::new()));
        for kind in ["image/png", "text/html"] {
            let fields = vec![(b"content-type".to_vec(), kind.as_bytes().to_vec())];
            assert!(!concerns(&rules, &fields), "{kind}");
        }
    }
}
