//! Follows metrics over many runs: one row per run, and the points at which metrics changed.
//!
//! For each path, a row has its ratios to the reference of the same run, since a machine is not as
//! fast today as it was a month ago. For the reference itself, a row has its CPU time per request.
//! Rows made under different conditions are different histories, and so are cells that were loaded
//! differently. The numbers of failed trials and of unanswered requests are followed, too.

mod recent;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::recent::{NEWEST, Recent, WINDOW_MAX, WINDOW_MIN};
use crate::{
    compare::{conditions, load, outside_versions},
    estimate::BLOCKS_MIN,
    metrics::Metric,
    record::{Cell, Manifest, Trial, line_trouble},
    statistics::{median, p_fails_more},
    summary::{CellSummary, Summary},
    told::Bound,
};

/// Version of the rows' format. It is raised when a reader of old rows would misread new ones. Rows
/// of schema 1 say neither how their cells were loaded nor how many trials failed.
pub const SCHEMA: u32 = 2;

/// A line of `history.jsonl`: the metrics of one run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Version of the row's format; 1 if the line has none.
    #[serde(default = "first_schema")]
    pub schema: u32,
    /// Start of the run, in UTC and as RFC 3339.
    pub started: String,
    /// Git revision that was measured.
    pub revision: String,
    /// Conditions of machine and build. Rows with other conditions are not compared.
    pub conditions: BTreeMap<String, String>,
    /// One entry per cell.
    pub cells: Vec<RowCell>,
}

/// A cell's metrics in one run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RowCell {
    /// Path, endpoint and load.
    #[serde(flatten)]
    pub cell: Cell,
    /// Whether the path is the reference.
    pub is_reference: bool,
    /// Ratios to the reference by metric, without those that are only bounds, and `rss_kib`, the
    /// peak memory in KiB, which rows of older releases lack. For the reference itself, only its
    /// CPU time per request, in microseconds.
    #[serde(alias = "figures")]
    pub metrics: BTreeMap<String, f64>,
    /// How the cell was loaded, and the versions of outside programs. Cells with other conditions
    /// are not compared. Empty in rows of schema 1.
    #[serde(default)]
    pub conditions: BTreeMap<String, String>,
    /// Numbers of trials and requests, and of failed ones. `None` in rows of schema 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
}

/// Numbers of trials and requests of a cell in one run, and of failed ones.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// Number of trials, failed ones included.
    pub trials: usize,
    /// Number of trials that failed.
    pub failed_trials: usize,
    /// Number of requests that were sent or due.
    pub due: u64,
    /// Number of requests that got no correct answer, or that the path dropped.
    pub unanswered: u64,
}

/// Reason for which a run can't be a row.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The run was made with uncommitted changes.
    #[error(
        "was made with uncommitted changes, so its revision doesn't say what was measured: \
         expected a run of a commit"
    )]
    Dirty,
    /// A scenario has too few blocks.
    #[error(
        "has too few blocks of '{scenario}' ({blocks}): expected at least {BLOCKS_MIN}, since \
         fewer cannot show any difference"
    )]
    Blocks {
        /// Name of the scenario.
        scenario: String,
        /// Number of its blocks.
        blocks: usize,
    },
}

/// Reason for which a line is not a row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The line is not JSON, or not of a row's form.
    #[error("{}", line_trouble(.0))]
    Json(serde_json::Error),
    /// The row has this schema, which is newer than this release.
    #[error(
        "the row has schema {0}, but this release reads up to {SCHEMA}: use the release that wrote \
         it, or a newer one"
    )]
    Newer(u32),
    /// The row counts more failures than trials or requests, or more of these than a run can have.
    #[error(
        "{failed} of {of} trials or requests failed: expected no more failures than trials or \
         requests, and no more of these than a run can have"
    )]
    Answers {
        /// Number of failed trials, or of unanswered requests.
        failed: u64,
        /// Number of all trials, or of all requests.
        of: u64,
    },
}

/// One metric of one cell, over the rows that have it.
#[derive(Clone, Debug)]
pub struct Trend<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// The metric.
    pub metric: Metric,
    /// Whether the values are ratios to the reference; those of the reference itself are not, nor
    /// is memory, which is in KiB.
    pub is_ratio: bool,
    /// Values in the order of the rows.
    pub points: Vec<Point<'a>>,
    /// Whether the last row of the scenario has the metric. It has none if the path fails now.
    pub is_in_last: bool,
    /// Changes in the order of time; empty with fewer than [`ROWS_MIN`] points.
    pub changes: Vec<Change>,
    /// New level of the newest rows, before there are enough of them for a change.
    pub recent: Option<Recent>,
}

/// Failures of a cell, in the last row of its scenario and in those before.
#[derive(Clone, Debug)]
pub struct Failing<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Counts of the last row. `None` if it doesn't have the cell.
    pub last: Option<Answers>,
    /// Sums of the counts over the rows before.
    pub before: Answers,
    /// Number of rows in these sums.
    pub rows_before: usize,
}

/// One value of a trend.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// Row that has the value.
    pub row: &'a Row,
    /// The metric's value.
    pub value: f64,
}

/// A point from which on a metric has another level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Index of the first point after the change.
    pub index: usize,
    /// Median of the points since the previous change.
    pub before: f64,
    /// Median of the points until the next change.
    pub after: f64,
    /// Approximate p of Pettitt's test.
    pub p: f64,
}

/// Name of the peak memory among a row's metrics. Memory is not compared with the reference's: a
/// server of 2 MiB makes any hop "1,000 %", and how much it needs doesn't depend on the machine's
/// speed.
const RSS_KIB: &str = "rss_kib";

/// Fewest rows for a change; with fewer rows it would be a guess.
pub const ROWS_MIN: usize = 30;

/// Fewest points between two changes; fewer points are outliers.
const SEGMENT_MIN: usize = 5;

/// Largest p of a change. It is small because a history is tested again with every row, which gives
/// chance many occasions.
const P_MAX: f64 = 0.001;

impl From<serde_json::Error> for RowError {
    /// Not as the source of the error: whoever prints the chain would say it twice.
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

fn first_schema() -> u32 {
    1
}

impl Row {
    /// Reads a line of `history.jsonl`, of this or an older release.
    ///
    /// # Errors
    /// If the line is not a row, is of a newer release, or has impossible numbers of failures.
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

    /// Makes a row of a run of one build.
    ///
    /// # Errors
    /// If the run is no use for comparisons: it was made with uncommitted changes, or has too few
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

    /// Makes a row of any run, even if it is no use for comparisons.
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
                // If no trial has a load, the condition is not known, and there is no metric.
                if let Some((trial, of_trial)) = loaded {
                    let asked = of_trial.front().after_path();
                    let by = format!("{}{asked}", of_trial.generator);
                    let load = format!("{} by {by}", load(&trial.planned));
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

/// Returns the versions of a path's outside programs, as conditions.
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
        let ratio = |metric: Metric| {
            let ratio = row.ratios[metric].filter(|_| row.bounds[metric] == Bound::Exact)?;
            Some((metric.key().to_owned(), ratio.ratio))
        };
        let own_rss = || Some((RSS_KIB.to_owned(), row.rss_peak_kib?.median));
        let own_cpu = || {
            let cpu = row.cpu_us_per_request_server?;
            Some((Metric::Cpu.key().to_owned(), cpu.median))
        };
        Self {
            cell: row.cell.clone(),
            is_reference: row.is_reference,
            metrics: match row.is_reference {
                true => own_cpu().into_iter().collect(),
                false => {
                    let ratios = Metric::ALL.into_iter().filter_map(ratio);
                    ratios.chain(own_rss()).collect()
                }
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

    /// Whether two cells were measured alike. If all trials of one failed, its load is not known,
    /// and loads are not compared.
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

/// Returns the rows that were made under the conditions of the last row.
pub fn alike(rows: &[Row]) -> Vec<&Row> {
    let Some(last) = rows.last() else {
        return Vec::new();
    };
    let alike = rows.iter().filter(|row| row.conditions == last.conditions);
    alike.collect()
}

/// Counts the rows that are left out, by the first condition that is not the last row's.
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
            true => format!("different {key}"),
            false => format!("{key} not recorded"),
        };
        *found.entry(why).or_default() += 1;
    }
    found
}

/// Returns every cell once, from the newest row that has it. The last row's cells come first.
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

/// Returns the trend of every metric of every cell, over the rows made under the last row's
/// conditions.
pub fn trends(rows: &[Row]) -> Vec<Trend<'_>> {
    let alike = alike(rows);
    let cells = cells(&alike).into_iter();
    cells
        .flat_map(|of| Metric::ALL.map(|metric| (of, metric)))
        .filter_map(|(of, metric)| Trend::of(of, metric, &alike))
        .collect()
}

/// Returns the rows that measured a scenario. A run of other scenarios says nothing about it.
fn of_scenario<'a>(rows: &[&'a Row], scenario: &str) -> Vec<&'a Row> {
    let mut found = rows.to_vec();
    found.retain(|row| row.cells.iter().any(|it| it.cell.scenario == scenario));
    found
}

/// Returns the number of rows of the scenario that has the fewest, made under the conditions of the
/// last row.
pub fn fewest(rows: &[Row]) -> usize {
    let alike = alike(rows);
    let cells = alike.iter().flat_map(|row| &row.cells);
    let scenarios: BTreeSet<&str> = cells.map(|it| it.cell.scenario.as_str()).collect();
    let counts = scenarios.iter().map(|name| of_scenario(&alike, name).len());
    counts.min().unwrap_or(0)
}

/// Returns the cells in which something failed, or that the last row of their scenario lacks, over
/// the rows made under the last row's conditions.
pub fn failing(rows: &[Row]) -> Vec<Failing<'_>> {
    let alike = alike(rows);
    let failing = cells(&alike).into_iter().filter_map(|of| {
        let rows = of_scenario(&alike, &of.cell.scenario);
        let (last, before) = rows.split_last()?;
        let before = before.iter().filter_map(|row| row.cell(&of.cell));
        let before = before.filter(|it| it.is_like(of));
        let before: Vec<Answers> = before.filter_map(|it| it.answers).collect();
        Some(Failing {
            cell: &of.cell,
            last: last.cell(&of.cell).and_then(|it| it.answers),
            before: Answers::sum(&before),
            rows_before: before.len(),
        })
    });
    failing.filter(Failing::is_worth_a_line).collect()
}

impl Answers {
    /// More trials than any run has. The limit keeps sums over rows small.
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

    fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, it| Self {
            trials: sum.trials + it.trials,
            failed_trials: sum.failed_trials + it.failed_trials,
            due: sum.due.saturating_add(it.due),
            unanswered: sum.unanswered.saturating_add(it.unanswered),
        })
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

    /// Returns the probability of at least as many failed trials in the last row, if trials fail as
    /// they did before. `None` if the last row doesn't have the cell.
    pub fn p(&self) -> Option<f64> {
        let (last, before) = (self.last?, self.before);
        Some(p_fails_more(
            (before.failed_trials, before.trials),
            (last.failed_trials, last.trials),
        ))
    }
}

impl<'a> Trend<'a> {
    fn of(of: &'a RowCell, metric: Metric, rows: &[&'a Row]) -> Option<Self> {
        // If all trials of the last row failed, the load is that of the newest row that has one.
        let cells = rows.iter().rev().filter_map(|row| row.cell(&of.cell));
        let mut loaded = cells.filter(|it| it.conditions.contains_key("load"));
        let loaded = loaded.next().unwrap_or(of);
        let mut all = rows.iter().filter_map(|row| row.cell(&of.cell));
        let is_absolute = metric == Metric::Rss && all.any(|it| it.metrics.contains_key(RSS_KIB));
        let key = if is_absolute { RSS_KIB } else { metric.key() };
        let value = |row: &'a Row| {
            let of_row = row.cell(&of.cell)?;
            let of_row = Some(of_row).filter(|it| it.is_like(of) && it.is_like(loaded))?;
            let value = *of_row.metrics.get(key)?;
            Some(Point { row, value })
        };
        let points: Vec<Point<'_>> = rows.iter().filter_map(|row| value(row)).collect();
        let last = *of_scenario(rows, &of.cell.scenario).last()?;
        if points.is_empty() {
            return None;
        }
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        let changes = match values.len() >= ROWS_MIN {
            true => changes(&values),
            false => Vec::new(),
        };
        // Points before the last change have another level.
        let since = changes.last().map_or(0, |change| change.index);
        Some(Self {
            cell: &of.cell,
            metric,
            is_ratio: !of.is_reference && !is_absolute,
            is_in_last: value(last).is_some(),
            points,
            recent: Recent::of(&values, since),
            changes,
        })
    }
}

/// Finds the changes of a series by Pettitt's test (1979, *A non-parametric approach to the
/// change-point problem*), first over the whole series, then again on either side of a change.
fn changes(values: &[f64]) -> Vec<Change> {
    let mut found = Vec::new();
    split(values, 0, &mut found);
    found.sort_unstable_by_key(|(index, _)| *index);
    let mut ends: Vec<usize> = [0]
        .into_iter()
        .chain(found.iter().map(|(index, _)| *index))
        .chain([values.len()])
        .collect();
    // The test is better at finding that there is a change than where it is, and later changes were
    // not known yet. So each change is placed anew between its neighbours.
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

/// Returns the index before which the series most likely changes, and Pettitt's approximate p.
fn pettitt(values: &[f64]) -> Option<(usize, f64)> {
    let n = values.len();
    let candidates = SEGMENT_MIN..(n + 1).checked_sub(SEGMENT_MIN)?;
    // U of the first k values: how much more often they are above the others than below.
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

/// Returns the index before which a single step fits the series best, by least squares.
fn step(values: &[f64]) -> usize {
    let n = values.len();
    let total: f64 = values.iter().sum();
    // The larger this weighted difference of the two means, the smaller the sum of squares.
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
