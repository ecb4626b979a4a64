//! Goal: the page of the release is what its runs' records say, and runs that can't be summarised
//! are named. Method: make the page again from the committed runs; change copies of them.
//!
//! `UPDATE_PERFORMANCE=1 cargo test -p hopbench --test release` writes the page again.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{
    bin, command, output,
    shell::{Shell, reference_run},
    text,
};

/// The release whose page is committed.
const RELEASE: &str = "0.2.0";

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    root.canonicalize().expect("three above")
}

#[test]
fn the_page_is_made_from_the_reference_runs() {
    let mut program = command(bin("hopbench"));
    let made = program.current_dir(root());
    let made = output(made.args(["release-summary", "--release", RELEASE]));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let (file, page) = (root().join("docs/PERFORMANCE.md"), text(&made.stdout));
    if std::env::var_os("UPDATE_PERFORMANCE").is_some() {
        fs::write(&file, &page).expect("writable");
    }
    let committed = fs::read_to_string(file).expect("is there");
    assert_eq!(committed, page, "UPDATE_PERFORMANCE=1 writes it anew");
}

/// Copies the first reference run, with another manifest.
fn copy(shell: &Shell, name: &str, change: impl Fn(&mut Value)) {
    let (from, to) = (reference_run(), shell.directory.path().join(name));
    fs::create_dir_all(&to).expect("made");
    for name in ["plan.json", "trials.jsonl"] {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
    let manifest = fs::read_to_string(from.join("manifest.json")).expect("there");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    change(&mut manifest);
    fs::write(to.join("manifest.json"), manifest.to_string()).expect("written");
}

const SUMMARY: [&str; 3] = ["release-summary", "--release", "1.0.0"];

#[test]
fn a_release_is_written_and_compared_with_the_last_one() {
    let shell = Shell::new();
    copy(&shell, "bench_results/reference/run", |_| {});
    copy(&shell, "last", |manifest| {
        manifest["git"]["dirty"] = true.into();
    });
    let to_file = [&SUMMARY[..], &["--base", "last", "--out", "page.md"]].concat();
    let written = shell.hopbench(&to_file);
    assert_eq!(text(&written.stdout), "wrote 'page.md'\n", "{written:?}");
    let page = fs::read_to_string(shell.directory.path().join("page.md")).expect("written");
    assert!(
        page.starts_with("# Performance of release 1.0.0\n"),
        "{page}"
    );
    let (_, change) = page
        .split_once("## Change since")
        .expect("the last section");
    let rows = change.lines().filter(|line| line.starts_with("| "));
    let (same, others): (Vec<&str>, Vec<&str>) =
        rows.partition(|line| line.ends_with("| no difference shown |"));
    assert!(same.len() > 10, "{change}");
    assert_eq!(others.len(), 1, "only the heading: {others:?}");
    assert!(change.contains("\n0 of "), "{change}");

    let json = [&SUMMARY[..], &["--format=json", "last"]].concat();
    let json: Value = serde_json::from_slice(&shell.hopbench(&json).stdout).expect("JSON");
    assert_eq!(
        (&json["release"], &json["runs"][0]),
        (&"1.0.0".into(), &"last".into())
    );
    let page = json["markdown"].as_str().expect("text");
    let words: Vec<&str> = page.split_whitespace().collect();
    let words = words.join(" ");
    assert!(words.contains("with uncommitted changes"), "{page}");
    assert!(
        page.contains("This is the first release with a summary"),
        "{page}"
    );

    copy(&shell, "elsewhere", |manifest| {
        manifest["machine"]["cores"] = 96.into();
    });
    let other = [&SUMMARY[..], &["last", "--base", "elsewhere"]].concat();
    let page = text(&shell.hopbench(&other).stdout);
    assert!(
        page.contains("Not comparable: cores '96' and '2'."),
        "{page}"
    );
}

#[test]
fn runs_that_cannot_be_summarised_are_named() {
    let shell = Shell::new();
    let mistake = |arguments: &[&str], expected: &[&str]| {
        shell.mistake(&[&SUMMARY[..], arguments].concat(), 2, expected);
    };
    mistake(
        &[],
        &[
            "there are no runs below 'bench_results/reference'",
            "name the runs",
        ],
    );
    mistake(&["nope"], &["'nope' is not a run"]);
    copy(&shell, "run", |_| {});
    mistake(&["run", "--base", "nope"], &["'nope' is not a run"]);
    let twice = [
        "scenario 'http-tunnel' is in 'run' and in './run'",
        "one run for each",
    ];
    mistake(&["run", "./run"], &twice);
    copy(&shell, "two", |manifest| {
        let git = serde_json::json!({"revision": "a", "dirty": false});
        manifest["builds"] = serde_json::json!([{"build": "a", "asked": "main", "git": git}]);
    });
    mistake(
        &["two"],
        &["'two' is of two builds: expected a run of one build"],
    );
    copy(&shell, "begun", |_| {});
    let records = shell.directory.path().join("begun/trials.jsonl");
    let first = fs::read_to_string(&records).expect("there");
    let first = first.split_inclusive('\n').next().expect("a line");
    fs::write(&records, first).expect("written");
    mistake(
        &["begun"],
        &["'begun' is not complete: expected a run with all"],
    );
    mistake(&["run", "--out=/nope/x"], &["could not write '/nope/x'"]);
    shell.mistake(&["release-summary", "run"], 2, &["--release <VERSION>"]);
    let odd = ["release-summary", "--release=a b", "run"];
    shell.mistake(&odd, 2, &["'a b'", "expected a version, such as '1.2.3'"]);
}
