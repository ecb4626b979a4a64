//! hopbench's command line in an empty directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;

use super::{bin, command, output, text};

/// A directory in which nothing is ever started.
pub(crate) struct Shell {
    pub(crate) directory: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            directory: TempDir::new().expect("a directory"),
        }
    }

    pub(crate) fn hopbench(&self, arguments: &[&str]) -> Output {
        let mut program = command(bin("hopbench"));
        output(program.current_dir(self.directory.path()).args(arguments))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("writable");
        path.display().to_string()
    }

    /// Runs a command, and expects this exit code and these parts of the error.
    pub(crate) fn mistake(&self, arguments: &[&str], code: i32, expected: &[&str]) {
        let result = self.hopbench(arguments);
        let errors = text(&result.stderr);
        assert_eq!(result.status.code(), Some(code), "{arguments:?}: {errors}");
        for part in expected {
            assert!(
                errors.contains(part),
                "{arguments:?}: '{part}' is missing: {errors}"
            );
        }
        assert!(!errors.contains("panicked"), "{errors}");
        let results = self.directory.path().join("bench_results");
        let runs = fs::read_dir(results).map_or(0, |entries| {
            let names = entries.map(|entry| entry.expect("listed").file_name());
            names.filter(|name| name != ".lock").count()
        });
        assert_eq!(runs, 0, "{arguments:?}: a run was begun");
    }
}

/// Returns the directory of the committed run of the tunnel.
pub(crate) fn reference_run() -> PathBuf {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../bench_results/reference");
    let runs = fs::read_dir(runs).expect("a directory");
    let mut runs = runs.map(|run| run.expect("listed").path());
    let of_tunnel = runs.find(|run| run.join("overview-http-tunnel.svg").is_file());
    of_tunnel.expect("a run")
}
