//! Goal: HAProxy, which defines the PROXY protocol, understands our headers, and we its own.
//! Method: a real HAProxy on loopback, before a listener of ours and behind a client of ours.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;

use std::{
    fs,
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
};

use processes::{Running, WATCHDOG, command, installed};
use rustix::io::FdFlags;
use service::proxy_protocol::{
    self, AcceptedVersions, Endpoints, ProxyHeader, ProxyVersion, ReadError, Tlv,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A HAProxy with one front end.
struct Haproxy {
    _running: Running,
    _directory: TempDir,
    front: SocketAddr,
}

impl Haproxy {
    /// Starts it with further lines of configuration behind those of the front end's `bind`.
    fn start(program: &PathBuf, bind_options: &str, lines: &str) -> Self {
        // It inherits a listener, whose backlog takes clients before it has started.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let front = listener.local_addr().expect("bound");
        rustix::io::fcntl_setfd(&listener, FdFlags::empty()).expect("a descriptor");
        let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 50\ndefaults\n  timeout connect 60s\n  timeout client 60s\n  \
             timeout server 60s\nfrontend front\n  bind fd@{number} {bind_options}\n{lines}"
        );
        fs::write(&file, text).expect("writable");
        let running = Running::start(command(program).args(["-db", "-f"]).arg(&file));
        Self {
            _running: running,
            _directory: directory,
            front,
        }
    }
}

/// Runs a test on a runtime, under a watchdog.
fn watched<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let watched = async { tokio::time::timeout(WATCHDOG, test).await };
    runtime.block_on(watched).expect("in time")
}

#[test]
fn the_headers_of_haproxy_are_read() {
    let Some(program) = installed("haproxy") else {
        return;
    };
    let cases = [
        ("send-proxy", AcceptedVersions::V1, vec![]),
        ("send-proxy", AcceptedVersions::Any, vec![]),
        ("send-proxy-v2", AcceptedVersions::V2, vec![]),
        (
            "send-proxy-v2 proxy-v2-options crc32c,unique-id",
            AcceptedVersions::Any,
            vec![0x05, Tlv::CRC32C],
        ),
    ];
    for (sends, accepted, kinds) in cases {
        watched(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("a free port");
            let server = listener.local_addr().expect("bound");
            let lines = format!(
                "  mode tcp\n  unique-id-format %ci:%cp\n  default_backend back\n\
                 backend back\n  mode tcp\n  server one {server} {sends}\n"
            );
            let haproxy = Haproxy::start(&program, "", &lines);
            let client = tokio::net::TcpStream::connect(haproxy.front).await;
            let mut client = client.expect("it listens");
            client.write_all(b"hello").await.expect("open");
            client.shutdown().await.expect("open");

            let (mut stream, _) = listener.accept().await.expect("it connects");
            let header = proxy_protocol::read(&mut stream, accepted, WATCHDOG).await;
            let header = header.unwrap_or_else(|error| panic!("{sends}: {error}"));
            assert_eq!(header.source(), client.local_addr().ok(), "{sends}");
            assert_eq!(header.destination(), Some(haproxy.front), "{sends}");
            let mut found: Vec<u8> = header.tlvs.iter().map(|tlv| tlv.kind).collect();
            found.sort_unstable_by_key(|kind| kinds.iter().position(|it| it == kind));
            assert_eq!(found, kinds, "{sends}");
            // What follows the header is still in the connection.
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.expect("text");
            assert_eq!(rest, "hello", "{sends}");
        });
    }
}

#[test]
fn the_health_checks_of_haproxy_are_local() {
    let Some(program) = installed("haproxy") else {
        return;
    };
    watched(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let server = listener.local_addr().expect("bound");
        let lines = format!(
            "  mode tcp\n  default_backend back\nbackend back\n  mode tcp\n  option httpchk\n  \
             server one {server} send-proxy-v2 check inter 100ms\n"
        );
        let _haproxy = Haproxy::start(&program, "", &lines);
        let (mut stream, _) = listener.accept().await.expect("it connects");
        let header = proxy_protocol::read(&mut stream, AcceptedVersions::Any, WATCHDOG).await;
        assert_eq!(header.expect("a header").endpoints, Endpoints::Local);
        let mut rest = [0; 8];
        stream.read_exact(&mut rest).await.expect("a request");
        assert_eq!(&rest, b"OPTIONS ");
    });
}

#[test]
fn a_haproxy_that_sends_no_header_is_refused() {
    let Some(program) = installed("haproxy") else {
        return;
    };
    watched(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let server = listener.local_addr().expect("bound");
        let lines = format!(
            "  mode tcp\n  default_backend back\nbackend back\n  mode tcp\n  server one {server}\n"
        );
        let haproxy = Haproxy::start(&program, "", &lines);
        let client = tokio::net::TcpStream::connect(haproxy.front).await;
        let mut client = client.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("open");
        let (mut stream, _) = listener.accept().await.expect("it connects");
        let header = proxy_protocol::read(&mut stream, AcceptedVersions::Any, WATCHDOG).await;
        let error = header.expect_err("no header");
        assert!(matches!(error, ReadError::Header(_)), "{error}");
    });
}

#[test]
fn haproxy_reads_our_headers() {
    let Some(program) = installed("haproxy") else {
        return;
    };
    let lines = "  mode http\n  http-request return status 200 content-type text/plain \
                 lf-string \"from [%[src]]:%[src_port] to [%[dst]]:%[dst_port]\"\n";
    let haproxy = Haproxy::start(&program, "accept-proxy", lines);
    let with = |source: &str, destination: &str, tlvs: &[Tlv]| {
        let address = |text: &str| text.parse().expect(text);
        let header = ProxyHeader::relayed(address(source), address(destination));
        let tlvs = tlvs.to_vec();
        ProxyHeader { tlvs, ..header }
    };
    let checked = [Tlv::checksum()];
    let known = [
        (
            with("192.0.2.1:1", "192.0.2.2:2", &checked),
            "from [192.0.2.1]:1 to [192.0.2.2]:2",
        ),
        (
            with("[2001:db8::1]:1", "[::1]:65535", &checked),
            "from [2001:db8::1]:1 to [::1]:65535",
        ),
        (
            with("192.0.2.1:1", "[::1]:2", &checked),
            "from [::ffff:192.0.2.1]:1 to [::1]:2",
        ),
        (
            with("[::1]:1", "192.0.2.2:2", &[]),
            "from [::1]:1 to [::ffff:192.0.2.2]:2",
        ),
    ];
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for (header, expected) in &known {
            let (answer, _) = ask(haproxy.front, header, version);
            assert!(answer.ends_with(expected), "{header:?}: {answer}");
        }
        // Without addresses, the connection's own count.
        for endpoints in [Endpoints::Unknown, Endpoints::Local] {
            let (answer, us) = ask(haproxy.front, &endpoints.into(), version);
            let (ip, port) = (us.ip(), us.port());
            let expected = format!("from [{ip}]:{port} to ");
            assert!(
                answer.contains(&expected),
                "{version:?} {endpoints:?}: {answer}"
            );
        }
    }
}

#[test]
fn haproxy_checks_our_checksum() {
    let Some(program) = installed("haproxy") else {
        return;
    };
    let lines = "  mode http\n  http-request return status 200\n";
    let haproxy = Haproxy::start(&program, "accept-proxy", lines);
    let address = "192.0.2.1:1".parse().expect("an address");
    let header = ProxyHeader {
        tlvs: vec![Tlv::checksum()],
        ..ProxyHeader::relayed(address, address)
    };
    let right = proxy_protocol::encode(&header, ProxyVersion::V2).expect("short");
    let mut wrong = right.clone();
    wrong[16] ^= 1;
    for (header, is_accepted) in [(right, true), (wrong, false)] {
        let mut stream = TcpStream::connect(haproxy.front).expect("it listens");
        let (answer, _) = exchange(&mut stream, &header);
        assert_eq!(answer.starts_with("HTTP/1.1 200"), is_accepted, "{answer}");
    }
}

/// Sends a request behind a header. Returns the answer, and the address that it was sent from.
fn ask(front: SocketAddr, header: &ProxyHeader, version: ProxyVersion) -> (String, SocketAddr) {
    let header = proxy_protocol::encode(header, version).expect("short");
    let mut stream = TcpStream::connect(front).expect("it listens");
    exchange(&mut stream, &header)
}

fn exchange(stream: &mut TcpStream, header: &[u8]) -> (String, SocketAddr) {
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let us = stream.local_addr().expect("connected");
    stream.set_read_timeout(Some(WATCHDOG)).expect("not zero");
    stream.write_all(&[header, request].concat()).expect("open");
    let mut answer = Vec::new();
    // An error means that it was refused with a reset.
    let _ = stream.read_to_end(&mut answer);
    (String::from_utf8_lossy(&answer).trim_end().to_owned(), us)
}
