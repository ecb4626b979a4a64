//! Goal: system calls that are interrupted, or do a part of what they were asked to, change nothing
//! of what arrives.
//! Method: strace makes every third call of host and plugin fail with EINTR; sockets with the
//! smallest buffers there are make calls read and write by parts.

mod process;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use process::{
    command, installed, output, text,
    traffic::{Random, connect, prepare},
    tunnel::{TRANSPORTS, Tunnel},
};
use rustix::net::sockopt;

/// Calls that move bytes or wait for them.
const CALLS: &str = "recvfrom,sendto,recvmsg,sendmsg,readv,writev,splice,epoll_wait";

/// The load of each connection, both ways at the same time.
#[derive(Clone, Copy)]
struct Load {
    bytes: usize,
    /// Whether sockets have the smallest buffers. The kernel then waits for acknowledgements all
    /// the time, and few bytes take long.
    has_small_buffers: bool,
}

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..bytes)
        .map(|_| random.below(256).to_le_bytes()[0])
        .collect()
}

/// Gives a socket the smallest buffers that the kernel allows.
fn with_small_buffers(socket: &TcpStream) {
    sockopt::set_socket_recv_buffer_size(socket, 1).expect("a socket");
    sockopt::set_socket_send_buffer_size(socket, 1).expect("a socket");
}

/// Sends in random pieces and ends its half; reads in random pieces to the end.
fn exchange(socket: TcpStream, seed: u64, expected: &[u8]) {
    let sent = pattern(seed, expected.len());
    let mut writer = socket.try_clone().expect("a descriptor");
    let mut read: Vec<u8> = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut random, mut rest) = (Random(seed), &sent[..]);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.size().clamp(1, rest.len()));
                writer.write_all(piece).expect("taken");
                rest = after;
            }
            writer.shutdown(std::net::Shutdown::Write).expect("open");
        });
        let (mut random, mut socket) = (Random(seed + 1), socket);
        loop {
            let mut piece = vec![0; random.size().max(1)];
            match socket.read(&mut piece).expect("more, or the end") {
                0 => break,
                length => read.extend(&piece[..length]),
            }
        }
    });
    assert!(
        read == expected,
        "seed {seed}: {} bytes arrived changed",
        read.len()
    );
}

/// Exchanges bytes over several connections through a tunnel, other bytes on each and each way.
fn exchange_through(tunnel: &Tunnel, upstream: &TcpListener, load: Load) {
    const CONNECTIONS: u64 = 4;
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let client = connect(&tunnel.front);
            // The first byte tells the upstream which connection it is.
            (&client)
                .write_all(&[number.to_le_bytes()[0]])
                .expect("taken");
            let (server, _) = upstream.accept().expect("a connection");
            prepare(&server);
            if load.has_small_buffers {
                with_small_buffers(&client);
                with_small_buffers(&server);
            }
            let mut first = [0];
            (&server).read_exact(&mut first).expect("a byte");
            assert_eq!(u64::from(first[0]), number);
            let (up, down) = (10 + number, 20 + number);
            scope.spawn(move || exchange(client, up, &pattern(down, load.bytes)));
            scope.spawn(move || exchange(server, down, &pattern(up, load.bytes)));
        }
    });
}

#[test]
fn small_buffers_change_nothing() {
    for transport in TRANSPORTS {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound");
        let tunnel = Tunnel::start(transport, &[&format!("--upstream={address}")]);
        let load = Load {
            bytes: 60_000,
            has_small_buffers: true,
        };
        exchange_through(&tunnel, &upstream, load);
    }
}

#[test]
fn interrupted_calls_change_nothing() {
    let Some(strace) = installed("strace") else {
        return;
    };
    let tried = output(command(&strace).args(["-o", "/dev/null", "true"]));
    if !tried.status.success() {
        eprintln!(
            "SKIPPED: strace is not allowed to trace here: {}",
            text(&tried.stderr)
        );
        return;
    }
    for transport in TRANSPORTS {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound");
        let tunnel = Tunnel::start_under(transport, &[&format!("--upstream={address}")], || {
            let mut tracing = command(&strace);
            // The tracer is a grandchild, so that the child is the program itself.
            tracing.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]);
            tracing.arg(format!("trace={CALLS}"));
            tracing.arg("-e");
            tracing.arg(format!("inject={CALLS}:error=EINTR:when=5+3"));
            tracing
        });
        let load = Load {
            bytes: 3_000_000,
            has_small_buffers: false,
        };
        exchange_through(&tunnel, &upstream, load);
    }
}
