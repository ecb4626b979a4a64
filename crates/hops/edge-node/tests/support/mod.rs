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
pub(crate) use upstreams::{
    Upstream, answers, ask, field, request, split, status, status_value, upstream,
};

/// A node that runs.
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    admin: String,
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
        let admin = format!("unix:{}", directory.path().join("admin").display());
        start.arg(format!("--admin={admin}"));
        let running = Running::start(&mut start);
        let address = running.line("listening on ").parse().expect("an address");
        Self {
            running,
            address,
            admin,
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
        ask(self.address, &request(method, target, fields, body))
    }

    /// Returns a value of the status.
    pub(crate) fn status(&self, name: &str) -> u64 {
        status_value(&self.admin, name)
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
        self.running.stop()
    }
}

/// Returns the table of an upstream.
pub(crate) fn to(name: &str, address: SocketAddr) -> String {
    format!("[[upstream]]\nname = \"{name}\"\ntargets = [\"{address}\"]\n")
}
