//! Goal: injected costs are really there, are announced, and change no answer. Method: the program
//! itself, asked over one connection, and the kernel's account of what it has used.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{time::ClockId, unistd::Pid};
use origin::payload;

/// A running server. Ended by the end of its stdin.
struct Server {
    child: Child,
    client: BufReader<TcpStream>,
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "no child of the orchestrator's")]
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_http_baseline"))
            .args(["--listen=127.0.0.1:0", "--exit-with-stdin"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("built");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("ready");
        let client = TcpStream::connect(address).expect("it listens");
        client.set_nodelay(true).expect("a socket");
        Self {
            child,
            client: BufReader::new(client),
        }
    }

    /// Sends a request and returns the body of the answer, whose status must be 200.
    fn get(&mut self, target: &str) -> Vec<u8> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: origin\r\n\r\n");
        let mut stream = self.client.get_ref();
        stream.write_all(request.as_bytes()).expect("asked");
        let mut length = 0;
        for number in 0.. {
            let mut line = String::new();
            self.client.read_line(&mut line).expect("answered");
            match line.trim_end().split_once(": ") {
                _ if number == 0 => assert_eq!(line, "HTTP/1.1 200 OK\r\n", "{target}"),
                Some(("content-length", value)) => length = value.parse().expect("a number"),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.client.read_exact(&mut body).expect("a whole body");
        body
    }

    fn ask(&mut self, times: u32) {
        for _ in 0..times {
            assert_eq!(self.get("/small"), b"ok");
        }
    }

    fn cpu_time(&self) -> Duration {
        let clock = ClockId::pid_cpu_clock_id(self.pid()).expect("it runs");
        clock.now().expect("a clock").into()
    }

    fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        number.expect("a field").parse().expect("a number")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Ends the server and returns what it has printed on stderr.
    fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut errors).expect("text");
        assert!(self.child.wait().expect("ours").success(), "{errors}");
        errors
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn costs_are_announced_and_answers_are_the_same() {
    let options = [
        "--inject-cpu-percent=12.5",
        "--inject-delay-us=300",
        "--inject-leak-bytes=1000",
        "--inject-leak-total-mib=1",
    ];
    let mut server = Server::start(&options);
    for target in ["/small", "/large", "/bytes/100000"] {
        let expected = origin::describe(target).expect("an endpoint").sha256;
        for _ in 0..40 {
            let digest = payload::sha256_hex([server.get(target).into()]);
            assert_eq!(Some(digest), expected, "{target}");
        }
    }
    assert_eq!(
        server.stop(),
        "injecting 12.5 % more CPU time and 300 µs of delay and a leak of 1000 bytes per request, \
         up to 1 MiB: for testing a gate only\n"
    );
    assert_eq!(Server::start(&[]).stop(), "");
}

/// Ten times the CPU time is added, of which at least a part must be found. The two servers take
/// turns, and the least of several rounds is compared: whatever else a busy machine charges to a
/// process only adds to it.
#[test]
fn cpu_time_is_used() {
    let mut servers = [
        Server::start(&[]),
        Server::start(&["--inject-cpu-percent=1000"]),
    ];
    let mut least = [Duration::MAX; 2];
    for server in &mut servers {
        server.ask(100);
    }
    for _ in 0..10 {
        for (server, least) in servers.iter_mut().zip(&mut least) {
            let before = server.cpu_time();
            server.ask(160);
            *least = (*least).min(server.cpu_time() - before);
        }
    }
    let [without, with] = least;
    assert!(with >= without * 3, "{with:?} with, {without:?} without");
}

#[test]
fn answers_are_held_but_those_of_health() {
    let mut server = Server::start(&["--inject-delay-us=30000"]);
    let before = server.cpu_time();
    let start = Instant::now();
    server.ask(10);
    let held = start.elapsed();
    assert!(held >= Duration::from_millis(300), "{held:?}");
    let cpu = server.cpu_time() - before;
    assert!(cpu < held / 2, "{cpu:?} of CPU time in {held:?}");

    let shortest = (0..10).map(|_| {
        let start = Instant::now();
        server.get("/health");
        start.elapsed()
    });
    assert!(shortest.min() < Some(Duration::from_millis(30)));
}

#[test]
fn memory_is_kept_up_to_the_limit() {
    let options = ["--inject-leak-bytes=1048576", "--inject-leak-total-mib=64"];
    let mut server = Server::start(&options);
    server.get("/health");
    let before = server.rss_kib();
    server.ask(100);
    let leaked = server.rss_kib() - before;
    // Serving itself takes less than a few mebibytes.
    assert!(((60 << 10)..(80 << 10)).contains(&leaked), "{leaked} KiB");
    let said = server.stop();
    assert!(said.contains("leak has reached its limit"), "{said}");
}
