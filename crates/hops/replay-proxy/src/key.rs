//! Keys: the text that two requests share if one's recording answers the other.

use serde_json::Value;

use crate::{
    fields::{Asked, Fields},
    json,
    redact::{self, HashKey},
    rules::{BodyMatch, QueryMatch, Rules},
};

/// Makes keys by rules.
#[derive(Debug)]
pub struct Keys {
    rules: Rules,
    secret: HashKey,
}

impl Keys {
    /// Makes keys by these rules; `secret` is the store's own.
    pub fn new(rules: Rules, secret: HashKey) -> Self {
        Self { rules, secret }
    }

    /// Returns the rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns whether the body of a request counts.
    pub fn needs_body(&self) -> bool {
        self.rules.matching.body != BodyMatch::Ignore
    }

    /// Writes the key of a request: lines with the method, the path, the query, the fields that
    /// count, and what counts of the body.
    pub fn write<F: Fields + ?Sized>(
        &self,
        asked: &Asked<'_, F>,
        body: Option<&BodyKey>,
        key: &mut Vec<u8>,
    ) {
        key.clear();
        key.extend_from_slice(asked.method.as_bytes());
        let (path, query) = asked.path_and_query();
        key.push(b'\n');
        key.extend_from_slice(path.as_bytes());
        key.push(b'\n');
        if self.rules.matching.query == QueryMatch::Exact
            && let Some(query) = query
        {
            self.write_query(query, key);
        }
        for name in &self.rules.matching.headers {
            for value in asked
                .fields
                .iter()
                .filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            {
                key.push(b'\n');
                key.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
                key.extend_from_slice(b": ");
                match self.rules.redact.hides_header(name.as_bytes()) {
                    true => key.extend_from_slice(redact::hash(&self.secret, value.1).as_bytes()),
                    false => key.extend_from_slice(value.1),
                }
            }
        }
        if let Some(BodyKey(body)) = body {
            key.extend_from_slice(b"\nbody ");
            key.extend_from_slice(body.as_bytes());
        }
    }

    fn write_query(&self, query: &str, key: &mut Vec<u8>) {
        let has_rules =
            !self.rules.matching.query_ignore.is_empty() || !self.rules.redact.query.is_empty();
        if !has_rules && !query.contains('&') {
            return key.extend_from_slice(query.as_bytes());
        }
        for (index, pair) in self.pairs(query).iter().enumerate() {
            if index > 0 {
                key.push(b'&');
            }
            key.extend_from_slice(pair.as_bytes());
        }
    }

    /// Returns the parameters of a query that count, sorted by name; those of one name stay in
    /// their order. Secrets are hashed.
    pub fn pairs(&self, query: &str) -> Vec<String> {
        let hidden = &self.rules.redact.query;
        let query = redact::parameters(query, hidden, |secret| {
            redact::hash(&self.secret, secret.as_bytes())
        });
        let ignored = &self.rules.matching.query_ignore;
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty() && !ignored.contains(&name(pair)))
            .map(str::to_owned)
            .collect();
        pairs.sort_by_cached_key(|pair| name(pair));
        pairs
    }

    /// Begins to read a body.
    pub fn read_body(&self) -> BodyReader {
        let needs_value = matches!(self.rules.matching.body, BodyMatch::Form | BodyMatch::Json);
        BodyReader {
            hasher: blake3::Hasher::new_keyed(&self.secret),
            kept: needs_value.then(Vec::new),
            length: 0,
        }
    }

    /// Returns what counts of a body that was read; `None` if nothing does.
    pub fn body_read(&self, read: &BodyReader) -> Option<BodyKey> {
        if read.length == 0 || !self.needs_body() {
            return None;
        }
        match &read.kept {
            Some(body) => self.body(body),
            None => Some(BodyKey(redact::shortened(read.hasher.finalize()))),
        }
    }

    /// Adds to a key what sets apart the answer to a part of something, or to a condition: it
    /// answers no request that asks otherwise.
    pub fn set_apart(status: u16, fields: &(impl Fields + ?Sized), key: &mut Vec<u8>) {
        let names: &[&str] = match status {
            206 | 416 => &["range", "if-range"],
            304 | 412 => &CONDITIONS,
            _ => return,
        };
        for name in names {
            for value in fields.all(name) {
                key.extend_from_slice(format!("\n{name}: ").as_bytes());
                key.extend_from_slice(value);
            }
        }
    }

    /// Returns what counts of a body; `None` if nothing does.
    pub fn body(&self, body: &[u8]) -> Option<BodyKey> {
        if body.is_empty() {
            return None;
        }
        let digest = |bytes: &[u8]| BodyKey(redact::hash(&self.secret, bytes));
        match self.rules.matching.body {
            BodyMatch::Ignore => None,
            // Secrets in it count, too: the hash is keyed, so they can't be read from it.
            BodyMatch::Raw => Some(digest(body)),
            BodyMatch::Form => Some(match str::from_utf8(body) {
                Ok(form) => {
                    let mut pairs: Vec<&str> = form.split('&').collect();
                    pairs.sort_unstable();
                    digest(pairs.join("&").as_bytes())
                }
                Err(_) => digest(body),
            }),
            BodyMatch::Json => Some(match serde_json::from_slice::<Value>(body) {
                Ok(value) => digest(self.json_text(value).as_bytes()),
                Err(_) => digest(body),
            }),
        }
    }

    fn json_text(&self, mut value: Value) -> String {
        let mut text = String::new();
        let pointers = &self.rules.matching.body_json;
        if pointers.is_empty() {
            json::canonical(&value, &mut text);
        }
        for pointer in pointers {
            text.push_str(pointer);
            json::each(&mut value, pointer, &mut |value| {
                text.push('=');
                json::canonical(value, &mut text);
            });
            text.push('\n');
        }
        text
    }
}

/// Fields that make a request conditional, range requests left out.
const CONDITIONS: [&str; 4] = [
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
];

/// Reads the body of a request for its key, piece by piece.
#[derive(Debug)]
pub struct BodyReader {
    hasher: blake3::Hasher,
    /// The body, until it is too long to be understood.
    kept: Option<Vec<u8>>,
    length: u64,
}

/// Longest body that counts by its value. A longer one counts byte by byte.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

impl BodyReader {
    /// Adds a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hasher.update(piece);
        if let Some(kept) = &mut self.kept {
            match kept.len() + piece.len() <= VALUE_BYTES_MAX {
                true => kept.extend_from_slice(piece),
                false => self.kept = None,
            }
        }
    }
}

/// The part of a key that a body makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyKey(String);

/// Shows a key on one line.
pub fn show(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let mut lines = text.lines();
    let method = lines.next().unwrap_or_default();
    let path = lines.next().unwrap_or_default();
    let query = lines.next().unwrap_or_default();
    let mut shown = format!("{method} {path}");
    if !query.is_empty() {
        shown = format!("{shown}?{query}");
    }
    for line in lines {
        shown.push_str("; ");
        shown.push_str(line);
    }
    shown
}

/// Says how two keys differ, and how much: the less, the nearer.
pub fn difference(asked: &[u8], stored: &[u8]) -> (usize, String) {
    let (asked, stored) = (
        String::from_utf8_lossy(asked),
        String::from_utf8_lossy(stored),
    );
    let part = |text: &str, index: usize| text.lines().nth(index).unwrap_or_default().to_owned();
    let mut said = Vec::new();
    let mut distance = 0;
    for (index, name, weight) in [(0, "method", 4), (1, "path", 16), (2, "query", 2)] {
        let (here, there) = (part(&asked, index), part(&stored, index));
        if here != there {
            let common = here
                .bytes()
                .zip(there.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            distance += weight * 1_000 - common.min(999);
            said.push(format!("its {name} is '{there}'"));
        }
    }
    let rest = |text: &str| text.lines().skip(3).map(str::to_owned).collect::<Vec<_>>();
    let (here, there) = (rest(&asked), rest(&stored));
    if here != there {
        distance += 1_000;
        let differs = there.iter().find(|line| !here.contains(line));
        said.push(match differs {
            Some(line) => format!("it has '{line}'"),
            None => "it has fewer fields or no body".to_owned(),
        });
    }
    (distance, said.join(", and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(rules: &str) -> Keys {
        Keys::new(Rules::parse(rules).expect("valid"), [7; 32])
    }

    fn key(keys: &Keys, target: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = fields
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let asked = Asked {
            method: "POST",
            target,
            fields: &fields,
        };
        let body = keys.body(body.as_bytes());
        let mut key = Vec::new();
        keys.write(&asked, body.as_ref(), &mut key);
        key
    }

    #[test]
    fn requests_match_as_the_rules_say() {
        let same = |rules: &str, a: (&str, &str), b: (&str, &str)| {
            let keys = keys(rules);
            key(&keys, a.0, &[], a.1) == key(&keys, b.0, &[], b.1)
        };
        assert!(same("", ("/a?x=1&y=2", ""), ("/a?y=2&x=1", "")));
        assert!(!same("", ("/a?x=1&x=2", ""), ("/a?x=2&x=1", "")));
        assert!(!same("", ("/a?x=1", ""), ("/a?x=1&y=2", "")));
        assert!(!same("", ("/a", "{\"a\":1}"), ("/a", "{\"a\": 1}")));
        let json = "[match]\nbody = 'json'";
        assert!(same(
            json,
            ("/a", "{\"a\":1,\"b\":2}"),
            ("/a", "{\"b\":2, \"a\":1.0}")
        ));
        assert!(!same(json, ("/a", "{\"a\":1}"), ("/a", "{\"a\":2}")));
        assert!(!same(json, ("/a", "{\"a\":"), ("/a", "{\"b\":")));
        let paths = "[match]\nbody = 'json'\nbody-json = ['/id']";
        assert!(same(
            paths,
            ("/a", "{\"id\":1,\"b\":2}"),
            ("/a", "{\"b\":3,\"id\":1}")
        ));
        assert!(same(
            "[match]\nbody = 'form'",
            ("/a", "x=1&y=2"),
            ("/a", "y=2&x=1")
        ));
        assert!(same("[match]\nquery = 'ignore'", ("/a?x", ""), ("/a", "")));
        assert!(same(
            "[match]\nquery-ignore = ['t']",
            ("/a?t=1&b", ""),
            ("/a?b&t=2", "")
        ));
    }

    #[test]
    fn secrets_match_without_being_in_the_key() {
        let keys = keys(
            "[match]\nheaders = ['authorization']\n[redact]\n\
            headers = ['authorization']\nquery = ['token']",
        );
        let with = |token: &str, secret: &str| {
            let target = format!("/a?token={token}");
            key(&keys, &target, &[("Authorization", secret)], "")
        };
        assert_eq!(with("s3cret", "pass"), with("s3cret", "pass"));
        assert_ne!(with("s3cret", "pass"), with("other", "pass"));
        assert_ne!(with("s3cret", "pass"), with("s3cret", "word"));
        let shown = show(&with("s3cret", "pass"));
        assert!(
            !shown.contains("s3cret") && !shown.contains("pass"),
            "{shown}"
        );
    }
}
