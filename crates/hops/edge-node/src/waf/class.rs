//! Classes of attacks.

use super::normalise::Variant;

/// A class of attacks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Class {
    /// SQL injection.
    Sqli,
    /// Cross-site scripting.
    Xss,
    /// Commands of a shell.
    Rce,
    /// Reading of local files.
    Lfi,
    /// Inclusion of remote files.
    Rfi,
    /// Template injection.
    Ssti,
    /// Requests that the server is made to send.
    Ssrf,
    /// Requests that break HTTP or a limit.
    Protocol,
    /// Scanners.
    Scanner,
    /// Injection of PHP.
    Php,
    /// Injection of JavaScript on a server.
    Nodejs,
    /// Injection of Java.
    Java,
    /// Injection into directory queries.
    Ldap,
    /// Injection into queries of document databases.
    Nosql,
    /// Entities of XML.
    Xxe,
    /// Attacks of no other class, such as mail commands and server-side includes.
    Other,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 16] = [
        Self::Sqli,
        Self::Xss,
        Self::Rce,
        Self::Lfi,
        Self::Rfi,
        Self::Ssti,
        Self::Ssrf,
        Self::Protocol,
        Self::Scanner,
        Self::Php,
        Self::Nodejs,
        Self::Java,
        Self::Ldap,
        Self::Nosql,
        Self::Xxe,
        Self::Other,
    ];

    /// Returns the name that rules and logs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqli => "sqli",
            Self::Xss => "xss",
            Self::Rce => "rce",
            Self::Lfi => "lfi",
            Self::Rfi => "rfi",
            Self::Ssti => "ssti",
            Self::Ssrf => "ssrf",
            Self::Protocol => "protocol",
            Self::Scanner => "scanner",
            Self::Php => "php",
            Self::Nodejs => "nodejs",
            Self::Java => "java",
            Self::Ldap => "ldap",
            Self::Nosql => "nosql",
            Self::Xxe => "xxe",
            Self::Other => "other",
        }
    }

    /// Returns the forms of a text that rules of this class see unless they say otherwise.
    pub(super) const fn variants(self) -> u8 {
        let decoded = Variant::Decoded as u8;
        match self {
            Self::Sqli => decoded | Variant::Sql as u8,
            Self::Rce | Self::Php | Self::Nodejs | Self::Java => decoded | Variant::Shell as u8,
            Self::Lfi | Self::Rfi | Self::Ssrf => decoded | Variant::Path as u8,
            _ => decoded,
        }
    }
}
