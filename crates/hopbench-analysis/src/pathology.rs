//! What went wrong, by name.
//!
//! A pathology is not noise and not a percentage: it is a way in which a path fails, which a table
//! of medians hides. The rules and their limits stand in the scenario.

use std::{collections::BTreeMap, fmt};

use crate::{
    figures::Figure,
    record::{Cell, FailureKind, PathologyRules},
    summary::{CellSummary, ScenarioSummary, Table},
};

/// Something wrong with a path in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Pathology {
    /// Fewer requests per second than a share of those at the next lower concurrency.
    Collapse {
        cell: CellName,
        rps: f64,
        concurrency_before: u32,
        rps_before: f64,
    },
    /// At a fixed rate, most requests were never asked: no connection was free for them.
    Dropped {
        cell: CellName,
        dropped: u64,
        scheduled: u64,
    },
    /// Requests without a right answer.
    Errors {
        cell: CellName,
        failed: u64,
        requests: u64,
    },
    /// Trials that failed.
    Failures {
        cell: CellName,
        kind: FailureKind,
        trials: usize,
        cause: String,
    },
    /// A tail far longer than the reference's.
    LongTail {
        cell: CellName,
        p99_ms: f64,
        reference_p99_ms: f64,
    },
    /// Slower than a path that it is meant to be faster than.
    Slower {
        cell: CellName,
        than: String,
        ratio: f64,
    },
}

/// Path, endpoint and concurrency, for a sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct CellName(String);

impl CellName {
    fn of(row: &CellSummary<'_>) -> Self {
        Self(row.cell.to_string())
    }
}

/// All pathologies of a scenario, in the order of its tables.
pub fn find(scenario: &ScenarioSummary<'_>) -> Vec<Pathology> {
    let rules = &scenario.info.pathologies;
    let mut found = Vec::new();
    for table in &scenario.tables {
        for row in &table.rows {
            found.extend(failures(row));
            found.extend(errors(row));
            found.extend(dropped(row));
            found.extend(long_tail(rules, table, row, &scenario.info.reference));
            found.extend(collapse(rules, table, row));
            found.extend(slower(rules, table, row));
        }
    }
    found
}

fn failures(row: &CellSummary<'_>) -> Vec<Pathology> {
    let mut by_kind: BTreeMap<FailureKind, (usize, &str)> = BTreeMap::new();
    for failure in &row.failures {
        by_kind.entry(failure.kind).or_insert((0, &failure.cause)).0 += 1;
    }
    let named = by_kind
        .into_iter()
        .map(|(kind, (trials, cause))| Pathology::Failures {
            cell: CellName::of(row),
            kind,
            trials,
            cause: cause.to_owned(),
        });
    named.collect()
}

fn errors(row: &CellSummary<'_>) -> Option<Pathology> {
    let failed = row.failed_requests();
    (failed > 0).then(|| Pathology::Errors {
        cell: CellName::of(row),
        failed,
        requests: row.totals.requests,
    })
}

fn dropped(row: &CellSummary<'_>) -> Option<Pathology> {
    let (dropped, scheduled) = (row.totals.dropped, row.totals.scheduled);
    (2 * dropped > scheduled).then(|| Pathology::Dropped {
        cell: CellName::of(row),
        dropped,
        scheduled,
    })
}

fn long_tail(
    rules: &PathologyRules,
    table: &Table<'_>,
    row: &CellSummary<'_>,
    reference: &str,
) -> Option<Pathology> {
    let limit = rules.p99_over_reference?;
    let reference = find_row(table, reference, row)?;
    let (p99_us, reference_p99_us) = (row.p99_us?.median, reference.p99_us?.median);
    (p99_us > limit * reference_p99_us).then(|| Pathology::LongTail {
        cell: CellName::of(row),
        p99_ms: p99_us / 1e3,
        reference_p99_ms: reference_p99_us / 1e3,
    })
}

fn collapse(rules: &PathologyRules, table: &Table<'_>, row: &CellSummary<'_>) -> Option<Pathology> {
    let limit = rules.rps_collapse?;
    if table.is_fixed_rate {
        // There the rate is given.
        return None;
    }
    let before = table
        .rows
        .iter()
        .filter(|other| other.cell.concurrency < row.cell.concurrency)
        .filter(|other| {
            let concurrency = row.cell.concurrency;
            row.cell
                == Cell {
                    concurrency,
                    ..other.cell.clone()
                }
        })
        .max_by_key(|other| other.cell.concurrency)?;
    let (rps, rps_before) = (row.rps?.median, before.rps?.median);
    (rps < limit * rps_before).then(|| Pathology::Collapse {
        cell: CellName::of(row),
        rps,
        concurrency_before: before.cell.concurrency,
        rps_before,
    })
}

fn slower(rules: &PathologyRules, table: &Table<'_>, row: &CellSummary<'_>) -> Vec<Pathology> {
    if table.is_fixed_rate {
        return Vec::new();
    }
    let named = rules
        .slower
        .iter()
        .filter(|rule| rule.path == row.cell.path);
    let found = named.filter_map(|rule| {
        let other = find_row(table, &rule.than, row)?;
        let ratio = row.blocks.over(&other.blocks).estimate()[Figure::Rps]?;
        let is_slower =
            ratio.ratio < 1.0 && ratio.is_difference(row.floor(Figure::Rps).unwrap_or(1.0))?;
        is_slower.then(|| Pathology::Slower {
            cell: CellName::of(row),
            than: rule.than.clone(),
            ratio: ratio.ratio,
        })
    });
    found.collect()
}

/// The same cell as `row`'s, of another path.
fn find_row<'t, 'a>(
    table: &'t Table<'a>,
    path: &str,
    row: &CellSummary<'_>,
) -> Option<&'t CellSummary<'a>> {
    let cell = Cell {
        path: path.to_owned(),
        ..row.cell.clone()
    };
    table.rows.iter().find(|row| row.cell == cell)
}

impl Pathology {
    /// What to look at next.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Collapse { .. } => {
                "of a collapse, see the path's CPU time by role and its wake-ups at either \
                 concurrency, and 'hopbench profile'"
            }
            Self::Dropped { .. } => {
                "of requests that were never asked, use a rate that the path holds ('hopbench \
                 calibrate' finds it), or more connections"
            }
            Self::Errors { .. } => {
                "of errors, see 'errors' and 'wrong' in the trial's line of trials.jsonl, and the \
                 logs in raw/"
            }
            Self::Failures { .. } => {
                "of failed trials, see the logs in raw/, which are named by the trial's number"
            }
            Self::LongTail { .. } => {
                "of a long tail, see whether every block has it: what one block has alone may be \
                 the machine's"
            }
            Self::Slower { .. } => {
                "of a path that is slower than it is meant to be, compare the CPU time by role, \
                 the copies and the wake-ups of the two"
            }
        }
    }
}

impl fmt::Display for Pathology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapse {
                cell: CellName(cell),
                rps,
                concurrency_before,
                rps_before,
            } => write!(
                f,
                "collapse: {cell}: {rps:.0} RPS, after {rps_before:.0} at c={concurrency_before}"
            ),
            Self::Dropped {
                cell: CellName(cell),
                dropped,
                scheduled,
            } => {
                write!(
                    f,
                    "requests dropped: {cell}: {dropped} of {scheduled} were never asked"
                )
            }
            Self::Errors {
                cell: CellName(cell),
                failed,
                requests,
            } => {
                write!(
                    f,
                    "errors: {cell}: {failed} of {requests} requests got no right answer"
                )
            }
            Self::Failures {
                cell: CellName(cell),
                kind,
                trials,
                cause,
            } => {
                write!(f, "{kind}: {cell}: {trials} failed trial(s): {cause}")
            }
            Self::LongTail {
                cell: CellName(cell),
                p99_ms,
                reference_p99_ms,
            } => write!(
                f,
                "long tail: {cell}: p99 {p99_ms:.2} ms, {:.0} times the reference's \
                 {reference_p99_ms:.2} ms",
                p99_ms / reference_p99_ms
            ),
            Self::Slower {
                cell: CellName(cell),
                than,
                ratio,
            } => {
                write!(
                    f,
                    "slower than {than}: {cell}: {:.0} % of its RPS",
                    ratio * 100.0
                )
            }
        }
    }
}
