//! A host and a plugin, each a process.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use super::{Running, after, bin, command, get, until};

pub(crate) const TRANSPORTS: [&str; 4] = ["stream", "shm", "ring", "handoff"];

/// The log level that a failing test needs.
pub(crate) const LOG: &str = "--log=tunnel=debug";

pub(crate) struct Tunnel {
    pub(crate) host: Running,
    pub(crate) plugin: Running,
    /// Address that clients connect to.
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
        let host = host_command(transport, directory.path(), host_options);
        let plugin = plugin_command(transport, directory.path(), plugin_options);
        Self::start_commands(directory, host, plugin)
    }

    fn start_commands(directory: TempDir, mut host: Command, mut plugin: Command) -> Self {
        let host = Running::start(&mut host);
        let front = host.line("listening on ");
        let plugin = Running::start(&mut plugin);
        Self {
            host,
            plugin,
            front,
            directory,
        }
    }

    /// Starts host and plugin with limits of open files.
    pub(crate) fn start_with_open_files(
        transport: &str,
        [of_host, of_plugin]: [u32; 2],
        origin: &str,
    ) -> Self {
        let directory = TempDir::new().expect("a directory");
        let options = [LOG, "--peer-timeout-ms=1000"];
        let host = host_command(transport, directory.path(), &options);
        let plugin = plugin_command(
            transport,
            directory.path(),
            &[&options[..], &[origin]].concat(),
        );
        let host = after(&format!("ulimit -n {of_host}"), &host);
        let plugin = after(&format!("ulimit -n {of_plugin}"), &plugin);
        Self::start_commands(directory, host, plugin)
    }

    /// Starts host and plugin each by another program, which `under` returns.
    pub(crate) fn start_under(
        transport: &str,
        plugin_options: &[&str],
        under: impl Fn() -> Command,
    ) -> Self {
        let plugin_options = [plugin_options, &[LOG]].concat();
        Self::start_each_under(transport, &[LOG], &plugin_options, under)
    }

    /// Does the same, with options for the host, too.
    pub(crate) fn start_each_under(
        transport: &str,
        host_options: &[&str],
        plugin_options: &[&str],
        under: impl Fn() -> Command,
    ) -> Self {
        let directory = TempDir::new().expect("a directory");
        let wrap = |program: &Command| {
            let mut wrapped = under();
            wrapped.arg(program.get_program()).args(program.get_args());
            wrapped
        };
        let host = wrap(&host_command(transport, directory.path(), host_options));
        let plugin = wrap(&plugin_command(transport, directory.path(), plugin_options));
        Self::start_commands(directory, host, plugin)
    }

    pub(crate) fn program(&self, name: &str) -> &Running {
        match name {
            "host" => &self.host,
            "plugin" => &self.plugin,
            _ => panic!("'{name}' is neither host nor plugin"),
        }
    }

    /// Returns a program's status; `None` while it is starting.
    pub(crate) fn status(&self, program: &str) -> Option<serde_json::Value> {
        let admin = self
            .directory
            .path()
            .join(format!("tunnel.{program}-admin"));
        let answer = get(&format!("unix:{}", admin.display()), "/_admin/status").ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some(serde_json::from_str(body).expect("JSON"))
    }

    /// Returns a counter of a program that has started.
    pub(crate) fn counter(&self, program: &str, name: &str) -> u64 {
        let status = self.status(program).expect("it has started");
        status["counters"][name].as_u64().expect(name)
    }

    /// Waits until a program, which may be starting, has counted this many.
    pub(crate) fn until_counted(&self, program: &str, name: &str, is_reached: fn(u64) -> bool) {
        until(&format!("the {program} counts {name}"), || {
            let Some(status) = self.status(program) else {
                return false;
            };
            is_reached(status["counters"][name].as_u64().expect(name))
        });
    }

    /// Waits until a program has no connection open.
    pub(crate) fn until_idle(&self, program: &str) {
        self.until_counted(program, "tunnel_tunnels_open", |open| open == 0);
    }
}

pub(crate) fn start_host(transport: &str, directory: &Path, options: &[&str]) -> Running {
    Running::start(&mut host_command(transport, directory, options))
}

pub(crate) fn start_plugin(transport: &str, directory: &Path, options: &[&str]) -> Running {
    Running::start(&mut plugin_command(transport, directory, options))
}

pub(crate) fn host_command(transport: &str, directory: &Path, options: &[&str]) -> Command {
    let mut host = command(bin("http-tunnel-host"));
    host.arg(format!("--transport={transport}"));
    host.arg(format!("--addr={}", directory.join("tunnel").display()));
    if !options.iter().any(|option| option.starts_with("--listen")) {
        host.arg("--listen=127.0.0.1:0");
    }
    host.args(options);
    host
}

pub(crate) fn plugin_command(transport: &str, directory: &Path, options: &[&str]) -> Command {
    let mut plugin = command(bin("http-tunnel-plugin"));
    plugin.arg(format!("--transport={transport}"));
    plugin.arg(format!("--addr={}", directory.join("tunnel").display()));
    plugin.args(options);
    plugin
}
