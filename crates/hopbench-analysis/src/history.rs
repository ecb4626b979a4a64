//! Runs over time: a row for each, and where their figures changed.
//!
//! What is followed is each path's ratio to the reference of the same run, since a machine is not
//! as fast today as it was a month ago; of the reference, its CPU time per request. Rows that were
//! made under different conditions are different histories.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    compare::conditions,
    figures::Figure,
    record::Cell,
    statistics::median,
    summary::{CellSummary, Summary},
};

/// A line of `history.jsonl`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// UTC, RFC 3339.
    pub started: String,
    pub revision: String,
    /// Of machine and build; rows with others are not compared.
    pub conditions: BTreeMap<String, String>,
    pub cells: Vec<RowCell>,
}

/// A cell's figures by their keys: ratios to the reference, of the reference its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RowCell {
    #[serde(flatten)]
    pub cell: Cell,
    pub is_reference: bool,
    pub figures: BTreeMap<String, f64>,
}

/// One figure of one cell, over the rows that have it.
#[derive(Clone, Debug)]
pub struct Trend<'a> {
    pub cell: &'a Cell,
    pub figure: Figure,
    /// To the reference; of the reference, its own.
    pub is_ratio: bool,
    pub points: Vec<Point<'a>>,
    /// In the order of time; empty with fewer than [`ROWS_MIN`] points.
    pub changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    pub row: &'a Row,
    pub value: f64,
}

/// From which point on a figure is another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub index: usize,
    /// Medians of the points until the change before and the one after.
    pub before: f64,
    pub after: f64,
    pub p: f64,
}

/// With fewer rows a change is a guess.
pub const ROWS_MIN: usize = 30;

/// Fewest points between two changes: fewer are outliers.
const SEGMENT_MIN: usize = 5;

/// A history is looked at again with every row, so that chance has many occasions.
const P_MAX: f64 = 0.001;

impl Row {
    /// Of a run of one build.
    pub fn new(summary: &Summary<'_>) -> Self {
        let manifest = summary.manifest;
        let tables = summary.scenarios.iter().flat_map(|one| &one.tables);
        let rows = tables.flat_map(|table| &table.rows);
        let conditions = conditions(manifest).into_iter();
        Self {
            started: manifest.started.clone(),
            revision: manifest.git.revision.clone(),
            conditions: conditions
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            cells: rows.map(RowCell::new).collect(),
        }
    }
}

impl RowCell {
    fn new(row: &CellSummary<'_>) -> Self {
        let ratio = |figure: Figure| Some((figure.key().to_owned(), row.ratios[figure]?.ratio));
        let own_cpu = || {
            let cpu = row.cpu_us_per_request_server?;
            Some((Figure::Cpu.key().to_owned(), cpu.median))
        };
        Self {
            cell: row.cell.clone(),
            is_reference: row.is_reference,
            figures: match row.is_reference {
                true => own_cpu().into_iter().collect(),
                false => Figure::ALL.into_iter().filter_map(ratio).collect(),
            },
        }
    }
}

/// The figures of all cells of the last row, over the rows made under its conditions.
pub fn trends(rows: &[Row]) -> Vec<Trend<'_>> {
    let Some(last) = rows.last() else {
        return Vec::new();
    };
    let alike: Vec<&Row> = rows
        .iter()
        .filter(|row| row.conditions == last.conditions)
        .collect();
    let cells = last.cells.iter();
    cells
        .flat_map(|of| Figure::ALL.map(|figure| (of, figure)))
        .filter_map(|(of, figure)| Trend::of(of, figure, &alike))
        .collect()
}

impl<'a> Trend<'a> {
    fn of(of: &'a RowCell, figure: Figure, rows: &[&'a Row]) -> Option<Self> {
        let value = |row: &'a Row| {
            let mut cells = row.cells.iter();
            let of_row = cells.find(|other| other.cell == of.cell)?;
            let value = *of_row.figures.get(figure.key())?;
            Some(Point { row, value })
        };
        let points: Vec<Point<'_>> = rows.iter().filter_map(|row| value(row)).collect();
        if points.is_empty() {
            return None;
        }
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        Some(Self {
            cell: &of.cell,
            figure,
            is_ratio: !of.is_reference,
            points,
            changes: match values.len() >= ROWS_MIN {
                true => changes(&values),
                false => Vec::new(),
            },
        })
    }
}

/// Where a series changes: Pettitt's test (1979, *A non-parametric approach to the change-point
/// problem*) over the whole, and again over what is before and what is after the change it finds.
fn changes(values: &[f64]) -> Vec<Change> {
    let mut found = Vec::new();
    split(values, 0, &mut found);
    found.sort_unstable_by_key(|(index, _)| *index);
    let mut ends: Vec<usize> = [0]
        .into_iter()
        .chain(found.iter().map(|(index, _)| *index))
        .chain([values.len()])
        .collect();
    // The test tells whether there is a change better than where it is, and those on its other
    // sides were not known yet.
    for (at, (index, _)) in found.iter_mut().enumerate() {
        let between = &values[ends[at]..ends[at + 2]];
        *index = ends[at] + step(between);
        ends[at + 1] = *index;
    }
    let change = |(at, (index, p)): (usize, &(usize, f64))| Change {
        index: *index,
        before: middle(&values[ends[at]..*index]),
        after: middle(&values[*index..ends[at + 2]]),
        p: *p,
    };
    found.iter().enumerate().map(change).collect()
}

fn split(values: &[f64], offset: usize, found: &mut Vec<(usize, f64)>) {
    let Some((index, p)) = pettitt(values) else {
        return;
    };
    if p > P_MAX {
        return;
    }
    found.push((offset + index, p));
    split(&values[..index], offset, found);
    split(&values[index..], offset + index, found);
}

/// Before which value the series most likely changes, and how likely that is without a change.
fn pettitt(values: &[f64]) -> Option<(usize, f64)> {
    let n = values.len();
    let candidates = SEGMENT_MIN..(n + 1).checked_sub(SEGMENT_MIN)?;
    // U of the first k: how much more often they are above the others than below.
    let sign = |one: f64, other: f64| f64::from(i8::from(one > other) - i8::from(one < other));
    let above: Vec<f64> = values
        .iter()
        .map(|one| values.iter().map(|other| sign(*one, *other)).sum())
        .collect();
    let u = |k: usize| above[..k].iter().sum::<f64>().abs();
    let k = candidates.max_by(|one, other| u(*one).total_cmp(&u(*other)))?;
    let n = n as f64;
    let p = 2.0 * (-6.0 * u(k).powi(2) / (n.powi(3) + n.powi(2))).exp();
    Some((k, p.min(1.0)))
}

/// Before which value a single step fits a series best, by least squares.
fn step(values: &[f64]) -> usize {
    let n = values.len();
    let total: f64 = values.iter().sum();
    // The more the two means differ, each with its weight, the less is left to the rest.
    let explained = |k: usize| {
        let first: f64 = values[..k].iter().sum();
        let (first_mean, second_mean) = (first / k as f64, (total - first) / (n - k) as f64);
        (k * (n - k)) as f64 * (first_mean - second_mean).powi(2)
    };
    let candidates = SEGMENT_MIN..=n.saturating_sub(SEGMENT_MIN);
    let best = candidates.max_by(|one, other| explained(*one).total_cmp(&explained(*other)));
    best.unwrap_or(n / 2)
}

fn middle(values: &[f64]) -> f64 {
    median(values).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From −0.5 to 0.5; the same numbers each time.
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
        // Two that are far off are no change.
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
        };
        Row {
            started: "2026-01-02T03:04:05Z".to_owned(),
            revision: revision.to_owned(),
            conditions: [("kernel".to_owned(), conditions.to_owned())].into(),
            cells: vec![RowCell {
                cell,
                is_reference: false,
                figures: [("cpu".to_owned(), value)].into(),
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
}
