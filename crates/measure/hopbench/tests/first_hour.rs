//! Goal: a new user gets from nothing to a measurement of their own hop by what the commands
//! themselves say. Method: the program, its files, and real paths where something must run.

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use serde_json::Value;
use support::{bench::Bench, installed, text};

/// The smallest possible path: the origin alone.
const PATH: &str = "\
summary = 'The origin alone.'
front = '127.0.0.1:{{port:front}}'
[[process]]
name = 'origin'
role = 'origin'
command = ['{{bin:http_baseline}}', '--listen=127.0.0.1:{{port:front}}', '--exit-with-stdin']
version = ['{{bin:http_baseline}}', '--version']
stops-with-stdin = true
";

#[test]
fn new_files_are_understood_and_never_overwritten() {
    let bench = Bench::new();
    for (kind, name) in [
        ("path", "my-proxy"),
        ("scenario", "mine"),
        ("gate", "strict.toml"),
    ] {
        let written = bench.run(&["new", kind, name]);
        assert_eq!(written.status.code(), Some(0), "{written:?}");
        let file = format!("{}.toml", name.trim_end_matches(".toml"));
        assert!(text(&written.stdout).starts_with(&format!("wrote '{file}'; ")));
        let described = bench.run(&["describe", &file]);
        assert_eq!(described.status.code(), Some(0), "{described:?}");

        let again = bench.run(&["new", kind, name]);
        assert_eq!(again.status.code(), Some(2), "{again:?}");
        assert!(
            text(&again.stderr).contains("the file already exists"),
            "{again:?}"
        );
    }
    let read = |name: &str| fs::read_to_string(bench.directory.path().join(name)).expect("text");
    for file in ["my-proxy.toml", "mine.toml", "strict.toml"] {
        assert!(!read(file).contains("NAME"), "{file}");
    }
    assert!(read("my-proxy.toml").contains("{{program:my-proxy}}"));
    // The next step names the lines to change.
    let told = text(&bench.run(&["new", "path", "other"]).stdout);
    let other = read("other.toml");
    let lines = other.lines().zip(1..);
    let lines = lines.filter(|(line, _)| line.contains(" = [\"{{program:other}}\""));
    let lines: Vec<i32> = lines.map(|(_, number)| number).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(told.contains(&format!("in line {line}")), "{told}");
    }
    // No program of that name is installed, and the error says so.
    let verified = bench.run(&["verify", "my-proxy.toml"]);
    assert_eq!(verified.status.code(), Some(4), "{verified:?}");
    let told = text(&verified.stderr);
    assert!(told.contains("'my-proxy' is not installed"), "{told}");

    let unnamed = bench.run(&["new", "path", ""]);
    assert_eq!(unnamed.status.code(), Some(2), "{}", text(&unnamed.stderr));
    let named = bench.run(&["new", "path", "two words"]);
    assert_eq!(named.status.code(), Some(2), "{named:?}");
    let elsewhere = bench.run(&["new", "path", "no-such-directory/x"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
}

#[test]
fn a_path_file_alone_is_verified_on_every_endpoint() {
    let bench = Bench::new();
    let path = bench.write("alone.toml", PATH);
    let verified = bench.run(&["verify", &path, "--format=json"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let results: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    let of_path = results.as_array().expect("a list").iter();
    let endpoints = of_path.filter(|result| result["path"] == "alone").count();
    assert!(endpoints > 5, "{results}");

    // A server that refuses an argument, and so doesn't start.
    let wrong = bench.write(
        "wrong.toml",
        &PATH.replace("'--exit", "'--inject-x', '--exit"),
    );
    let verified = bench.run(&["verify", &wrong]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(
        text(&verified.stdout).contains("'--inject-x'"),
        "{verified:?}"
    );
    bench.assert_nothing_left();
}

/// Returns the content of the tutorial's first code block in a language.
fn tutorial(language: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/TUTORIAL.md");
    let text = fs::read_to_string(file).expect("there");
    let fenced = text.split_once(&format!("```{language}\n"));
    let (fenced, _) = fenced
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect(language);
    fenced.to_owned()
}

#[test]
fn the_hops_of_the_tutorial_answer_rightly() {
    let bench = Bench::new();
    if installed("haproxy").is_some() {
        let path = bench.write("my-haproxy.toml", &tutorial("toml"));
        let verified = bench.run(&["verify", &path]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
    bench.write("my-proxy.py", &tutorial("python"));
    let program = bench.directory.path().join("my-proxy.py");
    assert!(tutorial("python").contains("4096"), "it is changed there");
    let written = bench.run(&["new", "path", "my-proxy"]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let file = bench.directory.path().join("my-proxy.toml");
    let path = fs::read_to_string(&file).expect("written");
    let path = path.replace("{{program:my-proxy}}", &program.display().to_string());
    fs::write(&file, path).expect("ours");
    let told = bench.run(&["verify", "my-proxy.toml"]);
    assert_eq!(told.status.code(), Some(4), "{told:?}");
    assert!(text(&told.stderr).contains("try 'chmod +x "), "{told:?}");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("ours");
    let verified = bench.run(&["verify", "my-proxy.toml"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    bench.assert_nothing_left();
}

#[test]
fn a_profile_is_in_the_report_or_says_why_not() {
    let bench = Bench::new();
    let path = bench.write("alone.toml", PATH);
    let profiled = bench.run(&["profile", &path, "--concurrency=2", "--duration-ms=400"]);
    let run_dir = bench.run_dir();
    let profiles = fs::read_to_string(run_dir.join("profiles.json")).expect("written");
    let profiles: Value = serde_json::from_str(&profiles).expect("JSON");
    let page = fs::read_to_string(run_dir.join("report.html")).expect("written");
    let mut seen = false;
    for profile in profiles.as_array().expect("a list") {
        let origin = &profile["roles"]["origin"];
        let has = |what: &str| origin[what].as_object().is_some_and(|it| !it.is_empty());
        let notes = profile["notes"].as_array().expect("a list");
        // Each tool has either found something or said why not.
        let tools = usize::from(has("stacks")) + usize::from(has("system_calls"));
        assert_eq!(tools + notes.len(), 2, "{profile}");
        for note in notes {
            // The kernel forbids it, or there is no such program; perf has many other reasons.
            let note = note.as_str().expect("text");
            let reasons = ["not permitted", "not installed", "perf"];
            assert!(reasons.iter().any(|reason| note.contains(reason)), "{note}");
        }
        seen |= tools > 0;
        if has("stacks") {
            assert!(page.contains("Flame graph of 'origin'"), "{profile}");
        }
        if has("system_calls") {
            let calls = &origin["system_calls"];
            let requests = profile["requests_traced"].as_u64().expect("a number");
            let sent = ["sendto", "writev", "write"].map(|name| calls[name].as_u64());
            let sent: u64 = sent.into_iter().flatten().sum();
            // Every answer was sent, and some after the count of requests had ended.
            assert!(sent >= requests / 2 && requests > 0, "{profile}");
        }
    }
    let code = if seen { 0 } else { 4 };
    assert_eq!(profiled.status.code(), Some(code), "{profiled:?}");
    assert!(
        text(&profiled.stdout).contains("Profile of profile alone /small c=2"),
        "{profiled:?}"
    );
    bench.assert_nothing_left();
}

#[test]
fn shells_and_manuals_know_the_commands() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.run(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{script:?}");
        let script = text(&script.stdout);
        for known in ["self-test", "rapace-stream", "quick-look", "cold-start"] {
            assert!(script.contains(known), "{shell}: {known}");
        }
    }
    let manual = text(&bench.run(&["man"]).stdout);
    assert!(
        manual.contains(".TH") && manual.contains("completions"),
        "{manual}"
    );
}

#[test]
fn formats_are_refused_where_nothing_prints_them() {
    let bench = Bench::new();
    for (arguments, only) in [
        (["list", "--format=csv"], "only for 'report'"),
        (["history", "--format=perf"], "only for 'run' and 'report'"),
        (["doctor", "--format=html"], "only for 'report'"),
    ] {
        let refused = bench.run(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(text(&refused.stderr).contains(only), "{refused:?}");
    }
}

#[test]
fn help_has_examples_that_are_understood() {
    let bench = Bench::new();
    let help = text(&bench.run(&["--help"]).stdout);
    let commands = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let mut tried = 0;
    for command in commands.filter(|word| word.chars().all(|it| it.is_lowercase() || it == '-')) {
        let help = text(&bench.run(&[command, "--help"]).stdout);
        let examples = help.split("Examples:").nth(1).unwrap_or_default();
        for line in examples.lines() {
            let Some(arguments) = line.trim().strip_prefix("hopbench ") else {
                continue;
            };
            let arguments = arguments.split(" > ").next().unwrap_or_default();
            let arguments = shlex::split(arguments).expect("the end of every quote");
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // With a wrong flag at the end nothing runs, and only that flag is reported if all else
            // is right.
            arguments.push("--not-a-flag");
            let errors = text(&bench.run(&arguments).stderr);
            assert!(errors.contains("'--not-a-flag'"), "{line}: {errors}");
            tried += 1;
        }
    }
    assert!(tried >= 20, "{tried}");
}
