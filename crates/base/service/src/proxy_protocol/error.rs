//! Why a header is refused. Each message says what was found.

use std::{fmt, io, time::Duration};

use super::{AcceptedVersions, HEADER_BYTES_MAX, v1::LINE_BYTES_MAX};

/// Fault of a header. What was found is escaped and cut short, so that it can be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The bytes begin no header of these versions.
    #[error(
        "expected {accepted}, but found '{found}'; let the proxy send one, or don't expect one here"
    )]
    NoHeader {
        /// Beginning of what was found.
        found: String,
        /// Versions that were expected.
        accepted: AcceptedVersions,
    },
    /// A line that doesn't end.
    #[error("the header '{found}' has no end: expected CR LF within {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// Beginning of the line.
        found: String,
    },
    /// A CR without LF, or an LF without CR.
    #[error("the header '{found}' has half a line end: expected CR and LF together")]
    LineEnd {
        /// The line, from its beginning.
        found: String,
    },
    /// A line of another protocol.
    #[error("the header is for '{found}': expected TCP4, TCP6 or UNKNOWN, between single spaces")]
    Protocol {
        /// Text in the protocol's place.
        found: String,
    },
    /// A line with too few or too many fields.
    #[error(
        "the header has '{found}': expected two addresses and two ports, between single spaces"
    )]
    FieldCount {
        /// All fields behind the protocol.
        found: String,
    },
    /// No address of the line's protocol.
    #[error("the header has the address '{found}': expected one of {family}")]
    Address {
        /// Text in an address's place.
        found: String,
        /// Family of addresses that was announced.
        family: &'static str,
    },
    /// No port.
    #[error("the header has the port '{found}': expected 0 to 65535, without leading zeros")]
    Port {
        /// Text in a port's place.
        found: String,
    },
    /// A binary header of another version.
    #[error("the header has version '{found}': expected 2 in a binary header")]
    Version {
        /// Version that was found.
        found: u8,
    },
    /// A command that nobody has defined.
    #[error("the header has command '{found}': expected 0 (LOCAL) or 1 (PROXY)")]
    Command {
        /// Command that was found.
        found: u8,
    },
    /// A combination of address family and protocol that nobody has defined.
    #[error(
        "the header is for family and protocol '{found:#04x}': expected none, IPv4, IPv6 or Unix, \
         with a stream or datagrams"
    )]
    Family {
        /// Byte that was found.
        found: u8,
    },
    /// A header that is too short for its addresses.
    #[error("the header announces '{found}' bytes: expected {expected} or more for its addresses")]
    TooShort {
        /// Announced length in bytes.
        found: usize,
        /// Length of the addresses in bytes.
        expected: usize,
    },
    /// A header that is longer than is read.
    #[error("the header has '{found}' bytes: expected at most {HEADER_BYTES_MAX}; send fewer TLVs")]
    TooLong {
        /// Length of the whole header in bytes.
        found: usize,
    },
    /// A TLV that doesn't fit into its header.
    #[error("the header ends within the TLV at byte '{at}': expected type, length and value")]
    TlvCut {
        /// Place of the TLV in the header in bytes.
        at: usize,
    },
    /// A checksum of another size.
    #[error("the header's CRC32C has '{found}' bytes: expected 4")]
    ChecksumLength {
        /// Length of the value in bytes.
        found: usize,
    },
    /// A second checksum. Neither can be right with the other.
    #[error("the header has a second CRC32C: expected at most one")]
    ChecksumTwice,
    /// A header that was altered.
    #[error("the header's CRC32C is '{found:#010x}': expected {expected:#010x} for these bytes")]
    Checksum {
        /// Value that was found.
        found: u32,
        /// Value of the bytes.
        expected: u32,
    },
}

/// Why a connection didn't begin with a header.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are no header.
    #[error(transparent)]
    Header(#[from] ProxyError),
    /// The connection ended first.
    #[error("the connection ended after '{found}': expected a whole PROXY protocol header")]
    Closed {
        /// Beginning of what had arrived.
        found: String,
    },
    /// The header wasn't there in time.
    #[error("after {at_most:?} there was only '{found}': expected a whole PROXY protocol header")]
    Late {
        /// Beginning of what had arrived.
        found: String,
        /// Time that the header had.
        at_most: Duration,
    },
    /// Reading failed.
    #[error("could not read a PROXY protocol header")]
    Io(#[from] io::Error),
}

impl fmt::Display for AcceptedVersions {
    /// Writes what a connection must begin with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "a PROXY protocol header of version 1",
            Self::V2 => "a PROXY protocol header of version 2",
            Self::Any => "a PROXY protocol header",
        })
    }
}

/// Most bytes of a peer that a message repeats: enough to recognise a protocol.
const EXCERPT_BYTES_MAX: usize = 32;

/// Returns the beginning of what a peer sent, so that it can be logged.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    match bytes.get(..EXCERPT_BYTES_MAX) {
        Some(beginning) if beginning.len() < bytes.len() => {
            format!("{}…", beginning.escape_ascii())
        }
        _ => bytes.escape_ascii().to_string(),
    }
}
