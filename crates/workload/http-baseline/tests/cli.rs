//! Goal: the command line says what it does and what it expects. Method: the program itself.

#[path = "../../../testing/cli.rs"]
mod cli;

use assert_cmd::{Command, cargo::cargo_bin_cmd};

fn program() -> Command {
    cargo_bin_cmd!("http_baseline")
}

#[test]
fn version_names_the_program() {
    cli::assert_names_itself(program(), "http-baseline", env!("CARGO_PKG_VERSION"));
}

#[test]
fn describe_tells_every_endpoint_or_those_asked_for() {
    let all = program().arg("--describe").output().expect("runs");
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(8));

    let some = program()
        .args(["--describe", "/small", "/bytes/8"])
        .output()
        .expect("runs");
    let some: serde_json::Value = serde_json::from_slice(&some.stdout).expect("JSON");
    assert_eq!(some[0]["length_bytes"], 2);
    // sha256 of "ok".
    let digest = "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df";
    assert_eq!(some[0]["sha256"], digest);
    assert_eq!(some[1]["target"], "/bytes/8");
}

#[test]
fn a_result_that_can_not_be_written_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    #[expect(clippy::disallowed_methods, reason = "its stdout is a file")]
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_http_baseline"));
    let made = program.arg("--describe").stdout(full.expect("Linux"));
    let made = made.output().expect("runs");
    assert_eq!(made.status.code(), Some(4));
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(
        errors.contains("error: could not write to stdout: No space left"),
        "{errors}"
    );
}

#[test]
fn mistakes_are_named() {
    let mistakes: &[(&[&str], i32, &str)] = &[
        (&["--describe", "/smal"], 4, "unknown endpoint '/smal'"),
        (&["--listen", "here"], 2, "expected 'HOST:PORT'"),
        (&["--threads", "0"], 2, "--threads"),
        (&["--lisen", "x"], 2, "--listen"),
        (&["--log", "a=b=c"], 4, "--log 'a=b=c'"),
        (
            &["--inject-cpu-percent=1001"],
            2,
            "'--inject-cpu-percent <N>': expected a number from 0 to 1000",
        ),
        (
            &["--inject-cpu-percent=NaN"],
            2,
            "'--inject-cpu-percent <N>': expected a number from 0 to 1000",
        ),
        (
            &["--inject-delay-us=10000001"],
            2,
            "'--inject-delay-us <N>': 10000001 is not in 0..=10000000",
        ),
        (&["--inject-leak-bytes=-1"], 2, "'--inject-leak-bytes <N>'"),
        (
            &["--inject-leak-bytes=1", "--inject-leak-total-mib=0"],
            2,
            "'--inject-leak-total-mib <M>'",
        ),
        (&["--inject-leak-total-mib=5"], 2, "--inject-leak-bytes <N>"),
    ];
    cli::assert_mistakes_are_named(program, mistakes);
}

#[test]
fn it_ends_with_its_stdin_and_says_what_it_has_done() {
    let arguments = ["--listen", "127.0.0.1:0", "--exit-with-stdin"];
    let output = program().args(arguments).output().expect("runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("listening on 127.0.0.1:"), "{stdout}");
    let counted: serde_json::Value = serde_json::from_str(lines[1]).expect("JSON");
    assert_eq!(counted["connections_accepted"], 0);
}
