//! Goal: a history reports what changed and what fails, and never mixes rows or cells that were
//! measured under different conditions. Method: series with known steps, and made-up rows.

use proptest::prelude::*;

use super::*;

/// Returns noise from −0.5 to 0.5, which depends only on the arguments.
fn noise(seed: u64, index: usize) -> f64 {
    let mut bits = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(index as u64)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits ^ (bits >> 29)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
}

fn series(seed: u64, levels: &[(usize, f64)]) -> Vec<f64> {
    let levels = levels.iter();
    levels
        .flat_map(|(count, level)| std::iter::repeat_n(*level, *count))
        .enumerate()
        .map(|(index, level)| level * (1.0 + 0.1 * noise(seed, index)))
        .collect()
}

#[test]
fn steps_are_found_where_they_are() {
    for seed in 0..50 {
        let values = series(seed, &[(20, 1.0), (15, 1.2), (25, 0.9)]);
        let found = changes(&values);
        let at: Vec<usize> = found.iter().map(|change| change.index).collect();
        assert_eq!(at, [20, 35], "seed {seed}: {found:?}");
        assert!((found[0].before - 1.0).abs() < 0.05 && (found[1].after - 0.9).abs() < 0.05);
    }
}

#[test]
fn noise_has_no_steps() {
    let alarms = (0..1_000).filter(|seed| !changes(&series(*seed, &[(60, 1.0)])).is_empty());
    assert!(alarms.count() <= 3, "a thousandth was promised");
    // Two outliers are no change.
    let mut values = series(1, &[(40, 1.0)]);
    (values[12], values[13]) = (9.0, 9.0);
    assert_eq!(changes(&values), []);
}

proptest! {
    #[test]
    fn any_series_can_be_looked_at(values in prop::collection::vec(0.0..2.0_f64, 0..80)) {
        let found = changes(&values);
        prop_assert!(found.is_sorted_by_key(|change| change.index));
        prop_assert!(found.iter().all(|change| change.index < values.len()));
    }
}

fn row(revision: &str, conditions: &str, value: f64) -> Row {
    let cell = Cell {
        scenario: "matrix".to_owned(),
        endpoint: "/small".to_owned(),
        path: "fast".to_owned(),
        concurrency: 8,
        keep_alive: true,
        rate_rps: None,
        build: None,
        staged: false,
        placement: Default::default(),
    };
    Row {
        schema: SCHEMA,
        started: "2026-01-02T03:04:05Z".to_owned(),
        revision: revision.to_owned(),
        conditions: [("kernel".to_owned(), conditions.to_owned())].into(),
        cells: vec![RowCell {
            cell,
            is_reference: false,
            metrics: [("cpu".to_owned(), value)].into(),
            conditions: [("load".to_owned(), "1 s".to_owned())].into(),
            answers: Some(Answers {
                trials: 6,
                failed_trials: 0,
                due: 1_000,
                unanswered: 0,
            }),
        }],
    }
}

#[test]
fn histories_of_other_conditions_are_others() {
    let mut rows: Vec<Row> = (0..40).map(|_| row("old", "5", 1.0)).collect();
    rows.extend((0..29).map(|index| row("new", "6", if index < 15 { 1.0 } else { 1.5 })));
    let trend = &trends(&rows)[0];
    assert_eq!((trend.points.len(), trend.changes.len()), (29, 0));
    rows.push(row("new", "6", 1.5));
    let trend = &trends(&rows)[0];
    assert_eq!((trend.points.len(), trend.changes.len()), (30, 1));
    assert_eq!(trend.changes[0].index, 15);
    assert!(trends(&[]).is_empty());
}

fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|_| row("old", "5", 1.0)).collect()
}

#[test]
fn cells_that_were_loaded_otherwise_are_others() {
    let mut rows = rows(5);
    for row in &mut rows[..3] {
        let load = row.cells[0].conditions.get_mut("load").expect("known");
        "2 s".clone_into(load);
    }
    assert_eq!(trends(&rows)[0].points.len(), 2);
    let version = ("version of 'proxy'".to_owned(), "2.0".to_owned());
    rows[4].cells[0].conditions.extend([version]);
    assert_eq!(trends(&rows)[0].points.len(), 1);
}

#[test]
fn a_path_that_fails_now_has_no_last_metric() {
    let mut rows = rows(5);
    let cell = &mut rows[4].cells[0];
    cell.metrics.clear();
    cell.conditions.clear();
    cell.answers = Some(Answers {
        trials: 6,
        failed_trials: 6,
        due: 0,
        unanswered: 0,
    });
    let trend = &trends(&rows)[0];
    assert_eq!((trend.points.len(), trend.is_in_last), (4, false));
    let failing = failing(&rows);
    let last = failing[0].last.expect("in the last row");
    assert_eq!((last.failed_trials, failing[0].rows_before), (6, 4));
    assert!(failing[0].p().expect("both") < 0.001);
    // The last row doesn't have the cell at all, although it has others of the scenario.
    "other".clone_into(&mut rows[4].cells[0].cell.path);
    assert!(trends(&rows).iter().all(|trend| !trend.is_in_last));
    let failing = super::failing(&rows);
    let gone = failing.iter().find(|it| it.cell.path == "fast");
    assert_eq!(gone.expect("not measured").last, None);
    assert!(super::failing(&rows[..4]).is_empty());
}

/// Runs of two scenarios take turns.
#[test]
fn a_run_of_another_scenario_says_nothing_about_a_cell() {
    let mut rows = rows(6);
    for row in rows.iter_mut().step_by(2) {
        "other".clone_into(&mut row.cells[0].cell.scenario);
    }
    let both = trends(&rows);
    assert_eq!(both.len(), 2);
    let fits = |trend: &Trend<'_>| trend.is_in_last && trend.points.len() == 3;
    assert!(both.iter().all(fits), "{both:?}");
    assert!(failing(&rows).is_empty(), "{:?}", failing(&rows));
    assert_eq!((fewest(&rows), fewest(&rows[..4]), fewest(&[])), (3, 2, 0));
    // A failure in the last run of a scenario is still the last one after a run of another.
    rows[4].cells[0]
        .answers
        .as_mut()
        .expect("recent")
        .failed_trials = 6;
    let failing = failing(&rows);
    let last = failing[0].last.expect("measured");
    assert_eq!((failing.len(), last.failed_trials), (1, 6));
    assert_eq!(failing[0].rows_before, 2);
}

#[test]
fn one_of_six_trials_and_five_of_six_are_not_alike() {
    let mut rows = rows(2);
    for (row, failed) in rows.iter_mut().zip([1, 5]) {
        let answers = row.cells[0].answers.as_mut().expect("recent");
        answers.failed_trials = failed;
    }
    let failing = failing(&rows);
    assert!((failing[0].p().expect("both") - 37.0 / 924.0).abs() < 1e-9);
}

/// Reads a row as the first release wrote it.
#[test]
fn rows_of_older_versions_are_read() {
    let line = r#"{"started":"2026-01-02T03:04:05Z","revision":"old",
        "conditions":{"kernel":"5"},"cells":[{"scenario":"matrix","endpoint":"/small",
        "path":"fast","concurrency":8,"keep_alive":true,"is_reference":false,
        "metrics":{"cpu":1.5}}]}"#;
    let old = Row::read(line).expect("an old row");
    assert_eq!((old.schema, old.cells[0].answers), (1, None));
    let trends_of_old = [old.clone(), old.clone()];
    assert_eq!(trends(&trends_of_old)[0].points.len(), 2);
    assert!(failing(&trends_of_old).is_empty());
    // Only the new row says how its cell was loaded, so the two are not compared.
    let mixed = [old.clone(), row("new", "5", 1.0)];
    assert_eq!(trends(&mixed)[0].points.len(), 1);
    assert!(left_out(&mixed).is_empty());
    let mut newer = row("new", "5", 1.0);
    let toolchain = ("toolchain".to_owned(), "rustc 2".to_owned());
    newer.conditions.extend([toolchain]);
    let left_out = left_out(&[old.clone(), old, newer]);
    assert_eq!(left_out, [("toolchain not recorded".to_owned(), 2)].into());
}

#[test]
fn a_step_is_seen_in_the_newest_rows() {
    let mut rows = rows(20);
    for (index, row) in rows.iter_mut().enumerate() {
        *row.cells[0].metrics.get_mut("cpu").expect("there") = 1.0 + 0.1 * noise(1, index);
    }
    assert_eq!(trends(&rows)[0].recent, None);
    for _ in 0..NEWEST {
        rows.push(row("slow", "5", 1.3));
    }
    let recent = trends(&rows)[0].recent.expect("a step of 30 %");
    assert!((recent.after - 1.3).abs() < 1e-9 && (recent.before - 1.0).abs() < 0.05);
    assert_eq!(recent.index, 20);
    // Behind a change, too, the index is that of the whole trend.
    let mut values = series(7, &[(30, 1.0), (WINDOW_MAX, 2.0)]);
    values.extend([2.6; NEWEST]);
    let recent = Recent::of(&values, 30).expect("a step of 30 %");
    assert_eq!(recent.index, 30 + WINDOW_MAX);
    assert_eq!(Recent::of(&values, 40), None, "too few rows before");
}

#[test]
fn rows_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut Row)| {
        let mut row = row("new", "5", 1.0);
        change(&mut row);
        let line = serde_json::to_string(&row).expect("a line");
        Row::read(&line).expect_err("refused").to_string()
    };
    let newer = refused(|row| row.schema += 1);
    assert!(newer.starts_with("the row has schema 3, "), "{newer}");
    let more = refused(|row| {
        row.cells[0].answers.as_mut().expect("recent").failed_trials = 7;
    });
    assert!(more.starts_with("7 of 6 trials"), "{more}");
    let many = refused(|row| {
        row.cells[0].answers.as_mut().expect("recent").trials = 1 << 40;
    });
    assert!(many.contains("expected no more failures than"), "{many}");
    let none = refused(|row| {
        row.cells[0].answers.as_mut().expect("recent").unanswered = u64::MAX;
    });
    assert!(none.contains("requests failed"), "{none}");
}

/// Memory is followed in bytes: over a reference of a few MiB, every hop is many times as large.
#[test]
fn memory_is_in_bytes_and_not_a_share() {
    let of = |rss_kib: Option<f64>| {
        let mut row = row("new", "6", 1.0);
        let cell = &mut row.cells[0];
        cell.is_reference = false;
        cell.metrics = [("rss".to_owned(), 9.5)].into();
        cell.metrics
            .extend(rss_kib.map(|kib| ("rss_kib".to_owned(), kib)));
        row
    };
    let rows = [of(None), of(Some(20_480.0)), of(Some(21_504.0))];
    let text = crate::report::history::terminal(&rows);
    assert!(
        text.contains("20.0 MiB") && text.contains("21.0 MiB"),
        "{text}"
    );
    assert!(!text.contains("950"), "{text}");
    let trend = &trends(&rows)[0];
    // A row that doesn't say it is not in the trend.
    assert_eq!(
        (trend.points.len(), trend.is_ratio, trend.is_in_last),
        (2, false, true)
    );
    // Rows of older releases have the share alone.
    assert!(trends(&[of(None)])[0].is_ratio);
}
