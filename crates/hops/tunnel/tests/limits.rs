//! Goal: where the system refuses memory, a program says so and what to do, and ends or goes on.
//! Method: real processes under limits of their own.

mod process;

use process::{
    Running, after,
    tunnel::{TRANSPORTS, host_command, plugin_command, start_plugin},
};
use tempfile::TempDir;

/// How long to wait for a peer that doesn't come.
const PATIENCE: &str = "--peer-timeout-ms=700";

#[test]
fn memory_that_cannot_be_had_is_named_with_what_to_do() {
    // The two kinds of limits, each with the transports whose hosts run into it.
    for (limit, remedy, needing) in [
        // KiB: enough to start, too little for lanes of 4,096 connections.
        ("-v 100000", "'ulimit -v'", &["ring"][..]),
        // In units of 512 bytes: less than any segment.
        ("-f 100", "'ulimit -f'", &["shm", "ring"]),
    ] {
        for transport in TRANSPORTS {
            let directory = TempDir::new().expect("a directory");
            let host = host_command(transport, directory.path(), &[PATIENCE]);
            let host = Running::start(&mut after(&format!("ulimit {limit}"), &host));
            host.line("listening on ");
            let options = [PATIENCE, "--origin=in-process"];
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
        let options = [PATIENCE, "--origin=in-process", "--arena-mib=256"];
        let plugin = plugin_command("ring", directory.path(), &options);
        let plugin = Running::start(&mut after(&format!("ulimit {limit}"), &plugin));
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
