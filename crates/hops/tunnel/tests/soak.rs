//! Goal: no transport loses or leaks bytes, connections, lanes or descriptors. The memory of both
//! processes before and after is printed.
//! Method: real processes; bodies of random sizes both ways, some given up half-way, every one
//! compared; many connections at once and many one after another. These are the short forms;
//! `scripts/soak.sh` has the long ones.

mod process;

use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use process::{
    get,
    traffic::{Echoed, answer, bound, connect, echo_while, left, rest},
    tunnel::{TRANSPORTS, Tunnel},
};

fn start(transport: &str, origin: &[&str]) -> Tunnel {
    let host = ["--max-connections=10100", "--threads=4"];
    let tunnel = Tunnel::start_with(transport, &host, origin);
    assert!(
        get(&tunnel.front, "/small")
            .expect("answered")
            .ends_with("ok")
    );
    tunnel
}

#[test]
fn bodies_come_back_as_they_were_sent_and_nothing_is_left() {
    let length = Duration::from_secs(bound("HOPBENCH_SOAK_SECONDS", 1));
    let least = bound("HOPBENCH_SOAK_BODIES", 0);
    for transport in TRANSPORTS {
        for origin in ["--origin=in-process", "--origin-port=0"] {
            echo_through(transport, origin, length, least);
        }
    }
}

/// Echoes bodies for `length`, and at least `least` of them.
fn echo_through(transport: &str, origin: &str, length: Duration, least: u64) {
    let tunnel = start(transport, &[origin]);
    let round = |length: Duration, least: u64, seed: u64| {
        let echoed = Echoed::default();
        let deadline = Instant::now() + length;
        let goes_on = || Instant::now() < deadline || echoed.bodies.load(Relaxed) < least;
        thread::scope(|scope| {
            for client in 1..=8 {
                let (front, echoed) = (&tunnel.front, &echoed);
                scope.spawn(move || echo_while(front, seed + client, echoed, goes_on));
            }
        });
        (echoed, rest(&tunnel))
    };
    let (_, before) = round(length / 5, 0, 1000);
    let (echoed, after) = round(length, least, 2000);
    let (bodies, bytes) = (echoed.bodies.into_inner(), echoed.bytes.into_inner());
    eprintln!(
        "{transport} {origin}: {bodies} bodies correct, {:.2} GB each way; {}",
        bytes as f64 / 1e9,
        left(&before, &after)
    );
    assert!(bodies > 0);
    if transport == "ring" {
        assert_eq!(tunnel.counter("host", "tunnel_copied_bytes"), 0);
    }
}

#[test]
fn many_connections_at_once_and_one_after_another_leave_nothing() {
    let at_once = bound("HOPBENCH_SOAK_CONNECTIONS", 400);
    let rounds = bound("HOPBENCH_SOAK_ROUNDS", 2);
    let one_by_one = bound("HOPBENCH_SOAK_CHURN", 2000);
    for transport in TRANSPORTS {
        connect_through(transport, at_once, rounds, one_by_one);
    }
}

fn connect_through(transport: &str, at_once: u64, rounds: u64, one_by_one: u64) {
    let tunnel = start(transport, &["--origin=in-process"]);
    let request = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n";
    let all_at_once = || {
        let mut sockets: Vec<TcpStream> = (0..at_once).map(|_| connect(&tunnel.front)).collect();
        for _ in 0..3 {
            for socket in &mut sockets {
                socket.write_all(request).expect("taken");
            }
            for socket in &mut sockets {
                assert_eq!(answer(socket).expect("answered"), b"ok");
            }
        }
        assert_eq!(tunnel.counter("host", "tunnel_tunnels_open"), at_once);
    };
    let one_after_another = || {
        for _ in 0..one_by_one {
            let mut socket = connect(&tunnel.front);
            socket.write_all(request).expect("taken");
            assert_eq!(answer(&mut socket).expect("answered"), b"ok");
        }
    };
    all_at_once();
    let before = rest(&tunnel);
    let mut after_rounds = Vec::new();
    for _ in 1..rounds {
        all_at_once();
        after_rounds.push(rest(&tunnel).map(|left| left.private_kib));
    }
    one_after_another();
    let after = rest(&tunnel);
    eprintln!(
        "{transport}: {at_once} at once, {rounds} times, {one_by_one} one after another; {}; \
         private KiB after each further round: {after_rounds:?}",
        left(&before, &after)
    );
    for program in ["host", "plugin"] {
        assert_eq!(tunnel.counter(program, "tunnel_tunnels_failed"), 0);
        let opened = tunnel.counter(program, "tunnel_tunnels_opened");
        assert_eq!(opened, rounds * at_once + one_by_one + 1);
    }
}
