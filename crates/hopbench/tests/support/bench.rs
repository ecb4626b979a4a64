//! hopbench in a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{bin, command, output, until};

/// A working directory with runs below it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        fs::create_dir(directory.path().join("tmp")).expect("fresh");
        Self { directory }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut program = command(bin("hopbench"));
        program.current_dir(self.directory.path());
        // So that what a run leaves there is seen.
        program.env("TMPDIR", self.temporary());
        program.args(arguments);
        program
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        output(&mut self.command(arguments))
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.directory.path().join(name), text).expect("writable");
        format!("./{name}")
    }

    /// The directory of the only run.
    pub(crate) fn run_dir(&self) -> PathBuf {
        let mut runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join("bench_results"));
        let entries = entries.into_iter().flatten();
        let paths = entries.map(|entry| entry.expect("listed").path());
        paths.filter(|path| path.is_dir()).collect()
    }

    pub(crate) fn trials(&self) -> Vec<Value> {
        trials(&self.run_dir())
    }

    pub(crate) fn assert_nothing_left(&self) {
        until("temporary files are gone", || {
            fs::read_dir(self.temporary())
                .expect("ours")
                .next()
                .is_none()
        });
    }
}

pub(crate) fn trials(run_dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run_dir.join("trials.jsonl")).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"));
    lines.collect()
}
