//! Version 1: a line of text.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

use super::{Endpoints, Progress, ProxyError, ProxyHeader, error::excerpt, header::Pair};

/// Beginning of every header.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

const LINE_END: &[u8] = b"\r\n";

/// Longest header in bytes, as the specification has it: `UNKNOWN` with two whole addresses.
pub(super) const LINE_BYTES_MAX: usize = 107;

/// Text behind the signature, and the length of the shortest header that has it, in bytes.
const PROTOCOLS: [(&[u8], usize); 3] = [
    (b"TCP4 ", b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len()),
    (b"TCP6 ", b"PROXY TCP6 :: :: 0 0\r\n".len()),
    (UNKNOWN, b"PROXY UNKNOWN\r\n".len()),
];
const UNKNOWN: &[u8] = b"UNKNOWN";

/// A family of addresses.
trait Ip: Copy + FromStr + Into<IpAddr> {
    const NAME: &'static str;
    /// Lengths of the shortest and of the longest address in characters.
    const CHARACTERS: [usize; 2];

    /// Returns whether an address may contain this character.
    fn may_contain(byte: u8) -> bool;
}

impl Ip for Ipv4Addr {
    const NAME: &'static str = "IPv4";
    const CHARACTERS: [usize; 2] = ["0.0.0.0".len(), "255.255.255.255".len()];

    fn may_contain(byte: u8) -> bool {
        byte.is_ascii_digit() || byte == b'.'
    }
}

impl Ip for Ipv6Addr {
    const NAME: &'static str = "IPv6";
    const CHARACTERS: [usize; 2] = [
        "::".len(),
        "0000:0000:0000:0000:0000:ffff:255.255.255.255".len(),
    ];

    fn may_contain(byte: u8) -> bool {
        // Senders that use inet_ntop(3) end a mapped address with one of IPv4.
        byte.is_ascii_hexdigit() || byte == b':' || byte == b'.'
    }
}

/// The part of a line that has arrived, without its end.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a [u8],
    /// Whether at least the first byte of the line's end is there.
    is_closed: bool,
}

/// The part of a line behind its protocol.
enum Content {
    /// All of it is there.
    Whole(Endpoints),
    /// At least so many bytes are needed to complete the line.
    Partial { needed: usize },
}

/// Parses bytes that begin with the signature, or with a part of it if there are no more.
pub(super) fn parse(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let line = split_off_line(bytes)?;
    let rest = line.text.get(SIGNATURE.len()..).unwrap_or_default();
    let protocol = PROTOCOLS.iter().find(|(name, _)| rest.starts_with(name));
    let fields = |name: &[u8]| Line {
        text: &rest[name.len()..],
        ..line
    };
    let content = match protocol {
        Some((name @ b"TCP4 ", _)) => parse_fields::<Ipv4Addr>(fields(name))?,
        Some((name @ b"TCP6 ", _)) => parse_fields::<Ipv6Addr>(fields(name))?,
        Some((name, _)) => parse_unknown(fields(name))?,
        None => {
            let needed = bytes_to_protocol(line, rest)? - bytes.len();
            Content::Partial { needed }
        }
    };
    let length = line.text.len() + LINE_END.len();
    Ok(match content {
        Content::Whole(endpoints) if length <= bytes.len() => {
            Progress::Whole(ProxyHeader::from(endpoints), length)
        }
        Content::Whole(_) => Progress::Partial {
            needed: length - bytes.len(),
        },
        Content::Partial { needed } => Progress::Partial { needed },
    })
}

/// Returns the length of the shortest header whose protocol begins like this, in bytes.
fn bytes_to_protocol(line: Line<'_>, beginning: &[u8]) -> Result<usize, ProxyError> {
    let mut possible = Vec::from(PROTOCOLS);
    possible.retain(|(name, _)| name.starts_with(beginning) && !line.is_closed);
    let shortest = possible.iter().map(|(_, bytes_min)| *bytes_min).min();
    shortest.ok_or_else(|| ProxyError::Protocol {
        found: excerpt(beginning),
    })
}

fn split_off_line(bytes: &[u8]) -> Result<Line<'_>, ProxyError> {
    let bytes = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let found = || excerpt(bytes);
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let (text, end) = bytes.split_at(end.unwrap_or(bytes.len()));
    if text.len() + LINE_END.len() > LINE_BYTES_MAX {
        return Err(ProxyError::LineTooLong { found: found() });
    }
    if !end.starts_with(LINE_END) && !LINE_END.starts_with(end) {
        return Err(ProxyError::LineEnd { found: found() });
    }
    let is_closed = !end.is_empty();
    Ok(Line { text, is_closed })
}

/// Parses what is behind `UNKNOWN`, which is ignored.
fn parse_unknown(line: Line<'_>) -> Result<Content, ProxyError> {
    match line.text {
        [] | [b' ', ..] if line.is_closed => Ok(Content::Whole(Endpoints::Unknown)),
        [] | [b' ', ..] => Ok(Content::Partial {
            needed: LINE_END.len(),
        }),
        more => Err(ProxyError::Protocol {
            found: excerpt(&[UNKNOWN, more].concat()),
        }),
    }
}

/// Parses addresses and ports.
fn parse_fields<A: Ip>(line: Line<'_>) -> Result<Content, ProxyError> {
    let count = || ProxyError::FieldCount {
        found: excerpt(line.text),
    };
    let mut fields: Vec<&[u8]> = line.text.split(|byte| *byte == b' ').collect();
    if fields.len() > 4 {
        return Err(count());
    }
    // The last field of a line that isn't over may grow.
    let open = if line.is_closed { None } else { fields.pop() };
    let addresses = fields.iter().take(2).map(|field| parse_address::<A>(field));
    let addresses = addresses.collect::<Result<Vec<A>, _>>()?;
    let ports = fields.iter().skip(2).map(|field| parse_port(field));
    let ports = ports.collect::<Result<Vec<u16>, _>>()?;
    if let Some(open) = open {
        match fields.len() {
            0 | 1 => check_beginning::<A>(open)?,
            _ if open.is_empty() => {}
            _ => drop(parse_port(open)?),
        }
        let shortest = [A::CHARACTERS[0], A::CHARACTERS[0], 1, 1];
        // Each field has a byte behind it, and the last has two.
        let shortest_rest = shortest[fields.len()..].iter().map(|field| field + 1);
        let there = open.len().min(shortest[fields.len()]);
        let needed = shortest_rest.sum::<usize>() + 1 - there;
        return Ok(Content::Partial { needed });
    }
    match (&addresses[..], &ports[..]) {
        ([source, destination], [source_port, destination_port]) => {
            Ok(Content::Whole(Endpoints::Known {
                source: SocketAddr::new((*source).into(), *source_port),
                destination: SocketAddr::new((*destination).into(), *destination_port),
            }))
        }
        _ => Err(count()),
    }
}

fn parse_address<A: Ip>(field: &[u8]) -> Result<A, ProxyError> {
    let text = str::from_utf8(field).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| address_error::<A>(field))
}

/// Checks what has arrived of an address.
fn check_beginning<A: Ip>(field: &[u8]) -> Result<(), ProxyError> {
    let fits = field.len() <= A::CHARACTERS[1];
    match fits && field.iter().all(|byte| A::may_contain(*byte)) {
        true => Ok(()),
        false => Err(address_error::<A>(field)),
    }
}

fn address_error<A: Ip>(field: &[u8]) -> ProxyError {
    ProxyError::Address {
        found: excerpt(field),
        family: A::NAME,
    }
}

fn parse_port(field: &[u8]) -> Result<u16, ProxyError> {
    let is_canonical = match field {
        [b'0'] => true,
        [b'0', ..] => false,
        // Or else the standard library would take a sign.
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    let text = str::from_utf8(field).ok().filter(|_| is_canonical);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| ProxyError::Port {
            found: excerpt(field),
        })
}

/// Writes a header.
pub(super) fn encode(header: &ProxyHeader) -> Vec<u8> {
    let Endpoints::Known {
        source,
        destination,
    } = header.endpoints
    else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let ports = format!("{} {}", source.port(), destination.port());
    let line = match Pair::new(source, destination) {
        Pair::V4([source, destination]) => format!("PROXY TCP4 {source} {destination} {ports}\r\n"),
        Pair::V6(ips) => {
            let [source, destination] = ips.map(hexadecimal);
            format!("PROXY TCP6 {source} {destination} {ports}\r\n")
        }
    };
    line.into_bytes()
}

/// Writes an IPv6 address as the specification wants it, without any part in IPv4's form.
fn hexadecimal(ip: Ipv6Addr) -> String {
    match ip.to_ipv4_mapped() {
        None => ip.to_string(),
        Some(_) => {
            let [.., high, low] = ip.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
    }
}
