//! Runs over time: a row for each, and where their figures changed.
//!
//! What is followed is each path's ratio to the reference of the same run, since a machine is not
//! as fast today as it was a month ago; of the reference, its CPU time per request. Rows that were
//! made under different conditions are different histories, and so are cells that were loaded
//! otherwise. How many trials failed and how many requests got no right answer is followed, too.

mod recent;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::recent::{NEWEST, Recent, WINDOW_MAX, WINDOW_MIN};
use crate::{
    compare::{conditions, load, outside_versions},
    estimate::BLOCKS_MIN,
    figures::Figure,
    record::{Cell, Manifest, Trial},
    statistics::{median, p_fails_more},
    summary::{CellSummary, Summary},
    told::Bound,
};

/// Raised when a reader of old rows would misread new ones. Rows of 1 say neither how their cells
/// were loaded nor how many trials failed.
pub const SCHEMA: u32 = 2;

/// A line of `history.jsonl`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    #[serde(default = "first_schema")]
    pub schema: u32,
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
    /// Without those that are only bounds.
    pub figures: BTreeMap<String, f64>,
    /// How it was loaded, and with which versions of programs from outside; rows with others are
    /// not compared. Empty in rows of schema 1.
    #[serde(default)]
    pub conditions: BTreeMap<String, String>,
    /// `None` in rows of schema 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
}

/// What failed in a cell of one run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub trials: usize,
    pub failed_trials: usize,
    /// Requests that were asked or due.
    pub due: u64,
    /// Of those, the ones that the path did not answer rightly.
    pub unanswered: u64,
}

/// Why a run can't be a row.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "was made with uncommitted changes, so that its revision doesn't say what was measured: \
         expected a run of a commit"
    )]
    Dirty,
    #[error(
        "has {blocks} block(s) of '{scenario}': expected at least {BLOCKS_MIN}, since fewer tell \
         nothing apart"
    )]
    Blocks { scenario: String, blocks: usize },
}

/// Why a line is no row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "the row has schema {0}, but this release reads up to {SCHEMA}: use the one that wrote \
         it, or a newer one"
    )]
    Newer(u32),
    #[error(
        "{failed} of {of} trials or requests failed: expected at most all, of a number that a run \
         can have"
    )]
    Answers { failed: u64, of: u64 },
}

/// One figure of one cell, over the rows that have it.
#[derive(Clone, Debug)]
pub struct Trend<'a> {
    pub cell: &'a Cell,
    pub figure: Figure,
    /// To the reference; of the reference, its own.
    pub is_ratio: bool,
    pub points: Vec<Point<'a>>,
    /// Whether the last row has it: a path may fail now.
    pub is_in_last: bool,
    /// In the order of time; empty with fewer than [`ROWS_MIN`] points.
    pub changes: Vec<Change>,
    /// What the newest rows say, before there are enough of them for a change.
    pub recent: Option<Recent>,
}

/// What failed in a cell: in the last row, and in those before.
#[derive(Clone, Debug)]
pub struct Failing<'a> {
    pub cell: &'a Cell,
    /// `None` if the last row doesn't have the cell.
    pub last: Option<Answers>,
    /// Sums over the rows before.
    pub before: Answers,
    pub rows_before: usize,
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

fn first_schema() -> u32 {
    1
}

impl Row {
    /// Reads a line of `history.jsonl`, of this or an older release.
    ///
    /// # Errors
    /// If it isn't one, is of a newer release, or says that more failed than there was.
    pub fn read(line: &str) -> Result<Self, RowError> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "first_schema")]
            schema: u32,
        }
        let Versioned { schema } = serde_json::from_str(line)?;
        if schema > SCHEMA {
            return Err(RowError::Newer(schema));
        }
        let row: Self = serde_json::from_str(line)?;
        row.cells
            .iter()
            .filter_map(|cell| cell.answers)
            .try_for_each(Answers::check)?;
        Ok(row)
    }

    /// A run of one build.
    ///
    /// # Errors
    /// If nothing could be compared with it: it was made with uncommitted changes, or has too few
    /// blocks.
    pub fn of(summary: &Summary<'_>, trials: &[Trial]) -> Result<Self, Unfit> {
        if summary.manifest.git.dirty {
            return Err(Unfit::Dirty);
        }
        for scenario in &summary.scenarios {
            if scenario.blocks < BLOCKS_MIN {
                return Err(Unfit::Blocks {
                    scenario: scenario.info.name.clone(),
                    blocks: scenario.blocks,
                });
            }
        }
        Ok(Self::new(summary, trials))
    }

    /// The same of any run, fit or not.
    pub fn new(summary: &Summary<'_>, trials: &[Trial]) -> Self {
        let manifest = summary.manifest;
        let conditions = conditions(manifest).into_iter();
        let mut cells = Vec::new();
        for scenario in &summary.scenarios {
            for row in scenario.tables.iter().flat_map(|table| &table.rows) {
                let mut conditions = versions(manifest, &row.cell.path, "");
                conditions.extend(versions(manifest, &scenario.info.reference, "reference's "));
                conditions.insert("reference".to_owned(), scenario.info.reference.clone());
                let mut of_cell = trials.iter().filter(|it| it.planned.cell == row.cell);
                let loaded = of_cell.find_map(|it| Some((it, it.load.as_ref()?)));
                // Without a load nothing is known of it, and there is no figure.
                if let Some((trial, of_trial)) = loaded {
                    let load = format!("{} by {}", load(&trial.planned), of_trial.generator);
                    conditions.insert("load".to_owned(), load);
                }
                cells.push(RowCell::new(row, conditions));
            }
        }
        Self {
            schema: SCHEMA,
            started: manifest.started.clone(),
            revision: manifest.git.revision.clone(),
            conditions: conditions
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            cells,
        }
    }

    fn cell(&self, cell: &Cell) -> Option<&RowCell> {
        self.cells.iter().find(|other| other.cell == *cell)
    }
}

/// The versions of a path's programs from outside.
fn versions(manifest: &Manifest, path: &str, of: &str) -> BTreeMap<String, String> {
    let path = manifest.paths.iter().find(|it| it.name == path);
    let versions = path.map(|path| outside_versions(manifest, path));
    let versions = versions.into_iter().flatten();
    versions
        .map(|(process, version)| (format!("version of {of}'{process}'"), version.to_owned()))
        .collect()
}

impl RowCell {
    fn new(row: &CellSummary<'_>, conditions: BTreeMap<String, String>) -> Self {
        let ratio = |figure: Figure| {
            let ratio = row.ratios[figure].filter(|_| row.bounds[figure] == Bound::Exact)?;
            Some((figure.key().to_owned(), ratio.ratio))
        };
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
            conditions,
            answers: Some(Answers {
                trials: row.trials,
                failed_trials: row.failures.len(),
                due: row.totals.due(),
                unanswered: row.totals.lost(),
            }),
        }
    }

    /// Whether two were measured alike. Where all trials failed, the load is not known.
    fn is_like(&self, other: &Self) -> bool {
        let both = [self, other];
        let has_load = both.map(|it| it.conditions.contains_key("load"));
        let is_recent = both.map(|it| it.answers.is_some());
        let known = |it: &Self| {
            let mut conditions = it.conditions.clone();
            if is_recent == [true; 2] && has_load != [true; 2] {
                conditions.remove("load");
            }
            conditions
        };
        known(self) == known(other)
    }
}

/// The rows that were made under the conditions of the last.
pub fn alike(rows: &[Row]) -> Vec<&Row> {
    let Some(last) = rows.last() else {
        return Vec::new();
    };
    let alike = rows.iter().filter(|row| row.conditions == last.conditions);
    alike.collect()
}

/// How many rows are left out, by the first condition that is not the last row's.
pub fn left_out(rows: &[Row]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let Some(last) = rows.last() else {
        return found;
    };
    for row in rows {
        let keys = last.conditions.keys().chain(row.conditions.keys());
        let mut others = keys.filter(|key| row.conditions.get(*key) != last.conditions.get(*key));
        let Some(key) = others.next() else { continue };
        let why = match row.conditions.contains_key(key) {
            true => format!("another {key}"),
            false => format!("{key} not recorded"),
        };
        *found.entry(why).or_default() += 1;
    }
    found
}

/// The cells of rows, those of the last row first, each as the last row that has it has it.
fn cells<'a>(alike: &[&'a Row]) -> Vec<&'a RowCell> {
    let mut found: Vec<&RowCell> = Vec::new();
    for row in alike.iter().rev() {
        for cell in &row.cells {
            if !found.iter().any(|other| other.cell == cell.cell) {
                found.push(cell);
            }
        }
    }
    found
}

/// The figures of all cells, over the rows made under the last row's conditions.
pub fn trends(rows: &[Row]) -> Vec<Trend<'_>> {
    let alike = alike(rows);
    let cells = cells(&alike).into_iter();
    cells
        .flat_map(|of| Figure::ALL.map(|figure| (of, figure)))
        .filter_map(|(of, figure)| Trend::of(of, figure, &alike))
        .collect()
}

/// Cells in which something failed in one of the rows made under the last row's conditions, or that
/// the last row doesn't have.
pub fn failing(rows: &[Row]) -> Vec<Failing<'_>> {
    let alike = alike(rows);
    let Some((last, before)) = alike.split_last() else {
        return Vec::new();
    };
    let of_cell = |of: &'_ RowCell| {
        let known = before.iter().filter_map(|row| row.cell(&of.cell));
        let answers = known
            .filter(|it| it.is_like(of))
            .filter_map(|it| it.answers);
        answers.fold((0, Answers::default()), |(rows, sum), it| {
            let sum = Answers {
                trials: sum.trials + it.trials,
                failed_trials: sum.failed_trials + it.failed_trials,
                due: sum.due.saturating_add(it.due),
                unanswered: sum.unanswered.saturating_add(it.unanswered),
            };
            (rows + 1, sum)
        })
    };
    let cells = cells(&alike).into_iter();
    let failing = cells.map(|of| {
        let (rows_before, before) = of_cell(of);
        Failing {
            cell: &of.cell,
            last: last.cell(&of.cell).and_then(|it| it.answers),
            before,
            rows_before,
        }
    });
    failing.filter(Failing::is_worth_a_line).collect()
}

impl Answers {
    /// More trials than that are in no run, so that sums over rows stay small.
    const TRIALS_MAX: u64 = 1 << 20;
    const REQUESTS_MAX: u64 = 1 << 48;

    fn check(self) -> Result<(), RowError> {
        let trials = (self.failed_trials as u64, self.trials as u64);
        let requests = (self.unanswered, self.due);
        for ((failed, of), most) in [(trials, Self::TRIALS_MAX), (requests, Self::REQUESTS_MAX)] {
            if failed > of || of > most {
                return Err(RowError::Answers { failed, of });
            }
        }
        Ok(())
    }

    fn has_failures(&self) -> bool {
        self.failed_trials > 0 || self.unanswered > 0
    }
}

impl Failing<'_> {
    fn is_worth_a_line(&self) -> bool {
        let is_gone = self.last.is_none() && self.rows_before > 0;
        is_gone || self.before.has_failures() || self.last.is_some_and(|it| it.has_failures())
    }

    /// The probability of so many failed trials in the last row, if trials fail as they did before.
    pub fn p(&self) -> Option<f64> {
        let (last, before) = (self.last?, self.before);
        Some(p_fails_more(
            (before.failed_trials, before.trials),
            (last.failed_trials, last.trials),
        ))
    }
}

impl<'a> Trend<'a> {
    fn of(of: &'a RowCell, figure: Figure, rows: &[&'a Row]) -> Option<Self> {
        // If all trials of the last row failed, the load is the one before.
        let cells = rows.iter().rev().filter_map(|row| row.cell(&of.cell));
        let mut loaded = cells.filter(|it| it.conditions.contains_key("load"));
        let loaded = loaded.next().unwrap_or(of);
        let value = |row: &'a Row| {
            let of_row = row.cell(&of.cell)?;
            let of_row = Some(of_row).filter(|it| it.is_like(of) && it.is_like(loaded))?;
            let value = *of_row.figures.get(figure.key())?;
            Some(Point { row, value })
        };
        let points: Vec<Point<'_>> = rows.iter().filter_map(|row| value(row)).collect();
        let last = rows.last()?;
        if points.is_empty() {
            return None;
        }
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        let changes = match values.len() >= ROWS_MIN {
            true => changes(&values),
            false => Vec::new(),
        };
        // What lies before a change is of something else.
        let since = changes.last().map_or(0, |change| change.index);
        Some(Self {
            cell: &of.cell,
            figure,
            is_ratio: !of.is_reference,
            is_in_last: value(last).is_some(),
            points,
            recent: Recent::of(&values[since..]),
            changes,
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
mod tests;
