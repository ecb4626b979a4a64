//! Helpers for tests of byte streams: bytes, servers, and a look at what waits in a socket.
//!
//! Tests of several crates include this file as a module, as they do `processes.rs`.

// Each test file uses only part of this module.
#![allow(dead_code)]

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::net::SendFlags;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Starts a server that answers every connection with `serve`.
pub(crate) async fn upstream<F, R>(serve: F) -> String
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address
}

/// Sends back what it gets, until the client half-closes.
pub(crate) async fn echo(mut socket: TcpStream) {
    let (mut read, mut write) = socket.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        write.shutdown().await.ok();
    }
}

/// Sends without end.
pub(crate) async fn flood(mut socket: TcpStream) {
    let piece = noise(3, 64 * 1024);
    while socket.write_all(&piece).await.is_ok() {}
}

/// Makes a socket close with a reset, like that of a process that is killed with data unread.
pub(crate) fn reset(socket: &TcpStream) {
    socket.set_zero_linger().expect("a TCP socket");
}

/// Runs a test, and ends it with a message if it hangs. The time-out is no assertion about speed:
/// it is far longer than any test takes on any machine.
pub(crate) fn watched(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test)
            .await
            .expect("the test hangs");
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Returns bytes that look random and are the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::from_fn(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        Some(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes())
    });
    words
        .flatten()
        .take(length.try_into().expect("fits"))
        .collect()
}

pub(crate) async fn assert_receives(socket: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).await.expect("received");
    assert!(received == expected, "the bytes received differ");
}

/// Sends a byte, then an urgent byte, then another byte.
pub(crate) fn send_around_urgent(socket: BorrowedFd<'_>) {
    for (byte, flags) in [
        (b"a", SendFlags::empty()),
        (b"!", SendFlags::OOB),
        (b"b", SendFlags::empty()),
    ] {
        rustix::net::send(socket, byte, flags).expect("room for a byte");
    }
}

/// Bytes of one write. A relay that has room reads them at once, and they fit any socket's buffer.
const PIECE_BYTES: u64 = 16 * 1024;

/// Sends piece by piece until the relay reads no more, and the rest waits in its socket. `unread`
/// returns how many of the bytes sent so far the relay has not read. Returns all that was sent.
pub(crate) async fn fill<S: AsyncWrite + Unpin>(
    socket: &mut S,
    unread: impl Fn(&S, u64) -> u64,
) -> Vec<u8> {
    let mut sent = Vec::new();
    loop {
        let piece = noise(sent.len() as u64, PIECE_BYTES);
        socket.write_all(&piece).await.expect("written");
        sent.extend(piece);
        let (mut before, mut same) = (unread(socket, sent.len() as u64), 0);
        while before > 0 {
            if same == 10 {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = unread(socket, sent.len() as u64);
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
    }
}

/// Returns how many bytes wait in the socket of the peer, which is on this machine.
pub(crate) fn unread_by_peer(socket: &TcpStream) -> u64 {
    let (own, peer) = ports(socket);
    queues(peer, own).map_or(0, |(_, unread)| unread)
}

/// Waits until the peer, which is on this machine, has read everything.
pub(crate) async fn until_read(socket: &TcpStream) {
    let (own, peer) = ports(socket);
    let has_all = || {
        queues(own, peer).is_none_or(|(unsent, _)| unsent == 0)
            && queues(peer, own).is_none_or(|(_, unread)| unread == 0)
    };
    while !has_all() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn ports(socket: &TcpStream) -> (u16, u16) {
    let own = socket.local_addr().expect("bound").port();
    (own, socket.peer_addr().expect("connected").port())
}

/// Returns how many bytes wait in a socket to be acknowledged, and to be read.
fn queues(local_port: u16, remote_port: u16) -> Option<(u64, u64)> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let ends = [format!(":{local_port:04X}"), format!(":{remote_port:04X}")];
    sockets.lines().find_map(|line| {
        // A number, both addresses, a state, both queues.
        let mut fields = line.split_whitespace().skip(1);
        let addresses = [fields.next()?, fields.next()?];
        let is_it = addresses.iter().zip(&ends).all(|(a, end)| a.ends_with(end));
        let (unsent, unread) = fields.nth(1).filter(|_| is_it)?.split_once(':')?;
        let queue = |digits| u64::from_str_radix(digits, 16).ok();
        Some((queue(unsent)?, queue(unread)?))
    })
}
