//! Goal: too many clients, and clients that read or write slowly or never, cost the others little
//! and leave nothing behind.
//! Method: real processes, every transport; what the others get and what memory it takes is
//! printed. These are the short forms; `scripts/soak.sh` has the long ones.

mod process;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use process::{
    traffic::{Left, answer, bound, connect, left, rest},
    tunnel::{LOG, TRANSPORTS, Tunnel},
    until, until_still,
};

const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n";

/// Length of an answer that exceeds all buffers on the way.
const LONG_BYTES: usize = 10_000_000;

fn long_request() -> String {
    format!("GET /bytes/{LONG_BYTES} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn start(transport: &str, connections_max: u64) -> Tunnel {
    let most = format!("--max-connections={connections_max}");
    let tunnel = Tunnel::start_with(transport, &[&most, "--threads=2"], &["--origin=in-process"]);
    // After this, everything that a session keeps open is there.
    let mut first = connect(&tunnel.front);
    first.write_all(REQUEST).expect("taken");
    assert_eq!(answer(&mut first).expect("answered"), b"ok");
    tunnel
}

/// All requests come at once, each on a connection of its own.
#[test]
fn a_storm_of_connections_is_served_in_turn() {
    const THREADS: u64 = 8;
    let storm = bound("HOPBENCH_STORM", 400);
    for transport in TRANSPORTS {
        // Far fewer connections at a time than come.
        let tunnel = start(transport, 50);
        let started = Instant::now();
        let before = rest(&tunnel);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let (opened, sockets) = mpsc::channel::<TcpStream>();
                let front = &tunnel.front;
                scope.spawn(move || {
                    for _ in 0..storm.div_ceil(THREADS) {
                        let mut socket = connect(front);
                        let request =
                            b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                        socket.write_all(request).expect("taken");
                        opened.send(socket).expect("somebody reads");
                    }
                });
                // Connections beyond the listen backlog are opened only as others are answered. A
                // place is free again once its client has closed, too.
                scope.spawn(move || {
                    for mut socket in sockets {
                        assert_eq!(answer(&mut socket).expect("answered"), b"ok");
                    }
                });
            }
        });
        let elapsed = started.elapsed();
        let stalls = tunnel.counter("host", "tunnel_accept_stalls");
        let after = rest(&tunnel);
        eprintln!(
            "{transport}: {storm} connections at once, 50 at a time, all answered in \
             {:.1} s, {stalls} waits for a free place; {}",
            elapsed.as_secs_f64(),
            left(&before, &after)
        );
        assert_eq!(tunnel.counter("host", "tunnel_tunnels_failed"), 0);
    }
}

/// Returns how many requests per second some clients get answered.
fn pace(front: &str, time: Duration) -> f64 {
    let (count, deadline) = (AtomicU64::new(0), Instant::now() + time);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut socket = connect(front);
                while Instant::now() < deadline {
                    socket.write_all(REQUEST).expect("taken");
                    assert_eq!(answer(&mut socket).expect("answered"), b"ok");
                    count.fetch_add(1, Relaxed);
                }
            });
        }
    });
    count.into_inner() as f64 / time.as_secs_f64()
}

/// Reads a byte per second from each socket until told to stop.
fn read_slowly(sockets: &mut [TcpStream], stop: &mpsc::Receiver<()>) {
    while stop.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        for socket in &mut *sockets {
            match socket.read(&mut [0]) {
                Ok(read) => assert_eq!(read, 1, "it is not over"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}

/// Waits until clients are given no more: all memory on the way is full.
fn until_all_is_full(transport: &str, tunnel: &Tunnel) {
    let mut before = 0;
    // On handoff, the plugin has the clients' sockets.
    let (program, counter) = match transport {
        "handoff" => ("plugin", "tunnel_bytes_in"),
        _ => ("host", "tunnel_bytes_out"),
    };
    until_still("nothing moves", 20, || {
        let now = tunnel.counter(program, counter);
        std::mem::replace(&mut before, now) != now
    });
}

#[test]
fn slow_readers_cost_others_little() {
    let readers = bound("HOPBENCH_SLOW_READERS", 30);
    let rounds = bound("HOPBENCH_OVERLOAD_ROUNDS", 1);
    let time = Duration::from_millis(bound("HOPBENCH_OVERLOAD_MS", 100));
    for transport in TRANSPORTS {
        let tunnel = start(transport, readers + 100);
        // This allocates what is allocated only once.
        pace(&tunnel.front, time);
        let before = rest(&tunnel);
        let mut shares = Vec::new();
        let mut with_readers = before;
        for _ in 0..rounds {
            let alone = pace(&tunnel.front, time);
            let mut sockets: Vec<TcpStream> =
                (0..readers).map(|_| connect(&tunnel.front)).collect();
            for socket in &mut sockets {
                socket.write_all(long_request().as_bytes()).expect("taken");
                socket.read_exact(&mut [0; 100]).expect("it begins");
                socket.set_nonblocking(true).expect("a socket");
            }
            until_all_is_full(transport, &tunnel);
            let (stop, stopped) = mpsc::channel();
            let beside = thread::scope(|scope| {
                let sockets = &mut sockets;
                scope.spawn(move || read_slowly(sockets, &stopped));
                let beside = pace(&tunnel.front, time);
                with_readers = [&tunnel.host, &tunnel.plugin].map(Left::of);
                drop(stop);
                beside
            });
            shares.push(beside / alone);
            drop(sockets);
            let _ = rest(&tunnel);
        }
        let after = rest(&tunnel);
        shares.sort_by(f64::total_cmp);
        let [of_host, of_plugin] = [0, 1].map(|at| {
            let more = with_readers[at]
                .private_kib
                .saturating_sub(before[at].private_kib);
            more / readers
        });
        eprintln!(
            "{transport}: beside {readers} slow readers, others get {:.0} % (median of {rounds}; \
             {:.0} to {:.0}) of what they get alone; {of_host} and {of_plugin} KiB for each \
             reader in host and plugin; {}",
            shares[shares.len() / 2] * 100.0,
            shares[0] * 100.0,
            shares[shares.len() - 1] * 100.0,
            left(&before, &after)
        );
        // If others queued up behind the readers, they would wait for bytes that go once a second.
        let median = shares[shares.len() / 2];
        assert!(median > PACE_SHARE_MIN, "{transport}: {median}");
        for (role, kib) in [("host", of_host), ("plugin", of_plugin)] {
            assert!(kib < READER_KIB_MAX, "{transport}: {kib} KiB in the {role}");
        }
    }
}

/// Least share that others keep of the pace that they have alone, on any machine at any moment.
/// docs/RELIABILITY.md has the share that they keep on a quiet machine.
const PACE_SHARE_MIN: f64 = 0.1;

/// Most memory for a slow reader: twice what waits for it, which is a window of 512 KiB on stream
/// and shm, and at most a mebibyte of the arena on ring. On handoff nothing waits but what the
/// application has made.
const READER_KIB_MAX: u64 = 2 * 1024;

#[test]
fn requests_that_come_byte_by_byte_are_answered() {
    for transport in TRANSPORTS {
        let tunnel = start(transport, 100);
        let mut sockets: Vec<TcpStream> = (0..30).map(|_| connect(&tunnel.front)).collect();
        for byte in REQUEST {
            for socket in &mut sockets {
                socket.write_all(&[*byte]).expect("taken");
            }
        }
        for socket in &mut sockets {
            assert_eq!(answer(socket).expect("answered"), b"ok");
        }
    }
}

/// Sends requests until nothing more is taken, and never reads.
fn ask_without_reading(front: &str) -> TcpStream {
    let mut socket = connect(front);
    socket.set_nonblocking(true).expect("a socket");
    let requests = long_request().repeat(2000);
    let mut sent = 0;
    until_still("nothing more is taken", 10, || {
        match socket.write(&requests.as_bytes()[sent..]) {
            Ok(written) => sent = (sent + written) % requests.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    });
    socket
}

#[test]
fn clients_that_ask_and_never_read_leave_nothing() {
    for transport in TRANSPORTS {
        let tunnel = start(transport, 100);
        pace(&tunnel.front, Duration::from_millis(50));
        let before = rest(&tunnel);
        let sockets: Vec<TcpStream> = thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| ask_without_reading(&tunnel.front)))
                .collect();
            let ended = asking.into_iter().map(thread::ScopedJoinHandle::join);
            ended.map(|ended| ended.expect("no panic")).collect()
        });
        assert!(pace(&tunnel.front, Duration::from_millis(50)) > 0.0);
        let [of_host, of_plugin] =
            [&tunnel.host, &tunnel.plugin].map(|it| Left::of(it).private_kib);
        drop(sockets);
        let after = rest(&tunnel);
        eprintln!(
            "{transport}: private {of_host} and {of_plugin} KiB with 8 clients that don't read; {}",
            left(&before, &after)
        );
    }
}

#[test]
fn an_upstream_that_never_answers_keeps_nobody() {
    const CLIENTS: usize = 40;
    for transport in TRANSPORTS {
        // The kernel accepts, but nobody answers.
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound");
        let options = [format!("--upstream={address}")];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let tunnel = Tunnel::start_with(transport, &[LOG, "--drain-ms=100"], &options);
        let mut sockets: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&tunnel.front)).collect();
        for socket in &mut sockets {
            socket.write_all(REQUEST).expect("taken");
        }
        for program in ["host", "plugin"] {
            tunnel.until_counted(program, "tunnel_sessions", |sessions| sessions > 0);
        }
        let open = |number| {
            until("so many are open", || {
                let programs = ["host", "plugin"];
                programs.map(|it| tunnel.counter(it, "tunnel_tunnels_open")) == [number; 2]
            });
        };
        open(CLIENTS as u64);
        // An end closes only one direction, so clients that give up reset their connections.
        for socket in sockets.split_off(CLIENTS / 2) {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("TCP");
        }
        open(CLIENTS as u64 / 2);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for mut socket in sockets {
                    // The client gets an end or a reset.
                    let told = socket.read(&mut [0]);
                    let kind = told.as_ref().map_err(std::io::Error::kind);
                    assert!(
                        matches!(kind, Ok(0) | Err(ErrorKind::ConnectionReset)),
                        "{told:?}"
                    );
                }
                is_over.store(true, Relaxed);
            });
            tunnel.host.signal(Signal::SIGTERM);
            until("the clients are told", || is_over.load(Relaxed));
        });
        let (status, _, errors) = tunnel.host.wait();
        assert!(status.success(), "{transport}: {status}: {errors}");
    }
}

#[test]
fn idle_clients_are_reset_and_busy_ones_are_not() {
    const LIMIT: Duration = Duration::from_millis(1500);
    thread::scope(|scope| {
        for transport in TRANSPORTS {
            scope.spawn(move || {
                let limit = format!("--idle-timeout-ms={}", LIMIT.as_millis());
                let origin = ["--origin=in-process"];
                let tunnel = Tunnel::start_with(transport, &[&limit], &origin);
                let mut quiet = connect(&tunnel.front);
                quiet.write_all(REQUEST).expect("taken");
                assert_eq!(answer(&mut quiet).expect("answered"), b"ok");
                let started = Instant::now();
                let is_over = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut busy = connect(&tunnel.front);
                        while !is_over.load(Relaxed) {
                            let asked = Instant::now();
                            let sent = busy.write_all(REQUEST);
                            match sent.and_then(|()| answer(&mut busy)) {
                                Ok(answer) => assert_eq!(answer, b"ok"),
                                // This thread or the answer was held up for too long.
                                Err(error) => {
                                    assert!(asked.elapsed() >= LIMIT / 2, "{transport}: {error}");
                                    busy = connect(&tunnel.front);
                                }
                            }
                        }
                    });
                    let told = quiet.read(&mut [0]).map_err(|error| error.kind());
                    is_over.store(true, Relaxed);
                    assert_eq!(told, Err(ErrorKind::ConnectionReset), "{transport}");
                });
                assert!(started.elapsed() >= LIMIT, "{transport}: too early");
                tunnel.until_idle("host");
            });
        }
    });
}

#[test]
fn a_head_that_does_not_come_in_time_costs_its_connection_and_a_slow_body_does_not() {
    const LIMIT: Duration = Duration::from_millis(300);
    let options = [
        "--origin=in-process",
        &format!("--head-timeout-ms={}", LIMIT.as_millis()),
    ];
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start_with(transport, &[], &options);
        let mut slow = connect(&tunnel.front);
        slow.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
            .expect("taken");
        let started = Instant::now();
        let mut half = connect(&tunnel.front);
        half.write_all(&REQUEST[..20]).expect("taken");
        let told = half.read_to_end(&mut Vec::new());
        assert!(told.is_ok(), "{transport}: {told:?}");
        assert!(started.elapsed() >= LIMIT, "{transport}: too early");
        slow.write_all(b"cd").expect("taken");
        assert_eq!(answer(&mut slow).expect("answered"), b"abcd", "{transport}");
    }
}

/// A client that has gone frees its place even if nobody reads what it had sent.
#[test]
fn a_client_that_resets_while_its_upstream_does_not_read_is_gone_at_once() {
    for transport in TRANSPORTS {
        resets_unheard(transport, |client, _| {
            client.set_nonblocking(true).expect("a socket");
            until_still("nothing more is taken", 10, || {
                match client.write(&[1; 65536]) {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("{error}"),
                }
            });
        });
    }
}

/// A client that has gone after sending its end frees its place even if nobody answers.
#[test]
fn a_client_that_resets_after_its_end_is_gone_at_once() {
    for transport in TRANSPORTS {
        resets_unheard(transport, |client, upstream| {
            client.write_all(REQUEST).expect("taken");
            client.shutdown(Shutdown::Write).expect("open");
            upstream.read_to_end(&mut Vec::new()).expect("an end");
        });
    }
}

/// Resets a client whose upstream never answers, after both have done `act`. The next client must
/// be served.
fn resets_unheard(transport: &str, act: impl FnOnce(&mut TcpStream, &mut TcpStream)) {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = upstream.local_addr().expect("bound");
    let target = format!("--upstream={address}");
    let tunnel = Tunnel::start_with(transport, &["--max-connections=1", LOG], &[&target, LOG]);
    let mut client = connect(&tunnel.front);
    let mut silent = accept(&upstream);
    act(&mut client, &mut silent);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("TCP");
    drop(client);
    // This takes the only place that there is.
    let mut next = connect(&tunnel.front);
    next.write_all(b"a").expect("taken");
    accept(&upstream).read_exact(&mut [0]).expect("asked");
}

fn accept(upstream: &TcpListener) -> TcpStream {
    upstream.set_nonblocking(true).expect("a socket");
    let mut accepted = None;
    until("there is a connection", || {
        accepted = upstream.accept().ok();
        accepted.is_some()
    });
    let (socket, _) = accepted.expect("there is one");
    socket.set_nonblocking(false).expect("a socket");
    socket
}

/// One of several event loops may be full while others have room.
#[test]
fn a_place_that_is_free_is_used_whichever_event_loop_has_it() {
    for transport in TRANSPORTS {
        let options = ["--max-connections=4", "--threads=4"];
        let tunnel = Tunnel::start_with(transport, &options, &["--origin=in-process"]);
        let ask = || {
            let mut socket = connect(&tunnel.front);
            socket.write_all(REQUEST).expect("taken");
            assert_eq!(answer(&mut socket).expect("answered"), b"ok");
            socket
        };
        let mut kept: Vec<TcpStream> = (0..4).map(|_| ask()).collect();
        // However clients were distributed, these leave some event loop with more than the others.
        for stay in [[0, 2], [0, 1], [1, 2]] {
            let mut number = 0;
            kept.retain(|_| {
                number += 1;
                stay.contains(&(number - 1))
            });
            kept.extend([ask(), ask()]);
        }
    }
}
