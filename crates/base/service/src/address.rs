//! Addresses of servers: TCP or Unix.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where a server listens, or where an upstream is: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`, with a numeric host or `localhost`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path after 'unix:'".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .replace("localhost:", "127.0.0.1:")
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected 'HOST:PORT' with a numeric host, or 'unix:PATH'".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["127.0.0.1:4000", "[::1]:0", "unix:/tmp/a.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["", "4000", "unix:", "example.org:80", "127.0.0.1:65536"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
