//! How clients ask a path at its front.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// A protocol by which clients ask a path.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: over TLS by ALPN, otherwise by prior knowledge.
    H2,
}

/// How clients ask a path at its front.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct FrontProtocol {
    /// Whether they ask over TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls: bool,
    /// Protocol by which they ask; absent for HTTP/1.1.
    #[serde(default, skip_serializing_if = "Protocol::is_http1")]
    pub protocol: Protocol,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 2] = [Self::Http1, Self::H2];

    /// Returns its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2 => "h2",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn is_http1(&self) -> bool {
        *self == Self::Http1
    }
}

impl FrontProtocol {
    /// Returns whether it is the usual one: HTTP/1.1 without TLS.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the words for it after the name of a path; nothing for the usual one.
    pub fn after_path(self) -> String {
        match self.is_plain() {
            true => String::new(),
            false => format!(", asked by {self}"),
        }
    }
}

impl fmt::Display for FrontProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.protocol, self.tls) {
            (Protocol::Http1, false) => "HTTP/1.1",
            (Protocol::Http1, true) => "HTTP/1.1 over TLS",
            (Protocol::H2, false) => "HTTP/2 without TLS",
            (Protocol::H2, true) => "HTTP/2 over TLS",
        })
    }
}
