//! Goal: a slow network delays answers and changes nothing else. Method: the test starts itself
//! once more, in a network namespace of its own (unshare), where the kernel delays each packet on
//! the loopback interface (netem). All that ends with the namespace. Where there is no netem,
//! relays of the test delay the bytes on both sides of the forwarder, and the test says so.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;
mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use processes::{command, installed, output, text};
use support::{Client, Forwarder, numbers, target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
    time::sleep_until,
};

/// Time that a packet takes in one direction.
const DELAYS_MS: [u64; 3] = [0, 10, 50];

/// Set in the process that has a namespace of its own.
const INSIDE: &str = "FORWARDER_TEST_NAMESPACE";

/// The name of the only test here, which starts itself.
const TEST: &str = "a_slow_network_only_delays_answers";

/// Length of the larger answer: several windows of TCP.
const LARGE_BYTES: usize = 1 << 20;

#[test]
fn a_slow_network_only_delays_answers() {
    if std::env::var_os(INSIDE).is_some() {
        return check_all(set_delay);
    }
    match namespace() {
        Ok(mut unshare) => {
            let test = std::env::current_exe().expect("it runs");
            let again = unshare.arg(test).args(["--exact", TEST, "--nocapture"]);
            let ended = output(again.env(INSIDE, "yes"));
            eprintln!("{}", text(&ended.stderr));
            assert!(ended.status.success(), "{}", text(&ended.stdout));
        }
        Err(why) => check_all(|_| Err(why.clone())),
    }
}

/// Returns the command that starts a program in a network namespace, or why there is none.
fn namespace() -> Result<std::process::Command, String> {
    let unshare = installed("unshare").ok_or("'unshare' is not installed")?;
    let ip = installed("ip").ok_or("'ip' is not installed")?;
    let within = || {
        let mut within = command(&unshare);
        within.args(["--user", "--map-root-user", "--net"]);
        within
    };
    let up = |ip: &Path| format!("'{}' link set lo up", ip.display());
    let tried = output(within().args(["sh", "-c", &up(&ip)]));
    if tried.status.success() {
        let mut within = within();
        let start = format!("{} && exec \"$@\"", up(&ip));
        within.args(["sh", "-c", &start, "sh"]);
        return Ok(within);
    }
    let said = text(&tried.stderr);
    Err(format!("no network namespace can be made: {}", said.trim()))
}

/// Has the kernel delay each packet on the loopback interface of this namespace.
fn set_delay(delay_ms: u64) -> Result<(), String> {
    let tc = installed("tc").ok_or("'tc' is not installed")?;
    let delay = format!("{delay_ms}ms");
    let set = ["qdisc", "replace", "dev", "lo", "root", "netem", "delay"];
    let set = output(command(tc).args(set).arg(delay));
    if set.status.success() {
        return Ok(());
    }
    let said = text(&set.stderr);
    let said = said.lines().next().unwrap_or_default();
    Err(format!("the kernel has no netem (sch_netem): {said}"))
}

/// Checks all delays, which are set by `delay`, or else made by relays.
fn check_all(delay: impl Fn(u64) -> Result<(), String>) {
    for delay_ms in DELAYS_MS {
        let is_delayed = match delay_ms {
            0 => Ok(()),
            _ => delay(delay_ms),
        };
        let one_way = Duration::from_millis(delay_ms);
        match is_delayed {
            Ok(()) => check(one_way, |address| address),
            Err(why) => {
                eprintln!("SKIPPED: {why}; for {delay_ms} ms, relays of the test delay instead");
                check(one_way, |address| slow(address, one_way));
            }
        }
    }
}

/// Checks answers and their times. `reached` returns the address by which another is reached.
fn check(one_way: Duration, reached: impl Fn(SocketAddr) -> SocketAddr) {
    let origin = target(answer);
    let timed = |client: &mut Client, path, body: &[u8], legs: u32| {
        let begin = Instant::now();
        let (status, received) = client.get(path).expect("an answer");
        let took = begin.elapsed();
        assert_eq!(status, 200);
        assert!(received == body, "another body of {path}");
        assert!(
            took >= one_way * legs,
            "{path}: {legs} x {one_way:?} in {took:?}"
        );
    };
    // There and back, and with the forwarder in between twice as much.
    let mut direct = Client::connect(reached(origin));
    timed(&mut direct, "/small", b"ok", 2);
    let target = reached(origin);
    let route = |name, mode| {
        format!(
            "[[routes]]\nname = '{name}'\nenabled = true\nmode = '{mode}'\nlisten_port = 0\n\
             target_port = {}\n",
            target.port()
        )
    };
    let config =
        "listen_addr = '127.0.0.1'\n".to_owned() + &route("t", "tcp") + &route("h", "http");
    let forwarder = Forwarder::start(&config);
    let second = forwarder.running.line("listening on ");
    let second = second.split(' ').next().expect("an address");
    let large = numbers(LARGE_BYTES);
    for address in [forwarder.address, second.parse().expect("an address")] {
        let mut client = Client::connect(reached(address));
        for _ in 0..3 {
            timed(&mut client, "/small", b"ok", 4);
            timed(&mut client, "/large", &large, 4);
        }
    }
    let counted = forwarder.counted_as("");
    // The requests of the HTTP route are on one kept connection to the target.
    assert_eq!(counted("http_requests"), 6);
    assert_eq!(counted("http_answers_passed"), 6);
    assert_eq!(counted("http_upstream_opened"), 1);
    assert_eq!(counted("forwarder_clients_accepted"), 2);
}

/// Answers requests by their path.
fn answer(mut client: TcpStream) {
    let bodies = BTreeMap::from([("/small", b"ok".to_vec()), ("/large", numbers(LARGE_BYTES))]);
    let mut lines = BufReader::new(client.try_clone().expect("a socket")).lines();
    let mut asked = None;
    while let Some(Ok(line)) = lines.next() {
        if asked.is_none() {
            asked = line.split(' ').nth(1).map(str::to_owned);
        }
        if !line.is_empty() {
            continue;
        }
        let path = asked.take().expect("a request line");
        let body = &bodies[path.as_str()];
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        // In one piece: small pieces would wait for each other.
        let answer = [head.as_bytes(), body].concat();
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Returns an address behind which `target` is as far away as a slow network makes it.
fn slow(target: SocketAddr, one_way: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("set");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // It ends with the test.
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(target).await else {
                    continue;
                };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                tokio::spawn(late(client_reads, server_writes, one_way));
                tokio::spawn(late(server_reads, client_writes, one_way));
            }
        });
    });
    address
}

/// Passes bytes on, each piece so much later than it came.
async fn late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    // As many pieces as a network has under way.
    let (sender, mut pieces) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(64);
    tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let due = tokio::time::Instant::now() + one_way;
        let piece = buffer[..length].to_vec();
        if sender.send((due, piece)).await.is_err() {
            return;
        }
    }
}
