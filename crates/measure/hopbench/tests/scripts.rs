//! Goal: each script says what it does, and does nothing else, if it is asked for help. Method: the
//! scripts themselves, with a compiler that only says that it was started.

mod support;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use support::{command, installed, output, text};

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../scripts");
    let entries = fs::read_dir(directory).expect("a directory");
    let files = entries.map(|entry| entry.expect("listed").path());
    let ends_with = |file: &PathBuf, ending| file.extension().is_some_and(|it| it == ending);
    files
        .filter(|file| ends_with(file, "sh") || ends_with(file, "py"))
        .collect()
}

#[test]
fn help_is_printed_at_once() {
    let place = tempfile::TempDir::new().expect("a directory");
    for tool in ["cargo", "npm", "cargo-fuzz", "valgrind"] {
        let file = place.path().join(tool);
        fs::write(&file, "#!/bin/sh\necho started >&2\nexit 9\n").expect("ours");
        fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("ours");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = [place.path().to_owned()].into_iter();
    let path = env::join_paths(directories.chain(env::split_paths(&path))).expect("a path");
    let mut asked = 0;
    for script in scripts() {
        if script.extension().is_some_and(|it| it == "py") && installed("python3").is_none() {
            continue;
        }
        let name = script.file_name().expect("a name").to_string_lossy();
        for flag in ["--help", "-h"] {
            let mut program = command(&script);
            program.env("PATH", &path).current_dir(place.path());
            let told = output(program.arg(flag));
            assert_eq!(told.status.code(), Some(0), "{name}: {told:?}");
            assert_eq!(text(&told.stderr), "", "{name}");
            let help = text(&told.stdout);
            // A sentence in plain words, without the marks of a comment.
            assert!(help.starts_with(char::is_uppercase), "{name}: {help}");
            assert!(!help.contains("set -e"), "{name}: {help}");
            asked += 1;
        }
    }
    assert!(asked >= 16, "{asked}");
}
