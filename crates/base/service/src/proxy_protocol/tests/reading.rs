//! Headers that arrive from a connection, or don't.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
    vec,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Interval, interval},
};

use super::*;

/// Time that a header has where it is there or is refused: a watchdog.
const WATCHDOG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_follows_a_header_stays_in_the_connection() {
    let header = relayed("192.0.2.1:56324", "198.51.100.7:443");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let sent = encode(&header, version).expect("short");
        // A pipe of one byte, as from a sender whose every byte is a packet.
        for pipe_bytes in [1, 7, 4096] {
            let (mut proxy, mut server) = tokio::io::duplex(pipe_bytes);
            let sending = async {
                proxy.write_all(&sent).await.expect("read");
                proxy.write_all(b"hello").await.expect("read");
                drop(proxy);
            };
            let receiving = async {
                let read = read(&mut server, ANY, WATCHDOG).await.expect("a header");
                let mut rest = String::new();
                server.read_to_string(&mut rest).await.expect("text");
                (read, rest)
            };
            let ((), (read, rest)) = tokio::join!(sending, receiving);
            assert_eq!((read, rest.as_str()), (header.clone(), "hello"));
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_header_is_refused_while_it_is_open() {
    let (mut client, mut server) = tokio::io::duplex(4096);
    client.write_all(b"G").await.expect("room");
    let error = read(&mut server, ANY, WATCHDOG)
        .await
        .expect_err("no header");
    assert!(
        matches!(error, ReadError::Header(ProxyError::NoHeader { .. })),
        "{error}"
    );

    for sent in ["", "PROXY TCP4 1.1.1.1"] {
        let mut stream = sent.as_bytes();
        let error = read(&mut stream, ANY, WATCHDOG)
            .await
            .expect_err("no header");
        let message = format!("the connection ended after '{sent}'");
        assert!(error.to_string().starts_with(&message), "{error}");
    }
}

/// A sender that is never silent for long, and sends one byte at a time.
struct Dripping {
    bytes: vec::IntoIter<u8>,
    pace: Interval,
}

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pace.poll_tick(cx));
        let byte = self.bytes.next().expect("not nearly all was read");
        buffer.put_slice(&[byte]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_deadline_is_for_the_whole_header() {
    let at_most = Duration::from_millis(20);
    let (mut client, mut server) = tokio::io::duplex(4096);
    for (sent, found) in [("", "''"), ("PROXY ", "'PROXY '")] {
        client.write_all(sent.as_bytes()).await.expect("room");
        let error = read(&mut server, ANY, at_most).await.expect_err("late");
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("after 20ms there was only {found}")),
            "{error}"
        );
    }
    // Half a minute of bytes.
    let bytes = binary(0x20, 0, &[0; 3000]);
    let mut stream = Dripping {
        bytes: bytes.into_iter(),
        pace: interval(Duration::from_millis(10)),
    };
    let error = read(&mut stream, ANY, at_most).await.expect_err("late");
    assert!(matches!(error, ReadError::Late { .. }), "{error}");
}
