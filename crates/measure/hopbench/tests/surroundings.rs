//! Goal: what surrounds hopbench steers nothing that is measured: each process gets an environment
//! that is stated and recorded. Method: the program itself, in surroundings that would steer it.

mod support;

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::PermissionsExt as _},
    path::PathBuf,
};

use serde_json::Value;
use support::{
    after,
    bench::{Bench, SHORT, short},
    bin, command, output, text,
};
use tempfile::TempDir;

/// Variables that would steer a server, the generator, or what is recorded.
const STEERING: [(&str, &str); 9] = [
    ("GIT_DIR", "/nowhere"),
    ("GIT_INDEX_FILE", "/nowhere"),
    ("LC_ALL", "de_DE.UTF-8"),
    ("LD_PRELOAD", ""),
    ("MALLOC_ARENA_MAX", "1"),
    ("RUSTFLAGS", "-Copt-level=0"),
    ("RUST_LOG", "trace"),
    ("TOKIO_WORKER_THREADS", "none"),
    ("http_proxy", "http://127.0.0.1:1"),
];

/// Writes a path whose server prints its surroundings before it serves.
fn telling(bench: &Bench) -> String {
    let server = bin("http_baseline");
    let script = format!(
        "env >{directory}/env; umask >{directory}/umask; \
         exec {server} --listen=127.0.0.1:{{{{port:front}}}}",
        directory = bench.directory.path().display(),
        server = server.display()
    );
    support::bench::shell_path(bench, "telling.toml", &script)
}

fn manifest(bench: &Bench) -> Value {
    let text = fs::read_to_string(bench.run_dir().join("manifest.json")).expect("written");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_process_gets_the_environment_that_is_recorded_and_nothing_else() {
    let bench = Bench::new();
    let path = telling(&bench);
    let mut hopbench = after("umask 077", &bench.command(&short(&path)));
    hopbench.current_dir(bench.directory.path());
    bench.set_apart(&mut hopbench);
    let result = output(hopbench.envs(STEERING));
    assert!(result.status.success(), "{}", text(&result.stderr));
    let recorded = manifest(&bench)["machine"].clone();
    let environment = recorded["environment"].as_object().expect("recorded");
    let told = fs::read_to_string(bench.directory.path().join("env")).expect("written");
    for line in told.lines() {
        let (name, value) = line.split_once('=').expect("a variable");
        // The shell sets the first three, and the directory differs from trial to trial.
        if !["PWD", "SHLVL", "_", "HOPBENCH_DIRECTORY"].contains(&name) {
            assert_eq!(environment[name], value, "{name}");
        }
    }
    assert_eq!(environment["LANG"], "C.UTF-8");
    for (name, _) in STEERING {
        assert!(!environment.contains_key(name), "{name} is passed on");
    }
    // What is for the user stays as private as the user wants.
    let umask = fs::read_to_string(bench.directory.path().join("umask")).expect("written");
    assert_eq!((umask.trim(), &recorded["umask"]), ("0022", &"0022".into()));
    let run = bench.run_dir().metadata().expect("there").permissions();
    assert_eq!(run.mode() & 0o777, 0o700);
}

/// Makes a checkout with one commit, and hopbench's programs in it; returns their directory.
fn checkout(directory: &TempDir) -> PathBuf {
    let git = |arguments: &[&str]| {
        let mut git = command("git");
        git.current_dir(directory.path()).args(arguments);
        let made = output(git.env_remove("GIT_DIR"));
        assert!(made.status.success(), "{}", text(&made.stderr));
    };
    let programs = directory.path().join("bin");
    fs::create_dir(&programs).expect("fresh");
    for name in ["hopbench-load", "http_baseline"] {
        std::os::unix::fs::symlink(bin(name), programs.join(name)).expect("fresh");
    }
    let user = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    git(&["init", "--quiet"]);
    git(&["add", "bin"]);
    git(&[&user[..], &["commit", "--quiet", "--message=x"]].concat());
    programs
}

#[test]
fn the_revision_is_that_of_the_programs_or_it_is_said_why_not() {
    let place = TempDir::new().expect("a directory");
    let programs = checkout(&place);
    let option = format!("--bin-dir={}", programs.display());
    let arguments = [&["run", "smoke", "--path=direct", &option], &SHORT[..]].concat();
    let known = Bench::new();
    let made = output(known.command(&arguments).envs(STEERING));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let revision = manifest(&known)["git"]["revision"].clone();
    assert_eq!(revision.as_str().map(str::len), Some(40), "{revision}");
    // A checkout that git refuses to read, as one of another user.
    fs::write(place.path().join(".git/HEAD"), "nothing").expect("writable");
    let unknown = Bench::new();
    let made = unknown.run(&arguments);
    let errors = text(&made.stderr);
    assert!(made.status.success(), "{errors}");
    let expected = "warning: revision: it is not known and not recorded: ";
    assert!(errors.contains(expected), "{errors}");
    let warnings = manifest(&unknown)["warnings"].to_string();
    assert!(warnings.contains("revision: it is not known"), "{warnings}");
}

#[test]
fn a_temporary_directory_that_does_not_serve_is_named_and_an_empty_name_is_none() {
    let bench = Bench::new();
    let long = bench.directory.path().join("x".repeat(100));
    fs::create_dir(&long).expect("fresh");
    for command in [&["verify", "direct"][..], &short("direct")] {
        let with = |directory: &str| output(bench.command(command).env("TMPDIR", directory));
        for (directory, expected) in [
            (long.to_str().expect("a name"), "would be too long"),
            ("nowhere", "/nowhere'; set TMPDIR to another"),
        ] {
            let refused = with(directory);
            let errors = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(4), "{errors}");
            assert!(errors.contains(expected), "{errors}");
        }
        // The name of a directory may also be relative to that of hopbench.
        for directory in ["", "tmp"] {
            let served = with(directory);
            assert!(served.status.success(), "{}", text(&served.stderr));
        }
    }
    let left = fs::read_dir(bench.directory.path()).expect("ours");
    let mut left = left.map(|entry| entry.expect("listed").file_name());
    assert!(!left.any(|name| name.to_string_lossy().starts_with("hopbench-")));
    bench.assert_nothing_left();
}

#[test]
fn a_version_that_takes_long_is_waited_for_aloud() {
    let bench = Bench::new();
    let script = "sleep {{port:front}}";
    let path = support::bench::shell_path(&bench, "slow.toml", script);
    let file = bench.directory.path().join("slow.toml");
    let toml = fs::read_to_string(&file).expect("written");
    fs::write(&file, toml.replace("'echo 1'", "'sleep 1000'")).expect("writable");
    let describe = support::Running::start(&mut bench.command(&["describe", &path]));
    let told = describe.error_line("waiting for '");
    assert!(told.contains("sh' to finish, 20 s at most"), "{told}");
}

/// A name that is not UTF-8, since its letter is Latin-1.
fn latin_1(name: &str) -> OsString {
    OsString::from_vec([name.as_bytes(), b"\xe4"].concat())
}

#[test]
fn results_may_be_in_a_directory_whose_name_is_not_utf_8() {
    let bench = Bench::new();
    let place = bench.directory.path().join(latin_1("results-"));
    let json = ["--format=json", "--out"];
    for command in [&short("direct")[..], &["report"], &["status"]] {
        let asked = output(bench.command(&[command, &json].concat()).arg(&place));
        let errors = text(&asked.stderr);
        assert!(asked.status.success(), "{command:?}: {errors}");
        let json: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
        let run = json["run"].as_str().expect("a name");
        assert!(run.contains("results-\u{fffd}/"), "{run}");
    }
    // Whoever can't say so in a file is told, and nothing is made elsewhere.
    let temporary = bench.temporary().join(latin_1("x"));
    fs::create_dir(&temporary).expect("fresh");
    let mut verify = bench.command(&["verify", "direct"]);
    let refused = output(verify.env("TMPDIR", &temporary));
    assert_eq!(refused.status.code(), Some(4));
    let errors = text(&refused.stderr);
    assert!(errors.contains("its name is not UTF-8"), "{errors}");
}

#[test]
fn a_hop_may_print_any_bytes_and_no_terminal_obeys_them() {
    let bench = Bench::new();
    let server = bin("http_baseline");
    let script = format!(
        "printf 'caf\\351 \\033[2J\\n' >&2; exec {} --listen=127.0.0.1:{{{{port:front}}}}",
        server.display()
    );
    let path = support::bench::shell_path(&bench, "loud.toml", &script.replace('\\', "\\\\"));
    let file = bench.directory.path().join("loud.toml");
    let toml = fs::read_to_string(&file).expect("written");
    let version = r"printf 'caf\\351 1.0 \\033[2J'";
    fs::write(&file, toml.replace("'echo 1'", &format!("\"{version}\""))).expect("writable");
    let made = bench.run(&short(&path));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let receipts = &manifest(&bench)["paths"][1]["receipts"];
    assert_eq!(receipts["server"], "caf\u{fffd} 1.0 \u{1b}[2J");
    for name in ["REPORT.md", "report.html", "summary.csv"] {
        let report = fs::read_to_string(bench.run_dir().join(name)).expect("written");
        assert!(!report.contains('\u{1b}'), "{name}");
    }
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    assert!(report.contains("caf\u{fffd} 1.0 "), "{report}");
    // Its last words are shown when it ends.
    let toml = fs::read_to_string(&file).expect("written");
    fs::write(&file, toml.replace("; exec ", "; false ")).expect("writable");
    let failed = bench.run(&["verify", &path]);
    let told = text(&failed.stdout) + &text(&failed.stderr);
    assert!(told.contains("caf\u{fffd} \u{241b}[2J"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told}");
}
