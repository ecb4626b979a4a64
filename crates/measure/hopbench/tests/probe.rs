//! Goal: each probe observes real processes, and its rules find the fault that is injected.
//! Method: short forms of the built-in probes. Of durations, only that of the injected delay is
//! judged: it is three times the limit.

mod support;

use serde_json::Value;
use support::{bench::Bench, text};

/// Runs a probe; returns its exit code and what it printed.
fn probe(bench: &Bench, arguments: &[&str]) -> (Option<i32>, Value) {
    let probing = [&["probe", "--format", "json"], arguments].concat();
    let output = bench.run(&probing);
    let printed = serde_json::from_str(&text(&output.stdout));
    let printed = printed.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (output.status.code(), printed)
}

/// Returns the verdicts on counts, which no slow machine changes: subject, measure and outcome.
fn counts(printed: &Value) -> Vec<(String, String, String)> {
    let verdicts = printed["verdicts"].as_array().expect("verdicts").iter();
    let word = |verdict: &Value, name: &str| verdict[name].as_str().expect("a word").to_owned();
    verdicts
        .filter(|verdict| verdict["statistic"] == "sum")
        .map(|it| {
            (
                word(it, "subject"),
                word(it, "measure"),
                word(it, "outcome"),
            )
        })
        .collect()
}

fn assert_all_pass(printed: &Value) {
    let counts = counts(printed);
    assert!(!counts.is_empty());
    assert!(
        counts.iter().all(|(.., outcome)| outcome == "passed"),
        "{printed:#}"
    );
}

/// Asserts that the rule for one measure fails, and no other rule for a count.
fn assert_found(code: Option<i32>, printed: &Value, measure: &str) {
    let failed: Vec<_> = counts(printed)
        .into_iter()
        .filter(|(.., outcome)| outcome == "failed")
        .collect();
    assert!(failed.iter().any(|it| it.1 == measure), "{printed:#}");
    assert!(failed.iter().all(|it| it.1 == measure), "{printed:#}");
    assert_eq!(code, Some(1));
}

/// Runs a probe without its fault and with it.
fn find(arguments: &[&str], fault: &str, measure: &str) {
    let bench = Bench::new();
    let (_, printed) = probe(&bench, arguments);
    assert_all_pass(&printed);
    let (code, printed) = probe(&bench, &[arguments, &["--inject", fault]].concat());
    assert_found(code, &printed, measure);
    assert_eq!(printed["probe"]["injected"], fault);
    bench.assert_nothing_left();
}

#[test]
fn a_change_that_drops_a_request_is_found() {
    let ours = "forwarder,edge-node";
    let arguments = ["convergence", "--quick", "--size", "5", "--only", ours];
    find(&arguments, "dropped-request", "dropped_requests");
}

#[test]
fn a_secret_that_is_stale_is_found() {
    find(
        &["secrets", "--quick", "--size", "5"],
        "stale-secret",
        "stale_secrets",
    );
}

#[test]
fn a_log_that_loses_lines_silently_is_found() {
    let arguments = ["logs", "--quick", "--only", "no log,dropping log"];
    find(&arguments, "lost-lines", "lost_silently");
}

#[test]
fn descriptors_that_leak_are_found() {
    let arguments = ["l4", "--quick", "--size", "20", "--only", "forwarder"];
    find(&arguments, "leaked-descriptors", "leaked_descriptors");
}

#[test]
fn a_slow_start_is_found() {
    let bench = Bench::new();
    let slow = |printed: &Value, subject: &str| {
        let verdicts = printed["verdicts"].as_array().expect("verdicts");
        let of = verdicts
            .iter()
            .filter(|verdict| verdict["subject"] == subject);
        of.filter(|verdict| verdict["outcome"] == "failed").count()
    };
    let only = "true,forwarder --version";
    let inject = ["--inject", "slow-start"];
    let arguments = ["cli-latency", "--cycles", "6", "--only", only];
    let (code, printed) = probe(&bench, &[&arguments[..], &inject].concat());
    assert_eq!((code, slow(&printed, "forwarder --version")), (Some(1), 1));
    let paths = "direct,forwarder-tcp";
    let arguments = ["cold-start", "--cycles", "6", "--only", paths];
    let (_, printed) = probe(&bench, &arguments);
    assert_all_pass(&printed);
    let (code, printed) = probe(&bench, &[&arguments[..], &inject].concat());
    // A restart is as late as a start.
    assert_eq!((code, slow(&printed, "forwarder-tcp")), (Some(1), 2));
    bench.assert_nothing_left();
}

#[test]
fn records_are_shown_again_and_mistakes_are_named() {
    let bench = Bench::new();
    let (code, printed) = probe(&bench, &["cli-latency", "--quick", "--only", "true"]);
    let directory = printed["directory"]
        .as_str()
        .expect("a directory")
        .to_owned();
    let (again, shown) = probe(&bench, &[&directory]);
    assert_eq!((again, &shown["series"]), (code, &printed["series"]));
    let report = bench.directory.path().join(&directory).join("report.md");
    let report = std::fs::read_to_string(report).expect("written");
    assert!(report.contains("| true | wall, ms | 5 |"), "{report}");
    for (arguments, said) in [
        (
            &["cold-strat"][..],
            "unknown probe 'cold-strat' (did you mean 'cold-start'?)",
        ),
        (
            &["logs", "--size", "5"],
            "'logs' has no sizes: leave out '--size'",
        ),
        (
            &["logs", "--inject", "slow-start"],
            "'--inject slow-start' is for another probe",
        ),
        (
            &["l4", "--only", "squid"],
            "'l4' has no 'squid'; it has 'forwarder', 'haproxy'",
        ),
    ] {
        let output = bench.run(&[&["probe"], arguments].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(said), "{told}");
    }
}
