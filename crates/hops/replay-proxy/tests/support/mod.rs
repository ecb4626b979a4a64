//! A proxy as a process, and upstreams that answer as a test says.

// Each test file uses only part of this module.
#![allow(dead_code)]

#[path = "../../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
pub(crate) mod processes;

#[path = "../../../../testing/upstreams.rs"]
mod upstreams;

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::Path,
};

use processes::{Running, bin, command};
#[allow(unused_imports, reason = "not everyone's")]
pub(crate) use upstreams::{
    Upstream, answers, ask, field, request, split, status, status_value, upstream,
};

/// A proxy that runs.
pub(crate) struct Proxy {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    admin: String,
}

impl Proxy {
    /// Starts a proxy on a store.
    pub(crate) fn start(
        store: &Path,
        mode: &str,
        upstream: Option<SocketAddr>,
        more: &[&str],
    ) -> Self {
        Self::run(command(bin("replay-proxy")), store, mode, upstream, more)
    }

    /// Starts a proxy as the last arguments of another command.
    pub(crate) fn start_under(
        mut other: std::process::Command,
        store: &Path,
        mode: &str,
        upstream: Option<SocketAddr>,
        more: &[&str],
    ) -> Self {
        other.arg(bin("replay-proxy"));
        Self::run(other, store, mode, upstream, more)
    }

    fn run(
        mut start: std::process::Command,
        store: &Path,
        mode: &str,
        upstream: Option<SocketAddr>,
        more: &[&str],
    ) -> Self {
        let admin = format!("unix:{}", store.with_extension("admin").display());
        start.args(["serve", "--exit-with-stdin", "--listen=127.0.0.1:0"]);
        start
            .arg(format!("--mode={mode}"))
            .arg(format!("--store={}", store.display()));
        start.arg(format!("--admin={admin}")).args(more);
        if let Some(upstream) = upstream {
            start.arg(format!("--upstream={upstream}"));
        }
        let running = Running::start(&mut start);
        let address = running.line("listening on ").parse().expect("an address");
        Self {
            running,
            address,
            admin,
        }
    }

    /// Asks with GET; returns the whole answer.
    pub(crate) fn get(&self, target: &str, fields: &str) -> Vec<u8> {
        self.ask("GET", target, fields, b"")
    }

    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        ask(self.address, &request(method, target, fields, body))
    }

    /// Returns a value of the status.
    pub(crate) fn status(&self, name: &str) -> u64 {
        status_value(&self.admin, name)
    }

    /// Sends a POST to the admin endpoint; returns the answer.
    pub(crate) fn admin(&self, target: &str) -> String {
        let path = self.admin.strip_prefix("unix:").expect("a socket");
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("it listens");
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Ends it in good order.
    pub(crate) fn stop(self) -> String {
        self.running.stop()
    }
}
