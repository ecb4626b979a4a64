//! Goal: the command line says what there is, and answers every mistake with what to try. Method:
//! the program itself, in an empty directory; nothing is ever started.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{
    shell::{Shell, reference_run},
    text,
};
use tempfile::TempDir;

#[test]
fn list_names_everything_and_says_what_it_is() {
    let shell = Shell::new();
    let listed = text(&shell.hopbench(&["list"]).stdout);
    for name in [
        "direct",
        "rapace-shm-large",
        "haproxy-tcp",
        "http-tunnel",
        "placements",
        "smoke",
    ] {
        assert!(
            listed
                .lines()
                .any(|line| line.trim_start().starts_with(name)),
            "{listed}"
        );
    }
    let json = shell.hopbench(&["list", "--format=json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["paths"][0]["name"], "direct");
    assert_eq!(json["scenarios"].as_array().map(Vec::len), Some(35));
}

#[test]
fn describe_knows_paths_scenarios_and_endpoints() {
    let shell = Shell::new();
    for (name, expected) in [
        ("rapace-stream", "role              plugin"),
        ("ring", "admin             unix:{{socket:host-admin}}"),
        ("ring", "--addr={{socket:tunnel}}"),
        ("haproxy-tcp", "files             haproxy.cfg"),
        ("http-tunnel", "[1, 8, 64, 256]"),
        (
            "/small",
            "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df",
        ),
        ("/echo:2", "POST"),
    ] {
        let result = shell.hopbench(&["describe", name]);
        let out = text(&result.stdout);
        assert!(
            result.status.success() && out.contains(expected),
            "{name}: {out}"
        );
    }
}

#[test]
fn a_plan_is_the_same_for_the_same_seed() {
    let shell = Shell::new();
    let plan = |seed: &str| {
        let result = shell.hopbench(&["plan", "http-tunnel", "--seed", seed, "--blocks=1"]);
        assert!(result.status.success(), "{}", text(&result.stderr));
        text(&result.stdout)
    };
    assert_eq!(plan("1"), plan("1"));
    assert_ne!(plan("1"), plan("2"));
    // 11 paths and a control, 2 endpoints, 4 concurrencies.
    assert!(plan("1").contains("96 trials"), "{}", plan("1"));
    assert!(plan("1").contains("direct (control)"), "{}", plan("1"));
}

#[test]
fn names_that_are_not_there_get_their_neighbours() {
    let shell = Shell::new();
    shell.mistake(
        &["run", "http-tunel"],
        2,
        &[
            "unknown scenario 'http-tunel'",
            "did you mean 'http-tunnel'?",
            "uploads",
        ],
    );
    shell.mistake(
        &["run", "smoke", "--path", "rapace-smh"],
        2,
        &["unknown path 'rapace-smh'", "did you mean 'rapace-shm'?"],
    );
    shell.mistake(
        &["run", "smoke", "--path", "tag:rpace"],
        2,
        &["did you mean 'rapace'?"],
    );
    shell.mistake(
        &["describe", "smokee"],
        2,
        &["path, scenario, gate or probe 'smokee'", "'smoke'"],
    );
    shell.mistake(
        &["run", "smoke", "--endpoint", "/smal"],
        2,
        &["unknown endpoint '/smal'"],
    );
    shell.mistake(&["run", "smoke", "--blok", "1"], 2, &["--blok", "--blocks"]);
    shell.mistake(&["rum"], 2, &["'rum'", "run"]);
    shell.mistake(&["run"], 2, &["<SCENARIO>"]);
}

#[test]
fn a_plan_says_what_it_cannot_plan_yet() {
    let shell = Shell::new();
    let result = shell.hopbench(&["plan", "latency-vs-rate", "--path=ring", "--blocks=1"]);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let plan = text(&result.stdout);
    // Seven shares, each with two trials of the reference and one of the path.
    let expected = "'latency-vs-rate': finding the knees takes about";
    assert!(
        plan.contains(expected) && plan.contains("up to 21 trials"),
        "{plan}"
    );
}

#[test]
fn several_paths_may_follow_one_option() {
    let shell = Shell::new();
    for arguments in [
        ["plan", "smoke", "--path", "forwarder-tcp", "forwarder-http"],
        ["plan", "--path", "forwarder-tcp", "forwarder-http", "smoke"],
    ] {
        let result = shell.hopbench(&arguments);
        let plan = text(&result.stdout);
        assert!(result.status.success(), "{}", text(&result.stderr));
        let has = |path: &str| plan.contains(path);
        assert!(has("forwarder-tcp") && has("forwarder-http"), "{plan}");
    }
}

#[test]
fn numbers_out_of_bounds_say_what_was_expected() {
    let shell = Shell::new();
    for (option, expected) in [
        (
            "--concurrency=0",
            "'0' for '--concurrency <N>': expected 1 to 16384",
        ),
        ("--concurrency=20000", "expected 1 to 16384"),
        ("--duration-ms=0", "expected 1 to 3600000"),
        ("--blocks=0", "'--blocks <N>': expected 1 to 200"),
        ("--warm-up-ms=x", "expected 0 to 3600000"),
        ("--rate=2000000", "expected 1 to 1000000"),
        ("--endpoint=small", "begins with '/'"),
        ("--endpoint=/echo:x", "body length"),
        ("--load-threads=0", "--load-threads"),
        ("--concurrency=8,1,8", "'--concurrency': '8' is repeated"),
        (
            "--endpoint=/small,/small",
            "'--endpoint': '/small' is repeated",
        ),
        ("--rate=500,500", "'--rate': '500' is repeated"),
        (
            "--rate=1",
            "'--rate': 1 per second is less than one request in 200 ms ('duration-ms'); expected 5",
        ),
    ] {
        shell.mistake(&["run", "smoke", option], 2, &[expected]);
    }
    shell.mistake(&["run", "smoke", "--rate", "-5"], 2, &["'-5'", "--rate"]);
    shell.mistake(
        &["run", "smoke", "--endpoint=/small:7"],
        2,
        &["'/small' takes no body"],
    );
}

#[test]
fn broken_files_are_named_with_line_field_and_expectation() {
    let shell = Shell::new();
    let path = shell.write(
        "hop.toml",
        "summary = 'x'\nfront = '127.0.0.1:{{port:a}}'\ncolour = 'red'\nprocess = []\n",
    );
    let expected = [
        path.as_str(),
        "line 3",
        "unknown field 'colour'",
        "'summary'",
    ];
    shell.mistake(&["run", "smoke", "--path", &path], 2, &expected);

    let path = shell.write(
        "hop.toml",
        "summary = 'x'\nfront = '127.0.0.1:{{prot:a}}'\n",
    );
    let expected = [path.as_str(), "line 2", "did you mean 'port'?"];
    shell.mistake(&["run", "smoke", "--path", &path], 2, &expected);

    let scenario = shell.write("mine.toml", "question = 'x'\npaths = 'direct'\n");
    let expected = [scenario.as_str(), "line 2", "expected a list"];
    shell.mistake(&["run", &scenario], 2, &expected);
    shell.mistake(&["describe", &scenario], 2, &expected);

    shell.mistake(
        &["run", "./no-such.toml"],
        2,
        &["'./no-such.toml'", "No such file"],
    );
    let directory = shell.directory.path().display().to_string() + "/";
    shell.mistake(
        &["run", "smoke", "--path", &directory],
        2,
        &["could not read"],
    );
}

#[test]
fn what_is_missing_is_named_with_a_way_to_get_it() {
    let shell = Shell::new();
    let empty = TempDir::new().expect("a directory");
    let empty = format!("--bin-dir={}", empty.path().display());
    let build = "cargo build --release";
    shell.mistake(
        &["run", "smoke", &empty],
        4,
        &["'http_baseline' is not in", build],
    );
    let doctor = shell.hopbench(&["doctor", &empty]);
    assert_eq!(doctor.status.code(), Some(4));
    assert!(
        text(&doctor.stdout).contains("BROKEN"),
        "{}",
        text(&doctor.stdout)
    );

    let path = shell.write(
        "hop.toml",
        "summary = 'x'\nfront = '127.0.0.1:{{port:a}}'\n\
         [install]\nno-such-program = 'apt-get install it'\n\
         [[process]]\nname = 'p'\nrole = 'hop'\n\
         command = ['{{program:no-such-program}}', '{{port:a}}']\n\
         version = ['{{program:no-such-program}}']\n",
    );
    let expected = ["'no-such-program' is not installed", "apt-get install it"];
    shell.mistake(&["run", "smoke", "--path", &path], 4, &expected);

    for (program, trouble) in [
        ("no-such-program", "'no-such-program' is not installed"),
        ("/no/such/program", "'/no/such/program' does not exist"),
        ("/etc/passwd", "'/etc/passwd' is not executable"),
    ] {
        // A path that leads nowhere is misspelt. Anything else can be installed or made right.
        let code = if program == "/no/such/program" { 2 } else { 4 };
        let path = shell.write(
            "literal.toml",
            &format!(
                "summary = 'x'\nfront = '127.0.0.1:{{{{port:a}}}}'\n\
                 [[process]]\nname = 'p'\nrole = 'hop'\ncommand = ['{program}', '{{{{port:a}}}}']\n\
                 version = ['sh']\n"
            ),
        );
        shell.mistake(&["run", "smoke", "--path", &path], code, &[trouble]);
    }
}

#[test]
fn results_that_cannot_be_written_are_noticed_first() {
    let shell = Shell::new();
    let file = shell.write("file", "");
    let expected = ["could not write results below", file.as_str()];
    shell.mistake(&["run", "smoke", "--out", &file], 4, &expected);
    shell.mistake(
        &["run", "smoke", "--out", "/proc/results"],
        4,
        &["/proc/results"],
    );
    for command in [
        &["report", "."][..],
        &["compare", ".", "."],
        &["history", "--add", "."],
    ] {
        shell.mistake(command, 2, &["'.' is not a run"]);
    }
}

#[test]
fn a_file_that_is_there_or_is_not_is_named_once() {
    let shell = Shell::new();
    shell.write("mine.toml", "");
    let expected = ["unknown path 'mine' (did you mean the file 'mine.toml'?)"];
    shell.mistake(&["run", "smoke", "--path=mine"], 2, &expected);
    let result = shell.hopbench(&["verify", "./absent.toml"]);
    assert_eq!(result.status.code(), Some(2));
    assert_eq!(text(&result.stderr).matches("absent.toml").count(), 1);
}

#[test]
fn doctor_finds_this_machine_fit() {
    let result = Shell::new().hopbench(&["doctor"]);
    let out = text(&result.stdout);
    assert!(result.status.success(), "{out}");
    assert!(
        out.contains("path direct") && out.contains("open files"),
        "{out}"
    );
}

/// A file is not taken for the catalog's path of that name, nor the other way round.
#[test]
fn two_paths_of_one_name_are_a_mistake() {
    let shell = Shell::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("direct.toml");
    let text = "summary = 's'\nfront = '127.0.0.1:{{port:front}}'\n[[process]]\nname = 'a'\n\
                role = 'a'\ncommand = ['{{program:sh}}', '{{port:front}}']\nversion = ['true']\n";
    fs::write(&file, text).expect("writable");
    let file = file.to_str().expect("text");
    shell.mistake(
        &["verify", "smoke", "--path", file],
        2,
        &["two different paths are named 'direct'", "rename"],
    );
}

#[test]
fn a_run_is_compared_with_its_like_and_not_with_another_machine_s() {
    let shell = Shell::new();
    let base = reference_run();
    let base_name = base.to_str().expect("a name");
    let other = shell.directory.path().join("other");
    fs::create_dir(&other).expect("created");
    for name in ["plan.json", "trials.jsonl"] {
        fs::copy(base.join(name), other.join(name)).expect("copied");
    }
    let manifest = fs::read_to_string(base.join("manifest.json")).expect("readable");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    shell.write("other/manifest.json", &manifest.to_string());
    let other = other.to_str().expect("a name");
    let same = shell.hopbench(&["compare", base_name, other]);
    assert!(same.status.success(), "{}", text(&same.stderr));
    let tables = text(&same.stdout);
    assert!(tables.contains("\n0 of "), "{tables}");
    let itself = shell.hopbench(&["compare", other, other]);
    assert!(itself.status.success(), "{}", text(&itself.stderr));
    let tables = text(&itself.stdout);
    assert!(
        tables.contains(", the same run\n") && tables.contains("\n0 of "),
        "{tables}"
    );
    let runs = shell.directory.path().to_str().expect("a name");
    shell.mistake(
        &["compare", other, "--out", runs],
        2,
        &["is itself the latest run"],
    );

    // Another version of a program that doesn't belong to this workspace.
    let mut newer = manifest.clone();
    let paths = newer["paths"].as_array_mut().expect("a list");
    let outside = paths
        .iter_mut()
        .find(|path| path["receipts"]["nginx"].is_string());
    outside.expect("there")["receipts"]["nginx"] = "nginx version: nginx/9.9.9".into();
    shell.write("other/manifest.json", &newer.to_string());
    shell.mistake(
        &["compare", base_name, other],
        3,
        &["version of 'nginx' on path"],
    );
    let allowed = shell.hopbench(&["compare", base_name, other, "--other-versions"]);
    assert!(allowed.status.success(), "{}", text(&allowed.stderr));

    manifest["machine"]["cores"] = 96.into();
    shell.write("other/manifest.json", &manifest.to_string());
    shell.mistake(
        &["compare", base_name, other],
        3,
        &["the runs are not comparable: cores '2' and '96'"],
    );
    shell.mistake(&["compare", base_name, "absent"], 2, &["'absent'"]);
    shell.mistake(&["compare", base_name], 2, &["there are no runs"]);
    let both = [base_name, "/other'", ", the latest run: the runs are not"];
    shell.mistake(&["compare", base_name, "--out", runs], 3, &both);
}

#[test]
fn a_history_has_runs_of_commits_and_rows_that_can_be_read() {
    let shell = Shell::new();
    let base = reference_run();
    let name = base.to_str().expect("a name");
    let file = "--file=history.jsonl";
    let added = shell.hopbench(&["history", file, "--add", name]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    assert!(
        text(&added.stdout).starts_with("1 row, 1 made under"),
        "{added:?}"
    );

    let unfit = shell.directory.path().join("unfit");
    fs::create_dir(&unfit).expect("created");
    for name in ["plan.json", "trials.jsonl"] {
        fs::copy(base.join(name), unfit.join(name)).expect("copied");
    }
    let manifest = fs::read_to_string(base.join("manifest.json")).expect("readable");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["git"]["dirty"] = true.into();
    shell.write("unfit/manifest.json", &manifest.to_string());
    let unfit = unfit.to_str().expect("a name");
    let expected = ["was made with uncommitted changes"];
    shell.mistake(&["history", file, "--add", unfit], 2, &expected);

    // One block is too few.
    manifest["git"]["dirty"] = false.into();
    shell.write("unfit/manifest.json", &manifest.to_string());
    let plan = fs::read_to_string(base.join("plan.json")).expect("readable");
    let mut plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let planned = plan["trials"].as_array_mut().expect("a list");
    planned.retain(|trial| trial["block"] == 1);
    shell.write("unfit/plan.json", &plan.to_string());
    let trials = fs::read_to_string(base.join("trials.jsonl")).expect("readable");
    let first = trials.lines().filter(|line| line.contains("\"block\":1,"));
    let first: Vec<&str> = first.collect();
    shell.write("unfit/trials.jsonl", &(first.join("\n") + "\n"));
    let expected = ["has too few blocks of 'http-tunnel' (1): expected at least 3"];
    shell.mistake(&["history", file, "--add", unfit], 2, &expected);

    // A row of the first release, before the new one; and one of a release to come.
    let row = fs::read_to_string(shell.directory.path().join("history.jsonl")).expect("written");
    let old = "{\"started\":\"2026-01-02T03:04:05Z\",\"revision\":\"old\",\"conditions\":{},\
               \"cells\":[]}\n";
    shell.write("history.jsonl", &format!("{old}{row}"));
    let both = shell.hopbench(&["history", file]);
    let out = text(&both.stdout);
    assert!(out.starts_with("2 rows, 1 made under"), "{both:?}");
    assert!(
        out.contains("left out: 1 row, clock source not recorded"),
        "{out}"
    );
    let newer = row.replace("\"schema\":2", "\"schema\":3,\"more\":true");
    shell.write("history.jsonl", &format!("{row}{newer}"));
    shell.mistake(&["history", file], 4, &["line 2", "the row has schema 3"]);
}

/// The reference runs have different scenarios; here they are made on one machine.
#[test]
fn a_history_takes_runs_of_different_scenarios() {
    let shell = Shell::new();
    let first = reference_run();
    let read = |run: &Path| -> serde_json::Value {
        let manifest = fs::read_to_string(run.join("manifest.json")).expect("readable");
        serde_json::from_str(&manifest).expect("JSON")
    };
    let machine = read(&first)["machine"].clone();
    let runs = fs::read_dir(first.parent().expect("below another")).expect("listed");
    let mut runs: Vec<PathBuf> = runs.map(|run| run.expect("listed").path()).collect();
    runs.sort_unstable();
    assert!(runs.len() >= 2, "{runs:?}");
    let mut out = String::new();
    for (index, run) in runs.iter().enumerate() {
        let name = format!("run-{index}");
        let copy = shell.directory.path().join(&name);
        fs::create_dir(&copy).expect("created");
        for name in ["plan.json", "trials.jsonl"] {
            fs::copy(run.join(name), copy.join(name)).expect("copied");
        }
        let mut manifest = read(run);
        manifest["machine"] = machine.clone();
        shell.write(&format!("{name}/manifest.json"), &manifest.to_string());
        let added = shell.hopbench(&["history", "--file=history.jsonl", "--add", &name]);
        assert!(added.status.success(), "{}", text(&added.stderr));
        out = text(&added.stdout);
    }
    let count = runs.len();
    let expected = format!("{count} rows, {count} made under");
    assert!(out.starts_with(&expected), "{out}");
    for scenario in ["http-tunnel direct", "http-proxies direct"] {
        assert!(out.contains(&format!("| {scenario} ")), "{out}");
    }
    // Nothing is missing only because the last run has another scenario.
    assert!(
        !out.contains("not measured") && !out.contains(" none |"),
        "{out}"
    );
}

#[test]
fn what_cannot_be_a_definition_is_refused_at_once() {
    let shell = Shell::new();
    let path = "summary = 'x'\nfront = '127.0.0.1:{{port:a}}'\n[[process]]\nname = 'a'\n\
                role = 'origin'\ncommand = ['true', '{{port:a}}']\nversion = ['true']\n";
    let odd = shell.write("a|b.toml", path);
    shell.mistake(&["plan", "smoke", "--path", &odd], 2, &["rename the file"]);
    let empty = shell.write("empty.toml", "\n");
    let expected = ["'hopbench new' writes one to start from"];
    shell.mistake(&["plan", "smoke", "--path", &empty], 2, &expected);
    let huge = shell.write("huge.toml", &"#".repeat((1 << 20) + 1));
    shell.mistake(&["plan", "smoke", "--path", &huge], 2, &["at most 1 MiB"]);
    // Reading these would block, or never end.
    let fifo = shell.directory.path().join("fifo.toml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).expect("made");
    let fifo = fifo.to_str().expect("a name");
    for file in [fifo, "/dev/zero"] {
        shell.mistake(
            &["plan", "smoke", "--path", file],
            2,
            &["expected a regular file"],
        );
    }
    for directory in [&huge, "/nope"] {
        let expected = [directory, "expected a directory"];
        shell.mistake(&["--bin-dir", directory, "list"], 2, &expected);
    }
}
