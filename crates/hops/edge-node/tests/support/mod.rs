//! A node as a process.

// Each test file uses only part of this module.
#![allow(dead_code)]

#[path = "../../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
pub(crate) mod processes;

#[path = "../../../../testing/upstreams.rs"]
mod upstreams;

use std::{fs, net::SocketAddr, path::PathBuf};

use nix::sys::signal::Signal;
use processes::{Running, bin, command, until};
use tempfile::TempDir;
#[allow(unused_imports, reason = "not everyone's")]
pub(crate) use upstreams::{Upstream, answers, ask, field, split, status, upstream};

/// A node that runs.
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Node {
    /// Starts a node with a configuration.
    pub(crate) fn start(config: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("edge.toml");
        fs::write(&file, config).expect("writable");
        let mut start = command(bin("edge-node"));
        start.args(["serve", "--exit-with-stdin", "--listen=127.0.0.1:0"]);
        start.arg(format!("--config={}", file.display()));
        let admin = directory.path().join("admin");
        start.arg(format!("--admin=unix:{}", admin.display()));
        let running = Running::start(&mut start);
        let address = running.line("listening on ").parse().expect("an address");
        Self {
            running,
            address,
            directory,
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("edge.toml")
    }

    /// Asks with GET; returns the whole answer.
    pub(crate) fn get(&self, target: &str, fields: &str) -> Vec<u8> {
        self.ask("GET", target, fields, b"")
    }

    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}");
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        ask(self.address, &[request.as_bytes(), body].concat())
    }

    /// Returns a value of the status.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let admin = self.directory.path().join("admin");
        let admin = format!("unix:{}", admin.display());
        let text = processes::get(&admin, "/_admin/status").expect("it answers");
        let (_, body) = text.split_once("\r\n\r\n").expect("a body");
        let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let value = status[name]
            .as_u64()
            .or_else(|| status["counters"][name].as_u64());
        value.unwrap_or_else(|| panic!("no '{name}' in {status}"))
    }

    /// Replaces the configuration, and waits until the node has taken or refused it.
    pub(crate) fn reload(&self, config: &str) {
        let done = || self.status("edge_reloads") + self.status("edge_reloads_refused");
        let before = done();
        fs::write(self.file(), config).expect("writable");
        self.running.signal(Signal::SIGHUP);
        until("the configuration is read", || done() > before);
    }

    /// Ends it in good order.
    pub(crate) fn stop(self) -> String {
        self.running.signal(Signal::SIGTERM);
        let (status, _, logged) = self.running.wait();
        assert!(status.success(), "{status}: {logged}");
        logged
    }
}

/// Returns the table of an upstream.
pub(crate) fn to(name: &str, address: SocketAddr) -> String {
    format!("[[upstream]]\nname = \"{name}\"\ntargets = [\"{address}\"]\n")
}
