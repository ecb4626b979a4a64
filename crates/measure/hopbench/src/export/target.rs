//! The server that another engine asks.

use std::{fmt, str::FromStr};

use hyper::Uri;

/// The address of a server, such as `http://127.0.0.1:8080`, without a slash at the end.
#[derive(Clone, Debug)]
pub(crate) struct EngineTarget(String);

impl FromStr for EngineTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected the address of a server, such as 'http://10.0.0.5:8080', without a query"
                .to_owned()
        };
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        let has_more = uri.query().is_some() || text.contains(['#', '@', '\'', '"', '`', '$']);
        if !is_http || !has_host || has_more {
            return Err(expected());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for EngineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_server_is_a_target() {
        for good in [
            "http://127.0.0.1:8080",
            "https://x.example/",
            "http://[::1]:80/base",
        ] {
            let target: EngineTarget = good.parse().expect("a target");
            assert_eq!(target.to_string(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "x",
            "/small",
            "127.0.0.1:80",
            "ftp://x",
            "http://",
            "http://x/?a=b",
            "http://x/#a",
            "http://u:p@x",
            "http://x/'",
            "http://x y/",
            "http://$(x)/",
        ] {
            assert!(bad.parse::<EngineTarget>().is_err(), "{bad}");
        }
    }
}
