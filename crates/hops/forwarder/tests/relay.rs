//! Goal: however bytes are carried, a TCP route loses none, passes on how each side ends, and keeps
//! nothing for connections that are gone. Method: the real program between sockets of the test; one
//! list of tests, every test for `copy`, `splice` and `auto`.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;
mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use processes::{WATCHDOG, until, until_still};
use sha2::{Digest, Sha256};
use support::{Forwarder, SPARE_MAX, echo, flood, numbers, read_all, reset, target};

/// Instantiates every test for every way to carry bytes.
macro_rules! relay {
    ($($test:ident)+) => {
        relay!(@carry copy: $($test)+);
        relay!(@carry splice: $($test)+);
        relay!(@carry auto: $($test)+);
    };
    (@carry $carry:ident: $($test:ident)+) => {
        mod $carry {
            $(
                #[test]
                fn $test() {
                    super::$test(stringify!($carry));
                }
            )+
        }
    };
}

relay! {
    the_client_may_end_first
    the_target_may_end_first
    a_reset_by_the_target_is_passed_on
    a_reset_by_the_client_is_passed_on
    many_bytes_both_ways_at_once_arrive
    a_slow_reader_holds_back_the_writer
    a_client_that_vanishes_resets_the_target
    half_closed_connections_are_reaped
    idle_connections_are_reaped
    a_thousand_connections_at_once_are_served
    idle_connections_hold_no_pipe
    no_descriptor_is_left_behind
}

/// A small buffer, so that `auto` soon begins to splice.
fn forwarder(target: SocketAddr, carry: &str, more: &str) -> Forwarder {
    let config = format!("relay = '{carry}'\nbuffer_size_kb = 4\nmax_connections = 2000\n{more}");
    support::forwarder(target, &config)
}

fn the_client_may_end_first(carry: &str) {
    let target = target(|client| {
        // It answers only when the client has ended: the other direction must stay open.
        let bytes = read_all(&client);
        (&client).write_all(&bytes).expect("written");
    });
    let forwarder = forwarder(target, carry, "");
    for length in [0, 1, 300_000, 3_000_003] {
        let client = forwarder.connect();
        let sent = numbers(length);
        (&client).write_all(&sent).expect("written");
        client.shutdown(Shutdown::Write).expect("open");
        assert!(read_all(&client) == sent, "{length} bytes");
    }
    let counted = forwarder.counted();
    assert_eq!(counted("connections_failed"), 0);
    assert_eq!(counted("bytes_up"), counted("bytes_down"));
}

fn the_target_may_end_first(carry: &str) {
    let (report, reported) = mpsc::channel();
    let target = target(move |client| {
        (&client).write_all(&numbers(300_000)).expect("written");
        client.shutdown(Shutdown::Write).expect("open");
        report.send(read_all(&client)).expect("the test waits");
    });
    let forwarder = forwarder(target, carry, "");
    let client = forwarder.connect();
    assert_eq!(read_all(&client), numbers(300_000));
    let rest = numbers(3_000_003);
    (&client).write_all(&rest).expect("the way there is open");
    client.shutdown(Shutdown::Write).expect("open");
    assert!(reported.recv_timeout(WATCHDOG).expect("it ended") == rest);
}

fn a_reset_by_the_target_is_passed_on(carry: &str) {
    let target = target(|client| {
        (&client).write_all(b"partial").expect("written");
        (&client).read_exact(&mut [0]).expect("asked");
        reset(client);
    });
    let forwarder = forwarder(target, carry, "");
    let mut client = forwarder.connect();
    client.read_exact(&mut [0; 7]).expect("the first part");
    client.write_all(b"?").expect("written");
    let ended = client.read(&mut [0; 100]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    drop(client);
    assert_eq!(forwarder.counted()("connections_failed"), 1);
}

fn a_reset_by_the_client_is_passed_on(carry: &str) {
    let (report, reported) = mpsc::channel();
    let target = target(move |mut client| {
        client.read_exact(&mut [0; 7]).expect("the first part");
        client.write_all(b"!").expect("written");
        let ended = client.read(&mut [0; 100]).map_err(|error| error.kind());
        report.send(ended).expect("the test waits");
    });
    let forwarder = forwarder(target, carry, "");
    let mut client = forwarder.connect();
    client.write_all(b"partial").expect("written");
    client.read_exact(&mut [0]).expect("it has all");
    reset(client);
    let ended = reported.recv_timeout(WATCHDOG).expect("it ended");
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

const PIECE_BYTES: usize = 1 << 20;

/// Different pieces, one after the other.
fn pieces(count: u32, mut each: impl FnMut(&[u8])) {
    let mut piece = numbers(PIECE_BYTES);
    for index in 0..count {
        piece[..4].copy_from_slice(&index.to_be_bytes());
        each(&piece);
    }
}

/// Sends pieces, and ends.
fn send_pieces(mut stream: &TcpStream, count: u32) {
    pieces(count, |piece| stream.write_all(piece).expect("written"));
    stream.shutdown(Shutdown::Write).expect("open");
}

fn digest(count: u32) -> Vec<u8> {
    let mut digest = Sha256::new();
    pieces(count, |piece| digest.update(piece));
    digest.finalize().to_vec()
}

/// Reads to the end. Returns the digest.
fn receive(mut stream: &TcpStream) -> Vec<u8> {
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match stream.read(&mut piece).expect("read") {
            0 => return digest.finalize().to_vec(),
            read => digest.update(&piece[..read]),
        }
    }
}

/// Sends pieces and receives at once. Returns the digest of what came.
fn exchange(stream: &TcpStream, count: u32) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(|| send_pieces(stream, count));
        receive(stream)
    })
}

fn many_bytes_both_ways_at_once_arrive(carry: &str) {
    const PIECES: u32 = 64;
    let (report, reported) = mpsc::channel();
    let target = target(move |client| {
        let received = exchange(&client, PIECES);
        report.send(received).expect("the test waits");
    });
    let forwarder = forwarder(target, carry, "");
    let sent = digest(PIECES);
    assert!(exchange(&forwarder.connect(), PIECES) == sent);
    assert!(reported.recv_timeout(WATCHDOG).expect("it ended") == sent);

    let counted = forwarder.counted();
    let bytes = u64::from(PIECES) * (PIECE_BYTES as u64);
    assert_eq!([counted("bytes_up"), counted("bytes_down")], [bytes; 2]);
    let spliced = counted("bytes_spliced");
    match carry {
        "copy" => assert_eq!(spliced, 0),
        "splice" => assert_eq!(spliced, 2 * bytes),
        _ => assert!((1..2 * bytes).contains(&spliced), "{spliced}"),
    }
    assert_eq!(counted("pipes_missing"), 0);
}

/// Returns the largest buffer that the kernel gives a TCP socket.
fn buffer_max(direction: &str) -> usize {
    let file = format!("/proc/sys/net/ipv4/tcp_{direction}mem");
    let sizes = std::fs::read_to_string(file).expect("Linux");
    let largest = sizes.split_whitespace().last().expect("three sizes");
    largest.parse().expect("a size")
}

fn a_slow_reader_holds_back_the_writer(carry: &str) {
    // Two connections, and what the forwarder may hold.
    let bound = 2 * (buffer_max("r") + buffer_max("w")) + PIECE_BYTES;
    let count = u32::try_from(bound / PIECE_BYTES + 16).expect("small");
    let written = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&written);
    let target = target(move |mut client| {
        if client.read(&mut [0]).expect("asked") > 0 {
            pieces(count, |piece| {
                client.write_all(piece).expect("written");
                counting.fetch_add(piece.len(), Relaxed);
            });
        }
    });
    let forwarder = forwarder(target, carry, "");
    let client = forwarder.connect();
    (&client).write_all(b"?").expect("written");
    let mut before = 0;
    until_still("the writer has to wait", 40, || {
        let now = written.load(Relaxed);
        let has_moved = now != before || now == 0;
        before = now;
        has_moved
    });
    assert!(
        before < bound,
        "{before} bytes for a client that reads none"
    );
    // Others are served meanwhile.
    for _ in 0..4 {
        let other = forwarder.connect();
        other.shutdown(Shutdown::Write).expect("open");
        assert!(read_all(&other).is_empty());
    }
    assert!(receive(&client) == digest(count));
}

fn a_client_that_vanishes_resets_the_target(carry: &str) {
    let (report, reported) = mpsc::channel();
    let target = target(move |client| {
        report.send(flood(client).kind()).expect("the test waits");
    });
    let forwarder = forwarder(target, carry, "");
    let mut client = forwarder.connect();
    client.read_exact(&mut vec![0; 1 << 20]).expect("served");
    reset(client);
    let ended = reported.recv_timeout(WATCHDOG).expect("it ended");
    assert!(
        matches!(ended, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{ended}"
    );
    assert_eq!(forwarder.counted()("connections_failed"), 1);
}

/// Keeps each client, and hands it to the test.
fn keeping() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (sender, receiver) = mpsc::channel();
    let address = target(move |client| {
        sender.send(client).expect("the test waits");
    });
    (address, receiver)
}

fn assert_reset(mut client: &TcpStream) {
    let ended = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

fn half_closed_connections_are_reaped(carry: &str) {
    let (target, kept) = keeping();
    let forwarder = forwarder(target, carry, "half_closed_seconds = 1\n");
    let open = forwarder.connect();
    let open_target = kept.recv_timeout(WATCHDOG).expect("connected");
    for client_is_first in [true, false] {
        let client = forwarder.connect();
        let target = kept.recv_timeout(WATCHDOG).expect("connected");
        let (first, other) = match client_is_first {
            true => (&client, &target),
            false => (&target, &client),
        };
        first.shutdown(Shutdown::Write).expect("open");
        assert!(read_all(other).is_empty());
        assert_reset(first);
        until("the other one is reset, too", || {
            other.take_error().expect("a socket").is_some()
        });
    }
    // It was older, but nobody has closed anything.
    (&open).write_all(b"a").expect("written");
    (&open_target).read_exact(&mut [0]).expect("received");
    drop((open, open_target));
    let counted = forwarder.counted();
    assert_eq!(counted("half_closed_reaped"), 2);
    assert_eq!(counted("idle_reaped"), 0);
}

fn idle_connections_are_reaped(carry: &str) {
    let (target, kept) = keeping();
    let forwarder = forwarder(target, carry, "idle_seconds = 1\n");
    let client = forwarder.connect();
    let target = kept.recv_timeout(WATCHDOG).expect("connected");
    assert_reset(&client);
    assert_reset(&target);
    let counted = forwarder.counted();
    assert_eq!(counted("idle_reaped"), 1);
    assert_eq!(counted("half_closed_reaped"), 0);
}

fn a_thousand_connections_at_once_are_served(carry: &str) {
    service::process::raise_open_files_limit();
    let forwarder = forwarder(target(echo), carry, "");
    let clients: Vec<TcpStream> = (0..1_000).map(|_| forwarder.connect()).collect();
    for round in 0..3_u64 {
        for (index, mut client) in clients.iter().enumerate() {
            let number = index as u64 * 10 + round;
            client.write_all(&number.to_be_bytes()).expect("written");
        }
        for (index, mut client) in clients.iter().enumerate() {
            let mut number = [0; 8];
            client.read_exact(&mut number).expect("echoed");
            assert_eq!(u64::from_be_bytes(number), index as u64 * 10 + round);
        }
    }
    drop(clients);
    let counted = forwarder.counted();
    assert_eq!(counted("clients_accepted"), 1_000);
    assert_eq!(counted("bytes_up"), 24_000);
    assert_eq!(counted("bytes_down"), 24_000);
}

fn idle_connections_hold_no_pipe(carry: &str) {
    const CLIENTS: usize = 200;
    let forwarder = forwarder(target(echo), carry, "");
    let before = forwarder.running.descriptors();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| forwarder.connect()).collect();
    let sent = numbers(300_000);
    for mut client in &clients {
        let mut received = vec![0; sent.len()];
        thread::scope(|scope| {
            scope.spawn(|| (&mut &*client).write_all(&sent).expect("written"));
            client.read_exact(&mut received).expect("echoed");
        });
        assert!(received == sent);
    }
    let most = before + 2 * CLIENTS + SPARE_MAX;
    let now = forwarder.running.descriptors();
    assert!(now <= most, "{now} descriptors, expected at most {most}");
}

fn no_descriptor_is_left_behind(carry: &str) {
    let target = target(|client| drop(flood(client)));
    let forwarder = forwarder(target, carry, "");
    let before = forwarder.running.descriptors();
    for round in 0..3 {
        let clients: Vec<TcpStream> = (0..100).map(|_| forwarder.connect()).collect();
        // Each has been sent so much that bytes wait for it in the forwarder, too.
        for mut client in &clients {
            client.read_exact(&mut [0; 1 << 20]).expect("served");
        }
        for (index, client) in clients.into_iter().enumerate() {
            match index % 2 {
                0 => reset(client),
                _ => drop(client),
            }
        }
        let most = before + if carry == "copy" { 0 } else { SPARE_MAX };
        until("all descriptors of gone connections are closed", || {
            forwarder.running.descriptors() <= most
        });
        assert!(forwarder.running.descriptors() >= before, "round {round}");
    }
}
