//! Goal: the page shows everything that the records have, in its place, and all of it as text.
//! Method: the fixture of the reports; marks are counted, and some are measured.

use super::*;
use crate::{
    metrics::Metric,
    record::{Failure, FailureKind, Source},
    report::tests,
};

fn page(manifest: &Manifest, trials: &[Trial]) -> String {
    let summary = Summary::new(manifest, trials).expect("readable");
    report(&summary, trials, trials.len(), &[], &[])
}

fn count(page: &str, part: &str) -> usize {
    page.matches(part).count()
}

#[test]
fn every_cell_is_drawn_and_listed() {
    let (manifest, trials) = (tests::manifest(), tests::trials());
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let page = report(&summary, &trials, trials.len(), &[], &[]);
    let rows: Vec<_> = summary.scenarios[0].tables[0].rows.iter().collect();
    for row in &rows {
        let listed = format!("<summary>{}</summary>", row.cell.full_name());
        assert_eq!(count(&page, &listed), 1, "{listed}");
    }
    let shares = rows.iter().filter_map(|row| row.ratios[Metric::Rps]);
    assert_eq!(count(&page, "<circle class=\"point\""), shares.count());
    let others = rows.iter().filter(|row| !row.is_reference);
    let dots: usize = others.map(|row| row.series[Metric::Rps].len()).sum();
    assert_eq!(count(&page, "<circle class=\"dot\""), dots);
    let medians = rows.iter().filter(|row| row.rps.is_some());
    // The chart of RPS has a mark for each cell, and the legend one for each path.
    let markers = count(&page, "<path class=\"marker");
    assert_eq!(markers, medians.count() + 3);
    assert!(
        page.contains("plain /small c=8: 20,200 per second"),
        "{page}"
    );
    // Each trial has its row.
    assert_eq!(count(&page, "<th scope=\"row\">1</th>"), trials.len());
}

#[test]
fn latencies_of_the_answers_that_came_are_left_out() {
    let (manifest, mut trials) = (tests::manifest(), tests::trials());
    let panels = |trials: &[Trial]| {
        let summary = Summary::new(&manifest, trials).expect("readable");
        let scenario = &summary.scenarios[0];
        let left_out = charts::left_out(scenario);
        (left_out, page(&manifest, trials))
    };
    let latencies: Vec<u64> = (1..=100).collect();
    for load in trials.iter_mut().filter_map(|trial| trial.load.as_mut()) {
        load.latency.histogram = tests::histogram(&latencies);
    }
    // One of the three trials of 'fast' at c=1 failed.
    let (left_out, shown) = panels(&trials);
    let left_out = left_out.expect("one cell");
    assert!(left_out.ends_with(": fast /small c=1."), "{left_out}");
    assert!(shown.contains(&left_out), "{shown}");
    for trial in &mut trials {
        trial.outcome = Outcome::Ok;
    }
    assert_eq!(panels(&trials).0, None);
}

#[test]
fn marks_are_where_their_values_are() {
    let scale = plot::Scale::Log {
        least: 10.0,
        most: 1_000.0,
    };
    let row = plot::Row {
        class: "p1 s1".to_owned(),
        label: "hop".to_owned(),
        marks: vec![plot::Mark::Point {
            at: 100.0,
            title: "here".to_owned(),
        }],
        value: "100 %".to_owned(),
        is_faint: false,
    };
    let chart = plot::Rows {
        title: "a chart".to_owned(),
        unit: "%",
        scale,
        band: None,
        reference: Some(1_000.0),
        rows: vec![row],
    };
    let drawn = chart.draw().into_string();
    // The point is half way from 172 to 334, and the reference at the end.
    assert!(
        drawn.contains("<circle class=\"point\" cx=\"253.0\" cy=\"19.0\""),
        "{drawn}"
    );
    assert!(
        drawn.contains("<path class=\"reference\" d=\"M334.0 "),
        "{drawn}"
    );
}

#[test]
fn what_records_say_is_text() {
    const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>";
    let (mut manifest, mut trials) = (tests::manifest(), tests::trials());
    manifest.scenarios[0].question = HOSTILE.to_owned();
    manifest.scenarios[0].name = HOSTILE.to_owned();
    manifest.command_line = vec![HOSTILE.to_owned()];
    manifest.warnings = vec![HOSTILE.to_owned()];
    manifest.paths[1].analysis = HOSTILE.to_owned();
    for trial in &mut trials {
        trial.planned.cell.scenario = HOSTILE.to_owned();
        if trial.planned.cell.path == "slow" {
            trial.planned.cell.path = HOSTILE.to_owned();
            trial.outcome = Outcome::Failed(Failure {
                source: Source::Subject,
                kind: FailureKind::Crash,
                cause: HOSTILE.to_owned(),
                log: vec![HOSTILE.to_owned()],
            });
        }
    }
    let page = page(&manifest, &trials);
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    for element in ["<script", "<img", "onerror=alert(2)>"] {
        assert!(!page.contains(element), "{element}");
    }
}

#[test]
fn nothing_is_loaded_and_nothing_measured_is_a_page_too() {
    let manifest = tests::manifest();
    let empty = page(&manifest, &[]);
    assert!(empty.contains("Nothing measured."), "{empty}");
    let full = page(&manifest, &tests::trials());
    for page in [empty, full] {
        assert!(page.contains("default-src 'none'"), "{page}");
        for part in ["://", "@import", "<script", "<link rel=\"stylesheet\""] {
            assert!(!page.contains(part), "{part}");
        }
    }
}

#[test]
fn two_runs_are_one_page() {
    let (manifest, trials) = (tests::manifest(), tests::trials());
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let side = || crate::compare::Side {
        summary: &summary,
        trials: &trials,
    };
    let compared = Comparison::new(side(), side()).expect("comparable");
    let page = comparison(["runs/<a>", "runs/b"], [&manifest, &manifest], &compared);
    assert!(page.contains("runs/&lt;a&gt;"), "{page}");
    assert!(page.contains("0 of 21 metrics differ, "), "{page}");
    assert!(count(&page, "<circle class=\"point\"") > 0, "{page}");
}
