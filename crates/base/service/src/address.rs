//! Addresses of servers: TCP or Unix.

use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::listener::Stream;

/// Where a server listens, or where an upstream is: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`, with a numeric host. A name may have several addresses, of which a server
    /// listens on one only, so it isn't taken.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl Address {
    /// Connects to a server that listens at this address. A TCP connection gets `TCP_NODELAY`.
    ///
    /// # Errors
    /// If the server can't be reached, or not within `at_most`.
    pub async fn connect(&self, at_most: Duration) -> io::Result<Stream> {
        let connecting = async {
            match self {
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(Stream::Left(stream))
                }
                Self::Unix(path) => Ok(Stream::Right(UnixStream::connect(path).await?)),
            }
        };
        timeout(at_most, connecting).await?
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path after 'unix:'".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                let hint = match text.strip_prefix("localhost:") {
                    Some(port) => format!("; try '127.0.0.1:{port}' or '[::1]:{port}'"),
                    None => String::new(),
                };
                format!("expected 'HOST:PORT' with a numeric host, or 'unix:PATH'{hint}")
            }),
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
    use crate::Listener;

    #[tokio::test(flavor = "current_thread")]
    async fn what_listens_can_be_connected_to() {
        let directory = std::env::temp_dir();
        let socket = directory.join(format!("hopbench-address-{}", std::process::id()));
        let limit = Duration::from_secs(60);
        for text in ["127.0.0.1:0", &format!("unix:{}", socket.display())] {
            let listener = Listener::bind(&text.parse().expect("an address")).expect("bound");
            let address = listener.address().expect("bound");
            let (connected, accepted) = tokio::join!(address.connect(limit), listener.accept());
            assert!(accepted.is_ok(), "{text}: {accepted:?}");
            let nodelay = match connected.expect(text) {
                Stream::Left(stream) => stream.nodelay().expect("asked"),
                Stream::Right(_) => true,
            };
            assert!(nodelay, "{text}");
            drop(listener);
            assert!(
                address.connect(limit).await.is_err(),
                "nobody is at '{address}'"
            );
        }
    }

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["127.0.0.1:4000", "[::1]:0", "unix:/tmp/a.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["", "4000", "unix:", "example.org:80", "127.0.0.1:65536"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        // It may mean either, and a server may listen on one of them only.
        let refused = "localhost:4000".parse::<Address>().expect_err("a name");
        let expected = "try '127.0.0.1:4000' or '[::1]:4000'";
        assert!(refused.contains(expected), "{refused}");
    }
}
