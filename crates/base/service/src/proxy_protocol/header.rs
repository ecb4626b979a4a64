//! Types of a header, whatever its version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version of a header that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// A binary block.
    V2,
}

/// Versions that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedVersions {
    /// Version 1 only.
    V1,
    /// Version 2 only.
    V2,
    /// Either version. The first byte tells them apart.
    Any,
}

/// The facts about a connection that its proxy passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Both ends of the client's connection.
    pub endpoints: Endpoints,
    /// Further facts, in their order (version 2 only).
    pub tlvs: Vec<Tlv>,
}

/// Both ends of the client's connection to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// The proxy made the connection for itself, such as for a health check. The addresses are the
    /// connection's own.
    Local,
    /// The proxy relays a client without addresses of TCP. All that is known are the connection's
    /// own.
    Unknown,
    /// The proxy relays a client that is connected by TCP. Scope and flow of IPv6 addresses are
    /// not sent.
    Known {
        /// Address of the client.
        source: SocketAddr,
        /// Address that the client connected to.
        destination: SocketAddr,
    },
}

/// A type, a length and a value: one further fact about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// Type, such as 0x02 for the host name that the client asked for.
    pub kind: u8,
    /// Value, as it was sent.
    pub value: Vec<u8>,
}

impl ProxyHeader {
    /// Makes a header for a client at `source` that is connected to `destination`.
    pub fn relayed(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::from(Endpoints::Known {
            source,
            destination,
        })
    }

    /// Returns the client's address, or `None` if the connection's own address counts.
    pub fn source(&self) -> Option<SocketAddr> {
        match self.endpoints {
            Endpoints::Known { source, .. } => Some(source),
            Endpoints::Local | Endpoints::Unknown => None,
        }
    }

    /// Returns the address that the client connected to, or `None` if the connection's own counts.
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.endpoints {
            Endpoints::Known { destination, .. } => Some(destination),
            Endpoints::Local | Endpoints::Unknown => None,
        }
    }
}

impl From<Endpoints> for ProxyHeader {
    /// Makes a header without TLVs.
    fn from(endpoints: Endpoints) -> Self {
        let tlvs = Vec::new();
        Self { endpoints, tlvs }
    }
}

impl Tlv {
    /// Type of the checksum (CRC32C) of the whole header.
    pub const CRC32C: u8 = 0x03;

    /// Makes a checksum, whose value [`encode`](super::encode) fills in.
    pub fn checksum() -> Self {
        Self {
            kind: Self::CRC32C,
            value: vec![0; 4],
        }
    }
}

/// Two addresses as they are sent: of one family, without scope and flow.
pub(super) enum Pair {
    V4([Ipv4Addr; 2]),
    V6([Ipv6Addr; 2]),
}

impl Pair {
    /// Makes an IPv4 address that stands beside an IPv6 one a mapped one of IPv6.
    pub(super) fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let mapped = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4([source, destination]),
            (source, destination) => Self::V6([source, destination].map(mapped)),
        }
    }
}
