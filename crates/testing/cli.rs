//! Promises that every program of this workspace makes about its command line.
//!
//! Tests of several crates include this file as a module, as they do `processes.rs`.

use assert_cmd::Command;

/// Asserts that `--version` prints the program's name and version, and nothing else.
pub(crate) fn assert_names_itself(mut program: Command, name: &str, version: &str) {
    let printed = format!("{name} {version}\n");
    program.arg("--version").assert().success().stdout(printed);
}

/// Asserts that each mistake ends the program with its exit code, and is named on stderr.
pub(crate) fn assert_mistakes_are_named(
    program: fn() -> Command,
    mistakes: &[(&[&str], i32, &str)],
) {
    for (arguments, code, expected) in mistakes {
        let output = program().args(*arguments).output().expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}
