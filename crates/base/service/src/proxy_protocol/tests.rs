//! Goal: every header is read as it was meant, and every fault is refused by its name, however the
//! bytes arrive. Method: tables of headers and faults, properties, and a second implementation.

mod properties;
mod reading;

use std::{fs, path::Path};

use super::{hostile::attack_proxy_protocol, *};

const V1: AcceptedVersions = AcceptedVersions::V1;
const V2: AcceptedVersions = AcceptedVersions::V2;
const ANY: AcceptedVersions = AcceptedVersions::Any;

fn relayed(source: &str, destination: &str) -> ProxyHeader {
    let address = |text: &str| text.parse().expect(text);
    ProxyHeader::relayed(address(source), address(destination))
}

fn tlv(kind: u8, value: &[u8]) -> Tlv {
    let value = value.to_vec();
    Tlv { kind, value }
}

/// Makes a binary header of these parts, with the right length.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short");
    let head = [command, family];
    [v2::SIGNATURE, &head, &length.to_be_bytes(), rest].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn lines_are_read_as_they_were_meant() {
    let known = [
        (
            "TCP4 192.0.2.1 198.51.100.7 56324 443",
            "192.0.2.1:56324",
            "198.51.100.7:443",
        ),
        (
            "TCP4 0.0.0.0 255.255.255.255 0 65535",
            "0.0.0.0:0",
            "255.255.255.255:65535",
        ),
        ("TCP6 2001:DB8::1 ::1 1 2", "[2001:db8::1]:1", "[::1]:2"),
        (
            "TCP6 0001:2:3:4:5:6:7:8 :: 1 2",
            "[1:2:3:4:5:6:7:8]:1",
            "[::]:2",
        ),
        (
            "TCP6 ::ffff:192.0.2.1 ::1 1 2",
            "[::ffff:192.0.2.1]:1",
            "[::1]:2",
        ),
    ];
    for (fields, source, destination) in known {
        let line = format!("PROXY {fields}\r\n");
        let expected = Ok(Some((relayed(source, destination), line.len())));
        let sent = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(parse(sent.as_bytes(), V1), expected, "{line}");
        assert_eq!(parse(sent.as_bytes(), ANY), expected, "{line}");
    }
    let longest = format!(" {}", "f".repeat(91));
    for rest in ["", " ", " ffff:: whatever  \u{fc}", longest.as_str()] {
        let line = format!("PROXY UNKNOWN{rest}\r\n");
        let expected = Ok(Some((Endpoints::Unknown.into(), line.len())));
        assert_eq!(parse(line.as_bytes(), V1), expected, "{line}");
    }
}

#[test]
fn faulty_lines_are_refused_by_name() {
    let long = format!("PROXY UNKNOWN {}", "f".repeat(92));
    assert_eq!(parse(&long.as_bytes()[..105], V1), Ok(None));
    let long_end = format!("{long}\r\n");
    let faults = [
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "half a line end"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r1", "half a line end"),
        ("PROXY UNKNOWN a\nb\r\n", "half a line end"),
        (&long, "no end"),
        (&long_end, "no end"),
        ("PROXY  TCP4", "for ' TCP4'"),
        ("PROXY UDP4", "for 'UDP4'"),
        ("PROXY tcp4", "for 'tcp4'"),
        ("PROXY TCP45", "for 'TCP45'"),
        ("PROXY \r\n", "for ''"),
        ("PROXY TCP4\r\n", "for 'TCP4'"),
        ("PROXY UNKNOWNS", "for 'UNKNOWNS'"),
        ("PROXY TCP4 1.1.1.1  ", "address ''"),
        ("PROXY TCP4 01.1.1.1 ", "address '01.1.1.1'"),
        ("PROXY TCP4 1.1.1.256 ", "expected one of IPv4"),
        ("PROXY TCP4 ::", "address '::'"),
        ("PROXY TCP4 1.1.1.1\t", "address '1.1.1.1\\t'"),
        ("PROXY TCP4 1111111111111111", "address '1111111111111111'"),
        ("PROXY TCP6 1.1.1.1 ", "expected one of IPv6"),
        ("PROXY TCP6 :: fe80::1%e", "address 'fe80::1%e'"),
        ("PROXY TCP6 1:2:3:4:5:6:7 ", "address '1:2:3:4:5:6:7'"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 01", "port '01'"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 +1", "port '+1'"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 65536", "port '65536'"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2  ", "port ''"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", "port ''"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 ", "'1.1.1.1 2.2.2.2 1 2 '"),
        (
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "two addresses and two ports",
        ),
        (
            "PROXY TCP4 1.1.1.1 2.2.2.2\r\n",
            "two addresses and two ports",
        ),
    ];
    for (sent, message) in faults {
        for accepted in [V1, ANY] {
            let error = parse(sent.as_bytes(), accepted)
                .expect_err(sent)
                .to_string();
            assert!(error.contains(message), "{sent:?}: {error}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    let line = b"PROXY UNKNOWN\r\n".as_slice();
    let block = binary(0x20, 0, &[]);
    let cases: [(&[u8], AcceptedVersions, usize); 8] = [
        (b"GET / HTTP/1.1\r\n", ANY, 1),
        (b"PRI * HTTP/2.0\r\n", ANY, 3),
        (b"proxy UNKNOWN\r\n", V1, 1),
        (b"\x16\x03\x01\x02\x00\x01\x00", ANY, 1),
        (b"\r\n\r\n\0\r\nQUIT\r", ANY, 12),
        (b"PROXYUNKNOWN", V1, 6),
        (line, V2, 1),
        (&block, V1, 1),
    ];
    for (sent, accepted, wrong) in cases {
        assert_eq!(parse(&sent[..wrong - 1], accepted), Ok(None), "{sent:?}");
        for length in [wrong, sent.len()] {
            let error = parse(&sent[..length], accepted).expect_err("no header");
            assert!(matches!(error, ProxyError::NoHeader { .. }), "{error}");
        }
    }
    let error = parse(b"GET /\r\n", V2).expect_err("no header").to_string();
    let expected = "expected a PROXY protocol header of version 2, but found 'GET /\\r\\n'; let \
                    the proxy send one, or don't expect one here";
    assert_eq!(error, expected);
    let error = parse(&[b'a'; 33], ANY).expect_err("no header").to_string();
    assert!(error.contains(&format!("'{}…'", "a".repeat(32))), "{error}");
}

#[test]
fn blocks_are_read_as_they_were_meant() {
    let known = Endpoints::Known {
        source: "192.0.2.1:56324".parse().expect("an address"),
        destination: "198.51.100.7:443".parse().expect("an address"),
    };
    let unknown = |tlvs| ProxyHeader {
        endpoints: Endpoints::Unknown,
        tlvs,
    };
    let host = b"\x02\0\x03a.b".as_slice();
    let named = vec![tlv(2, b"a.b")];
    let with_host = |addresses: &[u8]| [addresses, host].concat();
    let v6 = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
    let cases = [
        (binary(0x21, 0x11, &ADDRESSES), known.into()),
        (
            binary(0x21, 0x11, &with_host(&ADDRESSES)),
            ProxyHeader {
                endpoints: known,
                tlvs: named.clone(),
            },
        ),
        (binary(0x21, 0x21, &v6), relayed("[::1]:1", "[::2]:2")),
        (binary(0x21, 0x00, host), unknown(named.clone())),
        (
            binary(0x21, 0x12, &with_host(&ADDRESSES)),
            unknown(named.clone()),
        ),
        (binary(0x21, 0x22, &with_host(&v6)), unknown(named.clone())),
        (
            binary(0x21, 0x31, &with_host(&[b'/'; 216])),
            unknown(named.clone()),
        ),
        (binary(0x21, 0x32, &with_host(&[b'/'; 216])), unknown(named)),
        // What LOCAL says about anything else is ignored.
        (binary(0x20, 0x00, &[]), Endpoints::Local.into()),
        (binary(0x20, 0x11, &ADDRESSES), Endpoints::Local.into()),
        (
            binary(0x20, 0xff, b"\x03\0\x04abcd."),
            Endpoints::Local.into(),
        ),
    ];
    for (sent, expected) in cases {
        let expected = Ok(Some((expected, sent.len())));
        let more = [&sent[..], b"hello"].concat();
        assert_eq!(parse(&more, V2), expected, "{sent:?}");
        assert_eq!(parse(&more, ANY), expected, "{sent:?}");
    }
}

#[test]
fn faulty_blocks_are_refused_by_name() {
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&ADDRESSES, tlvs].concat());
    let checksum = ProxyHeader {
        tlvs: vec![Tlv::checksum()],
        ..relayed("192.0.2.1:1", "192.0.2.2:2")
    };
    let mut altered = encode(&checksum, ProxyVersion::V2).expect("short");
    altered[16] ^= 1;
    let once = encode(&checksum, ProxyVersion::V2).expect("short");
    let right = u32::from_be_bytes(*once.last_chunk().expect("the checksum"));
    let head = |command: u8, family: u8, length: u16| {
        [v2::SIGNATURE, &[command, family], &length.to_be_bytes()].concat()
    };
    let cases = [
        ([v2::SIGNATURE, &[0x11]].concat(), "version '1'"),
        ([v2::SIGNATURE, &[0x22]].concat(), "command '2'"),
        ([v2::SIGNATURE, &[0x21, 0x41]].concat(), "protocol '0x41'"),
        ([v2::SIGNATURE, &[0x21, 0x13]].concat(), "protocol '0x13'"),
        ([v2::SIGNATURE, &[0x21, 0x01]].concat(), "protocol '0x01'"),
        (head(0x21, 0x11, 11), "'11' bytes: expected 12"),
        (head(0x21, 0x21, 35), "'35' bytes: expected 36"),
        (head(0x21, 0x31, 215), "'215' bytes: expected 216"),
        (
            head(0x21, 0x11, 4081),
            "'4097' bytes: expected at most 4096",
        ),
        (
            head(0x20, 0x00, 65535),
            "'65551' bytes: expected at most 4096",
        ),
        (with(&[4]), "TLV at byte '28'"),
        (with(&[4, 0]), "TLV at byte '28'"),
        (with(&[4, 0, 0, 4, 0, 1]), "TLV at byte '31'"),
        (with(&[4, 0xff, 0xff, 0]), "TLV at byte '28'"),
        (with(&[3, 0, 3, 0, 0, 0]), "'3' bytes: expected 4"),
        (altered, &format!("CRC32C is '{right:#010x}'")),
    ];
    for (sent, message) in cases {
        for accepted in [V2, ANY] {
            let error = parse(&sent, accepted).expect_err(message).to_string();
            assert!(error.contains(message), "{sent:?}: {error}");
        }
    }
    assert_eq!(parse(&head(0x21, 0x11, 4080), V2), Ok(None));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut header = relayed("192.0.2.1:1", "192.0.2.2:2");
    for length in [4065, 4066, 65536] {
        header.tlvs = vec![tlv(4, &vec![0; length])];
        let expected = 16 + 12 + 3 + length;
        match encode(&header, ProxyVersion::V2) {
            Ok(bytes) => assert_eq!((bytes.len(), length), (HEADER_BYTES_MAX, 4065)),
            Err(error) => assert_eq!(error, ProxyError::TooLong { found: expected }),
        }
    }
    header.tlvs = vec![Tlv::checksum(), Tlv::checksum()];
    let error = encode(&header, ProxyVersion::V2);
    assert_eq!(error, Err(ProxyError::ChecksumTwice));
}

#[test]
fn checksums_are_of_the_whole_header_and_there_is_one() {
    let header = relayed("192.0.2.1:1", "192.0.2.2:2");
    let block = encode(&header, ProxyVersion::V2).expect("short");
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&block[16..], tlvs].concat());

    let mut once = with(&[3, 0, 4, 0, 0, 0, 0]);
    let value = crc32c::crc32c([&once, &[], &[]]).to_be_bytes();
    once[31..].copy_from_slice(&value);
    let (read, _) = parse(&once, V2).expect("right").expect("whole");
    assert_eq!(read.tlvs, [tlv(3, &value)]);
    let header = ProxyHeader {
        tlvs: vec![Tlv::checksum()],
        ..header
    };
    assert_eq!(encode(&header, ProxyVersion::V2), Ok(once.clone()));
    // Without its type, at byte 28, it is no checksum.
    for place in (16..once.len()).filter(|place| *place != 28) {
        let mut altered = once.clone();
        altered[place] ^= 1;
        assert!(parse(&altered, V2).is_err(), "byte {place} is altered");
    }

    // The first of the two is right.
    let mut twice = with(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]);
    let value = crc32c::crc32c([&twice, &[], &[]]).to_be_bytes();
    twice[31..35].copy_from_slice(&value);
    assert_eq!(parse(&twice, V2), Err(ProxyError::ChecksumTwice));
}

#[test]
fn lines_are_written_as_the_specification_wants() {
    let cases = [
        (
            relayed("192.0.2.1:1", "192.0.2.2:0"),
            "TCP4 192.0.2.1 192.0.2.2 1 0",
        ),
        (
            relayed("[2001:db8::1]:1", "[::]:2"),
            "TCP6 2001:db8::1 :: 1 2",
        ),
        (
            relayed("192.0.2.1:1", "[::1]:2"),
            "TCP6 ::ffff:c000:201 ::1 1 2",
        ),
        (
            relayed("[::1]:1", "192.0.2.1:2"),
            "TCP6 ::1 ::ffff:c000:201 1 2",
        ),
        (Endpoints::Unknown.into(), "UNKNOWN"),
        (Endpoints::Local.into(), "UNKNOWN"),
    ];
    for (header, fields) in cases {
        let line = encode(&header, ProxyVersion::V1).expect("a line");
        let expected = format!("PROXY {fields}\r\n");
        assert_eq!(
            line.escape_ascii().to_string(),
            expected.escape_debug().to_string()
        );
    }
}

#[test]
fn the_seeds_of_fuzzing_are_read_or_refused() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds/proxy_protocol");
    let mut headers = 0;
    for entry in fs::read_dir(seeds).expect("a directory") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("named").to_string_lossy();
        let is_header = attack_proxy_protocol(&fs::read(&path).expect("readable"));
        // Those that fuzzing found may be either.
        if !name.starts_with("found-") {
            assert_eq!(is_header, !name.starts_with("bad-"), "{name}");
        }
        headers += usize::from(is_header);
    }
    assert!(headers > 5, "only {headers} seeds are headers");
}
