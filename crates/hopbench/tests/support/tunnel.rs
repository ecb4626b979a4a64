//! A host and a plugin, each a process.

use std::path::Path;

use tempfile::TempDir;

use super::{Running, bin, command, get, until};

pub(crate) const TRANSPORTS: [&str; 3] = ["stream", "shm", "ring"];

/// What a test that fails should show.
pub(crate) const LOG: &str = "--log=tunnel=debug";

pub(crate) struct Tunnel {
    pub(crate) host: Running,
    pub(crate) plugin: Running,
    /// Where clients connect.
    pub(crate) front: String,
    pub(crate) directory: TempDir,
}

impl Tunnel {
    pub(crate) fn start(transport: &str, plugin_options: &[&str]) -> Self {
        let plugin_options = [plugin_options, &[LOG]].concat();
        Self::start_with(transport, &[LOG], &plugin_options)
    }

    pub(crate) fn start_with(
        transport: &str,
        host_options: &[&str],
        plugin_options: &[&str],
    ) -> Self {
        let directory = TempDir::new().expect("a directory");
        let host = start_host(transport, directory.path(), host_options);
        let front = host.line("listening on ");
        let plugin = start_plugin(transport, directory.path(), plugin_options);
        Self {
            host,
            plugin,
            front,
            directory,
        }
    }

    /// What the program says of itself; nothing while it is starting.
    pub(crate) fn status(&self, program: &str) -> Option<serde_json::Value> {
        let admin = self
            .directory
            .path()
            .join(format!("tunnel.{program}-admin"));
        let answer = get(&format!("unix:{}", admin.display()), "/_admin/status").ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some(serde_json::from_str(body).expect("JSON"))
    }

    pub(crate) fn counter(&self, program: &str, name: &str) -> u64 {
        let status = self.status(program).unwrap_or_default();
        status["counters"][name].as_u64().unwrap_or_default()
    }

    /// Waits until a program that has started has no connection open.
    pub(crate) fn until_idle(&self, program: &str) {
        until("every tunnel has ended", || {
            let status = self.status(program).unwrap_or_default();
            status["counters"]["tunnel_tunnels_open"] == 0
        });
    }
}

pub(crate) fn start_host(transport: &str, directory: &Path, options: &[&str]) -> Running {
    let mut host = command(bin("http-tunnel-host"));
    host.arg(format!("--transport={transport}"));
    host.arg(format!("--addr={}", directory.join("tunnel").display()));
    host.arg("--listen=127.0.0.1:0").args(options);
    Running::start(&mut host)
}

pub(crate) fn start_plugin(transport: &str, directory: &Path, options: &[&str]) -> Running {
    let mut plugin = command(bin("http-tunnel-plugin"));
    plugin.arg(format!("--transport={transport}"));
    plugin.arg(format!("--addr={}", directory.join("tunnel").display()));
    plugin.args(options);
    Running::start(&mut plugin)
}
