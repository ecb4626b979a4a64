//! Goal: what the documents show is what the programs do. Method: make it again from the reference
//! run's records, and read the examples like a user's files.
//!
//! `UPDATE_README=1 cargo test -p hopbench --test readme` writes the table again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::cargo::cargo_bin_cmd;
use hopbench_analysis::{
    record::{Manifest, Trial},
    repeats::counted,
    report::{chart, overview},
    summary::Summary,
};

/// The scenarios whose tables the README has, each from a reference run of its own.
const SCENARIOS: [&str; 2] = ["http-tunnel", "http-proxies"];

fn begin(scenario: &str) -> String {
    format!("<!-- reference: {scenario}: begin -->\n")
}

fn end(scenario: &str) -> String {
    format!("<!-- reference: {scenario}: end -->")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("crates/measure/hopbench is three below")
        .to_owned()
}

/// Returns the runs in `bench_results/reference`.
fn references() -> Vec<PathBuf> {
    let runs = fs::read_dir(root().join("bench_results/reference")).expect("is there");
    runs.map(|run| run.expect("listed").path()).collect()
}

fn records(run: &Path) -> (Manifest, Vec<Trial>) {
    let read = |name: &str| fs::read_to_string(run.join(name)).expect(name);
    let manifest = serde_json::from_str(&read("manifest.json")).expect("a manifest");
    let trials = read("trials.jsonl");
    let trials = trials.lines().map(serde_json::from_str);
    let trials: Result<Vec<Trial>, _> = trials.collect();
    (manifest, counted(trials.expect("trials")))
}

#[test]
fn the_tables_and_the_pictures_are_the_reference_runs() {
    let mut shown = Vec::new();
    for run in references() {
        let (manifest, trials) = records(&run);
        let summary = Summary::new(&manifest, &trials).expect("readable");
        let scenario = &summary.scenarios[0];
        let name = &scenario.info.name;
        check_table(name, &without_one_connection(&overview::tables(scenario)));
        let file = run.join(format!("overview-{name}.svg"));
        assert_eq!(
            fs::read_to_string(file).expect("is there"),
            chart::overview(&manifest, scenario),
            "make it with 'hopbench report'"
        );
        shown.push(name.clone());
    }
    shown.sort_unstable();
    let mut expected = SCENARIOS.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(shown, expected, "one run for each");
}

/// Leaves out the columns of one connection, where the time to wake a core up counts most.
fn without_one_connection(table: &str) -> String {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    let titles = table.lines().next().map(cells).unwrap_or_default();
    let is_kept = |index: usize| !titles[index].ends_with(" c=1");
    let rows = table.lines().map(|line| {
        let kept = cells(line).into_iter().enumerate();
        let kept = kept.filter(|(index, _)| is_kept(*index));
        let kept: Vec<String> = kept.map(|(_, cell)| cell).collect();
        match line.starts_with("|---") {
            true => format!("|{}|\n", kept.join("|")),
            false => format!("| {} |\n", kept.join(" | ")),
        }
    });
    rows.collect()
}

/// Compares the README's table of a scenario, or writes it anew.
fn check_table(scenario: &str, expected: &str) {
    let file = root().join("README.md");
    let readme = fs::read_to_string(&file).expect("is there");
    let (begin, end) = (begin(scenario), end(scenario));
    let (before, rest) = readme.split_once(&begin).expect("where the table begins");
    let (table, after) = rest.split_once(&end).expect("where the table ends");
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&file, format!("{before}{begin}{expected}{end}{after}")).expect("writable");
    } else {
        assert_eq!(table, expected, "UPDATE_README=1 writes it anew");
    }
}

#[test]
fn path_files_in_the_documents_are_understood() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["README.md", "docs/TUTORIAL.md"] {
        let text = fs::read_to_string(root().join(name)).expect(name);
        let (_, rest) = text.split_once("```toml\n").expect("an example");
        let (example, _) = rest.split_once("```").expect("its end");
        let file = directory.path().join("my-proxy.toml");
        fs::write(&file, example).expect("writable");
        cargo_bin_cmd!("hopbench")
            .arg("describe")
            .arg(&file)
            .assert()
            .success();
    }
}

#[test]
fn commands_in_the_documents_are_understood() {
    let mut tried = 0;
    for name in ["README.md", "docs/TUTORIAL.md"] {
        let text = fs::read_to_string(root().join(name)).expect(name);
        for line in text.lines() {
            let Some(arguments) = line.strip_prefix("./target/release/hopbench ") else {
                continue;
            };
            let arguments = arguments.split('#').next().unwrap_or_default();
            let arguments = shlex::split(arguments).expect("the end of every quote");
            // With a wrong flag at the end nothing runs, and only that flag is reported if all else
            // is right.
            let mut command = cargo_bin_cmd!("hopbench");
            let output = command
                .args(&arguments)
                .arg("--not-a-flag")
                .output()
                .expect("runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                errors.contains("'--not-a-flag'"),
                "{name}: {line}: {errors}"
            );
            tried += 1;
        }
    }
    assert!(tried >= 5, "{tried}");
}
