//! Goal: each probe observes real processes, and its rules find the fault that is injected.
//! Method: short forms of the built-in probes. Of durations, only that of the injected delay is
//! judged: it is three times the limit.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Running, bench::Bench, text, until};

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

/// A hop whose packets are late fails, and no other; where there is no namespace or no TUN device,
/// the probe says so and passes nothing.
#[test]
fn packets_that_are_late_are_found() {
    let bench = Bench::new();
    let arguments = ["network", "--cycles", "2", "--only", "forwarder"];
    let (code, printed) = probe(&bench, &arguments);
    let notes = printed["probe"]["notes"].as_array().expect("notes").iter();
    let mut notes = notes.filter_map(Value::as_str);
    if let Some(why) = notes.find(|note| note.starts_with("SKIPPED")) {
        eprintln!("{why}");
        assert_eq!(code, Some(3));
        return;
    }
    assert_all_pass(&printed);
    let inject = ["--inject", "late-packets"];
    let (code, printed) = probe(&bench, &[&arguments[..], &inject].concat());
    let verdicts = printed["verdicts"].as_array().expect("verdicts").iter();
    let failed = |it: &&Value| it["outcome"] == "failed" && it["measure"] == "answer_us";
    let failed: Vec<_> = verdicts.filter(failed).map(|it| &it["subject"]).collect();
    assert_eq!(code, Some(1));
    assert_eq!(failed, ["10 ms: forwarder", "50 ms, 1 % lost: forwarder"]);
    bench.assert_nothing_left();
}

/// Returns the median of a subject's measure.
fn median(printed: &Value, subject: &str, measure: &str) -> f64 {
    let series = printed["series"].as_array().expect("series");
    let is_it = |one: &&Value| one["subject"] == subject && one["measure"] == measure;
    let found = series.iter().find(is_it).expect("observed");
    found["p50"].as_f64().expect("a number")
}

/// The injected delay, in microseconds.
const DELAY_US: f64 = 300_000.0;

#[test]
fn a_slow_start_is_found() {
    let bench = Bench::new();
    let outcomes = |printed: &Value, subject: &str| -> Vec<String> {
        let verdicts = printed["verdicts"].as_array().expect("verdicts");
        let of = verdicts
            .iter()
            .filter(|it| it["subject"] == subject && it["statistic"] != "sum");
        of.map(|it| it["outcome"].as_str().expect("a word").to_owned())
            .collect()
    };
    let inject = ["--inject", "slow-start"];
    let slow = "forwarder --version";
    let arguments = ["cli-latency", "--cycles", "20", "--only", slow];
    assert_all_pass(&probe(&bench, &arguments).1);
    let (code, printed) = probe(&bench, &[&arguments[..], &inject].concat());
    assert!(median(&printed, slow, "wall_us") >= DELAY_US);
    assert_eq!(
        (code, outcomes(&printed, slow)),
        (Some(1), vec!["failed".to_owned()])
    );
    let arguments = ["cold-start", "--cycles", "6", "--only", "forwarder-tcp"];
    let (_, printed) = probe(&bench, &arguments);
    assert_all_pass(&printed);
    let (code, printed) = probe(&bench, &[&arguments[..], &inject].concat());
    // A restart is as late as a start.
    for measure in ["first_answer_us", "recovered_us"] {
        assert!(median(&printed, "forwarder-tcp", measure) >= DELAY_US);
    }
    assert_eq!(
        (code, outcomes(&printed, "forwarder-tcp")),
        (Some(1), vec!["failed".to_owned(); 2])
    );
    bench.assert_nothing_left();
}

/// The configurations of other programs: those that are not installed are left out.
#[test]
fn the_hops_of_others_are_observed() {
    let bench = Bench::new();
    for arguments in [["convergence", "--size", "3"], ["l4", "--size", "3"]] {
        let (_, printed) = probe(&bench, &[&arguments[..], &["--cycles", "1"]].concat());
        let notes = printed["probe"]["notes"].as_array().expect("notes").iter();
        for note in notes.filter(|note| note.as_str().is_some_and(|it| it.contains("left out"))) {
            assert!(std::env::var_os("HOPBENCH_TEST_PEERS").is_none(), "{note}");
            eprintln!("SKIPPED: {note}");
        }
        let failed = counts(&printed).into_iter().filter(|it| it.1 == "failures");
        assert!(failed.clone().count() >= 2, "{printed:#}");
        for (subject, _, outcome) in failed {
            assert_eq!(outcome, "passed", "{subject}: {printed:#}");
        }
    }
    bench.assert_nothing_left();
}

#[test]
fn a_hop_that_fails_is_counted_and_the_others_are_observed() {
    let bench = Bench::new();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/catalog/probes/convergence.toml"
    );
    let text = std::fs::read_to_string(path).expect("in the catalog");
    let begin = text.find("[[hop]]").expect("a hop");
    let end = text.rfind("[[hop]]\nname = \"haproxy\"").expect("others");
    let broken = "[[hop]]\nname = \"broken\"\ncommand = [\"{{program:false}}\"]\nconfig = \"\"\n";
    let file = bench.write(
        "mine.toml",
        &[&text[..begin], broken, &text[begin..end]].concat(),
    );
    let (code, printed) = probe(&bench, &[&file, "--cycles", "1", "--size", "3"]);
    assert_eq!(code, Some(1), "{printed:#}");
    let failures: Vec<_> = counts(&printed)
        .into_iter()
        .filter(|it| it.1 == "failures")
        .map(|it| (it.0, it.2))
        .collect();
    let all = [
        ("broken", "failed"),
        ("forwarder", "passed"),
        ("edge-node", "passed"),
    ];
    let all = all.map(|(name, outcome)| (format!("{name}, 3 routes"), outcome.to_owned()));
    assert_eq!(failures, all);
    let notes = printed["probe"]["notes"].to_string();
    assert!(
        notes.contains("it doesn't listen at '127.0.0.1:"),
        "{notes}"
    );
    assert!(notes.contains("; it exited with code 1"), "{notes}");
    bench.assert_nothing_left();
}

#[test]
fn an_interrupted_probe_keeps_what_it_has_and_is_never_a_pass() {
    let bench = Bench::new();
    let arguments = [
        "probe",
        "cli-latency",
        "--cycles",
        "10000",
        "--only",
        "true",
    ];
    let running = Running::start(&mut bench.command(&arguments));
    let has_observations = || {
        let runs = bench.runs();
        let file = runs.first().map(|run| run.join("observations.jsonl"));
        file.is_some_and(|file| std::fs::read_to_string(file).is_ok_and(|text| text.len() > 100))
    };
    until("something is observed", has_observations);
    running.signal(Signal::SIGINT);
    let (status, ..) = running.wait();
    assert_eq!(status.code(), Some(130));
    let directory = bench.run_dir();
    let (code, printed) = probe(&bench, &[directory.to_str().expect("text")]);
    assert_eq!(
        (code, &printed["probe"]["is_finished"]),
        (Some(3), &Value::Bool(false))
    );
    bench.assert_nothing_left();
}

#[test]
fn records_are_shown_again_and_mistakes_are_named() {
    let bench = Bench::new();
    let only = "forwarder --version,http_baseline --version,edge-node --version";
    let (code, printed) = probe(&bench, &["cli-latency", "--quick", "--only", only]);
    let directory = printed["directory"]
        .as_str()
        .expect("a directory")
        .to_owned();
    let (again, shown) = probe(&bench, &[&directory]);
    assert_eq!((again, &shown["series"]), (code, &printed["series"]));
    assert_eq!(shown["series"][0]["subject"], "true");
    let report = bench.directory.path().join(&directory).join("report.md");
    let report = std::fs::read_to_string(report).expect("written");
    assert!(report.contains("| true | wall, ms | 5 |"), "{report}");
    let status = text(&bench.run(&["status", &directory]).stdout);
    assert!(
        status.contains("probe 'cli-latency', finished; "),
        "{status}"
    );
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
