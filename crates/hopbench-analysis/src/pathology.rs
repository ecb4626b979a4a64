//! What went wrong, by name.
//!
//! A pathology is not noise and not a percentage: it is a way in which a path fails, which a table
//! of medians hides. So every block is looked at, and one block suffices: how many it were is said.
//! The rules and their limits stand in the scenario.

use std::{collections::BTreeMap, fmt};

use crate::{
    figures::Figure,
    record::{Cell, FailureKind, PathologyRules},
    report::text::latency,
    summary::{CellSummary, Percentiles, ScenarioSummary, Table},
    told::{Bound, Told},
};

/// Up to this share of the requests due may be dropped in a trial at a fixed rate. A path in good
/// health drops a few at the load's end: those that come due while the last answers are under way.
const DROPPED_SHARE_MAX: f64 = 0.001;

/// Something wrong with a path in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Pathology {
    /// Fewer requests per second than a share of those at the next lower concurrency, in the same
    /// block.
    Collapse {
        cell: CellName,
        /// The least of the blocks, as a share of what there was before.
        share_min: f64,
        limit: f64,
        concurrency_before: u32,
        blocks: Blocks,
    },
    /// At a fixed rate, requests were never asked, because the path kept every connection waiting.
    Dropped {
        cell: CellName,
        dropped: u64,
        due: u64,
        blocks: Blocks,
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
    /// A tail far longer than the reference's in the same block.
    LongTail {
        cell: CellName,
        /// The most of the blocks, over the reference's.
        ratio_max: f64,
        limit: f64,
        p99_us: Percentiles,
        blocks: Blocks,
    },
    /// Slower than a path that it is meant to be faster than.
    Slower {
        cell: CellName,
        than: String,
        ratio: f64,
    },
}

/// In how many blocks something was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blocks {
    pub found: usize,
    pub of: usize,
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
            found.extend(long_tail(rules, row));
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
    let blocks = Blocks::of(&row.dropped_shares, |share| share > DROPPED_SHARE_MAX)?;
    Some(Pathology::Dropped {
        cell: CellName::of(row),
        dropped: row.totals.dropped_by_path,
        due: row.totals.due(),
        blocks,
    })
}

fn long_tail(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Pathology> {
    let limit = rules.p99_over_reference.filter(|_| !row.is_reference)?;
    // Of each block, over the reference's.
    let ratios = &row.series[Figure::P99];
    let blocks = Blocks::of(ratios, |ratio| ratio > limit)?;
    Some(Pathology::LongTail {
        cell: CellName::of(row),
        ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        limit,
        p99_us: row.p99_us?,
        blocks,
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
    let series = row.blocks.over(&before.blocks);
    let shares = &series[Figure::Rps];
    Some(Pathology::Collapse {
        cell: CellName::of(row),
        blocks: Blocks::of(shares, |share| share < limit)?,
        share_min: shares.iter().copied().fold(f64::INFINITY, f64::min),
        limit,
        concurrency_before: before.cell.concurrency,
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
        let floor = row.floor(Figure::Rps).unwrap_or(1.0);
        let told = Told::of(&ratio, floor, Bound::Exact);
        (ratio.ratio < 1.0 && told == Told::Different).then(|| Pathology::Slower {
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

impl Blocks {
    /// `None` if something is so in no block.
    fn of(blocks: &[f64], is_so: impl Fn(f64) -> bool) -> Option<Self> {
        let found = blocks.iter().filter(|it| is_so(**it)).count();
        let of = blocks.len();
        (found > 0).then_some(Self { found, of })
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {} of {} block(s)", self.found, self.of)
    }
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
                "of requests that were dropped, use a rate that the path holds ('hopbench \
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
                share_min,
                limit,
                concurrency_before,
                blocks,
            } => write!(
                f,
                "collapse: {cell}: RPS below {:.0} % of those at c={concurrency_before} {blocks}, \
                 {:.0} % at worst",
                limit * 100.0,
                share_min * 100.0
            ),
            Self::Dropped {
                cell: CellName(cell),
                dropped,
                due,
                blocks,
            } => write!(
                f,
                "requests dropped: {cell}: {dropped} of {due} were never asked, because the path \
                 kept every connection waiting, {blocks}"
            ),
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
                ratio_max,
                limit,
                p99_us,
                blocks,
            } => write!(
                f,
                "long tail: {cell}: p99 over {limit:.0} times the reference's {blocks}, {:.0} \
                 times at worst; the blocks' p99 are {} to {} ms",
                ratio_max,
                latency(p99_us.min),
                latency(p99_us.max)
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
