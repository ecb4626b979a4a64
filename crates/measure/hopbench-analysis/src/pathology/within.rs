//! Faults within a load, whatever its medians say: stalls, a path that becomes slower and slower,
//! and memory that is never given back.

use std::fmt;

use super::{Blocks, CellName};
use crate::{
    record::PathologyRules,
    summary::{CellSummary, ScenarioSummary},
};

/// The time for which a receiver may hold back an acknowledgement, with what comes on top of it, in
/// microseconds. Linux waits 40 ms at least (`TCP_DELACK_MIN`, include/net/tcp.h). A sender that
/// collects small pieces (Nagle's algorithm, RFC 896) waits as long.
const DELAYED_ACK_US: std::ops::Range<f64> = 38_000.0..50_000.0;

/// A percentile that is so many times the reference's, and the path's median, is a step.
const STALL_FACTOR: f64 = 4.0;

/// Fewest answers whose median or p90 shows a stall, at one connection. A percentile in a table
/// needs more, but the longer a path stalls, the fewer answers there are.
const STALLED_ANSWERS_MIN: u64 = 8;

/// Smallest growth that is a pathology, in KiB: pools may grow by less.
pub(super) const GROWTH_KIB_MIN: f64 = 128.0 * 1024.0;

/// Smallest growth that is mentioned, in KiB.
const MENTIONED_KIB_MIN: f64 = 4.0 * 1024.0;

/// Memory that a path may take for each connection, in KiB: buffers on both sides that hold an
/// answer of 256 KiB. It takes that once, and not again with each request.
const CONNECTION_KIB: f64 = 512.0;

/// Smallest growth of open descriptors that is looked at: pools and logs may take some.
const DESCRIPTORS_MIN: f64 = 64.0;

/// Descriptors that a path may take for each connection: sockets on both sides, pipes between them,
/// and what a process that serves it alone opens.
const CONNECTION_DESCRIPTORS: f64 = 32.0;

/// Something that goes wrong within a load.
#[derive(Clone, Debug, PartialEq)]
pub enum Within {
    /// Descriptors stayed open with every request.
    Descriptors {
        /// Cell of the load.
        cell: CellName,
        /// Largest growth in a block, without what the connections may take.
        count_max: f64,
        /// This growth for each correct answer.
        per_request: f64,
        /// Blocks in which it grew.
        blocks: Blocks,
    },
    /// A listen queue was full, and the kernel turned connections away.
    FullQueue {
        /// Cell of the load.
        cell: CellName,
        /// Most connections that were turned away in a block, repeated attempts included.
        most: u64,
        /// Blocks in which some were.
        blocks: Blocks,
    },
    /// Memory grew with every request.
    Growth {
        /// Cell of the load.
        cell: CellName,
        /// Largest growth in a block, in MiB, without what the connections may take.
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
        row: &CellSummary<'_>,
        reference: Option<&CellSummary<'_>>,
    ) -> impl Iterator<Item = Self> {
        let found = [
            full_queue(row),
            stall(rules, row, reference),
            slowdown(rules, row),
            growth(rules, row),
            descriptors(rules, row),
        ];
        found.into_iter().flatten()
    }

    /// Advises what to look at next.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Descriptors { .. } => {
                "For descriptors that stay open, look at '/proc/PID/fd' after the load; a path \
                 that may open no more answers nothing"
            }
            Self::FullQueue { .. } => {
                "For a full listen queue, give the program a longer one ('backlog'), which must \
                 hold all connections that come at once"
            }
            Self::Growth { .. } => {
                "For growing memory, see whether a longer load makes it grow further; a cache that \
                 fills up is none"
            }
            Self::Slowdown { .. } => {
                "For a path that becomes slower, see whether it does in a longer load, too, and \
                 what it keeps of each request: lists, logs, connections"
            }
            Self::Stall { .. } => {
                "For a stall of 40 ms, set TCP_NODELAY on both sides of the path, use a larger \
                 buffer, or write a head and its body at once"
            }
        }
    }

    pub(super) fn cell(&self) -> &CellName {
        match self {
            Self::Descriptors { cell, .. }
            | Self::FullQueue { cell, .. }
            | Self::Growth { cell, .. }
            | Self::Slowdown { cell, .. }
            | Self::Stall { cell, .. } => cell,
        }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors {
                cell,
                count_max,
                per_request,
                blocks,
            } => write!(
                f,
                "leaking descriptors: {cell}: up to {count_max:.0} more are open after the load \
                 than connections take, {per_request:.2} for each answer, {blocks}"
            ),
            Self::FullQueue { cell, most, blocks } => write!(
                f,
                "full listen queue: {cell}: the kernel turned connections away {blocks}, up to \
                 {most} times, because a program on the path accepted too few of them at once"
            ),
            Self::Growth {
                cell,
                mib_max,
                kib_per_request,
                blocks,
            } => write!(
                f,
                "growing memory: {cell}: up to {mib_max:.0} MiB more after the load than \
                 connections take, {kib_per_request:.1} KiB for each answer, {blocks}"
            ),
            Self::Slowdown {
                cell,
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
                cell,
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

/// Finds listen queues that were full.
fn full_queue(row: &CellSummary<'_>) -> Option<Within> {
    let turned_away = &row.course.listen_overflows;
    let found = turned_away.iter().filter(|count| **count > 0).count();
    (found > 0).then(|| Within::FullQueue {
        cell: CellName::of(row),
        most: turned_away.iter().copied().max().unwrap_or_default(),
        blocks: Blocks {
            found,
            of: turned_away.len(),
        },
    })
}

/// Finds answers that had to wait for an acknowledgement.
fn stall(
    rules: &PathologyRules,
    row: &CellSummary<'_>,
    reference: Option<&CellSummary<'_>>,
) -> Option<Within> {
    if !rules.stalls || row.is_reference {
        return None;
    }
    let reference = reference?.merged?;
    let own = row.merged?;
    if own.count < STALLED_ANSWERS_MIN {
        return None;
    }
    let p50_us = own.rough_p50_us.us;
    // Where many connections wait for each other, any latency is as long as the queue.
    let is_alone = row.cell.concurrency == 1;
    let is_step = |us: f64| us >= STALL_FACTOR * p50_us;
    let percentiles = [
        ("p50", Some(own.rough_p50_us), Some(reference.rough_p50_us)),
        (
            "p90",
            Some(own.rough_p90_us).filter(|_| is_alone),
            Some(reference.rough_p90_us),
        ),
        (
            "p95",
            own.p95_us.filter(|it| is_step(it.us)),
            reference.p95_us,
        ),
        (
            "p99",
            own.p99_us.filter(|it| is_step(it.us)),
            reference.p99_us,
        ),
    ];
    let mut percentiles = percentiles.into_iter().skip(usize::from(!is_alone));
    percentiles.find_map(|(name, own, reference)| {
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

/// Finds paths that answer more and more slowly in more than half of the blocks: in one of two, the
/// machine may have been busy.
fn slowdown(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Within> {
    let limit = rules.slowdown?;
    let shares = &row.course.slowdowns;
    let blocks = Blocks::of(shares, |share| share < limit)?;
    (2 * blocks.found > blocks.of).then(|| Within::Slowdown {
        cell: CellName::of(row),
        share_min: shares.iter().copied().fold(f64::INFINITY, f64::min),
        limit,
        blocks,
    })
}

/// Growth that is found in some blocks of a cell.
struct Found {
    /// The largest growth.
    most: f64,
    /// This growth for each correct answer.
    per_request: f64,
    blocks: Blocks,
}

/// Finds growth of at least `least`, and of at least `limit` for each answer, beyond what is
/// `allowed`.
fn grown(growth: &[(f64, u64)], allowed: f64, least: f64, limit: f64) -> Option<Found> {
    let of_requests = growth.iter().filter_map(|(grown, requests)| {
        let grown = grown - allowed;
        let of_each = grown / (*requests).max(1) as f64;
        (grown >= least && of_each >= limit).then_some((grown, of_each))
    });
    let found: Vec<(f64, f64)> = of_requests.collect();
    let largest = found.iter().copied();
    let (most, per_request) = largest.max_by(|one, other| one.0.total_cmp(&other.0))?;
    let blocks = Blocks {
        found: found.len(),
        of: growth.len(),
    };
    Some(Found {
        most,
        per_request,
        blocks,
    })
}

/// Finds paths whose memory grows with every request, beyond what their connections take.
fn growth(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Within> {
    let limit = rules.growth_kib_per_request?;
    let allowed = CONNECTION_KIB * f64::from(row.cell.concurrency);
    let found = grown(&row.course.growth, allowed, GROWTH_KIB_MIN, limit)?;
    Some(Within::Growth {
        cell: CellName::of(row),
        mib_max: found.most / 1024.0,
        kib_per_request: found.per_request,
        blocks: found.blocks,
    })
}

/// Mentions the path whose memory grew most, if none grew so much that it is a pathology, but one
/// did by the limit for each answer. A short load can't tell a leak from a pool that fills up.
pub(super) fn growth_remark(scenario: &ScenarioSummary<'_>) -> Option<String> {
    let rules = &scenario.info.pathologies;
    let limit = rules.growth_kib_per_request?;
    let rows = || scenario.rows().filter(|row| !row.is_reference);
    if rows().any(|row| growth(rules, row).is_some()) {
        return None;
    }
    let mentioned = rows().filter_map(|row| {
        let allowed = CONNECTION_KIB * f64::from(row.cell.concurrency);
        let found = grown(&row.course.growth, allowed, MENTIONED_KIB_MIN, limit)?;
        (2 * found.blocks.found > found.blocks.of).then_some((row, found))
    });
    let (row, most) = mentioned.max_by(|one, other| one.1.most.total_cmp(&other.1.most))?;
    Some(format!(
        "Memory grew most on {}: by {:.0} MiB more than connections take, {:.1} KiB for each \
         answer. Whether it is a leak or a pool that fills up, only a longer load tells.",
        row.cell,
        most.most / 1024.0,
        most.per_request
    ))
}

/// Finds paths that open descriptors with every request and don't close them, beyond what their
/// connections take.
fn descriptors(rules: &PathologyRules, row: &CellSummary<'_>) -> Option<Within> {
    let limit = rules.growth_descriptors_per_request?;
    let allowed = CONNECTION_DESCRIPTORS * f64::from(row.cell.concurrency);
    let found = grown(&row.course.descriptors, allowed, DESCRIPTORS_MIN, limit)?;
    Some(Within::Descriptors {
        cell: CellName::of(row),
        count_max: found.most,
        per_request: found.per_request,
        blocks: found.blocks,
    })
}
