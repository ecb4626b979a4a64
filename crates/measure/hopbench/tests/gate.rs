//! Goal: `hopbench gate` reports what the records say, to people, CI and programs, and by its exit
//! code. Method: the program itself, on runs written by hand; nothing is ever measured.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use support::{bin, command, output, text};
use tempfile::TempDir;

const BLOCKS: u64 = 8;

struct Shell {
    directory: TempDir,
}

/// Reads a file of the tunnel's committed run, from whose machine and trials other runs are made.
fn reference(name: &str) -> String {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../bench_results/reference");
    let runs = fs::read_dir(runs).expect("a directory");
    let mut runs = runs.map(|run| run.expect("listed").path());
    let of_tunnel = runs.find(|run| run.join("overview-http-tunnel.svg").is_file());
    let run = of_tunnel.expect("a run");
    fs::read_to_string(run.join(name)).expect("readable")
}

impl Shell {
    fn new() -> Self {
        Self {
            directory: TempDir::new().expect("a directory"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("writable");
        name.to_owned()
    }

    /// Writes a run of two builds. In each block the second trial is a replicate, and the last is
    /// b's with this share of the RPS.
    fn run_of_builds(&self, name: &str, blocks: u64, share: f64) {
        let sides = [("a", 0, 1.0), ("a", 1, 1.01), ("b", 0, share)];
        let builds: Vec<Value> = ["a", "b"]
            .map(|build| {
                json!({
                    "build": build, "asked": format!("the {build}"),
                    "git": {"revision": "0123456789abcdef", "dirty": false},
                })
            })
            .into();
        self.run(name, blocks, &json!(builds), |block| {
            let trials = sides.iter().map(|(build, replicate, share)| {
                let rps = share * (1.0 + 0.01 * (block % 3) as f64);
                (json!(build), *replicate, rps)
            });
            trials.collect()
        });
    }

    fn run(
        &self,
        name: &str,
        blocks: u64,
        builds: &Value,
        of_block: impl Fn(u64) -> Vec<(Value, u64, f64)>,
    ) {
        fs::create_dir(self.path(name)).expect("created");
        let mut manifest: Value = serde_json::from_str(&reference("manifest.json")).expect("JSON");
        manifest["schema"] = 2.into();
        manifest["builds"] = builds.clone();
        let trials = reference("trials.jsonl");
        let template: Value = trials
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .find(|trial: &Value| trial["load"]["good"].as_u64() > Some(1_000))
            .expect("measured");
        let elapsed_us = template["load"]["elapsed_us"].as_f64().expect("a time");
        let (mut lines, mut planned) = (String::new(), Vec::new());
        for block in 1..=blocks {
            for (build, replicate, share) in of_block(block) {
                let mut trial = template.clone();
                trial["trial"] = (planned.len() + 1).into();
                trial["block"] = block.into();
                trial["twin"] = replicate.into();
                trial["path"] = "mine".into();
                trial["load"]["elapsed_us"] = (elapsed_us / share).into();
                if !build.is_null() {
                    trial["build"] = build;
                }
                lines += &format!("{trial}\n");
                planned.push(trial);
            }
        }
        let plan = json!({"estimate_ms": 0, "trials": planned});
        self.write(&format!("{name}/manifest.json"), &manifest.to_string());
        self.write(&format!("{name}/plan.json"), &plan.to_string());
        self.write(&format!("{name}/trials.jsonl"), &lines);
    }

    fn gate(&self, arguments: &[&str]) -> Output {
        let mut program = command(bin("hopbench"));
        program.current_dir(self.directory.path()).arg("gate");
        output(program.args(arguments))
    }

    /// Judges a run, and expects this exit code; returns what was printed.
    fn judge(&self, arguments: &[&str], code: i32) -> String {
        let result = self.gate(arguments);
        let (out, errors) = (text(&result.stdout), text(&result.stderr));
        assert_eq!(
            result.status.code(),
            Some(code),
            "{arguments:?}: {out}{errors}"
        );
        assert!(!errors.contains("panicked"), "{errors}");
        out + &errors
    }
}

#[test]
fn the_exit_code_is_the_verdict() {
    let shell = Shell::new();
    shell.run_of_builds("equal", BLOCKS, 1.0);
    shell.run_of_builds("slower", BLOCKS, 0.5);
    shell.run_of_builds("short", 3, 0.5);
    let out = shell.judge(&["equal"], 0);
    assert!(
        out.contains("gate 'default': passed: 0 regressed, 0 inconclusive, 4 passed"),
        "{out}"
    );
    let out = shell.judge(&["slower"], 1);
    assert!(
        out.contains("a is 'the a' (0123456789ab), b is 'the b'"),
        "{out}"
    );
    assert!(
        out.contains("RPS falls by at most 15 %") && out.contains("-50."),
        "{out}"
    );
    let out = shell.judge(&["short"], 3);
    assert!(out.contains("3 blocks are too few"), "{out}");
    let mut report = command(bin("hopbench"));
    report
        .current_dir(shell.directory.path())
        .args(["report", "slower"]);
    let report = text(&output(&mut report).stdout);
    assert!(
        report.contains("\na is 'the a' (0123456789ab), b is 'the b'"),
        "{report}"
    );
    let written = fs::read_to_string(shell.path("slower/REPORT.md")).expect("written");
    assert!(
        written.contains("## b over a") && written.contains("| mine (b) |"),
        "{written}"
    );
    // The latest run below --out.
    shell.judge(&["--out", "."], 1);
    let json = shell.judge(&["slower", "--format=json"], 1);
    let json: Value = serde_json::from_str(&json).expect("one document");
    assert_eq!(
        (&json["verdict"], &json["regressed"]),
        (&json!("regressed"), &json!(1))
    );
    assert_eq!(json["findings"][0]["cell"]["path"], "mine");
}

#[test]
fn a_run_that_was_interrupted_is_judged_as_far_as_it_goes() {
    let shell = Shell::new();
    shell.run_of_builds("run", BLOCKS, 0.5);
    let trials = fs::read_to_string(shell.path("run/trials.jsonl")).expect("readable");
    let some: Vec<&str> = trials.lines().take(7).collect();
    shell.write("run/trials.jsonl", &some.join("\n"));
    let out = shell.judge(&["run"], 3);
    assert!(out.contains("the run is not complete: "), "{out}");
    shell.write("run/trials.jsonl", "");
    let out = shell.judge(&["run"], 3);
    assert!(out.contains("not measured"), "{out}");
}

#[test]
fn what_ci_reads_is_written_whole() {
    let shell = Shell::new();
    shell.run_of_builds("slower", BLOCKS, 0.5);
    let options = [
        "slower",
        "--junit=a.xml",
        "--markdown=a.md",
        "--annotations",
    ];
    let out = shell.judge(&options, 1);
    let annotation = "::error title=hopbench gate 'default'%3A regressed::";
    assert!(
        out.lines().any(|line| line.starts_with(annotation)),
        "{out}"
    );
    let comment = fs::read_to_string(shell.path("a.md")).expect("written");
    assert!(
        comment.starts_with("### ❌ gate 'default': regressed: 1 regressed"),
        "{comment}"
    );
    assert!(!shell.path("a.xml.new").exists() && !shell.path("a.md.new").exists());
    // An independent XML parser.
    let script = "import sys, xml.etree.ElementTree as e\n\
                  s = e.parse(sys.argv[1]).getroot()[0]\n\
                  print(s.get('tests'), s.get('failures'), len(s.findall('testcase/failure')))";
    let Some(python) = support::installed("python3") else {
        return;
    };
    let mut python = command(python);
    python.args(["-c", script]).arg(shell.path("a.xml"));
    let parsed = output(&mut python);
    assert_eq!(text(&parsed.stdout), "4 1 1\n", "{}", text(&parsed.stderr));

    // With JSON, annotations are kept apart.
    let result = shell.gate(&["slower", "--annotations", "--format=json"]);
    serde_json::from_slice::<Value>(&result.stdout).expect("one document");
    assert!(text(&result.stderr).contains(annotation));
    let out = shell.judge(&["slower", "--junit=no/such/a.xml"], 2);
    assert!(out.contains("could not write 'no/such/a.xml'"), "{out}");
}

#[test]
fn a_policy_of_ones_own_is_used() {
    let shell = Shell::new();
    shell.run_of_builds("slower", BLOCKS, 0.8);
    let lenient = "question = 'much slower?'\n[[relative]]\nmetric = 'rps'\n\
                   max-fall-percent = 30\nwhere = { path = ['mine'] }\n";
    let file = shell.write("lenient.toml", lenient);
    let out = shell.judge(&["slower", "--policy", &file], 0);
    assert!(
        out.contains("much slower?") && out.contains("gate 'lenient'"),
        "{out}"
    );
    shell.judge(&["slower", "--policy", "default"], 1);
    let misspelt = shell.write("misspelt.toml", &lenient.replace("mine", "mien"));
    let out = shell.judge(&["slower", "--policy", &misspelt], 3);
    assert!(out.contains("matches no cell of the run"), "{out}");
    let half = shell.write("half.toml", &lenient.replace("'mine'", "'mine', 'mien'"));
    let out = shell.judge(&["slower", "--policy", &half], 3);
    assert!(
        // The rest may be on the next line of a narrow table.
        out.contains("path 'mien' matches none of the"),
        "{out}"
    );
}

#[test]
fn mistakes_in_a_policy_are_named_with_their_place() {
    let shell = Shell::new();
    shell.run_of_builds("run", BLOCKS, 1.0);
    let head = "question = 'x'\n";
    for (policy, expected) in [
        (
            "[[relative]]\nmetric = 'rsp'\n",
            "metric 'rsp': expected rps, p50, p95, p99, cpu, cpu_over_client, rss or rss-growth",
        ),
        ("[[relativ]]\nmetric = 'rps'\n", "unknown field 'relativ'"),
        (
            "[[relative]]\nmetric = 'rps'\nmax-fall = 1\n",
            "unknown field 'max-fall'",
        ),
        (
            "[[relative]]\nmetric = 'rps'\n",
            "'rps': expected either 'max-fall-percent' or",
        ),
        (
            "[[invariant]]\npath = 'a'\nover = 'b'\nmetric = 'rps'\n",
            "expected either 'min-ratio' or 'max-ratio'",
        ),
    ] {
        let file = shell.write("mine.toml", &format!("{head}{policy}"));
        let out = shell.judge(&["run", "--policy", &file], 2);
        assert!(out.contains(expected) && out.contains("mine.toml"), "{out}");
        assert!(out.contains("line "), "{out}");
    }
    let empty = shell.write("mine.toml", head);
    let out = shell.judge(&["run", "--policy", &empty], 2);
    assert!(out.contains("at least one [[relative]]"), "{out}");
    let out = shell.judge(&["run", "--policy", "defualt"], 2);
    assert!(
        out.contains("unknown gate 'defualt' (did you mean 'default'?)"),
        "{out}"
    );
    let out = shell.judge(&["absent"], 2);
    assert!(out.contains("'absent' is not a run"), "{out}");
}

#[test]
fn a_run_of_one_build_needs_a_base() {
    let shell = Shell::new();
    // Only the path 'mine' is measured, not the reference.
    let of_share = |share: f64| {
        move |block: u64| {
            let spread = 1.0 + 0.01 * (block % 3) as f64;
            vec![(Value::Null, 0, share * spread)]
        }
    };
    for (name, share) in [("before", 1.0), ("after", 0.5)] {
        shell.run(name, BLOCKS, &json!([]), of_share(share));
    }
    let out = shell.judge(&["after"], 2);
    assert!(
        out.contains("policy 'default' has relative guardrails"),
        "{out}"
    );
    // Without the reference there are no shares to compare.
    let out = shell.judge(&["after", "--base", "before"], 3);
    assert!(
        out.contains("no block has the metric on both sides"),
        "{out}"
    );
    let out = shell.judge(&["after", "--base", "after"], 2);
    assert!(out.contains("is both the run and its base"), "{out}");
    let mut manifest = fs::read_to_string(shell.path("before/manifest.json")).expect("readable");
    manifest = manifest.replacen("\"cores\":2", "\"cores\":96", 1);
    shell.write("before/manifest.json", &manifest);
    let out = shell.judge(&["after", "--base", "before"], 3);
    assert!(out.contains("not comparable: cores '96' and '2'"), "{out}");
    shell.run_of_builds("builds", BLOCKS, 1.0);
    let out = shell.judge(&["builds", "--base", "before"], 2);
    assert!(out.contains("leave --base out"), "{out}");
}

#[test]
fn gates_are_listed_and_described() {
    let shell = Shell::new();
    let hopbench = |arguments: &[&str]| {
        let mut program = command(bin("hopbench"));
        text(&output(program.current_dir(shell.directory.path()).args(arguments)).stdout)
    };
    let listed = hopbench(&["list"]);
    let (_, gates) = listed.split_once("\ngates\n").expect("a heading");
    assert!(gates.trim_start().starts_with("default "), "{gates}");
    assert!(gates.contains("Did this change"), "{gates}");
    assert!(hopbench(&["describe", "default"]).contains("p95 rises by at most 20 %"));
    let rule = "question = 'x'\n[[invariant]]\npath = 'a'\nover = 'b'\nmetric = 'rps'\n\
                min-ratio = 1\nwhere = { rate = 5 }\n";
    let file = shell.write("mine.toml", rule);
    let described = hopbench(&["describe", &file]);
    assert!(
        described.contains("  a.rps >= 1 * b.rps where rate = 5\n"),
        "{described}"
    );
}
