//! hopbench in its own directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{bin, command, output, text, until};

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
        self.set_apart(&mut program);
        program.args(arguments);
        program
    }

    /// Gives a program what keeps this bench apart from those of other tests.
    pub(crate) fn set_apart(&self, program: &mut std::process::Command) {
        // A separate directory shows what a run leaves behind.
        program.env("TMPDIR", self.temporary());
        program.env("HOPBENCH_TEST_LOCK", self.temporary());
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

    /// Returns the directory of the only run.
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

/// Returns the children of a process whose command line contains `part`.
pub(crate) fn children_of(parent: i32, part: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("Linux") {
        let path = entry.expect("listed").path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else {
            continue;
        };
        let Some((_, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = fields.split_whitespace();
        let (state, its_parent) = (fields.next(), fields.next());
        let arguments = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        let ours = its_parent == Some(&parent.to_string()) && state != Some("Z");
        if ours && arguments.contains(part) {
            let name = path
                .file_name()
                .expect("named")
                .to_string_lossy()
                .into_owned();
            found.push(name.parse().expect("a process number"));
        }
    }
    found
}

/// Options of a short run. Whatever others do meanwhile, it has as many trials as were planned.
pub(crate) const SHORT: [&str; 5] = [
    "--concurrency=2",
    "--duration-ms=100",
    "--warm-up-ms=50",
    "--blocks=1",
    "--repeat-disturbed=0%",
];

/// Returns the arguments of a short run of a path and its reference, in one cell.
pub(crate) fn short(path: &str) -> Vec<&str> {
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path", path];
    [&what[..], &SHORT].concat()
}

/// Makes a short run, in which nothing may fail.
pub(crate) fn run_short(bench: &Bench, path: &str) {
    let result = bench.run(&short(path));
    assert!(result.status.success(), "{}", text(&result.stderr));
}

/// Writes a scenario that takes a while, for events in the middle of a run.
pub(crate) fn long(bench: &Bench) -> String {
    bench.write(
        "long.toml",
        "question = 'Does it go on?'\npaths = ['direct', 'rapace-stream']\n\
         endpoints = ['/small']\nconcurrency = [2]\nduration-ms = 1000\nblocks = 2\n\
         control = false\n",
    )
}

/// Writes a path whose server is `sh -c script`, for whatever may go wrong with a server.
pub(crate) fn shell_path(bench: &Bench, name: &str, script: &str) -> String {
    let script = script.replace('"', "\\\"");
    bench.write(
        name,
        &format!(
            "summary = 'x'\nfront = '127.0.0.1:{{{{port:front}}}}'\n\
             [[process]]\nname = 'server'\nrole = 'origin'\n\
             command = ['{{{{program:sh}}}}', '-c', \"{script}\"]\n\
             version = ['{{{{program:sh}}}}', '-c', 'echo 1']\n"
        ),
    )
}

/// Makes a short run in which the path fails; returns the failure.
pub(crate) fn failure(bench: &Bench, path: &str) -> Value {
    let mut arguments = short(path);
    arguments.push("--request-timeout-ms=300");
    let result = bench.run(&arguments);
    assert_eq!(result.status.code(), Some(1), "{}", text(&result.stderr));
    let trials = bench.trials();
    let failed = trials.into_iter().find(|trial| trial["path"] != "direct");
    bench.assert_nothing_left();
    failed.expect("a record of the path")["outcome"]["failed"].clone()
}
