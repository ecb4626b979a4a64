//! Goal: every report shows what a path did not answer, and none shows a percentile that is not
//! known. Method: made-up trials at a fixed rate, in every format.

use super::*;
use crate::{
    history::{Answers, Row},
    report::html,
};

/// Makes a trial at a fixed rate of 1000 per second that lasts 3 s, so that its p99 has a tail.
fn at_rate(path: &str, block: u32, by_path: u64, late: u64) -> Trial {
    let due = 3_000;
    let mut trial = trial(path, 8, block, 0, due - by_path - late, 400);
    trial.planned.cell.rate_rps = Some(1_000);
    let load = trial.load.as_mut().expect("loaded");
    load.elapsed_us = 3e6;
    load.open_loop = Some(OpenLoop {
        scheduled: due,
        dropped: by_path + late,
        dropped_late: late,
        ..OpenLoop::default()
    });
    trial
}

/// Makes three blocks of the reference and of a path. In one block the path drops 180 of 3,000
/// requests, and the generator is late for 60.
fn dropping() -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 1..=3 {
        trials.push(at_rate("plain", block, 0, 0));
        let (by_path, late) = if block == 2 { (180, 60) } else { (0, 0) };
        trials.push(at_rate("fast", block, by_path, late));
    }
    trials
}

fn column<'t>(csv: &'t str, path: &str, name: &str) -> &'t str {
    let mut lines = csv.lines();
    let heading = lines.next().expect("a heading").split(',');
    let index = heading.clone().position(|it| it == name).expect(name);
    let line = lines.find(|line| line.split(',').nth(2) == Some(path));
    line.expect(path).split(',').nth(index).expect("as many")
}

#[test]
fn drops_are_in_every_format() {
    let (manifest, trials) = (manifest(), dropping());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let csv = csv::render(&summary);
    let of = |name| column(&csv, "fast", name);
    assert_eq!(of("dropped_requests"), "180");
    assert_eq!(of("dropped_late_requests"), "60");
    assert_eq!(of("unanswered_requests"), "180");
    assert_eq!(of("failed_requests"), "0");
    let perf = perf::render(&summary);
    let line = perf.lines().find(|line| line.contains("path=fast"));
    let line = line.expect("there");
    assert!(line.contains(" errors=180 "), "{line}");
    assert!(line.ends_with(" dropped=180 dropped_late=60"), "{line}");
    // The shares are 180 and 60 of 9,000.
    let markdown = markdown::report(&summary, &trials, trials.len());
    assert!(
        markdown.contains("| Not answered | Dropped | Late |"),
        "{markdown}"
    );
    assert!(markdown.contains("| 2.0 % | 2.0 % | 0.7 % |"), "{markdown}");
    assert!(markdown.contains(", 2.0 % not answered |"), "{markdown}");
    let terminal = terminal::render(&summary, &trials, trials.len());
    assert!(terminal.contains("Not answered"), "{terminal}");
    assert!(terminal.contains("2.0 % not answered"), "{terminal}");
    let page = html::report(&summary, &trials, trials.len(), &[], &[]);
    assert!(page.contains("2.0 % not answered"), "{page}");
    assert!(page.contains("<td class=\"metric bad\">180</td>"), "{page}");
    let row = Row::new(&summary, &trials);
    let fast = row.cells.iter().find(|it| it.cell.path == "fast");
    assert_eq!(
        fast.expect("there").answers,
        Some(Answers {
            trials: 3,
            failed_trials: 0,
            due: 9_000,
            unanswered: 180
        })
    );
}

fn dropped_pathology(trials: &[Trial]) -> Option<String> {
    let manifest = manifest();
    let summary = Summary::new(&manifest, trials).expect("valid records");
    let found = pathology::find(&summary.scenarios[0]);
    let is_drop = |one: &&Pathology| matches!(one, Pathology::Dropped { .. });
    found.iter().find(is_drop).map(ToString::to_string)
}

#[test]
fn more_than_a_thousandth_dropped_in_one_block_is_a_pathology() {
    let blocks = |by_path, late| {
        [
            at_rate("plain", 1, 0, 0),
            at_rate("plain", 2, by_path, late),
            at_rate("plain", 3, 0, 0),
        ]
    };
    assert_eq!(dropped_pathology(&blocks(0, 0)), None);
    // A few requests may be due while the last answers are under way.
    assert_eq!(dropped_pathology(&blocks(3, 0)), None);
    let found = dropped_pathology(&blocks(4, 0)).expect("4 of 3,000");
    assert!(found.contains("4 of 9000 "), "{found}");
    assert!(found.ends_with("in 1 of 3 blocks"), "{found}");
    // Requests that the load generator was late for are not charged to the path.
    assert_eq!(dropped_pathology(&blocks(0, 500)), None);
}

/// Makes a trial of 3,000 requests, of which `censored` have no answer and the longest latencies.
fn censored(block: u32, answered_us: u64, censored: u64) -> Trial {
    let mut trial = at_rate("fast", block, censored, 0);
    let good = 3_000 - censored;
    let mut latencies: Vec<u64> = (0..good).map(|index| answered_us + index % 10).collect();
    latencies.extend((0..censored).map(|index| 980_000 + index));
    let load = trial.load.as_mut().expect("loaded");
    load.latency = Latency {
        p50_us: Some(answered_us as f64 + 5.0),
        p90_us: Some(answered_us as f64 + 9.0),
        p95_us: Some(answered_us as f64 + 9.0),
        p99_us: Some(if censored > 30 {
            980_000.0
        } else {
            answered_us as f64
        }),
        censored,
        histogram: histogram(&latencies),
        ..Latency::default()
    };
    trial
}

#[test]
fn a_percentile_among_requests_without_an_answer_is_at_least() {
    let manifest = manifest();
    let mut trials: Vec<Trial> = (1..=3).map(|block| at_rate("plain", block, 0, 0)).collect();
    trials.extend((1..=3).map(|block| censored(block, 1_000, 60)));
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let row = &summary.scenarios[0].tables[0].rows[1];
    let known = |it: Option<crate::summary::Percentiles>| it.expect("measured").median.is_at_least;
    assert!(!known(row.p50_us) && known(row.p99_us));
    let markdown = markdown::report(&summary, &trials, trials.len());
    assert!(markdown.contains("| 1.005 | ≥ 980 |"), "{markdown}");
    assert!(!markdown.contains("| 1.005 | 980"), "{markdown}");
    // The ratio to a reference that answered is a bound as well.
    assert!(markdown.contains("| ≥ 2,450 times |"), "{markdown}");
    let csv = csv::render(&summary);
    assert_eq!(column(&csv, "fast", "latency_us_p99"), ">=980000.0000");
    assert!(column(&csv, "fast", "merged_latency_us_p99").starts_with(">="));
    assert!(column(&csv, "fast", "p99_ratio").starts_with(">=245"));
    assert_eq!(column(&csv, "fast", "latency_us_p50"), "1005.0000");
    let perf = perf::render(&summary);
    assert!(perf.contains(" latency_p99_ms=>=98"), "{perf}");
    let page = html::report(&summary, &trials, trials.len(), &[], &[]);
    assert!(page.contains("<td class=\"metric\">≥ 980</td>"), "{page}");
    assert!(page.contains(": p99 ≥ 98"), "{page}");
    let picture = crate::report::lines::latency(&summary.scenarios[0]);
    assert!(picture.contains("p99 ≥ 98"), "{picture}");
    // A history has plain numbers only, so it leaves out a bound.
    let row = Row::new(&summary, &trials);
    let fast = row
        .cells
        .iter()
        .find(|it| it.cell.path == "fast")
        .expect("there");
    assert!(!fast.metrics.contains_key("p99") && fast.metrics.contains_key("p50"));
}

#[test]
fn one_block_with_a_bound_leaves_those_below_it_as_they_are() {
    let manifest = manifest();
    let trials = [
        censored(1, 1_000, 0),
        censored(2, 1_200, 0),
        censored(3, 1_000, 60),
    ];
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let p99 = summary.scenarios[0].tables[0].rows[0]
        .p99_us
        .expect("measured");
    let bounds = [p99.min, p99.median, p99.max].map(|it| it.is_at_least);
    assert_eq!(bounds, [false, false, true]);
    // Ten of 3,000 requests are beyond the p99 and leave it as it is.
    let trials = [censored(1, 1_000, 10)];
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let row = &summary.scenarios[0].tables[0].rows[0];
    assert!(!row.p99_us.expect("measured").max.is_at_least);
    assert!(row.merged.expect("measured").max_us.is_at_least);
}

#[test]
fn a_cell_without_requests_has_no_metrics() {
    let manifest = manifest();
    let mut trials = vec![
        trial("plain", 8, 1, 0, 20_000, 200),
        trial("fast", 8, 1, 0, 0, 200),
    ];
    trials[1].load.as_mut().expect("loaded").elapsed_us = 1e6;
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let row = &summary.scenarios[0].tables[0].rows[1];
    assert!(row.rps.is_none() && row.rss_peak_kib.is_none() && row.p99_us.is_none());
    assert!(row.ratios[Metric::Rss].is_none() && row.merged.is_none());
    let overview = overview::tables(&summary.scenarios[0]);
    assert!(overview.contains("| fast | no requests |"), "{overview}");
    let csv = csv::render(&summary);
    assert_eq!(column(&csv, "fast", "rps_median"), "");
    assert_eq!(column(&csv, "fast", "rss_peak_kib"), "");
}

#[test]
fn a_percentile_needs_twenty_samples_above_it() {
    let manifest = manifest();
    // 1,999 answers are too few for a p99, and 20,000 are enough for a p99.9.
    let trials = [
        trial("plain", 1, 1, 0, 20_000, 100),
        trial("fast", 1, 1, 0, 1_999, 100),
    ];
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let csv = csv::render(&summary);
    let of = |path, name| column(&csv, path, name);
    assert_ne!(of("plain", "merged_latency_us_p999"), "");
    assert_eq!(of("fast", "merged_latency_us_p999"), "");
    assert_eq!(of("fast", "merged_latency_us_p99"), "");
    assert_eq!(of("fast", "latency_us_p99"), "");
    assert_eq!(of("fast", "p99_ratio"), "");
    assert_ne!(of("fast", "latency_us_p95"), "");
    let perf = perf::render(&summary);
    assert!(perf.contains(" latency_p99_ms=nan"), "{perf}");
    let markdown = markdown::report(&summary, &trials, 2);
    assert!(markdown.contains("| 0.050 | n/a |"), "{markdown}");
    let page = html::report(&summary, &trials, 2, &[], &[]);
    // One n/a is in the table of cells, and one in that of trials.
    assert_eq!(
        page.matches("<td class=\"metric\">n/a</td>").count(),
        2,
        "{page}"
    );
}

/// The first case has the p99 of seven blocks of the reference run, in milliseconds: three stand
/// out.
#[test]
fn every_block_is_looked_at_for_a_long_tail() {
    let found = |p99_ms: [u64; 7]| {
        let manifest = manifest();
        let mut trials = Vec::new();
        for (block, p99_ms) in (1..).zip(p99_ms) {
            trials.push(trial("plain", 8, block, 0, 20_000, 45_000));
            trials.push(trial("fast", 8, block, 0, 5_000, p99_ms * 1_000));
        }
        let summary = Summary::new(&manifest, &trials).expect("valid records");
        let found = pathology::find(&summary.scenarios[0]);
        let is_tail = |one: &&Pathology| matches!(one, Pathology::LongTail { .. });
        found.iter().find(is_tail).map(ToString::to_string)
    };
    let three = found([1_034, 107, 100, 1_245, 98, 113, 955]).expect("three");
    let expected = "p99 over 10 times the reference's in 3 of 7 blocks, 28 times at worst; the \
                    p99 of the blocks is 98.00 to 1245 ms";
    assert!(three.ends_with(expected), "{three}");
    assert!(found([113, 107, 100, 110, 98, 113, 955]).is_some());
    assert_eq!(found([113, 107, 100, 110, 98, 113, 400]), None);
}

#[test]
fn every_block_is_looked_at_for_a_collapse() {
    let found = |rps: [u64; 3]| {
        let manifest = manifest();
        let mut trials = Vec::new();
        for (block, rps) in (1..).zip(rps) {
            trials.push(trial("plain", 1, block, 0, 10_000, 100));
            trials.push(trial("plain", 8, block, 0, rps, 100));
        }
        let summary = Summary::new(&manifest, &trials).expect("valid records");
        let found = pathology::find(&summary.scenarios[0]);
        found.first().map(ToString::to_string)
    };
    let one = found([9_000, 4_900, 9_000]).expect("one block");
    assert!(one.ends_with("in 1 of 3 blocks, 49 % at worst"), "{one}");
    assert_eq!(found([9_000, 5_000, 9_000]), None);
}

/// In six blocks, one path equals the reference, one differs, and one cannot be told apart.
#[test]
fn three_answers_are_in_every_format() {
    let manifest = manifest();
    let mut trials = Vec::new();
    for (block, (noisy, same)) in (1..=6).zip([
        (8_000, 10_010),
        (13_000, 9_990),
        (9_000, 10_000),
        (11_000, 10_020),
        (12_000, 9_980),
        (7_000, 10_000),
    ]) {
        trials.push(trial("plain", 8, block, 0, 10_000, 100));
        trials.push(trial("plain", 8, block, 1, 10_000 + u64::from(block), 100));
        trials.push(trial("fast", 8, block, 0, same, 100));
        trials.push(trial("slow", 8, block, 0, noisy, 100));
        trials.push(trial("absent", 8, block, 0, 5_000, 100));
    }
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let told: Vec<Option<Told>> = summary.scenarios[0].tables[0].rows[1..]
        .iter()
        .map(|row| row.told(Metric::Rps))
        .collect();
    let expected = [Told::Equal, Told::NotToldApart, Told::Different].map(Some);
    assert_eq!(told, expected);
    let noisy = summary.scenarios[0].tables[0].rows[2].ratios[Metric::Rps].expect("six");
    let noisy = format!("can't tell: {:.0} %", noisy.ratio * 100.0);
    let page = html::report(&summary, &trials, 0, &[], &[]);
    for text in [
        markdown::report(&summary, &trials, 0),
        terminal::render(&summary, &trials, trials.len()),
        page,
    ] {
        for shown in [
            "= 100 %",
            noisy.as_str(),
            "50 %",
            "within ±5 %",
            "the two may be equal or may differ",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert!(!text.contains("no difference"), "{text}");
    }
    let csv = csv::render(&summary);
    let of = |path| column(&csv, path, "rps_ratio_told");
    assert_eq!(
        ["fast", "slow", "absent"].map(of),
        ["equal", "not-told-apart", "different"]
    );
}

#[test]
fn a_percentile_that_only_the_quick_blocks_allow_is_not_shown() {
    let mut trials: Vec<Trial> = (1..=3).map(|block| at_rate("plain", block, 0, 0)).collect();
    for (block, good) in [(1, 2_000), (2, 1_999), (3, 1_999)] {
        let mut trial = at_rate("fast", block, 0, 0);
        let load = trial.load.as_mut().expect("loaded");
        (load.good, load.requests) = (good, good);
        trials.push(trial);
    }
    let manifest = manifest();
    let of = |name: &str| {
        let summary = Summary::new(&manifest, &trials).expect("valid records");
        column(&csv::render(&summary), "fast", name).to_owned()
    };
    assert_eq!(
        (of("latency_us_p99"), of("p99_ratio")),
        (String::new(), String::new())
    );
    assert_ne!(of("latency_us_p95"), "");
    assert_ne!(of("p95_ratio"), "");
}
