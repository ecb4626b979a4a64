//! Finds what went wrong, and names it.
//!
//! A pathology is a way in which a path fails, not noise and not a percentage. A table of medians
//! would hide it, so every block is looked at. One block suffices, and the number of blocks is
//! reported. The scenario has the rules and their limits.

mod idle;
mod rules;
mod within;

use std::{collections::BTreeMap, fmt};

pub use self::within::Within;
use crate::{
    metrics::Metric,
    record::{Cell, FailureKind, PathologyRules},
    summary::{CellSummary, Percentiles, ScenarioSummary, Table},
    text::{latency, plural},
    told::{Bound, Told},
};

/// Largest share of the requests due that a trial at a fixed rate may drop. A path in good health
/// drops a few at the load's end: those that come due while the last answers are under way.
const DROPPED_SHARE_MAX: f64 = 0.001;

/// Something wrong with a path in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Pathology {
    /// The RPS fell below a share of those at the next lower concurrency, in the same block.
    Collapse {
        /// Cell with the fallen RPS.
        cell: CellName,
        /// Smallest share over the blocks.
        share_min: f64,
        /// Smallest share that is no collapse.
        limit: f64,
        /// Number of connections at the next lower concurrency.
        concurrency_before: u32,
        /// Blocks with a collapse.
        blocks: Blocks,
    },
    /// At a fixed rate, requests were never sent, because the path kept every connection waiting.
    Dropped {
        /// Cell of the requests.
        cell: CellName,
        /// Number of requests that the path dropped, in all blocks.
        dropped: u64,
        /// Number of requests that were due, in all blocks.
        due: u64,
        /// Blocks with too many dropped requests.
        blocks: Blocks,
    },
    /// Requests got no correct answer.
    Errors {
        /// Cell of the requests.
        cell: CellName,
        /// Number of requests that got no correct answer, in all blocks.
        failed: u64,
        /// Number of requests that were sent, in all blocks.
        requests: u64,
    },
    /// Trials failed.
    Failures {
        /// Cell of the trials.
        cell: CellName,
        /// How they failed.
        kind: FailureKind,
        /// Number of trials that failed in this way.
        trials: usize,
        /// Cause of the first of these failures.
        cause: String,
    },
    /// The p99 is far longer than the reference's in the same block.
    LongTail {
        /// Cell with the long tail.
        cell: CellName,
        /// Largest ratio to the reference's p99 over the blocks.
        ratio_max: f64,
        /// Largest ratio that is no pathology.
        limit: f64,
        /// The path's p99 over the blocks, in microseconds.
        p99_us: Percentiles,
        /// Blocks with a long tail.
        blocks: Blocks,
    },
    /// In a load in stages, the path did not recover from a disruption.
    NotRecovered {
        /// Cell of the load.
        cell: CellName,
        /// Blocks in which it did not.
        blocks: Blocks,
    },
    /// The path is slower than one that it must not be slower than.
    Slower {
        /// Cell of the slower path.
        cell: CellName,
        /// Name of the other path.
        than: String,
        /// RPS over those of the other path.
        ratio: f64,
    },
    /// Something goes wrong within the load.
    Within(Within),
}

/// Number of blocks in which something was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blocks {
    /// Number of blocks in which it was found.
    pub found: usize,
    /// Number of blocks that were looked at.
    pub of: usize,
}

/// A cell's name in a sentence: path, endpoint and load.
#[derive(Clone, Debug, PartialEq)]
pub struct CellName(String);

impl CellName {
    fn of(row: &CellSummary<'_>) -> Self {
        // It is no fault of the hops: what is compared with it is worth less there.
        let of_reference = if row.is_reference {
            " (the reference)"
        } else {
            ""
        };
        Self(format!("{}{of_reference}", row.cell))
    }
}

/// Mentions what is no pathology as far as it can be told, but may be the sign of one.
pub fn remarks(scenario: &ScenarioSummary<'_>) -> Vec<String> {
    let growth = within::growth_remark(scenario).into_iter();
    growth.chain(idle::remark(scenario)).collect()
}

/// Finds all pathologies of a scenario, in the order of its tables.
pub fn find(scenario: &ScenarioSummary<'_>) -> Vec<Pathology> {
    let rules = &scenario.info.pathologies;
    let mut found = Vec::new();
    for table in &scenario.tables {
        for row in &table.rows {
            found.extend(failures(row));
            found.extend(errors(row));
            found.extend(dropped(row));
            found.extend(not_recovered(row));
            found.extend(long_tail(rules, row));
            found.extend(
                Within::find(rules, row, find_row(table, &scenario.info.reference, row))
                    .map(Pathology::Within),
            );
            found.extend(collapse(rules, table, row));
            found.extend(slower(rules, table, row));
        }
    }
    found
}

fn not_recovered(row: &CellSummary<'_>) -> Option<Pathology> {
    let stuck = row.disruptions.iter().filter(|it| it.longest_s().is_none());
    let found = stuck.count();
    (found > 0).then(|| Pathology::NotRecovered {
        cell: CellName::of(row),
        blocks: Blocks {
            found,
            of: row.disruptions.len(),
        },
    })
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
    // One ratio to the reference's p99 per block.
    let ratios = &row.series[Metric::P99];
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
        // The rate is given, so it can't show a collapse.
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
    let shares = &series[Metric::Rps];
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
        let ratio = row.blocks.over(&other.blocks).estimate()[Metric::Rps]?;
        let noise_floor = row.noise_floor(Metric::Rps).unwrap_or(1.0);
        let told = Told::of(&ratio, noise_floor, Bound::Exact);
        (ratio.ratio < 1.0 && told == Told::Different).then(|| Pathology::Slower {
            cell: CellName::of(row),
            than: rule.than.clone(),
            ratio: ratio.ratio,
        })
    });
    found.collect()
}

/// Finds the cell that differs from `row`'s only by its path.
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

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Blocks {
    /// Counts the blocks for which `is_so` holds; `None` if there are none.
    fn of(blocks: &[f64], is_so: impl Fn(f64) -> bool) -> Option<Self> {
        let found = blocks.iter().filter(|it| is_so(**it)).count();
        let of = blocks.len();
        (found > 0).then_some(Self { found, of })
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {} of {}", self.found, plural(self.of, "block"))
    }
}

impl Pathology {
    /// Says what was found, and where, for a line with several of them.
    pub fn in_short(&self) -> String {
        let told = self.to_string();
        let kind = told.split(": ").next().unwrap_or_default();
        format!("{kind} in {}", self.cell())
    }

    fn cell(&self) -> &CellName {
        match self {
            Self::Collapse { cell, .. }
            | Self::Dropped { cell, .. }
            | Self::Errors { cell, .. }
            | Self::Failures { cell, .. }
            | Self::LongTail { cell, .. }
            | Self::NotRecovered { cell, .. }
            | Self::Slower { cell, .. } => cell,
            Self::Within(within) => within.cell(),
        }
    }

    /// Advises what to look at next.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Collapse { .. } => {
                "For a collapse, see the path's CPU time by role and its wake-ups at both \
                 concurrencies, and run 'hopbench profile'"
            }
            Self::Dropped { .. } => {
                "For dropped requests, use a rate that the path holds ('hopbench calibrate' finds \
                 it), or more connections"
            }
            Self::Errors { .. } => {
                "For errors, see 'errors' and 'wrong' in the trial's line of trials.jsonl, and the \
                 logs in raw/"
            }
            Self::Failures { .. } => {
                "For failed trials, see the logs in raw/, which are named after the trial's number"
            }
            Self::LongTail { .. } => {
                "For a long tail, see whether every block has it: if only one does, the machine \
                 may be the cause"
            }
            Self::NotRecovered { .. } => {
                "For a path that did not recover, see the charts over time, and 'load.seconds' in \
                 the trial's line of trials.jsonl"
            }
            Self::Within(within) => within.advice(),
            Self::Slower { .. } => {
                "For a path that is slower than it should be, compare the CPU time by role, the \
                 counters and the context switches of both paths"
            }
        }
    }
}

impl fmt::Display for Pathology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapse {
                cell,
                share_min,
                limit,
                concurrency_before,
                blocks,
            } => write!(
                f,
                "collapse: {cell}: RPS below {:.0} % of that at c={concurrency_before} {blocks}, \
                 {:.0} % at worst",
                limit * 100.0,
                share_min * 100.0
            ),
            Self::Dropped {
                cell,
                dropped,
                due,
                blocks,
            } => write!(
                f,
                "requests dropped: {cell}: {dropped} of {due} requests were never sent, because \
                 the path kept every connection waiting, {blocks}"
            ),
            Self::Errors {
                cell,
                failed,
                requests,
            } => write!(
                f,
                "errors: {cell}: {failed} of {requests} requests were not answered correctly"
            ),
            Self::Failures {
                cell,
                kind,
                trials,
                cause,
            } => write!(
                f,
                "{kind}: {cell}: {}: {cause}",
                plural(*trials, "failed trial")
            ),
            Self::LongTail {
                cell,
                ratio_max,
                limit,
                p99_us,
                blocks,
            } => write!(
                f,
                "long tail: {cell}: p99 over {limit:.0} times the reference's {blocks}, {:.0} \
                 times at worst; the p99 of the blocks is {} to {} ms",
                ratio_max,
                latency(p99_us.min),
                latency(p99_us.max)
            ),
            Self::NotRecovered { cell, blocks } => {
                write!(f, "not recovered: {cell}: not by the load's end, {blocks}")
            }
            Self::Within(within) => within.fmt(f),
            Self::Slower { cell, than, ratio } => write!(
                f,
                "slower than {than}: {cell}: {:.0} % of its RPS",
                ratio * 100.0
            ),
        }
    }
}
