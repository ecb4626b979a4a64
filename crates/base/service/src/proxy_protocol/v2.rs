//! Version 2: a binary block.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Endpoints, Progress, ProxyError, ProxyHeader, Tlv, crc32c::crc32c, header::Pair};

/// Beginning of every header.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header in bytes that is read or written. The protocol allows 64 KiB, but a header is
/// meant to fit into one segment, and is read before anything is known about the peer. The longest
/// in use carry a client's certificate, of 1 to 2 KiB.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Length in bytes of the part that every header has.
const FIXED_BYTES: usize = 16;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// Families with protocols, as one byte each.
const UNSPECIFIED: u8 = 0x00;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;

/// Parses bytes that begin with the signature, or with a part of it if there are no more.
pub(super) fn parse(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let partial = |whole: usize| {
        let needed = whole - bytes.len();
        Ok(Progress::Partial { needed })
    };
    let is_local = match bytes.get(12) {
        Some(byte) => parse_command(*byte)? == LOCAL,
        None => return partial(FIXED_BYTES),
    };
    // What LOCAL has for a family and addresses is ignored.
    let family = bytes.get(13).copied().filter(|_| !is_local);
    let addresses_bytes = family.map_or(Ok(0), addresses_bytes)?;
    let Some([.., high, low]) = bytes.first_chunk::<FIXED_BYTES>() else {
        return partial(FIXED_BYTES);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let whole = FIXED_BYTES + length;
    if whole > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong { found: whole });
    }
    if length < addresses_bytes {
        return Err(ProxyError::TooShort {
            found: length,
            expected: addresses_bytes,
        });
    }
    let Some(header) = bytes.get(..whole) else {
        return partial(whole);
    };
    let header = match family {
        None => Endpoints::Local.into(),
        Some(family) => ProxyHeader {
            endpoints: parse_endpoints(family, &header[FIXED_BYTES..]),
            tlvs: parse_tlvs(header, FIXED_BYTES + addresses_bytes)?,
        },
    };
    Ok(Progress::Whole(header, whole))
}

fn parse_command(byte: u8) -> Result<u8, ProxyError> {
    let (version, command) = (byte >> 4, byte & 0x0f);
    if version != VERSION {
        return Err(ProxyError::Version { found: version });
    }
    match command {
        LOCAL | PROXY => Ok(command),
        found => Err(ProxyError::Command { found }),
    }
}

/// Returns the length of the addresses of this family and protocol in bytes.
fn addresses_bytes(family: u8) -> Result<usize, ProxyError> {
    match family {
        UNSPECIFIED => Ok(0),
        TCP_IPV4 | 0x12 => Ok(2 * (4 + 2)),
        TCP_IPV6 | 0x22 => Ok(2 * (16 + 2)),
        // Unix sockets: two paths.
        0x31 | 0x32 => Ok(2 * 108),
        found => Err(ProxyError::Family { found }),
    }
}

/// Parses addresses whose length was checked. Those of UDP and of Unix sockets can't be the
/// addresses of a TCP connection, and are ignored.
fn parse_endpoints(family: u8, block: &[u8]) -> Endpoints {
    let (v4, v6) = (block.first_chunk::<12>(), block.first_chunk::<36>());
    match (family, v4, v6) {
        (TCP_IPV4, Some(block), _) => parse_pair::<4, Ipv4Addr>(block),
        (TCP_IPV6, _, Some(block)) => parse_pair::<16, Ipv6Addr>(block),
        _ => Endpoints::Unknown,
    }
}

/// Parses two addresses of `N` bytes and two ports.
fn parse_pair<const N: usize, A>(block: &[u8]) -> Endpoints
where
    A: From<[u8; N]> + Into<IpAddr>,
{
    let (addresses, ports) = block.split_at(2 * N);
    let end = |which: usize| {
        let address = addresses[which * N..].first_chunk::<N>().expect("N bytes");
        let port = ports[which * 2..].first_chunk::<2>().expect("2 bytes");
        SocketAddr::new(A::from(*address).into(), u16::from_be_bytes(*port))
    };
    Endpoints::Known {
        source: end(0),
        destination: end(1),
    }
}

/// Parses the TLVs of a whole header that begin at this byte.
fn parse_tlvs(header: &[u8], mut at: usize) -> Result<Vec<Tlv>, ProxyError> {
    let mut tlvs = Vec::new();
    let mut is_checked = false;
    while at < header.len() {
        let cut = || ProxyError::TlvCut { at };
        let (head, rest) = header[at..].split_first_chunk::<3>().ok_or_else(cut)?;
        let [kind, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length).ok_or_else(cut)?;
        let start = at + head.len();
        at = start + length;
        if kind == Tlv::CRC32C {
            if is_checked {
                return Err(ProxyError::ChecksumTwice);
            }
            check_checksum(header, start, value)?;
            is_checked = true;
        }
        let value = value.to_vec();
        tlvs.push(Tlv { kind, value });
    }
    Ok(tlvs)
}

/// Checks the checksum whose value starts at this byte.
fn check_checksum(header: &[u8], start: usize, value: &[u8]) -> Result<(), ProxyError> {
    let length = value.len();
    let value = <[u8; 4]>::try_from(value);
    let value = value.map_err(|_| ProxyError::ChecksumLength { found: length })?;
    let found = u32::from_be_bytes(value);
    let expected = checksum(header, start);
    match found == expected {
        true => Ok(()),
        false => Err(ProxyError::Checksum { found, expected }),
    }
}

/// Returns the checksum of a header. Its own four bytes, which start here, count as zeros.
fn checksum(header: &[u8], start: usize) -> u32 {
    crc32c([&header[..start], &[0; 4], &header[start + 4..]])
}

/// Writes a header.
///
/// # Errors
/// If the TLVs are too long for a header, or more than one is a checksum.
pub(super) fn encode(header: &ProxyHeader) -> Result<Vec<u8>, ProxyError> {
    let mut bytes = SIGNATURE.to_vec();
    match header.endpoints {
        // Every receiver must accept LOCAL. HAProxy 2.6 refuses PROXY without addresses, and sends
        // LOCAL in such cases itself.
        Endpoints::Local | Endpoints::Unknown => {
            bytes.extend([VERSION << 4 | LOCAL, UNSPECIFIED, 0, 0]);
        }
        Endpoints::Known {
            source,
            destination,
        } => {
            let pair = Pair::new(source, destination);
            let family = match &pair {
                Pair::V4(_) => TCP_IPV4,
                Pair::V6(_) => TCP_IPV6,
            };
            bytes.extend([VERSION << 4 | PROXY, family, 0, 0]);
            match pair {
                Pair::V4(ips) => bytes.extend(ips.iter().flat_map(Ipv4Addr::octets)),
                Pair::V6(ips) => bytes.extend(ips.iter().flat_map(Ipv6Addr::octets)),
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
    }
    let checksum_at = encode_tlvs(&header.tlvs, &mut bytes)?;
    let length = bytes.len() - FIXED_BYTES;
    let length = u16::try_from(length)
        .ok()
        .filter(|_| bytes.len() <= HEADER_BYTES_MAX);
    let length = length.ok_or(ProxyError::TooLong { found: bytes.len() })?;
    bytes[14..FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
    if let Some(start) = checksum_at {
        let value = checksum(&bytes, start);
        bytes[start..start + 4].copy_from_slice(&value.to_be_bytes());
    }
    Ok(bytes)
}

/// Appends TLVs. Returns where the value of the checksum starts, if there is one.
fn encode_tlvs(tlvs: &[Tlv], bytes: &mut Vec<u8>) -> Result<Option<usize>, ProxyError> {
    let mut checksum_at = None;
    for Tlv { kind, value } in tlvs {
        let is_checksum = *kind == Tlv::CRC32C;
        let value = if is_checksum {
            &[0; 4]
        } else {
            value.as_slice()
        };
        let too_long = |_| ProxyError::TooLong {
            found: bytes.len() + 3 + value.len(),
        };
        let length = u16::try_from(value.len()).map_err(too_long)?;
        bytes.push(*kind);
        bytes.extend(length.to_be_bytes());
        if is_checksum && checksum_at.replace(bytes.len()).is_some() {
            return Err(ProxyError::ChecksumTwice);
        }
        bytes.extend(value);
    }
    Ok(checksum_at)
}
