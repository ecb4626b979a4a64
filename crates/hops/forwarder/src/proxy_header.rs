//! The headers of the PROXY protocol on a route.

use std::{io, net::SocketAddr, time::Duration};

use service::proxy_protocol::{self, AcceptedVersions, ProxyHeader, ProxyVersion, ReadError};
use tokio::net::TcpStream;

/// The two ends of a client's connection, as the proxies before this hop saw them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// Time limit for a header. Whoever sends one sends it at once.
const HEADER_MAX: Duration = Duration::from_secs(5);

impl Ends {
    /// Returns the ends of a socket.
    pub(crate) fn of(stream: &TcpStream, client: SocketAddr) -> io::Result<Self> {
        let server = stream.local_addr()?;
        Ok(Self { client, server })
    }

    /// Reads the header that a client must send, and returns the ends that it names, if it does.
    pub(crate) async fn read(self, stream: &mut TcpStream) -> Result<Self, ReadError> {
        let header = proxy_protocol::read(stream, AcceptedVersions::Any, HEADER_MAX).await?;
        Ok(Self {
            client: header.source().unwrap_or(self.client),
            server: header.destination().unwrap_or(self.server),
        })
    }

    /// Returns the header that tells a target of these ends.
    pub(crate) fn header(self, version: ProxyVersion) -> io::Result<Vec<u8>> {
        let header = ProxyHeader::relayed(self.client, self.server);
        proxy_protocol::encode(&header, version).map_err(io::Error::other)
    }
}
