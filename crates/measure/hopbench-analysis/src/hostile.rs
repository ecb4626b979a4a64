//! Damaged or made-up records: whatever they contain, they are either refused or reported on.
//!
//! A test here damages them at random, and fuzzing searches for other ways.

use serde_json::{Value, json};

use crate::{
    ab::AbComparison,
    compare::{Comparison, Side},
    gate::{self, Run},
    history::Row,
    record::{Manifest, Plan, Trial},
    report::{
        self, csv, html, markdown, perf,
        release::{self, Measured},
        terminal,
    },
    summary::Summary,
};

/// Manifest, trials and plan of a real run.
type Fixture = [&'static str; 3];

/// A run of two paths, with a closed loop and a fixed rate.
const RUN: Fixture = [
    include_str!("../fixtures/run/manifest.json"),
    include_str!("../fixtures/run/trials.jsonl"),
    include_str!("../fixtures/run/plan.json"),
];

/// A run of two builds of one path.
const AB: Fixture = [
    include_str!("../fixtures/ab/manifest.json"),
    include_str!("../fixtures/ab/trials.jsonl"),
    include_str!("../fixtures/ab/plan.json"),
];

/// Length of a move in bytes. A move selects a record, a value in it, and its replacement.
const MOVE_BYTES: usize = 6;

/// Reads records and makes every report of them. The first byte selects the run, and whether the
/// other bytes are lines of trials or changes to the run's records. Returns whether there was
/// something to report on.
///
/// # Panics
/// If reading or reporting panics.
pub fn attack_records(moves: &[u8]) -> bool {
    let Some((how, moves)) = moves.split_first() else {
        return false;
    };
    let [manifest, trials, plan] = if how & 2 == 0 { RUN } else { AB };
    let mut manifest: Value = serde_json::from_str(manifest).expect("JSON");
    let plan: Plan = serde_json::from_str(plan).expect("a plan");
    let mut trials: Vec<Value> = match how & 1 {
        0 => lines(trials).collect(),
        _ => lines(&String::from_utf8_lossy(moves)).collect(),
    };
    if how & 1 == 0 {
        for bytes in moves.chunks_exact(MOVE_BYTES) {
            let [which, place0, place1, what, number0, number1] = bytes else {
                unreachable!("a move has so many bytes");
            };
            let count = trials.len();
            let record = match usize::from(*which) {
                0..16 => &mut manifest,
                which => &mut trials[which % count],
            };
            let place = usize::from(u16::from_le_bytes([*place0, *place1]));
            let number = u16::from_le_bytes([*number0, *number1]);
            let mut values = 0;
            count_values(record, &mut values);
            if let Some(value) = find_value(record, &mut (place % values)) {
                *value = instead(value, *what, number);
            }
        }
    }
    let Ok(manifest) = serde_json::from_value::<Manifest>(manifest) else {
        return false;
    };
    let trials: Vec<Trial> = trials
        .into_iter()
        .filter_map(|trial| Trial::from_value(trial).ok())
        .collect();
    report_on(&manifest, &trials, &plan)
}

fn report_on(manifest: &Manifest, trials: &[Trial], plan: &Plan) -> bool {
    let Ok(summary) = Summary::new(manifest, trials) else {
        return false;
    };
    let text = markdown::report(&summary, trials, plan.trials.len());
    let page = html::report(&summary, trials, plan.trials.len(), &[], &[]);
    let rest = [
        terminal::render(&summary, trials, plan.trials.len()),
        csv::render(&summary),
        perf::render(&summary),
    ];
    let row = serde_json::to_string(&Row::new(&summary, trials)).expect("a row is JSON");
    let comparison =
        AbComparison::of(manifest, trials).map(|comparison| report::ab::markdown(&comparison));
    let side = || Side {
        summary: &summary,
        trials,
    };
    if let Ok(comparison) = Comparison::new(side(), side()) {
        drop(report::compare::terminal(&comparison));
        drop(html::comparison(["a", "b"], [manifest; 2], &comparison));
    }
    let measured = [Measured {
        name: "run",
        summary: &summary,
        trials,
    }];
    for base in [&measured[..0], &measured] {
        drop(release::page("1", &release::sections(&measured, base)));
    }
    let run = || Run {
        manifest,
        trials,
        planned: &plan.trials,
    };
    let policy = gate::usual_policy();
    for base in [None, Some(run())] {
        if let Ok(result) = gate::judge(&policy, run(), base) {
            drop(report::gate::terminal(&result));
            drop(report::gate::junit(&result));
        }
    }
    drop((rest, row, comparison));
    !text.is_empty() && !page.is_empty()
}

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

/// Counts the value itself and all values in it.
fn count_values(value: &Value, count: &mut usize) {
    *count += 1;
    match value {
        Value::Array(items) => items.iter().for_each(|item| count_values(item, count)),
        Value::Object(items) => items.values().for_each(|item| count_values(item, count)),
        _ => {}
    }
}

/// Returns the value that comes after `left` others.
fn find_value<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find_value(item, left)),
        Value::Object(items) => items.values_mut().find_map(|item| find_value(item, left)),
        _ => None,
    }
}

fn instead(value: &Value, what: u8, number: u16) -> Value {
    match what % 18 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1),
        5 => json!(f64::MAX),
        6 => json!(f64::MIN),
        7 => json!(f64::MIN_POSITIVE),
        8 => json!(u64::MAX),
        9 => json!(i64::MIN),
        10 => json!(u32::MAX),
        11 => json!(""),
        12 => json!("<script>\u{1b}[31m|\n`"),
        13 => json!("x".repeat(usize::from(number))),
        14 => json!([]),
        15 => json!({}),
        16 => json!(number),
        _ => match value.as_f64() {
            Some(old) => json!(old * f64::from(number) / 100.0),
            None => json!(vec![value.clone(); 2]),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_records_are_reported_on() {
        for (how, fixture) in [(0, RUN), (2, AB)] {
            assert!(attack_records(&[how]));
            let [_, trials, _] = fixture;
            assert!(attack_records(&[&[how | 1], trials.as_bytes()].concat()));
        }
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_or_reported_on(
            how in prop_oneof![Just(0), Just(2)],
            moves in prop::collection::vec(any::<u8>(), 0..4 * MOVE_BYTES),
        ) {
            attack_records(&[&[how], moves.as_slice()].concat());
        }
    }
}
