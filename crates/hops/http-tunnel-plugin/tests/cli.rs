//! Goal: the command line says what it does and what it expects. Method: the program itself.

#[path = "../../../testing/cli.rs"]
mod cli;

use assert_cmd::{Command, cargo::cargo_bin_cmd};

fn program() -> Command {
    cargo_bin_cmd!("http-tunnel-plugin")
}

#[test]
fn version_names_the_program() {
    cli::assert_names_itself(program(), "http-tunnel-plugin", env!("CARGO_PKG_VERSION"));
}

#[test]
fn mistakes_are_named_and_nothing_is_started() {
    let mistakes: &[(&[&str], i32, &str)] = &[
        (&[], 2, "--addr"),
        (&["--addr=/a", "--transport=ship"], 2, "'ship'"),
        (
            &["--addr=127.0.0.1:1", "--transport=shm"],
            2,
            "expected a path",
        ),
        (
            &["--addr=127.0.0.1:1", "--transport=handoff"],
            2,
            "expected a path",
        ),
        (
            &[
                "--addr=/a",
                "--transport=handoff",
                "--relay=host",
                "--origin=in-process",
            ],
            2,
            "nothing to relay to",
        ),
        (&["--addr=/a", "--shm-slots=1"], 2, "from 8 to"),
        (&["--addr=/a", "--admin=0.0.0.0:1"], 2, "loopback"),
        (&["--addr=/a", "--transprt=shm"], 2, "--transport"),
        (&["--addr=/a", "--upstream=/tmp/x"], 2, "unix:PATH"),
        (
            &["--addr=/a", "--upstream=unix:/x", "--origin=tcp"],
            2,
            "--upstream",
        ),
    ];
    cli::assert_mistakes_are_named(program, mistakes);
}
