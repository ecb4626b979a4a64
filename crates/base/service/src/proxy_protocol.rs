//! The PROXY protocol, versions 1 and 2: how a proxy tells the next server which client it serves.
//!
//! The proxy sends a header in front of the client's bytes. [`read()`] takes exactly that header
//! from a connection, [`parse`] reads one from bytes, and [`encode`] writes one.
//!
//! ```
//! use std::time::Duration;
//!
//! use service::proxy_protocol::{self, AcceptedVersions, ProxyHeader, ProxyVersion};
//! use tokio::io::AsyncReadExt;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! let client = "192.0.2.1:56324".parse()?;
//! let header = ProxyHeader::relayed(client, "198.51.100.7:443".parse()?);
//! let mut sent = proxy_protocol::encode(&header, ProxyVersion::V1)?;
//! assert_eq!(sent, b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
//!
//! sent.extend_from_slice(b"hello");
//! let mut connection = sent.as_slice();
//! let at_most = Duration::from_secs(5);
//! let header = proxy_protocol::read(&mut connection, AcceptedVersions::Any, at_most).await?;
//! assert_eq!(header.source(), Some(client));
//! let mut rest = String::new();
//! connection.read_to_string(&mut rest).await?;
//! assert_eq!(rest, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! Whether a connection begins with a header is never guessed, since a client could then claim any
//! address. A listener is configured to expect one, and refuses every connection that begins with
//! something else, as soon as its first bytes show that.
//!
//! | of a header | is |
//! |---|---|
//! | v1 `TCP4`, `TCP6`; v2 TCP over IPv4 or IPv6 | [`Endpoints::Known`] |
//! | v1 `UNKNOWN`; v2 unspecified, UDP, Unix sockets | [`Endpoints::Unknown`] |
//! | v2 `LOCAL`, with everything in it | [`Endpoints::Local`] |
//! | TLVs (v2) | kept as they are, in their order; a CRC32C among them must be right |
//! | a v2 header over [`HEADER_BYTES_MAX`] | refused |
//! | anything else | refused |

mod crc32c;
mod error;
mod header;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod read;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use self::error::excerpt;
pub use self::{
    error::{ProxyError, ReadError},
    header::{AcceptedVersions, Endpoints, ProxyHeader, ProxyVersion, Tlv},
    read::read,
    v2::HEADER_BYTES_MAX,
};

/// How far the bytes of a header have come.
enum Progress {
    /// The header, and its length in bytes.
    Whole(ProxyHeader, usize),
    /// A header that lacks its end. Every way to complete it takes at least `needed` bytes more.
    Partial { needed: usize },
}

/// Parses the header at the beginning of `bytes`. Returns it and its length in bytes, or `None` if
/// `bytes` is the beginning of a header, and the rest has yet to come.
///
/// # Errors
/// If no header of these versions begins with `bytes`.
pub fn parse(
    bytes: &[u8],
    accepted: AcceptedVersions,
) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    Ok(match progress(bytes, accepted)? {
        Progress::Whole(header, length) => Some((header, length)),
        Progress::Partial { .. } => None,
    })
}

fn progress(bytes: &[u8], accepted: AcceptedVersions) -> Result<Progress, ProxyError> {
    let accepts_v1 = accepted != AcceptedVersions::V2;
    let accepts_v2 = accepted != AcceptedVersions::V1;
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, with)| byte == with);
    // Until the first byte is there, the header may be of either version.
    if accepts_v1 && begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else if accepts_v2 && begins(v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        let found = excerpt(bytes);
        Err(ProxyError::NoHeader { found, accepted })
    }
}

/// Writes a header, to be sent in one piece in front of the client's bytes.
///
/// - [`Endpoints::Local`] and [`Endpoints::Unknown`] become `UNKNOWN` in version 1, and `LOCAL` in
///   version 2, which every receiver must accept.
/// - An IPv4 and an IPv6 address become two of IPv6, one of them mapped.
/// - Version 1 has no TLVs: they are left out.
/// - A TLV of type [`Tlv::CRC32C`] gets the right value, whatever it was.
///
/// # Errors
/// If the TLVs are too long for a header, or more than one is a checksum.
pub fn encode(header: &ProxyHeader, version: ProxyVersion) -> Result<Vec<u8>, ProxyError> {
    match version {
        ProxyVersion::V1 => Ok(v1::encode(header)),
        ProxyVersion::V2 => v2::encode(header),
    }
}
