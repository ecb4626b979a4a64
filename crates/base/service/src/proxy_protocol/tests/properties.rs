//! Properties of all headers, of damaged ones, and of any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;

fn endpoints() -> impl Strategy<Value = Endpoints> {
    prop_oneof![
        1 => Just(Endpoints::Local),
        1 => Just(Endpoints::Unknown),
        6 => (socket_address(), socket_address())
            .prop_map(|(source, destination)| Endpoints::Known { source, destination }),
    ]
}

/// Returns what the other side reads after these were sent.
fn as_read(endpoints: Endpoints) -> Endpoints {
    let Endpoints::Known {
        source,
        destination,
    } = endpoints
    else {
        return endpoints;
    };
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    match source.is_ipv4() == destination.is_ipv4() {
        true => endpoints,
        false => Endpoints::Known {
            source: mapped(source),
            destination: mapped(destination),
        },
    }
}

fn socket_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(Ipv4Addr::from);
    let v6 = any::<[u8; 16]>().prop_map(Ipv6Addr::from);
    // Addresses of few digits are shortened most.
    let short = (0..=7_usize, any::<u16>()).prop_map(|(place, segment)| {
        let mut segments = [0; 8];
        segments[place] = segment;
        Ipv6Addr::from(segments)
    });
    let ip = prop_oneof![
        v4.clone().prop_map(IpAddr::from),
        v6.prop_map(IpAddr::from),
        short.prop_map(IpAddr::from),
        v4.prop_map(|ip| IpAddr::from(ip.to_ipv6_mapped())),
    ];
    (ip, any::<u16>()).prop_map(Into::into)
}

fn tlvs() -> impl Strategy<Value = Vec<Tlv>> {
    let plain = (any::<u8>(), vec(any::<u8>(), 0..40))
        .prop_filter("checksums are added apart", |(kind, _)| {
            *kind != Tlv::CRC32C
        })
        .prop_map(|(kind, value)| Tlv { kind, value });
    (vec(plain, 0..5), option::of(0..5_usize)).prop_map(|(mut tlvs, checksum)| {
        if let Some(place) = checksum {
            tlvs.insert(place.min(tlvs.len()), Tlv::checksum());
        }
        tlvs
    })
}

fn header() -> impl Strategy<Value = ProxyHeader> {
    (endpoints(), tlvs()).prop_map(|(endpoints, tlvs)| ProxyHeader { endpoints, tlvs })
}

fn choose(version: ProxyVersion) -> u8 {
    match version {
        ProxyVersion::V1 => 0,
        ProxyVersion::V2 => 1,
    }
}

fn version() -> impl Strategy<Value = ProxyVersion> {
    prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)]
}

/// The second implementation's reading of whole headers, without TLVs.
fn read_by_another(bytes: &[u8]) -> Option<(Option<[SocketAddr; 2]>, usize)> {
    let (header, length) = proxy_header::ProxyHeader::parse(bytes, Default::default()).ok()?;
    let addresses = header.proxied_address();
    let of_tcp = addresses.filter(|it| it.protocol == proxy_header::Protocol::Stream);
    Some((of_tcp.map(|it| [it.source, it.destination]), length))
}

fn read_by_us(bytes: &[u8]) -> Option<(Option<[SocketAddr; 2]>, usize)> {
    let (header, length) = parse(bytes, ANY).ok()??;
    let addresses = header.source().zip(header.destination());
    Some((addresses.map(Into::into), length))
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(header in header(), rest in vec(any::<u8>(), 0..9)) {
        let written = encode(&header, ProxyVersion::V2).expect("short");
        let bytes = [&written[..], &rest].concat();
        let (mut read, length) = parse(&bytes, ANY).expect("right").expect("whole");
        for tlv in read.tlvs.iter_mut().filter(|tlv| tlv.kind == Tlv::CRC32C) {
            tlv.value = vec![0; 4];
        }
        let expected = match as_read(header.endpoints) {
            Endpoints::Local | Endpoints::Unknown => Endpoints::Local.into(),
            endpoints => ProxyHeader { endpoints, tlvs: header.tlvs.clone() },
        };
        prop_assert_eq!((read, length), (expected, written.len()));

        let written = encode(&header, ProxyVersion::V1).expect("a line");
        let bytes = [&written[..], &rest].concat();
        let endpoints = match header.endpoints {
            Endpoints::Local => Endpoints::Unknown,
            known => as_read(known),
        };
        prop_assert_eq!(parse(&bytes, ANY), Ok(Some((endpoints.into(), written.len()))));
    }

    #[test]
    fn another_implementation_reads_what_we_write(header in header(), version in version()) {
        let written = encode(&header, version).expect("short");
        let read = read_by_another(&written);
        prop_assert!(read.is_some(), "refused: {}", written.escape_ascii());
        prop_assert_eq!(read, read_by_us(&written));
    }

    #[test]
    fn we_read_what_another_implementation_writes(
        source in any::<([u8; 16], u16)>(),
        destination in any::<([u8; 16], u16)>(),
        is_v4 in any::<bool>(),
        id in vec(any::<u8>(), 0..128),
    ) {
        let address = |(ip, port): ([u8; 16], u16)| match is_v4 {
            true => SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port)),
            false => SocketAddr::from((ip, port)),
        };
        let (source, destination) = (address(source), address(destination));
        let theirs = proxy_header::ProxiedAddress::stream(source, destination);
        let mut theirs = proxy_header::ProxyHeader::with_address(theirs);
        let ours = ProxyHeader::relayed(source, destination);
        let mut bytes = Vec::new();
        theirs.encode_v1(&mut bytes).expect("a line");
        prop_assert_eq!(parse(&bytes, ANY), Ok(Some((ours.clone(), bytes.len()))));

        theirs.append_tlv(proxy_header::Tlv::UniqueId(id.as_slice().into()));
        let ours = ProxyHeader { tlvs: vec![tlv(5, &id)], ..ours };
        bytes.clear();
        theirs.encode_v2(&mut bytes).expect("short");
        prop_assert_eq!(parse(&bytes, ANY), Ok(Some((ours, bytes.len()))));
    }

    /// Ours is the stricter one.
    #[test]
    fn what_we_accept_another_implementation_reads_likewise(
        header in header(),
        version in version(),
        changes in vec((any::<Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = encode(&header, version).expect("short");
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        // They keep the family of LOCAL, and so may refuse one that we ignore.
        let is_local = bytes.get(12) == Some(&0x20);
        if let (Some(ours), false) = (read_by_us(&bytes), is_local) {
            prop_assert_eq!(read_by_another(&bytes), Some(ours));
        }
    }

    #[test]
    fn damaged_headers_are_read_or_refused(
        header in header(),
        version in version(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        rest in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = encode(&header, version).expect("short");
        let untouched = changes.is_empty();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let moves = [&[choose(version)], &bytes[..], &rest].concat();
        let is_header = attack_proxy_protocol(&moves);
        prop_assert!(is_header || !untouched);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        moves in vec(any::<u8>(), 0..600),
        signature in 0..3_usize,
    ) {
        let signature = [&b""[..], v1::SIGNATURE, v2::SIGNATURE][signature];
        attack_proxy_protocol(&[&[2], signature, &moves].concat());
    }
}
