//! The outputs for people, CI and programs.

use super::*;
use crate::{ab::AbComparison, report, summary::Summary};

/// Returns a result with everything at once: slower, inconclusive and failed cells, a dead gate,
/// and names that look like markup.
fn everything() -> GateResult {
    let mut trials = of_builds(&CELLS, BLOCKS, |cell, block, replicate| {
        let mut metrics = slower("fast", 0.6)(cell, block, replicate);
        metrics.p95_us *= match (is_b(cell), cell.concurrency, cell.path.as_str()) {
            (true, 8, "plain") => 1.2,
            (false, 8, "fast") if replicate == 1 => [0.5, 2.0][block as usize % 2],
            _ => 1.0,
        };
        metrics
    });
    for trial in &mut trials {
        if trial.planned.cell.concurrency == 8 {
            trial.planned.cell.endpoint = "/a|b?<x>=\"1\"&y='%0A'".to_owned();
        }
    }
    let last = trials.last_mut().expect("some");
    fail(last, Source::Subject);
    if let Outcome::Failed(failure) = &mut last.outcome {
        failure.cause = "100 % wrong: 'a'\r\nand a line, too \u{1}]]>".to_owned();
    }
    let policy = Policy {
        name: "a,b:c".to_owned(),
        ..usual_policy()
    };
    judge_builds(&policy, &trials)
}

#[test]
fn a_comment_of_everything() {
    insta::assert_snapshot!(report::gate::markdown(&everything()));
}

#[test]
fn a_terminal_of_everything() {
    insta::assert_snapshot!(report::gate::terminal(&everything()));
}

#[test]
fn test_cases_of_everything() {
    insta::assert_snapshot!(report::gate::junit(&everything()));
}

#[test]
fn annotations_of_everything() {
    let result = everything();
    let annotations = report::gate::annotations(&result);
    for line in annotations.lines() {
        let is_command = ["::error title=", "::warning title="]
            .iter()
            .any(|it| line.starts_with(it));
        assert!(is_command, "{line}");
    }
    insta::assert_snapshot!(annotations);
}

#[test]
fn many_findings_are_not_all_shown() {
    let mut result = everything();
    result.findings = vec![result.findings; 100].concat();
    let comment = report::gate::markdown(&result);
    assert!(comment.len() < 65_536, "{}", comment.len());
    assert!(comment.contains("… and 200 more"), "{comment}");
    assert!(report::gate::annotations(&result).lines().count() <= 20);
    let sides = "Of 800 changes, 300 are for the worse (";
    assert!(comment.contains(sides), "{comment}");
    let only_worse = "All on one side";
    assert!(comment.contains(only_worse), "{comment}");
}

#[test]
fn what_passed_is_short() {
    let result = judge_builds(&usual_policy(), &of_builds(&CELLS, BLOCKS, equal));
    assert_eq!(report::gate::annotations(&result), "");
    let text = report::gate::terminal(&result);
    assert!(
        text.ends_with("gate 'test': passed: 0 regressed, 0 inconclusive, 16 passed\n"),
        "{text}"
    );
    let json = report::gate::json(&result);
    assert_eq!(json["verdict"], "passed");
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(16));
}

#[test]
fn a_report_of_two_builds_has_both() {
    let (manifest, mut trials) = (
        manifest(true),
        of_builds(&CELLS, BLOCKS, slower("fast", 0.6)),
    );
    fail(trials.last_mut().expect("some"), Source::Subject);
    let summary = Summary::new(&manifest, &trials).expect("valid records");
    let report = report::markdown::report(&summary, &trials, trials.len());
    for part in [
        "| fast (a) | 1 |",
        "| fast (b) | 1 |",
        "a is 'main' (main01234567), b is 'head' (head01234567 with uncommitted changes)",
        "## b over a",
    ] {
        assert!(report.contains(part), "'{part}' is missing: {report}");
    }
    // The answer comes first: b against a at the highest load, and what was found at the others.
    let answer = "# What has changed from a to b?\n\na is 'main' (main01234567), b is";
    assert!(report.starts_with(answer), "{report}");
    let said = "\n- fast on /small: b has 60 % (59 %–60 %) of a's RPS at c=8; 60 % at c=1; \
                1 of 8 trials of b";
    assert!(report.contains(said), "{report}");
    let shown = report::terminal::render(&summary, &trials, trials.len());
    assert!(shown.starts_with("\na is 'main'"), "{shown}");
    let [answer, table] = ["- fast on /small: b has", "## matrix"].map(|it| shown.find(it));
    assert!(answer.is_some() && answer < table, "{shown}");
    let page = report::html::report(&summary, &trials, trials.len(), &[], &[]);
    assert!(page.contains("<li>fast on /small: b has 60 %"), "{page}");
    assert_eq!(report.matches("A/A control: ").count(), 1, "{report}");
    let chart = report::chart::overview(&manifest, &summary.scenarios[0]);
    assert!(
        chart.contains(">fast (a)</text>") && chart.contains(">fast (b)</text>"),
        "{chart}"
    );
    assert!(!chart.contains(">plain (b)"), "{chart}");
    let comparison = AbComparison::of(&manifest, &trials).expect("two builds");
    let json = Value::from(report::ab::cells(&comparison));
    assert_eq!(json[1]["rps"]["differs"], true, "{json}");
    insta::assert_snapshot!(report::ab::terminal(&comparison));
}
