//! Goal: other tools can read a run's figures. Method: the usual records, read again by the same
//! libraries, or as the formats are written.

use std::time::Duration;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::report::exchange;

#[test]
fn bmf_has_each_cell_with_its_range() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let bmf = exchange::bmf(&summary);
    let plain = &bmf["matrix plain /small c=8"]["throughput"];
    assert_eq!(plain["value"], 20_200.0);
    assert_eq!(
        [&plain["lower_value"], &plain["upper_value"]],
        [20_100.0, 20_300.0]
    );
    // A cell without figures is there, without measures.
    assert_eq!(bmf["matrix slow /small c=8"], serde_json::json!({}));
}

#[test]
fn prometheus_has_one_family_per_metric() {
    let (mut manifest, mut trials) = (manifest(), trials());
    manifest.paths[1].name = "f\"st".to_owned();
    for trial in &mut trials {
        if trial.planned.cell.path == "fast" {
            trial.planned.cell.path = "f\"st".to_owned();
        }
    }
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let text = exchange::prometheus(&summary);
    let rps = "hopbench_requests_per_second{scenario=\"matrix\",endpoint=\"/small\",\
               path=\"f\\\"st\",concurrency=\"8\",keep_alive=\"true\",placement=\"free\"} 3200";
    assert!(text.lines().any(|line| line == rps), "{text}");
    assert_eq!(
        text.matches("# TYPE hopbench_requests_per_second gauge")
            .count(),
        1
    );
    assert!(text.contains("role=\"origin\""), "{text}");
}

#[test]
fn the_log_has_an_interval_for_each_trial_with_latencies() {
    let trials = trials();
    let text = exchange::hdr_log(&trials, |trial| {
        Duration::from_secs(u64::from(trial.planned.block))
    });
    let text = text.expect("written");
    let entries = IntervalLogIterator::new(text.as_bytes());
    let entries: Vec<_> = entries.map(|it| it.expect("readable")).collect();
    let intervals: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        })
        .collect();
    let with_latencies = trials.iter().filter(|it| it.load.is_some());
    assert_eq!(intervals.len(), with_latencies.count());
    let tag = intervals[0].tag().expect("tagged");
    assert_eq!(tag.as_str(), "matrix_plain_/small_c=1");
    // In milliseconds: 0.1, with the histogram's precision.
    assert!(
        (intervals[0].max() - 0.1).abs() < 0.001,
        "{}",
        intervals[0].max()
    );
    let mut broken = trials;
    broken[0].load.as_mut().expect("loaded").latency.histogram = "?".to_owned();
    let error = exchange::hdr_log(&broken, |_| Duration::ZERO).expect_err("broken");
    assert!(error.to_string().starts_with("trial 1: "), "{error}");
}

#[test]
fn seconds_are_lines_or_said_to_be_missing() {
    let mut trials = trials();
    let error = exchange::seconds(&trials).expect_err("none");
    assert!(
        error.to_string().contains("only loads in stages"),
        "{error}"
    );
    trials[0].load.as_mut().expect("loaded").seconds = vec![LoadSecond {
        due: 5,
        good: 4,
        errors: [("reset, by the peer".to_owned(), 1)].into(),
        p50_us: Some(100.0),
        ..LoadSecond::default()
    }];
    let text = exchange::seconds(&trials).expect("one");
    assert_eq!(
        text.lines().nth(1),
        Some("matrix,/small,plain,1,free,1,1,1,5,4,1,100.0,,")
    );
}
