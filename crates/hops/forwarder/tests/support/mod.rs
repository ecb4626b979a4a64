//! A forwarder, and servers for it to forward to.

// Each test file uses only part of this module.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::processes::{Running, WATCHDOG, bin, command};

/// A forwarder with one route to `target`, and the address of that route.
pub(crate) struct Forwarder {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

/// Descriptors of the spare pipes that two workers may keep.
pub(crate) const SPARE_MAX: usize = 2 * 32 * 2;

/// Starts a forwarder with a main route to `target`, and two workers.
pub(crate) fn forwarder(target: SocketAddr, more: &str) -> Forwarder {
    Forwarder::start(&format!(
        "listen_addr = '127.0.0.1'\nlisten_port = 0\ntarget_addr = '127.0.0.1'\n\
         target_port = {}\n{more}",
        target.port()
    ))
}

impl Forwarder {
    /// Starts a forwarder with this configuration, and two workers.
    pub(crate) fn start(config: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("forwarder.toml");
        std::fs::write(&file, config).expect("written");
        let mut start = command(bin("forwarder"));
        start.arg(format!("--config={}", file.display()));
        let running = Running::start(start.args(["--exit-with-stdin", "--threads=2"]));
        let line = running.line("listening on ");
        let address = line.split(' ').next().expect("an address");
        Self {
            address: address.parse().expect("an address"),
            running,
            directory,
        }
    }

    /// Gives it another configuration, as a whole.
    pub(crate) fn configure(&self, config: &str) {
        let (file, new) = (
            self.directory.path().join("forwarder.toml"),
            self.directory.path().join("new.toml"),
        );
        std::fs::write(&new, config).expect("written");
        std::fs::rename(&new, &file).expect("renamed");
        self.running.signal(Signal::SIGHUP);
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("it listens")
    }

    /// Ends it, and returns what it has counted, by name.
    pub(crate) fn counted(self) -> impl Fn(&str) -> u64 {
        self.counted_as("forwarder_")
    }

    /// Ends it, and returns what it has counted, by name after `prefix`.
    pub(crate) fn counted_as(self, prefix: &'static str) -> impl Fn(&str) -> u64 {
        self.running.signal(Signal::SIGTERM);
        let (status, printed, _) = self.running.wait();
        assert!(status.success());
        move |name| {
            let at = printed.split(&format!("\"{prefix}{name}\":")).nth(1);
            let digits = at.expect(name).split([',', '}']).next();
            digits.expect("a value").parse().expect("a number")
        }
    }
}

/// A client of HTTP that stays connected.
pub(crate) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("set");
        let reader = BufReader::new(stream.try_clone().expect("a socket"));
        Self { stream, reader }
    }

    /// Returns the status and the body of an answer.
    pub(crate) fn get(&mut self, target: &str) -> std::io::Result<(u16, Vec<u8>)> {
        // In one piece: small pieces would wait for each other.
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.stream.write_all(request.as_bytes())?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((status, body))
    }
}

/// Serves each connection on a thread of its own.
pub(crate) fn target(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(client));
        }
    });
    address
}

/// Sends back what comes, until it ends.
pub(crate) fn echo(mut client: TcpStream) {
    let mut writer = client.try_clone().expect("cloned");
    let _ = std::io::copy(&mut client, &mut writer);
}

pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    bytes
}

/// Numbers, so that a piece that is lost, repeated or out of order is noticed.
pub(crate) fn numbers(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(u64::to_be_bytes).take(length).collect()
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
}

/// Sends without end.
pub(crate) fn flood(mut stream: TcpStream) -> std::io::Error {
    let piece = numbers(64 * 1024);
    loop {
        if let Err(error) = stream.write_all(&piece) {
            return error;
        }
    }
}
