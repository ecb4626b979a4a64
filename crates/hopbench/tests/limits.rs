//! Goal: where the system refuses memory, a program says so, with what to do, and ends or goes on.
//! Method: real processes under limits of their own.

mod support;

use std::path::Path;

use support::{
    Running, bin, command,
    tunnel::{TRANSPORTS, start_plugin},
};
use tempfile::TempDir;

/// A program of a tunnel, with a limit as the shell sets it.
fn under(limit: &str, program: &str, transport: &str, directory: &Path, more: &str) -> Running {
    let (program, address) = (bin(program), directory.join("tunnel"));
    let script = format!(
        "ulimit {limit}; exec '{}' --transport={transport} --addr='{}' --peer-timeout-ms=700 \
         {more}",
        program.display(),
        address.display()
    );
    Running::start(command("sh").args(["-c", &script]))
}

#[test]
fn memory_that_cannot_be_had_is_named_with_what_to_do() {
    // Of the limit's two kinds, what the host of each transport has need of, if anything.
    for (limit, remedy, needing) in [
        // KiB: enough to start, too little for lanes of 4,096 connections.
        ("-v 100000", "'ulimit -v'", &TRANSPORTS[2..]),
        // Of 512 bytes each: less than any segment.
        ("-f 100", "'ulimit -f'", &TRANSPORTS[1..]),
    ] {
        for transport in TRANSPORTS {
            let directory = TempDir::new().expect("a directory");
            let listen = "--listen=127.0.0.1:0";
            let host = under(
                limit,
                "http-tunnel-host",
                transport,
                directory.path(),
                listen,
            );
            host.line("listening on ");
            let options = ["--peer-timeout-ms=700", "--origin=in-process"];
            let mut plugin = start_plugin(transport, directory.path(), &options);
            if !needing.contains(&transport) {
                plugin.kill();
                continue;
            }
            let (status, _, errors) = host.wait();
            assert_eq!(status.code(), Some(4), "{transport}, {limit}: {errors}");
            assert!(errors.contains(remedy), "{transport}, {limit}: {errors}");
            let (status, _, errors) = plugin.wait();
            assert_eq!(status.code(), Some(4), "{transport}, {limit}: {errors}");
            let left = std::fs::read_dir(directory.path())
                .expect("a directory")
                .count();
            assert_eq!(left, 0, "{transport}, {limit}: sockets are left");
        }
    }
}

#[test]
fn an_arena_that_cannot_be_had_is_named_with_what_to_do() {
    for (limit, remedy) in [("-v 80000", "'ulimit -v'"), ("-f 100", "'ulimit -f'")] {
        let directory = TempDir::new().expect("a directory");
        let more = "--origin=in-process --arena-mib=256";
        let plugin = under(
            limit,
            "http-tunnel-plugin",
            TRANSPORTS[2],
            directory.path(),
            more,
        );
        let (status, _, errors) = plugin.wait();
        assert_eq!(status.code(), Some(4), "{limit}: {errors}");
        assert!(
            errors.contains("arena") && errors.contains(remedy),
            "{limit}: {errors}"
        );
        let left = std::fs::read_dir(directory.path())
            .expect("a directory")
            .count();
        assert_eq!(left, 0, "{limit}: sockets are left");
    }
}
