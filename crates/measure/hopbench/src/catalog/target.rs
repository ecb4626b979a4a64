//! An endpoint, as scenarios and the command line name it.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use super::request::BODY_BYTES_MAX;

/// A request's target: a path and query and, for a request with a body, `:` and its length in
/// bytes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) body_bytes: Option<u64>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, body) = match text.rsplit_once(':') {
            Some((path, body)) => (path, Some(body)),
            None => (text, None),
        };
        if !path.starts_with('/') || path.contains(char::is_whitespace) {
            return Err(format!(
                "endpoint '{text}': expected a path that begins with '/'"
            ));
        }
        let body_bytes = match body {
            None => None,
            Some(body) => match body.parse() {
                Ok(bytes) if bytes <= BODY_BYTES_MAX => Some(bytes),
                _ => {
                    return Err(format!(
                        "endpoint '{text}': expected a body length of at most {BODY_BYTES_MAX} \
                         bytes after ':'"
                    ));
                }
            },
        };
        Ok(Self {
            path: path.to_owned(),
            body_bytes,
        })
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match self.body_bytes {
            Some(bytes) => write!(f, ":{bytes}"),
            None => Ok(()),
        }
    }
}
