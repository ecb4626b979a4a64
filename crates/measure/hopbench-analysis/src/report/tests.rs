//! Goal: the same records always give the same reports, whatever is in them. Method: one fixture
//! with everything that can happen, and a snapshot per format.

mod compared;
mod exchanged;
mod said;
mod unanswered;
mod within;

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};

use super::{chart, compare, csv, markdown, overview, perf, terminal};
use crate::{
    compare::{Comparison, Incomparable, Side},
    metrics::Metric,
    pathology::{self, Pathology},
    record::*,
    summary::Summary,
    told::Told,
};

fn rules() -> PathologyRules {
    PathologyRules {
        p99_over_reference: Some(10.0),
        rps_collapse: Some(0.5),
        slower: vec![SlowerRule {
            path: "slow".to_owned(),
            than: "plain".to_owned(),
        }],
        ..PathologyRules::default()
    }
}

pub(crate) fn manifest() -> Manifest {
    let path = |name: &str, skipped: Option<&str>| PathInfo {
        name: name.to_owned(),
        summary: format!("what {name} is"),
        analysis: String::new(),
        receipts: [("server".to_owned(), format!("{name} 1.0"))].into(),
        version_outputs: Default::default(),
        definition: String::new(),
        parameters: Default::default(),
        front: Default::default(),
        skipped: skipped.map(str::to_owned),
        expect: BTreeMap::new(),
        counters: Some(match name {
            "plain" => Vec::new(),
            _ => vec![
                counter(
                    "hop_borrowed_bytes",
                    "borrowed bytes",
                    &[Per::Request, Per::BodyByte],
                ),
                counter("hop_copied_bytes", "copied bytes", &[Per::BodyByte]),
                counter("hop_stalls", "stalls", &[Per::Trial]),
            ],
        }),
    };
    Manifest {
        schema: SCHEMA,
        hopbench: "0.0.0".to_owned(),
        started: "2026-01-02T03:04:05Z".to_owned(),
        command_line: vec!["hopbench".to_owned(), "run".to_owned(), "matrix".to_owned()],
        request: None,
        seed: 7,
        git: Git {
            revision: "0123456789abcdef".to_owned(),
            dirty: true,
        },
        machine: Machine {
            cpu_model: "A | B".to_owned(),
            cores: 2,
            memory_kib: 4 << 20,
            ..Machine::default()
        },
        toolchain: "rustc 1.0".to_owned(),
        profile: "release".to_owned(),
        scenarios: vec![ScenarioInfo {
            name: "matrix".to_owned(),
            question: "What does it cost?".to_owned(),
            analysis: String::new(),
            definition: String::new(),
            reference: "plain".to_owned(),
            endpoints: vec!["/small".to_owned()],
            blocks: 3,
            pathologies: rules(),
            recovery: None,
            loads: Vec::new(),
        }],
        paths: vec![
            path("plain", None),
            path("fast", None),
            path("slow", None),
            path("absent", Some("'absent' is not installed")),
        ],
        warnings: vec!["governor: 'powersave'".to_owned()],
        builds: Vec::new(),
        knees: Vec::new(),
    }
}

pub(crate) fn histogram(us: &[u64]) -> String {
    let mut histogram = Histogram::<u64>::new(3).expect("valid");
    for us in us {
        histogram.record(us * 1_000).expect("recorded");
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(&histogram, &mut bytes)
        .expect("written");
    BASE64_STANDARD.encode(bytes)
}

/// Makes a load of 1 s.
fn load(rps: u64, p99_us: u64) -> Load {
    let (p50_us, p99) = (p99_us as f64 / 2.0, p99_us as f64);
    Load {
        generator: "script".to_owned(),
        elapsed_us: 1e6,
        requests: rps,
        good: rps,
        body_bytes: rps * 100,
        latency: Latency {
            p50_us: Some(p50_us),
            p90_us: Some(p99 * 0.9),
            p95_us: Some(p99 * 0.95),
            p99_us: Some(p99),
            histogram: histogram(&[p99_us / 2, p99_us / 2, p99_us]),
            ..Latency::default()
        },
        ..Load::default()
    }
}

fn counter(name: &str, label: &str, per: &[Per]) -> CounterInfo {
    CounterInfo {
        name: name.to_owned(),
        label: label.to_owned(),
        unit: String::new(),
        per: per.to_owned(),
        help: format!("what '{name}' counts"),
    }
}

fn cell(path: &str, concurrency: u32) -> Cell {
    Cell {
        scenario: "matrix".to_owned(),
        endpoint: "/small".to_owned(),
        path: path.to_owned(),
        concurrency,
        keep_alive: true,
        rate_rps: None,
        build: None,
        staged: false,
        placement: Default::default(),
    }
}

/// Makes a trial of 1 s at `rps`, with a p99 of `p99_us` and a median of half as much.
pub(crate) fn trial(
    path: &str,
    concurrency: u32,
    block: u32,
    replicate: u8,
    rps: u64,
    p99_us: u64,
) -> Trial {
    let counters = [
        ("hop_borrowed_bytes".to_owned(), 0),
        ("hop_copied_bytes".to_owned(), rps * 250),
        ("hop_stalls".to_owned(), 3),
    ];
    let host = path != "plain";
    Trial {
        planned: PlannedTrial {
            trial: 1,
            block,
            cell: cell(path, concurrency),
            replicate,
            duration_ms: 1_000,
            warm_up_ms: 100,
            requests: None,
            stages: Vec::new(),
            think_time_ms: 0,
            attempt: 0,
        },
        started: "2026-01-02T03:04:05Z".to_owned(),
        outcome: Outcome::Ok,
        timing: Timing {
            prepare_ms: 0.0,
            start_ms: 10.0,
            verify_ms: 2.0,
            warm_up_ms: 100.0,
            load_ms: 1_000.0,
            scrape_ms: 50.0,
            stop_ms: 5.0,
        },
        load: Some(load(rps, p99_us)),
        processes: vec![ProcessUsage {
            name: "server".to_owned(),
            role: "origin".to_owned(),
            cpu_us: rps as f64 * 10.0,
            context_switches_voluntary: 2 * rps,
            rss_before_kib: 1_000,
            rss_after_kib: 1_200,
            rss_peak_kib: 1_500,
            ..ProcessUsage::default()
        }],
        cpu_us: [("client", true), ("origin", true), ("host", host)]
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(role, _)| (role.to_owned(), rps as f64 * 10.0))
            .collect(),
        run_queue_wait_us: Default::default(),
        counters: match host {
            true => [("host".to_owned(), counters.into())].into(),
            false => Default::default(),
        },
        disturbance: Disturbance::default(),
        warnings: Vec::new(),
        prepared: Vec::new(),
        seconds: Vec::new(),
    }
}

/// Makes trials of everything that can happen: a control, a collapse, a tail, a slower path,
/// errors, a warning, a cell that failed once and one that failed always.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 1..=3_u32 {
        let drift = u64::from(block) * 100;
        trials.push(trial("plain", 1, block, 0, 10_000 + drift, 100));
        trials.push(trial("plain", 1, block, 1, 10_200 + drift, 100));
        trials.push(trial("plain", 8, block, 0, 20_000 + drift, 200));
        trials.push(trial("fast", 1, block, 0, 8_000 + drift, 120));
        trials.push(trial("fast", 8, block, 0, 3_000 + drift, 2_500));
        trials.push(trial("slow", 1, block, 0, 4_000 + drift, 150));
        trials.push(trial("slow", 8, block, 0, 4_000 + drift, 300));
    }
    let failure = |kind, cause: &str| {
        Outcome::Failed(Failure {
            source: Source::Subject,
            kind,
            cause: cause.to_owned(),
            log: vec!["server: ouch".to_owned()],
        })
    };
    trials[3].outcome = failure(FailureKind::Crash, "'host' killed by SIGKILL under load");
    for trial in &mut trials {
        if trial.planned.cell.path == "slow" && trial.planned.cell.concurrency == 8 {
            trial.outcome = failure(FailureKind::Hang, "no request was answered");
            trial.load = None;
        }
    }
    let errors = trials[5].load.as_mut().expect("loaded");
    errors.requests += 3;
    errors.errors.insert("connection reset".to_owned(), 3);
    trials[5].warnings = vec![Warning::Errors {
        failed: 3,
        requests: errors.requests,
    }];
    trials
}

#[test]
fn markdown_report() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    insta::assert_snapshot!(markdown::report(&summary, &trials, 22));
}

#[test]
fn what_a_path_said_is_text_in_markdown_too() {
    let (mut manifest, mut trials) = (manifest(), trials());
    let said = "status 500 instead of 200: <b>*no*</b>";
    for trial in &mut trials {
        if let Outcome::Failed(failure) = &mut trial.outcome {
            failure.cause = said.to_owned();
        }
    }
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let report = markdown::report(&summary, &trials, 22);
    assert!(report.contains(r"\<b>\*no\*\</b>"), "{report}");
    manifest.paths[0].summary = "1 <b>2</b>\n# 3".to_owned();
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let report = markdown::report(&summary, &trials, 22);
    assert!(report.contains(r": 1 \<b>2\</b> # 3"), "{report}");
    assert!(terminal::render(&summary, &trials, 22).contains(said));
}

#[test]
fn terminal_tables() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    insta::assert_snapshot!(terminal::render(&summary, &trials, 22));
}

#[test]
fn overview_chart() {
    let mut manifest = manifest();
    manifest.scenarios[0].question = "<script>alert(1)</script> & \"more\"".to_owned();
    let trials = trials();
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let svg = chart::overview(&manifest, &summary.scenarios[0]);
    assert!(!svg.contains("<script"), "{svg}");
    insta::assert_snapshot!(svg);
}

#[test]
fn csv_table() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    insta::assert_snapshot!(csv::render(&summary));
}

#[test]
fn perf_lines() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    insta::assert_snapshot!(perf::render(&summary));
}

#[test]
fn a_run_without_trials_has_a_report_too() {
    let manifest = manifest();
    let summary = Summary::new(&manifest, &[]).expect("nothing to read");
    let report = markdown::report(&summary, &[], 22);
    assert!(
        report.contains("0 of 22 trials run, 0 failed.\n"),
        "{report}"
    );
    assert!(
        report.contains("the run is not complete: 22 of 22"),
        "{report}"
    );
    assert_eq!(perf::render(&summary), "");
}

#[test]
fn ratios_are_formed_within_blocks() {
    let manifest = manifest();
    // The machine is twice as fast in the second block, for both paths.
    let trials = [
        trial("plain", 1, 1, 0, 1_000, 100),
        trial("fast", 1, 1, 0, 500, 100),
        trial("plain", 1, 2, 0, 2_000, 100),
        trial("fast", 1, 2, 0, 1_000, 100),
    ];
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let ratio = summary.scenarios[0].tables[0].rows[1].ratios[Metric::Rps].expect("a ratio");
    assert!((ratio.low - 0.5).abs() < 1e-12 && (ratio.high - 0.5).abs() < 1e-12);
}

/// Judges whether a path is told apart in three blocks, with a control that differs by up to 10 %.
fn is_told_apart(rps: [u64; 3]) -> Option<Told> {
    let manifest = manifest();
    let trials: Vec<Trial> = (1..=3_u32)
        .zip([(1_000, 1_100), (1_100, 1_000), (1_050, 1_050)])
        .zip(rps)
        .flat_map(|((block, (first, second)), rps)| {
            [
                trial("plain", 1, block, 0, first, 100),
                trial("plain", 1, block, 1, second, 100),
                trial("fast", 1, block, 0, rps, 100),
            ]
        })
        .collect();
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    summary.scenarios[0].tables[0].rows[1].told(Metric::Rps)
}

#[test]
fn a_difference_is_larger_than_the_control_s_and_in_every_block() {
    assert_eq!(is_told_apart([800, 810, 790]), Some(Told::Different));
    assert_eq!(is_told_apart([1_300, 1_310, 1_290]), Some(Told::Different));
    // The path differs no more than the reference does from itself.
    assert_eq!(is_told_apart([980, 985, 975]), Some(Told::NotToldApart));
    // The interval contains 1.
    assert_eq!(is_told_apart([700, 720, 1_060]), Some(Told::NotToldApart));
}

#[test]
fn each_pathology_is_found_where_it_is() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let found = pathology::find(&summary.scenarios[0]);
    let count = |is: fn(&Pathology) -> bool| found.iter().filter(|one| is(one)).count();
    assert_eq!(count(|one| matches!(one, Pathology::Collapse { .. })), 1);
    assert_eq!(
        count(|one| matches!(one, Pathology::Errors { failed: 3, .. })),
        1
    );
    assert_eq!(count(|one| matches!(one, Pathology::Failures { .. })), 2);
    assert_eq!(count(|one| matches!(one, Pathology::LongTail { .. })), 1);
    assert_eq!(count(|one| matches!(one, Pathology::Slower { .. })), 1);
}

#[test]
fn a_corrupt_histogram_is_named_by_its_trial() {
    let manifest = manifest();
    let mut trials = [trial("plain", 1, 1, 0, 1_000, 100)];
    trials[0].planned.trial = 42;
    trials[0].load.as_mut().expect("loaded").latency.histogram = "?".to_owned();
    let error = Summary::new(&manifest, &trials)
        .expect_err("corrupt")
        .to_string();
    assert!(error.starts_with("trial 42: "), "{error}");
}

#[test]
fn records_survive_being_written_and_read() {
    for trial in trials() {
        let line = serde_json::to_string(&trial).expect("written");
        let read: Trial = serde_json::from_str(&line).expect("read");
        assert_eq!(serde_json::to_string(&read).expect("written"), line);
    }
}

/// Compares the fixture with a copy to which `change` was made.
fn compare_with(
    change: impl FnOnce(&mut Manifest, &mut Vec<Trial>),
    look: impl FnOnce(Result<Comparison<'_>, Incomparable>),
) {
    let (base_manifest, base_trials) = (manifest(), trials());
    let (mut head_manifest, mut head_trials) = (manifest(), trials());
    change(&mut head_manifest, &mut head_trials);
    let base = Summary::new(&base_manifest, &base_trials).expect("valid records");
    let head = Summary::new(&head_manifest, &head_trials).expect("valid records");
    look(Comparison::new(
        Side {
            summary: &base,
            trials: &base_trials,
        },
        Side {
            summary: &head,
            trials: &head_trials,
        },
    ));
}

#[test]
fn a_run_does_not_differ_from_itself() {
    compare_with(
        |_, _| {},
        |comparison| {
            let comparison = comparison.expect("comparable");
            assert_eq!(comparison.cells.len(), 6);
            let json = serde_json::Value::from(compare::cells(&comparison)).to_string();
            assert!(!json.contains("\"differs\":true"), "{json}");
            assert!(json.contains("\"differs\":false"), "{json}");
            let text = compare::terminal(&comparison);
            assert!(text.contains("\n0 of 21 metrics differ, "), "{text}");
        },
    );
}

#[test]
fn a_slower_path_is_told_from_what_it_was() {
    compare_with(
        |_, trials| {
            for trial in trials {
                let load = trial
                    .load
                    .as_mut()
                    .filter(|_| trial.planned.cell.path == "slow");
                if let Some(load) = load {
                    load.elapsed_us *= 2.0;
                }
            }
        },
        |comparison| {
            let comparison = comparison.expect("comparable");
            let differing: Vec<String> = comparison
                .cells
                .iter()
                .filter(|cell| cell.told(Metric::Rps) == Some(Told::Different))
                .map(|cell| cell.head.cell.to_string())
                .collect();
            assert_eq!(differing, ["slow /small c=1"]);
            insta::assert_snapshot!(compare::markdown(&comparison));
        },
    );
}

#[test]
fn cells_of_one_run_alone_are_named() {
    compare_with(
        |_, trials| {
            for trial in trials {
                if trial.planned.cell.path == "slow" {
                    trial.planned.cell.path = "slower".to_owned();
                }
            }
        },
        |comparison| {
            let comparison = comparison.expect("comparable");
            assert_eq!(comparison.cells.len(), 4);
            let text = compare::markdown(&comparison);
            assert!(
                text.contains("Only in base: matrix slow /small c=1, matrix slow /small c=8\n"),
                "{text}"
            );
            assert!(
                text.contains("Only in head: matrix slower /small c=1, matrix slower"),
                "{text}"
            );
        },
    );
}

/// Returns name, base and head of the differences that are named if `change` is made on one side.
fn incomparable(change: impl FnOnce(&mut Manifest, &mut Vec<Trial>)) -> Vec<[String; 3]> {
    let mut found = Vec::new();
    compare_with(change, |comparison| {
        let error = comparison.expect_err("incomparable");
        assert!(
            error
                .to_string()
                .starts_with("the runs are not comparable: "),
            "{error}"
        );
        let differences = error.0.into_iter();
        found.extend(differences.map(|it| [it.key, it.base, it.head]));
    });
    found
}

#[test]
fn runs_under_other_conditions_are_not_compared() {
    let difference = |key: &str, base: &str, head: &str| vec![[key, base, head].map(str::to_owned)];
    assert_eq!(
        incomparable(|manifest, _| manifest.machine.cores = 4),
        difference("cores", "2", "4")
    );
    assert_eq!(
        incomparable(|manifest, _| manifest.profile = "debug".to_owned()),
        difference("profile", "release", "debug")
    );
    assert_eq!(
        incomparable(|manifest, _| manifest.scenarios[0].reference = "fast".to_owned()),
        difference("reference of 'matrix'", "plain", "fast")
    );
    assert_eq!(
        incomparable(|_, trials| trials[0].planned.duration_ms = 500),
        difference(
            "load of matrix plain /small c=1",
            "1000 ms after 100 ms of warm-up",
            "500 ms after 100 ms of warm-up"
        )
    );
    let generator = |trial: &mut Trial| trial.load.as_mut().expect("loaded").generator.clear();
    assert_eq!(
        incomparable(|_, trials| generator(&mut trials[0])),
        difference("load generator of matrix plain /small c=1", "script", "")
    );
    let other = incomparable(|_, trials| {
        trials
            .iter_mut()
            .for_each(|trial| trial.planned.cell.concurrency += 1);
    });
    assert_eq!(other, difference("loads", "'c=1', 'c=8'", "'c=2', 'c=9'"));
}

#[test]
fn one_block_and_no_trials_are_compared_as_far_as_they_go() {
    compare_with(
        |_, trials| trials.retain(|trial| trial.planned.block == 1),
        |comparison| {
            let comparison = comparison.expect("comparable");
            let slow = comparison
                .cells
                .iter()
                .find(|cell| cell.head.cell.path == "slow");
            let change = slow.expect("there").changes[Metric::Rps].expect("one block each");
            assert_eq!(change.blocks, 1);
            assert!(change.confidence < 0.6, "{change:?}");
        },
    );
    let nothing = incomparable(|_, trials| trials.clear());
    let [key, base, head] = &nothing[0];
    assert_eq!((key.as_str(), head.as_str()), ("cells", ""));
    assert!(base.starts_with("'matrix fast /small c=1', "), "{base}");
}

#[test]
fn a_cell_without_its_reference_has_no_share_and_no_failure() {
    let manifest = manifest();
    let trials = [trial("fast", 1, 1, 0, 1_000, 100)];
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let overview = overview::tables(&summary.scenarios[0]);
    assert!(overview.contains("| fast | – |"), "{overview}");
}
