//! Goal: the command line says what it does and what it expects. Method: the program itself.

use assert_cmd::{Command, cargo::cargo_bin_cmd};

fn program() -> Command {
    cargo_bin_cmd!("http-tunnel-host")
}

#[test]
fn version_names_the_program() {
    let version = concat!("http-tunnel-host ", env!("CARGO_PKG_VERSION"), "\n");
    program()
        .arg("--version")
        .assert()
        .success()
        .stdout(version);
}

#[test]
fn mistakes_are_named_and_nothing_is_started() {
    for (arguments, expected) in [
        (vec![], "--addr"),
        (vec!["--addr=/a", "--transport=ship"], "'ship'"),
        (
            vec!["--addr=127.0.0.1:1", "--transport=shm"],
            "expected a path",
        ),
        (vec!["--addr=/a", "--shm-slots=1"], "from 8 to"),
        (vec!["--addr=/a", "--admin=0.0.0.0:1"], "loopback"),
        (vec!["--addr=/a", "--transprt=shm"], "--transport"),
        (
            vec!["--addr=/a", "--max-connections=0"],
            "--max-connections",
        ),
    ] {
        let output = program().args(&arguments).output().expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}
