//! Goal: the page of a release says what its records say, and calls a change by the verdict of the
//! comparison. Method: made-up runs, and a snapshot of a whole page.

use super::*;
use crate::{
    record::{Failure, FailureKind, Manifest, OpenLoop, Outcome, Source},
    report::tests::{manifest, trial, trials},
};

fn change(base: (&Manifest, &[Trial]), head: (&Manifest, &[Trial])) -> String {
    let of = |(manifest, trials)| Summary::new(manifest, trials).expect("valid records");
    let summaries = [of(base), of(head)];
    let run = |summary, trials| Measured {
        name: "run",
        summary,
        trials,
    };
    let [base, head] = [run(&summaries[0], base.1), run(&summaries[1], head.1)];
    let sections = sections(&[head], &[base]);
    sections.last().expect("the change").body.clone()
}

/// Makes six blocks, in which the path 'fast' has this RPS and p99.
fn blocks(rps: u64, p99_us: u64) -> Vec<Trial> {
    let blocks = (1..=6_u32).flat_map(|block| {
        let drift = u64::from(block) * 10;
        [
            trial("plain", 8, block, 0, 20_000 + drift, 200),
            trial("fast", 8, block, 0, rps + drift, p99_us),
        ]
    });
    blocks.collect()
}

/// Returns the line of a path in the table of changes.
fn line<'b>(body: &'b str, path: &str) -> &'b str {
    let mut lines = body.lines();
    let found = lines.find(|line| line.starts_with(&format!("| {path} |")));
    found.unwrap_or_else(|| panic!("no line of '{path}': {body}"))
}

#[test]
fn a_first_release() {
    let (manifest, trials) = (manifest(), trials());
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let run = Measured {
        name: "20260102T030405Z-01234567",
        summary: &summary,
        trials: &trials,
    };
    let mut sections = sections(&[run], &[]);
    sections.push(Section {
        heading: "More | of it".to_owned(),
        body: "\nFrom elsewhere.\n\n".to_owned(),
    });
    insta::assert_snapshot!(page("1.2.3", &sections));
}

#[test]
fn a_slower_release_is_called_slower_and_a_faster_one_faster() {
    let manifest = manifest();
    let (usual, slow) = (blocks(10_000, 200), blocks(7_000, 300));
    let body = change((&manifest, &usual), (&manifest, &slow));
    assert!(
        line(&body, "fast").ends_with("| slower: RPS, p99 |"),
        "{body}"
    );
    assert!(
        line(&body, "plain").ends_with("| no difference shown |"),
        "{body}"
    );
    assert!(line(&body, "fast").contains("| 70 % |"), "{body}");
    let body = change((&manifest, &slow), (&manifest, &usual));
    assert!(
        line(&body, "fast").ends_with("| faster: RPS, p99 |"),
        "{body}"
    );
    let body = change((&manifest, &usual), (&manifest, &usual));
    assert!(
        line(&body, "fast").ends_with("| no difference shown |"),
        "{body}"
    );
    assert!(
        body.contains("\n0 of 6 metrics differ, 6 are equal"),
        "{body}"
    );
}

#[test]
fn failures_are_no_gain() {
    let manifest = manifest();
    let usual = blocks(10_000, 200);
    let mut failing = blocks(14_000, 100);
    for trial in &mut failing {
        if trial.planned.cell.path == "fast" {
            let load = trial.load.as_mut().expect("loaded");
            load.requests += 1_000;
        }
    }
    let body = change((&manifest, &usual), (&manifest, &failing));
    let fast = line(&body, "fast");
    assert!(
        fast.ends_with("| no difference shown; more failures |"),
        "{body}"
    );
    assert!(
        body.contains("\nMore failures than before:\n\n- matrix fast "),
        "{body}"
    );
}

#[test]
fn runs_that_are_not_comparable_say_why() {
    let (manifest, usual) = (manifest(), blocks(10_000, 200));
    let mut other = manifest.clone();
    other.machine.cores = 96;
    let body = change((&manifest, &usual), (&other, &usual));
    assert!(
        body.contains("Not comparable: cores '2' and '96'. Measure"),
        "{body}"
    );

    let mut other = manifest.clone();
    "else".clone_into(&mut other.scenarios[0].name);
    let mut elsewhere = usual.clone();
    for trial in &mut elsewhere {
        "else".clone_into(&mut trial.planned.cell.scenario);
    }
    let body = change((&other, &elsewhere), (&manifest, &usual));
    assert!(
        body.contains("the last release has no run of this scenario"),
        "{body}"
    );

    // A new version of an outside program concerns the paths that have it.
    let mut other = manifest.clone();
    other.paths[1].receipts = [("server".to_owned(), "fast 2.0".to_owned())].into();
    let body = change((&manifest, &usual), (&other, &usual));
    let expected = "not comparable: version of 'server' on path 'fast' 'fast 1.0' and 'fast 2.0' |";
    assert!(line(&body, "fast").ends_with(expected), "{body}");
    assert!(
        line(&body, "plain").ends_with("| no difference shown |"),
        "{body}"
    );
    // All changes are ratios to the reference, or its own metrics.
    let mut other = manifest.clone();
    other.paths[0].receipts = [("server".to_owned(), "plain 2.0".to_owned())].into();
    let body = change((&manifest, &usual), (&other, &usual));
    let count = body.matches("not comparable: version of").count();
    assert_eq!(count, 2, "{body}");
}

#[test]
fn cells_of_one_release_only_and_too_few_blocks_have_no_verdict() {
    let manifest = manifest();
    let usual = blocks(10_000, 200);
    let mut more = usual.clone();
    more.extend((1..=6).map(|block| trial("slow", 8, block, 0, 5_000, 200)));
    let body = change((&manifest, &usual), (&manifest, &more));
    let expected = "| - | - | - | not comparable: not measured in the last release |";
    assert!(line(&body, "slow").ends_with(expected), "{body}");
    let body = change((&manifest, &more), (&manifest, &usual));
    assert!(
        body.contains("Only in the last release: slow /small c=8."),
        "{body}"
    );
    let body = change((&manifest, &usual[..4]), (&manifest, &usual[..4]));
    let expected = "| no difference shown: too few blocks |";
    assert!(line(&body, "fast").ends_with(expected), "{body}");
    let mut failed = usual.clone();
    for trial in &mut failed {
        trial.outcome = Outcome::Failed(Failure {
            source: Source::Subject,
            kind: FailureKind::Crash,
            cause: "it crashed".to_owned(),
            log: Vec::new(),
        });
    }
    let body = change((&manifest, &usual), (&manifest, &failed));
    let expected = "not comparable: no metrics in this release; more failures |";
    assert!(line(&body, "fast").ends_with(expected), "{body}");
}

#[test]
fn many_cells_have_a_short_table_first() {
    let manifest = manifest();
    let loads = [1, 8, 64, 256, 512, 1_024, 2_048, 4_096, 8_192];
    let page = |paths: &[&str]| {
        let trials = loads.iter().flat_map(|load| {
            let of_paths = paths.iter();
            of_paths.map(|path| trial(path, *load, 1, 0, 10_000, 200))
        });
        let trials: Vec<Trial> = trials.collect();
        let summary = Summary::new(&manifest, &trials).expect("valid records");
        let run = Measured {
            name: "run",
            summary: &summary,
            trials: &trials,
        };
        page("1", &sections(&[run], &[]))
    };
    let few = page(&["plain", "fast"]);
    assert!(!few.contains("<details>"), "{few}");
    let many = page(&["plain", "fast", "slow"]);
    let (before, after) = many.split_once("<details>").expect("many cells");
    assert!(
        before.contains("The lowest and the middle load of each path:"),
        "{many}"
    );
    assert!(
        after.contains("<summary>All 27 cells</summary>\n\n| path |"),
        "{many}"
    );
    for path in ["plain", "fast", "slow"] {
        let lines = before
            .lines()
            .filter(|line| line.starts_with(&format!("| {path} |")));
        let loads: Vec<&str> = lines.filter_map(|line| line.split(" | ").nth(2)).collect();
        assert_eq!(loads, ["1", "512"], "{many}");
        assert_eq!(
            after.matches(&format!("\n| {path} |")).count(),
            loads.len() + 7
        );
    }
}

#[test]
fn requests_that_were_never_sent_are_counted_at_fixed_rates() {
    let manifest = manifest();
    let mut trials = blocks(10_000, 200);
    for trial in &mut trials {
        trial.planned.cell.rate_rps = Some(11_000);
        trial.load.as_mut().expect("loaded").open_loop = Some(OpenLoop {
            scheduled: 11_000,
            dropped: 30,
            dropped_late: 10,
            ..OpenLoop::default()
        });
    }
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let run = Measured {
        name: "run",
        summary: &summary,
        trials: &trials,
    };
    let page = page("1", &sections(&[run], &[]));
    assert!(page.contains("| 0 | 120, 60 late |\n"), "{page}");
    assert!(page.contains("240 more were dropped"), "{page}");
    // The rate is given.
    let faster = change((&manifest, &trials), (&manifest, &trials));
    assert!(
        line(&faster, "fast").ends_with("| no difference shown |"),
        "{faster}"
    );
}

#[test]
fn text_is_broken_into_lines() {
    let words = "word ".repeat(60);
    let text = item(&words);
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
    assert!(text.starts_with("- word word") && text.contains("\n  word"));
    assert_eq!(text.split_whitespace().count(), 61);
    assert_eq!(text.lines().count(), 4);
}
