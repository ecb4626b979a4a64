//! Goal: an exported project is what another engine runs, and what it reports is shown apart from
//! everything that was measured here. Method: export every scenario; let Python, Node.js and the
//! type checker read the projects; let Locust's master and two workers run one against a node.
//!
//! `UPDATE_K6=1 cargo test -p hopbench --test export` writes the committed scripts anew.

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{
    Running, bin, command, installed, output,
    shell::{Shell, reference_run},
    text,
};

const TARGET: &str = "--target=http://127.0.0.1:8080";

/// Scenarios whose scripts for k6 are committed, with the names of the scripts.
const COMMITTED: [(&str, &str); 4] = [
    ("edge-quick", "quick-test.js"),
    ("edge-load", "load-test.js"),
    ("edge-stress", "stress-test.js"),
    ("edge-soak", "soak-test.js"),
];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    root.expect("crates/measure/hopbench is three below")
        .to_owned()
}

/// Returns the directory of `scripts/external-engines.sh`. Without it, says loudly what is not
/// tested.
fn engines() -> Option<PathBuf> {
    let programs = bin("hopbench");
    let target = programs.ancestors().nth(2).expect("target/debug/hopbench");
    let engines = target.join("external-engines");
    let is_there = engines.join("installed").is_file();
    if !is_there {
        assert!(
            std::env::var_os("HOPBENCH_TEST_PEERS").is_none(),
            "run scripts/external-engines.sh where HOPBENCH_TEST_PEERS is set"
        );
        eprintln!(
            "SKIPPED: '{}' is not there (scripts/external-engines.sh), so other engines are not \
             tested",
            engines.display()
        );
    }
    is_there.then_some(engines)
}

/// Exports a scenario that has one load, or one of the loads of one that has several. Returns the
/// directory, or all reasons why the scenario can't be exported.
fn export(shell: &Shell, engine: &str, scenario: &str) -> Result<PathBuf, String> {
    let mut reasons = String::new();
    for choice in [
        &[][..],
        &["--concurrency=8"],
        &["--concurrency=8", "--endpoint=/small", "--rate=100"],
    ] {
        let arguments = [&["export", engine, scenario, TARGET][..], choice].concat();
        let result = shell.hopbench(&arguments);
        if result.status.success() {
            return Ok(shell.directory.path().join(format!("{scenario}-{engine}")));
        }
        let why = text(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{arguments:?}: {why}");
        reasons += &why;
    }
    Err(reasons)
}

fn succeeds(command: &mut std::process::Command) {
    let result = output(command);
    let (out, errors) = (text(&result.stdout), text(&result.stderr));
    assert!(result.status.success(), "{command:?}: {out}{errors}");
}

/// Returns the projects for an engine of all scenarios that can be exported.
fn projects(shell: &Shell, engine: &str) -> Vec<PathBuf> {
    let listed = shell.hopbench(&["list", "--format=json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let mut projects = Vec::new();
    for scenario in listed["scenarios"].as_array().expect("a list") {
        match export(shell, engine, scenario["name"].as_str().expect("a name")) {
            Ok(directory) => projects.push(directory),
            Err(why) => {
                let reasons = ["[[prepare]] loads", "a number of requests", "it has stages"];
                assert!(reasons.iter().any(|it| why.contains(it)), "{why}");
            }
        }
    }
    assert!(projects.len() > 20, "{projects:?}");
    projects
}

#[test]
fn python_reads_every_project_for_locust() {
    let shell = Shell::new();
    let projects = projects(&shell, "locust");
    let Some(python) = installed("python3") else {
        return;
    };
    let files = projects.iter().map(|project| project.join("locustfile.py"));
    succeeds(command(python).args(["-m", "py_compile"]).args(files));
}

#[test]
fn node_and_the_type_checker_read_every_project_for_k6() {
    let shell = Shell::new();
    let types = [
        ("POST", "--endpoint=/echo:300", "bytes"),
        ("sleep(", "", "think"),
    ];
    let slow = "question = 'x'\npaths = ['direct']\nendpoints = ['/small']\nconcurrency = [3]\n\
                think-time-ms = 250\nduration-ms = 1500\nblocks = 1\nkeep-alive = false\n";
    let slow = shell.write("think.toml", slow);
    let mut scripts: Vec<PathBuf> = projects(&shell, "k6");
    for (part, endpoint, name) in types {
        let mut arguments = vec!["export", "k6", &slow, TARGET, "--out", name];
        arguments.extend(Some(endpoint).filter(|it| !it.is_empty()));
        let result = shell.hopbench(&arguments);
        assert!(result.status.success(), "{}", text(&result.stderr));
        let project = shell.directory.path().join(name);
        let script = fs::read_to_string(project.join("script.js")).expect("written");
        assert!(
            script.contains(part) && script.contains("noConnectionReuse"),
            "{script}"
        );
        scripts.push(project);
    }
    for script in &mut scripts {
        let name = script
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        // Node.js takes the ending for what it is: a module.
        let module = shell.directory.path().join(format!("{name}.mjs"));
        fs::copy(script.join("script.js"), &module).expect("copied");
        *script = module;
    }
    if let Some(node) = installed("node") {
        for script in &scripts {
            succeeds(command(&node).arg("--check").arg(script));
        }
    }
    let Some(engines) = engines() else {
        return;
    };
    let check = |scripts: &[PathBuf]| {
        let modules = shell.directory.path().join("node_modules");
        let _ = fs::remove_file(&modules);
        std::os::unix::fs::symlink(engines.join("node_modules"), &modules).expect("linked");
        let options = [
            "--noEmit",
            "--allowJs",
            "--checkJs",
            "--strict",
            "--noUnusedLocals",
            "--target",
            "es2022",
            "--module",
            "es2022",
            "--moduleResolution",
            "bundler",
            "--types",
            "k6",
        ];
        let mut checker = command(engines.join("node_modules/.bin/tsc"));
        output(
            checker
                .current_dir(shell.directory.path())
                .args(options)
                .args(scripts),
        )
    };
    let checked = check(&scripts);
    assert!(checked.status.success(), "{}", text(&checked.stdout));
    // The checker would notice an option that k6 doesn't have.
    let script = fs::read_to_string(&scripts[0]).expect("text");
    let broken = shell.write(
        "broken.mjs",
        &script.replace("summaryTrendStats", "summaryTrends"),
    );
    let checked = check(&[broken.into()]);
    assert!(
        text(&checked.stdout).contains("summaryTrends"),
        "{checked:?}"
    );
}

#[test]
fn the_committed_scripts_are_those_of_the_scenarios() {
    let shell = Shell::new();
    for (scenario, name) in COMMITTED {
        let project = export(&shell, "k6", scenario).expect("exported");
        let script = fs::read_to_string(project.join("script.js")).expect("written");
        let committed = root().join("k6").join(name);
        if std::env::var_os("UPDATE_K6").is_some() {
            fs::write(&committed, &script).expect("writable");
        }
        let found = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            found == script,
            "'k6/{name}' is not what 'hopbench export k6 {scenario}' writes; UPDATE_K6=1 cargo \
             test -p hopbench --test export"
        );
    }
}

#[test]
fn thresholds_are_those_of_the_policy() {
    let shell = Shell::new();
    let gate = shell.write(
        "mine.toml",
        "question = 'x'\n[[absolute]]\nmetric = 'p99_ms'\nmax = 12.5\n\
         [[absolute]]\nmetric = 'rps'\nmin = 900\n\
         [[absolute]]\nmetric = 'errors'\nmax = 3\nwhere = { scenario = 'another' }\n\
         [[absolute]]\nmetric = 'rss_peak_mib'\nmax = 100\n",
    );
    let result = shell.hopbench(&["export", "k6", "edge-quick", TARGET, "--gate", &gate]);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let project = shell.directory.path().join("edge-quick-k6");
    let script = fs::read_to_string(project.join("script.js")).expect("written");
    for rule in ["\"p(99)<=12.5\"", "\"rate>=900\""] {
        assert!(script.contains(rule), "{rule}: {script}");
    }
    assert!(!script.contains("count<="), "{script}");
    let readme = fs::read_to_string(project.join("README.md")).expect("written");
    assert!(
        readme.contains("2 of the guardrails of the policy 'mine'"),
        "{readme}"
    );
}

#[test]
fn answers_are_those_of_the_path_that_is_named() {
    let shell = Shell::new();
    for (path, status) in [
        (None, "\"status\": 200"),
        (Some("edge-full"), "\"status\": 403"),
    ] {
        let out = path.unwrap_or("reference");
        let mut arguments = vec!["export", "k6", "waf-attack", TARGET, "--out", out];
        arguments.extend(path.map(|_| "--path"));
        arguments.extend(path);
        let result = shell.hopbench(&arguments);
        assert!(result.status.success(), "{}", text(&result.stderr));
        let script = shell.directory.path().join(out).join("script.js");
        let script = fs::read_to_string(script).expect("written");
        assert!(script.contains(status), "{script}");
    }
}

#[test]
fn what_cannot_be_exported_is_refused_with_what_to_do() {
    let shell = Shell::new();
    let mistake = |arguments: &[&str], expected: &[&str]| {
        shell.mistake(&[&["export"], arguments].concat(), 2, expected);
    };
    mistake(
        &["locust", "mixx", TARGET],
        &["unknown scenario 'mixx'", "'mix'"],
    );
    mistake(&["jmeter", "mix", TARGET], &["'jmeter'", "locust"]);
    mistake(&["k6", "mix"], &["--target"]);
    mistake(
        &["k6", "mix", "--target=ftp://x"],
        &["'ftp://x'", "http://10.0.0.5:8080"],
    );
    mistake(
        &["k6", "mix", TARGET],
        &["'mix' has 2 loads", "expected one", "--concurrency"],
    );
    mistake(
        &["k6", "spike", TARGET],
        &["'spike' has rates that are shares of a knee", "--rate"],
    );
    let locust = ["locust", "edge-quick", TARGET];
    mistake(
        &[&locust[..], &["--gate=default"]].concat(),
        &["'--gate' is only for k6"],
    );
    mistake(
        &[&locust[..], &["--path=tag:edge"]].concat(),
        &["expected one path", "'tag:edge'"],
    );
    mistake(
        &[&locust[..], &["--out=/nope/x"]].concat(),
        &["no directory '/nope'"],
    );
    let long = [
        "k6",
        "smoke",
        TARGET,
        "--concurrency=1",
        "--endpoint=/echo:2000000",
    ];
    mistake(&long, &["at most 900 KiB", "a shorter body"]);

    fs::create_dir(shell.directory.path().join("edge-quick-locust")).expect("fresh");
    let mine = shell.write("edge-quick-locust/mine", "");
    mistake(&locust, &["'edge-quick-locust' is not empty", "--out"]);
    mistake(
        &[&locust[..], &["--out", &mine]].concat(),
        &["is not a directory", "--out"],
    );
    fs::remove_file(&mine).expect("ours");
    assert!(
        shell
            .hopbench(&[&["export"], &locust[..]].concat())
            .status
            .success()
    );
}

const FIGURES: &str = r#"{
  "schema": 1, "engine": "locust", "engine_version": "2.47.0", "scenario": "x",
  "requests": 1600, "failures": 3, "rate_rps": 200.5,
  "p50_us": 900, "p95_us": 1500, "p99_us": 2100, "max_us": 9000
}"#;

/// Copies the records of the reference run.
fn copied_run(shell: &Shell) -> String {
    let run = shell.directory.path().join("run");
    fs::create_dir(&run).expect("fresh");
    for name in ["manifest.json", "plan.json", "trials.jsonl"] {
        fs::copy(reference_run().join(name), run.join(name)).expect("copied");
    }
    run.display().to_string()
}

#[test]
fn imported_figures_stand_apart_in_the_report() {
    const CAPTION: &str =
        "external: measured by locust 2.47.0; not comparable, no ratio, not gated";
    let shell = Shell::new();
    let run = copied_run(&shell);
    let file = shell.write("figures.json", FIGURES);
    let printed = |arguments: &[&str]| {
        let result = shell.hopbench(arguments);
        assert!(
            result.status.success(),
            "{arguments:?}: {}",
            text(&result.stderr)
        );
        text(&result.stdout)
    };
    let report = |format: &str| printed(&["report", &run, "--format", format]);
    let formats = ["csv", "perf", "html", "md", "human", "json"];
    let before = formats.map(report);
    assert!(before.iter().all(|text| !text.contains("External figures")));
    let shown = printed(&["import", &file]);
    assert!(
        shown.contains(CAPTION) && shown.contains("200.5"),
        "{shown}"
    );
    assert!(!Path::new(&run).join("external.json").exists());

    let kept = printed(&["import", &file, "--run", &run, "--format=json"]);
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!(kept["external"]["p99_us"], 2100.0);
    let again = ["the same figures are already in"];
    shell.mistake(&["import", &file, "--run", &run], 2, &again);
    let second = shell.write("second.json", &FIGURES.replace("1600", "1700"));
    printed(&["import", &second, "--run", &run]);

    let after = formats.map(report);
    assert_eq!(after[..2], before[..2], "in no row and no cell");
    for text in &after[2..5] {
        let parts = [CAPTION, "External figures", "1600", "1700"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    // Everything else is as it was.
    assert!(after[3].starts_with(&before[3]), "{}", after[3]);
    let json: Value = serde_json::from_str(&after[5]).expect("JSON");
    assert_eq!(json["external"].as_array().map(Vec::len), Some(2));

    shell.write("run/external.json", "[{\"engine\": 7}]");
    shell.mistake(&["report", &run], 4, &["external.json'", "line 1"]);
}

#[test]
fn files_without_figures_are_named_with_line_and_field() {
    let shell = Shell::new();
    let run = copied_run(&shell);
    let csv = "Type,Name,Request Count,Requests/s\n,Aggregated,many,1\n";
    let k6 = "{\"metrics\": {\n\"http_reqs\": {\"count\": 1, \"rate\": -1}}}";
    for (name, content, expected) in [
        ("a.json", "", "line 1: expected 'hopbench-external.json'"),
        ("b.json", "{\n\"engine\"", "line 2: "),
        ("c.csv", csv, "line 2: 'Request Count': expected a number"),
        (
            "d.json",
            k6,
            "line 2: 'metrics.http_reqs.rate': expected a number",
        ),
        (
            "e.json",
            &FIGURES.replace("2100", "21"),
            "'p99_us' is 21, expected at least 'p95_us'",
        ),
        (
            "f.json",
            &FIGURES.replace("1600", "true"),
            "line 3: 'requests': expected a number",
        ),
    ] {
        let file = shell.write(name, content);
        let arguments = ["import", &file, "--run", &run];
        shell.mistake(&arguments, 2, &[&format!("'{file}': "), expected]);
    }
    let file = shell.write("g.json", FIGURES);
    shell.mistake(
        &["import", "nope.json"],
        2,
        &["'nope.json'", "No such file"],
    );
    shell.mistake(&["import", "/dev/zero"], 2, &["expected a regular file"]);
    shell.mistake(&["import", &file, "--run", "."], 2, &["'.' is not a run"]);
    let huge = shell.write("huge.json", &" ".repeat((4 << 20) + 1));
    shell.mistake(&["import", &huge], 2, &["expected at most 4 MiB"]);
    fs::write(&huge, b"{\n\xff}").expect("writable");
    shell.mistake(&["import", &huge], 2, &["expected UTF-8"]);
    assert!(!Path::new(&run).join("external.json").exists());
}

/// Starts the catalog's edge node with all stages, and its origin.
fn edge_full(shell: &Shell) -> (Vec<Running>, String) {
    let mut origin = command(bin("http_baseline"));
    let origin = Running::start(origin.args(["--listen=127.0.0.1:0", "--exit-with-stdin"]));
    let address = origin.line("listening on ");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog/paths/edge/edge-full.toml");
    let path: toml::Table = fs::read_to_string(path)
        .expect("text")
        .parse()
        .expect("TOML");
    let content = path["file"][0]["content"].as_str().expect("a text");
    let content = content.replace("127.0.0.1:{{port:origin}}", &address);
    let configuration = shell.write("edge.toml", &content);
    let mut node = command(bin("edge-node"));
    let node = node.args([
        "serve",
        "--listen=127.0.0.1:0",
        "--exit-with-stdin",
        "--admin=none",
    ]);
    let node = Running::start(node.args(["--config", &configuration]));
    let front = node.line("listening on ");
    (vec![node, origin], front)
}

/// Returns a port that was free a moment ago. Locust chooses none by itself.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port().to_string()
}

#[test]
fn locust_s_master_and_two_workers_make_the_load() {
    const RATE: f64 = 200.0;
    let Some(engines) = engines() else {
        return;
    };
    let shell = Shell::new();
    let (servers, front) = edge_full(&shell);
    let target = format!("--target=http://{front}");
    let rate = format!("--rate={RATE}");
    let result = shell.hopbench(&[
        "export",
        "locust",
        "edge-stages",
        "--endpoint=/small",
        "--concurrency=8",
        &rate,
        &target,
        "--duration-ms=8000",
        "--out=project",
    ]);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let project = shell.directory.path().join("project");
    let port = free_port();
    let locust = |arguments: &[&str]| {
        let mut program = command(engines.join("venv/bin/locust"));
        Running::start(program.current_dir(&project).args(arguments))
    };
    let master = locust(&[
        "-f",
        "locustfile.py",
        "--headless",
        "--master",
        "--master-bind-host=127.0.0.1",
        &format!("--master-bind-port={port}"),
        "--expect-workers=2",
        "--expect-workers-max-wait=45",
        "--csv=locust",
    ]);
    let port = format!("--master-port={port}");
    let worker = || {
        locust(&[
            "-f",
            "locustfile.py",
            "--worker",
            "--master-host=127.0.0.1",
            &port,
        ])
    };
    let workers = [worker(), worker()];
    let (status, _, log) = master.wait();
    assert!(status.success(), "{status}: {log}");
    for worker in workers {
        let (status, _, log) = worker.wait();
        assert!(status.success(), "{status}: {log}");
    }
    let import = |name: &str| {
        let file = project.join(name).display().to_string();
        let result = shell.hopbench(&["import", &file, "--format=json"]);
        assert!(result.status.success(), "{}", text(&result.stderr));
        let mut json: Value = serde_json::from_slice(&result.stdout).expect("JSON");
        json["external"].take()
    };
    let figures = import("hopbench-external.json");
    assert_eq!(figures["failures"], 0, "{log}");
    assert_eq!(figures["generators"], 2);
    let reached = figures["rate_rps"].as_f64().expect("a rate");
    assert!((reached / RATE - 1.0).abs() <= 0.1, "{figures}");
    for name in ["p50_us", "p95_us", "p99_us", "max_us"] {
        assert!(
            figures[name].as_f64().is_some_and(|us| us > 0.0),
            "{figures}"
        );
    }
    let own = import("locust_stats.csv");
    assert_eq!(own["requests"], figures["requests"]);
    drop(servers);
}
