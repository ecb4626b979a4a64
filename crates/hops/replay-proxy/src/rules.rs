//! The rules file: how requests are matched and what is redacted.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// The rules by which requests are matched and redacted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rules {
    /// The parts of a request that count.
    #[serde(rename = "match")]
    pub matching: Matching,
    /// Values that never reach the store.
    pub redact: Redaction,
}

/// The parts of a request that count when it is looked up. The method and the path always do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Matching {
    /// How the query counts.
    pub query: QueryMatch,
    /// Query parameters that don't count.
    pub query_ignore: Vec<String>,
    /// Header fields that count.
    pub headers: Vec<String>,
    /// How the body counts.
    pub body: BodyMatch,
    /// With `body = "json"`: JSON pointers to the values that count, in place of the whole body.
    pub body_json: Vec<String>,
    /// The answer that is given if there are several.
    pub answers: Answers,
}

/// How the query of a request counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueryMatch {
    /// The same parameters, in any order; those of one name in their order.
    #[default]
    Exact,
    /// Not at all.
    Ignore,
    /// A recording's parameters must be among the request's.
    Subset,
}

/// How the body of a request counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyMatch {
    /// As a set of form fields.
    Form,
    /// Not at all.
    Ignore,
    /// As a JSON value.
    Json,
    /// Byte by byte.
    #[default]
    Raw,
}

/// Which answer is given if a request was recorded several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// One after the other, and then from the first on again.
    Cycle,
    /// The one that was recorded last.
    #[default]
    Latest,
    /// One after the other, and then the last one again and again.
    Sequence,
}

/// Values that are replaced before anything is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Redaction {
    /// Header fields, of requests and of answers.
    pub headers: Vec<String>,
    /// Query parameters.
    pub query: Vec<String>,
    /// Fields of forms that are sent.
    pub form: Vec<String>,
    /// JSON pointers, in bodies of requests and of answers. A `*` stands for any name or index.
    pub json: Vec<String>,
    /// The text that takes the place of a value.
    pub placeholder: Option<String>,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            query: QueryMatch::Exact,
            query_ignore: Vec::new(),
            headers: Vec::new(),
            body: BodyMatch::Raw,
            body_json: Vec::new(),
            answers: Answers::Latest,
        }
    }
}

impl Redaction {
    /// Returns what takes the place of a value.
    pub fn placeholder(&self) -> &str {
        self.placeholder.as_deref().unwrap_or("REDACTED")
    }

    /// Returns whether a header field is redacted.
    pub fn hides_header(&self, name: &[u8]) -> bool {
        let mut names = self.headers.iter();
        names.any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Rules {
    /// Reads a file of rules.
    ///
    /// # Errors
    /// If it can't be read, or says what isn't understood.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("could not read '{}'", file.display()))?;
        Self::parse(&text).with_context(|| format!("'{}'", file.display()))
    }

    /// Reads rules.
    ///
    /// # Errors
    /// If the text says what isn't understood.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let rules: Self = toml::from_str(text)?;
        for (key, pointers) in [
            ("match.body-json", &rules.matching.body_json),
            ("redact.json", &rules.redact.json),
        ] {
            if let Some(bad) = pointers.iter().find(|it| !it.starts_with('/')) {
                anyhow::bail!("{key}: '{bad}': expected a JSON pointer, such as '/user/id'");
            }
        }
        if !rules.matching.body_json.is_empty() && rules.matching.body != BodyMatch::Json {
            anyhow::bail!("match.body-json: expected match.body = \"json\" beside it");
        }
        let placeholder = rules.redact.placeholder().bytes();
        if !placeholder.into_iter().all(|byte| byte.is_ascii_graphic()) {
            anyhow::bail!("redact.placeholder: expected visible ASCII without spaces");
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_whole_or_refused() {
        let text = "[match]\nquery = 'subset'\nheaders = ['Accept']\nbody = 'json'\n\
            body-json = ['/a']\nanswers = 'cycle'\n[redact]\nheaders = ['authorization']\n";
        let rules = Rules::parse(text).expect("valid");
        assert_eq!(rules.matching.query, QueryMatch::Subset);
        assert_eq!(rules.matching.answers, Answers::Cycle);
        assert!(rules.redact.hides_header(b"Authorization"));
        assert_eq!(Rules::parse("").expect("valid"), Rules::default());
        for (text, said) in [
            ("[match]\nqery = 'exact'", "qery"),
            ("[match]\nquery = 'all'", "subset"),
            ("[redact]\njson = ['a.b']", "redact.json: 'a.b'"),
            ("[match]\nbody-json = ['/a']", "match.body"),
            ("[redact]\nplaceholder = 'a b'", "visible ASCII"),
        ] {
            let error = Rules::parse(text).expect_err(text);
            assert!(format!("{error:#}").contains(said), "{text}: {error:#}");
        }
    }
}
