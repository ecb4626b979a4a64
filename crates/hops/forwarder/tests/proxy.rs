//! Goal: a target learns who the client is, and nobody can claim to be another. Method: the real
//! program between sockets of the test. Headers as such are tested in `service`.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;
mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

use processes::WATCHDOG;
use support::Forwarder;

/// A target that reports all that each connection brings, and answers with one byte.
fn target() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, brought) = channel();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).ok();
            client.write_all(b"!").ok();
            if sender
                .send(String::from_utf8_lossy(&bytes).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (address, brought)
}

/// A forwarder whose only route has these keys.
fn with_route(target: SocketAddr, keys: &str) -> Forwarder {
    let port = target.port();
    Forwarder::start(&format!(
        "listen_addr = '127.0.0.1'\n[[routes]]\nname = 'own'\nenabled = true\nlisten_port = 0\n\
         target_port = {port}\n{keys}\n"
    ))
}

/// Sends bytes and returns what comes back; an error is a reset.
fn send(forwarder: &Forwarder, bytes: &str) -> std::io::Result<Vec<u8>> {
    let mut client = forwarder.connect();
    client.set_read_timeout(Some(WATCHDOG)).expect("set");
    client.write_all(bytes.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    Ok(answer)
}

const HEADER: &str = "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";

#[test]
fn a_target_is_told_who_the_client_is() {
    let (address, brought) = target();
    let forwarder = with_route(address, "send_proxy = 'v1'");
    let mut client = forwarder.connect();
    let own = client.local_addr().expect("connected");
    client.write_all(b"hello").expect("sent");
    client.shutdown(Shutdown::Write).expect("open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "!");
    let brought = brought.recv_timeout(WATCHDOG).expect("a connection");
    let listening = forwarder.address.port();
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {listening}\r\nhello",
        own.port()
    );
    assert_eq!(brought, expected);
}

#[test]
fn a_header_is_taken_from_the_client_and_passed_on_if_asked() {
    let (address, brought) = target();
    for (keys, expected) in [
        ("accept_proxy = true", "hello".to_owned()),
        (
            "accept_proxy = true\nsend_proxy = 'v1'",
            format!("{HEADER}hello"),
        ),
        // Without the key, it is data like any other.
        ("", format!("{HEADER}hello")),
    ] {
        let forwarder = with_route(address, keys);
        let answer = send(&forwarder, &format!("{HEADER}hello")).expect("an answer");
        assert_eq!(answer, b"!", "{keys}");
        let brought = brought.recv_timeout(WATCHDOG).expect("a connection");
        assert_eq!(brought, expected, "{keys}");
    }
}

#[test]
fn whoever_sends_no_header_is_refused() {
    let (address, brought) = target();
    for mode in ["tcp", "http"] {
        let forwarder = with_route(address, &format!("accept_proxy = true\nmode = '{mode}'"));
        for bytes in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PROXY TCP4 1.2.3.4\r\n",
            "PROX",
        ] {
            // A reset, perhaps before all is sent.
            let answer = send(&forwarder, bytes);
            assert!(answer.is_err(), "{mode} {bytes:?}: {answer:?}");
        }
        assert_eq!(forwarder.counted()("proxy_headers_refused"), 3, "{mode}");
    }
    assert!(brought.try_recv().is_err(), "the target saw nothing");
}

#[test]
fn the_client_of_a_header_is_the_client_of_http() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let forwarder = with_route(address, "accept_proxy = true\nmode = 'http'");
    let mut client: TcpStream = forwarder.connect();
    let request = format!("{HEADER}GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");
    client.write_all(request.as_bytes()).expect("sent");
    let (mut upstream, _) = listener.accept().expect("a connection");
    upstream.set_read_timeout(Some(WATCHDOG)).expect("set");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).expect("a head");
        head.push(char::from(byte[0]));
    }
    assert!(head.contains("x-forwarded-for: 192.0.2.1\r\n"), "{head}");
    assert!(!head.contains("9.9.9.9"), "{head}");
}
