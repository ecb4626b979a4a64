//! Clients of a tunnel, and what they leave behind in it.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use super::{Running, WATCHDOG, tunnel::Tunnel, until_still};

/// Returns a bound: the value of the environment variable `name`, or else `short`.
pub(crate) fn bound(name: &str, short: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(short, |text| text.parse().expect(name))
}

/// The resources that a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Memory of its own, in KiB: segment and arena are shared.
    pub(crate) private_kib: u64,
}

impl Left {
    pub(crate) fn of(program: &Running) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", program.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let tasks = fs::read_dir(format!("/proc/{}/task", program.pid()));
        Self {
            descriptors: program.descriptors(),
            threads: tasks.expect("it runs").count(),
            private_kib: number.and_then(|number| number.parse().ok()).expect("KiB"),
        }
    }

    fn counted(self) -> (usize, usize) {
        (self.descriptors, self.threads)
    }
}

/// Waits until a program has no connection open, and its descriptors and threads don't change.
/// Returns what it has then.
pub(crate) fn rest_of(tunnel: &Tunnel, program: &str) -> Left {
    tunnel.until_idle(program);
    // A connection to an origin ends a moment later.
    let mut last = Left::default();
    until_still("descriptors are closed", 10, || {
        let now = Left::of(tunnel.program(program));
        let before = std::mem::replace(&mut last, now);
        before.counted() != now.counted()
    });
    last
}

/// Does the same for host and plugin.
pub(crate) fn rest(tunnel: &Tunnel) -> [Left; 2] {
    ["host", "plugin"].map(|program| rest_of(tunnel, program))
}

/// Describes what host and plugin had before and after.
///
/// # Panics
/// If descriptors are left. Threads of a pool may come and go.
pub(crate) fn left(before: &[Left; 2], after: &[Left; 2]) -> String {
    let mut words = Vec::new();
    for (name, (before, after)) in ["host", "plugin"].into_iter().zip(before.iter().zip(after)) {
        assert_eq!(before.descriptors, after.descriptors, "{name}");
        words.push(format!(
            "{name}: {} descriptors, private {} KiB before, {} after",
            after.descriptors, before.private_kib, after.private_kib
        ));
    }
    words.join("; ")
}

/// xorshift64*, <https://doi.org/10.18637/jss.v008.i14>: the same traffic for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit
    }

    /// Returns a size, mostly small and seldom large.
    pub(crate) fn size(&mut self) -> usize {
        let limit = match self.below(16) {
            0..8 => 200,
            8..13 => 5_000,
            13..15 => 70_000,
            _ => 600_000,
        };
        usize::try_from(self.below(limit)).expect("small")
    }
}

pub(crate) fn connect(front: &str) -> TcpStream {
    let socket = TcpStream::connect(front).expect("the host listens");
    prepare(&socket);
    socket
}

pub(crate) fn prepare(socket: &TcpStream) {
    socket.set_nodelay(true).expect("TCP");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(socket, Some(WATCHDOG)).expect("not zero");
    }
}

/// Reads an answer and returns its body, whose length its head tells.
///
/// # Errors
/// If the connection ends before the body does.
///
/// # Panics
/// If nothing comes, or something that is no answer.
pub(crate) fn answer(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        read(socket, &mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (_, rest) = head.split_once("content-length:").expect("a length");
    let length = rest.lines().next().expect("a line").trim().parse();
    let mut body = vec![0; length.expect("a number")];
    read(socket, &mut body)?;
    Ok(body)
}

fn read(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let read = socket.read_exact(bytes);
    if let Err(error) = &read {
        let is_hang = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!is_hang, "no answer within {WATCHDOG:?}");
    }
    read
}

/// Number of bodies that came back as they were sent, and of their bytes.
#[derive(Debug, Default)]
pub(crate) struct Echoed {
    pub(crate) bodies: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Echoes bodies over one connection after the other while `goes_on`.
pub(crate) fn echo_while(front: &str, seed: u64, echoed: &Echoed, goes_on: impl Fn() -> bool) {
    let mut random = Random(seed);
    while goes_on() {
        let mut socket = connect(front);
        for _ in 0..random.below(20) {
            let body: Vec<u8> = (0..random.size())
                .map(|_| random.below(256).to_le_bytes()[0])
                .collect();
            let head = format!(
                "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let mut writer = socket.try_clone().expect("a descriptor");
            let given_up = random.below(16) == 0;
            let sent = if given_up { body.len() / 2 } else { body.len() };
            let read = thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(head.as_bytes()).expect("taken");
                    writer.write_all(&body[..sent]).expect("taken");
                    if given_up {
                        let _ = writer.shutdown(Shutdown::Both);
                    }
                });
                (!given_up).then(|| answer(&mut socket).expect("answered"))
            });
            let Some(read) = read else { break };
            assert!(
                read == body,
                "seed {seed}: {} bytes came back changed",
                body.len()
            );
            echoed.bodies.fetch_add(1, Relaxed);
            echoed.bytes.fetch_add(body.len() as u64, Relaxed);
        }
    }
}
