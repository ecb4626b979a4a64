//! Faults within a load, whatever its medians say: stalls, a path that becomes slower and slower,
//! and memory that is never given back.

use std::fmt;

use super::{Blocks, CellName};
use crate::{
    record::PathologyRules,
    summary::{CellSummary, Percentile, Table},
};

/// The time for which a receiver may hold back an acknowledgement, with what comes on top of it, in
/// microseconds. Linux waits 40 ms at least (`TCP_DELACK_MIN`, include/net/tcp.h). A sender that
/// collects small pieces (Nagle's algorithm, RFC 896) waits as long.
const DELAYED_ACK_US: std::ops::Range<f64> = 38_000.0..50_000.0;

/// A percentile that is so many times the reference's is the path's own.
const STALL_FACTOR: f64 = 4.0;

/// Smallest growth that is looked at, in KiB: buffers and pools may grow by less.
const GROWTH_KIB_MIN: f64 = 32.0 * 1024.0;

/// Something that goes wrong within a load.
#[derive(Clone, Debug, PartialEq)]
pub enum Within {
    /// Memory grew with every request.
    Growth {
        /// Cell of the load.
        cell: CellName,
        /// Largest growth in a block, in MiB.
        mib_max: f64,
        /// This growth for each correct answer, in KiB.
        kib_per_request: f64,
        /// Blocks in which it grew.
        blocks: Blocks,
    },
    /// The path became slower and slower.
    Slowdown {
        /// Cell of the load.
        cell: CellName,
        /// Smallest share of the first quarter's RPS that was left in the last.
        share_min: f64,
        /// Smallest share that is no pathology.
        limit: f64,
        /// Blocks in which it became slower.
        blocks: Blocks,
    },
    /// Answers took as long as an acknowledgement is delayed, or as a timer waits.
    Stall {
        /// Cell of the load.
        cell: CellName,
        /// Name of the percentile that took so long.
        percentile: &'static str,
        /// That percentile, in milliseconds.
        ms: f64,
        /// The reference's, in milliseconds.
        reference_ms: f64,
    },
}

impl Within {
    /// Finds what goes wrong in the loads of a cell.
    pub(super) fn find(
        rules: &PathologyRules,
        table: &Table<'_>,
        row: &CellSummary<'_>,
    ) -> impl Iterator<Item = Self> {
        let found = [
            stall(rules, table, row),
            slowdown(rules, row),
            growth(rules, row),
        ];
        found.into_iter().flatten()
    }

    /// Advises what to look at next.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Growth { .. } => {
                "For growing memory, see whether a longer load makes it grow further; a cache that \
                 fills up is none"
            }
            Self::Slowdown { .. } => {
                "For a path that becomes slower, see what it keeps of each request: lists, logs, \
                 connections"
            }
            Self::Stall { .. } => {
                "For a stall of 40 ms, set TCP_NODELAY on both sides of the path, or write a head \
                 and its body at once"
            }
        }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Growth {
                cell: CellName(cell),
                mib_max,
                kib_per_request,
                blocks,
            } => write!(
                f,
                "growing memory: {cell}: up to {mib_max:.0} MiB more after the load, \
                 {kib_per_request:.1} KiB for each answer, {blocks}"
            ),
            Self::Slowdown {
                cell: CellName(cell),
                share_min,
                limit,
                blocks,
            } => write!(
                f,
                "slowing down: {cell}: the last quarter of the load has less than {:.0} % of the \
                 first quarter's RPS {blocks}, {:.0} % at worst",
                limit * 100.0,
                share_min * 100.0
            ),
            Self::Stall {
                cell: CellName(cell),
                percentile,
                ms,
                reference_ms,
            } => write!(
                f,
                "stall: {cell}: the {percentile} is {ms:.1} ms, as long as an acknowledgement is \
                 delayed; the reference's is {reference_ms:.2} ms"
            ),
        }
    }
}

/// Finds answers that had to wait for an acknowledgement.
fn stall(rules: &PathologyRules, table: &Table<'_>, row: &CellSummary<'_>) -> Option<Within> {
    if !rules.stalls || row.is_reference {
        return None;
    }
    let load = |row: &CellSummary<'_>| (row.cell.load(), row.cell.build);
    let mut references = table.rows.iter().filter(|other| other.is_reference);
    let reference = references.find(|other| load(other) == load(row))?.merged?;
    let own = row.merged?;
    let percentiles: [(&'static str, Option<Percentile>, Option<Percentile>); 3] = [
        ("p50", own.p50_us, reference.p50_us),
        ("p95", own.p95_us, reference.p95_us),
        ("p99", own.p99_us, reference.p99_us),
    ];
    percentiles.into_iter().find_map(|(name, own, reference)| {
        let (us, reference_us) = (own?.us, reference?.us);
        let is_own = us >= STALL_FACTOR * reference_us;
        (is_own && DELAYED_ACK_US.contains(&us)).then(|| Within::Stall {
            cell: CellName::of(row),
            percentile: name,
            ms: us / 1e3,
            reference_ms: reference_us / 1e3,
        })
    })
}

/// Finds paths that answer more and more slowly in at least half of the blocks.
fn slowdown(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Within> {
    let limit = rules.slowdown?;
    let shares = &row.course.slowdowns;
    let blocks = Blocks::of(shares, |share| share < limit)?;
    (2 * blocks.found >= blocks.of).then(|| Within::Slowdown {
        cell: CellName::of(row),
        share_min: shares.iter().copied().fold(f64::INFINITY, f64::min),
        limit,
        blocks,
    })
}

/// Finds paths whose memory grows with every request.
fn growth(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Within> {
    let limit = rules.growth_kib_per_request?;
    let is_growth = |(kib, requests): &&(f64, u64)| {
        *kib >= GROWTH_KIB_MIN && *kib / (*requests).max(1) as f64 >= limit
    };
    let found: Vec<&(f64, u64)> = row.course.growth.iter().filter(is_growth).collect();
    let (kib, requests) = found
        .iter()
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    Some(Within::Growth {
        cell: CellName::of(row),
        mib_max: kib / 1024.0,
        kib_per_request: kib / (*requests).max(1) as f64,
        blocks: Blocks {
            found: found.len(),
            of: row.course.growth.len(),
        },
    })
}
