//! Goal: another user of this machine can't join a tunnel, read its counters, or make a program
//! use or remove what it was not given.
//! Method: real processes; one of them runs as another user, if the test may start it so.

mod process;

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::Path,
};

use process::{
    Running, after, bin, command,
    tunnel::{TRANSPORTS, host_command, plugin_command, start_host, start_plugin},
};
use tempfile::TempDir;

/// A user who has no rights on most systems.
const NOBODY: u32 = 65_534;

#[test]
fn sockets_are_of_their_user_alone_whatever_the_umask() {
    for transport in TRANSPORTS {
        let directory = TempDir::new().expect("a directory");
        let front = format!("unix:{}", directory.path().join("front").display());
        let listen = format!("--listen={front}");
        // Files that are made without a mode of their own are then open to all.
        let start = |program| Running::start(&mut after("umask 0", &program));
        let host = start(host_command(transport, directory.path(), &[&listen]));
        host.line("listening on ");
        let origin = ["--origin=in-process"];
        let _plugin = start(plugin_command(transport, directory.path(), &origin));
        process::until("it is served", || {
            process::get(&front, "/small").is_ok_and(|answer| answer.ends_with("ok"))
        });
        let mut names = Vec::new();
        for entry in fs::read_dir(directory.path()).expect("a directory") {
            let entry = entry.expect("readable");
            let metadata = entry.metadata().expect("it is there");
            assert!(metadata.file_type().is_socket(), "{transport}: {entry:?}");
            let mode = metadata.permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{transport}: {entry:?}");
            names.push(entry.file_name());
        }
        names.sort();
        let expected = [
            "front",
            "tunnel",
            "tunnel.host-admin",
            "tunnel.plugin-admin",
        ];
        assert_eq!(names, expected, "{transport}");
    }
}

/// A function that lays something at the first path. It may use the second one as well.
type Lay = fn(&Path, &Path);

/// The directory may be another user's, who lays something there for the program to use or remove.
#[test]
fn what_lies_in_the_way_is_neither_used_nor_removed() {
    let lay: [(&str, Lay); 4] = [
        ("a file", |at, _| fs::write(at, "mine").expect("writable")),
        ("a directory", |at, _| fs::create_dir(at).expect("writable")),
        ("a link to a file", |at, other| {
            fs::write(other, "mine").expect("writable");
            symlink(other, at).expect("writable");
        }),
        ("a link to a socket", |at, other| {
            drop(UnixListener::bind(other).expect("a free name"));
            symlink(other, at).expect("writable");
        }),
    ];
    for transport in TRANSPORTS {
        for place in ["tunnel", "tunnel.host-admin"] {
            for (what, lay) in lay {
                let directory = TempDir::new().expect("a directory");
                let (at, other) = (directory.path().join(place), directory.path().join("other"));
                lay(&at, &other);
                let before = fs::symlink_metadata(&at).expect("laid").file_type();
                let host = start_host(transport, directory.path(), &[]);
                let (status, _, errors) = host.wait();
                assert_eq!(status.code(), Some(4), "{transport}, {what}: {errors}");
                assert!(
                    errors.contains("no socket"),
                    "{transport}, {what}: {errors}"
                );
                assert!(errors.contains(place), "{transport}, {what}: {errors}");
                let after = fs::symlink_metadata(&at).expect("still there").file_type();
                assert_eq!(before, after, "{transport}, {what}");
                assert!(!what.starts_with("a link") || other.exists(), "{what}");
            }
        }
    }
}

#[test]
fn a_peer_of_another_user_is_refused_by_name() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may start a program as another user");
        return;
    }
    let is_open = |directory: &Path| {
        let mode = fs::metadata(directory).map(|it| it.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o1 != 0)
    };
    if !std::env::temp_dir().ancestors().all(is_open) {
        eprintln!("SKIPPED: another user can't reach the temporary directory");
        return;
    }
    for transport in TRANSPORTS {
        let directory = TempDir::new().expect("a directory");
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), everybody.clone()).expect("ours");
        // A copy that the other user can reach.
        let program = directory.path().join("http-tunnel-host");
        fs::copy(bin("http-tunnel-host"), &program).expect("room");
        fs::set_permissions(&program, everybody).expect("ours");
        let mut host = command(&program);
        host.args(host_command(transport, directory.path(), &[]).get_args());
        host.uid(NOBODY).gid(NOBODY).current_dir("/");
        let mut host = Running::start(&mut host);
        host.line("listening on ");
        // The plugin runs as root, which the file's mode doesn't keep out.
        let options = ["--peer-timeout-ms=500"];
        let options = [&options[..], &["--origin=in-process"]].concat();
        let plugin = start_plugin(transport, directory.path(), &options);
        let (status, _, errors) = plugin.wait();
        assert_eq!(status.code(), Some(4), "{transport}: {errors}");
        // Nor does the plugin take anything from such a host.
        let refused = format!("refused a host of user {NOBODY}");
        assert!(errors.contains(&refused), "{transport}: {errors}");
        host.error_line("refused a peer of user 0");
        assert!(!host.has_ended(), "{transport}: the host goes on");
        host.kill();
    }
}
