//! The number of blocks that it takes to tell a regression, known before anything is measured.

use std::collections::BTreeSet;

use super::{
    Finding, Policy, Reading,
    decide::FALSE_ALARMS,
    policy::{Absolute, AbsoluteMetric, Guardrail},
    survey::is_of_paths,
};
use crate::{
    estimate::{BLOCKS_MAX, BLOCKS_WHOLE, BLOCKS_WHOLE_BETWEEN, p_above_between_min, p_min},
    record::{Cell, PlannedTrial},
};

/// The blocks that it takes to tell a single regression among all cells of a guardrail. With fewer,
/// not even a huge one can be told from chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlocksNeeded {
    /// Blocks of a run of two builds, which share their blocks.
    pub paired: usize,
    /// Blocks of each of two runs.
    pub between: usize,
    /// Cells of the guardrail that has the most of them.
    pub cells: usize,
}

/// Returns how many blocks a policy needs for the cells of a plan.
pub fn blocks_needed(
    policy: &Policy,
    is_reference: impl Fn(&Cell) -> bool,
    planned: &[PlannedTrial],
) -> BlocksNeeded {
    let cells: BTreeSet<Cell> = planned.iter().map(|it| it.cell.without_build()).collect();
    let count = |guardrail: &Guardrail| {
        let asks = |cell: &&Cell| {
            // Between runs the reference is the yardstick, and no relative guardrail judges it.
            let is_judged = !matches!(guardrail, Guardrail::Relative(_)) || !is_reference(cell);
            guardrail.filter().matches(cell) && is_of_paths(guardrail, cell) && is_judged
        };
        cells.iter().filter(asks).count()
    };
    let estimates = policy.guardrails.iter().filter(|guardrail| {
        let errors = AbsoluteMetric::Errors;
        !matches!(guardrail, Guardrail::Absolute(Absolute { metric, .. }) if *metric == errors)
    });
    let cells = estimates.map(count).max().unwrap_or(0);
    BlocksNeeded {
        paired: paired(cells),
        between: between(cells),
        cells,
    }
}

/// Returns one line for each guardrail of which the run has too few blocks to tell a single
/// regression.
pub(super) fn shortfalls(findings: &[Finding]) -> Vec<String> {
    let guardrails: BTreeSet<&str> = findings.iter().map(|it| it.guardrail.as_str()).collect();
    let shortfall = |guardrail: &str| {
        let of_guardrail = findings.iter().filter(|it| it.guardrail == guardrail);
        let readings: Vec<Reading> = of_guardrail.filter_map(|finding| finding.reading).collect();
        let blocks = readings.iter().map(|reading| reading.blocks).max()?;
        let p_min = readings.iter().map(|reading| reading.p_min);
        let p_min = p_min.reduce(f64::min)?;
        let cells = readings.len();
        let needed = match readings[0].blocks_needed == BLOCKS_WHOLE {
            true => paired(cells),
            false => between(cells),
        };
        // If the blocks are too few for an interval, each cell says so itself.
        let has_intervals = readings.iter().all(Reading::has_enough_blocks);
        (has_intervals && p_min > allowed(cells)).then(|| {
            format!(
                "'{guardrail}' covers {cells} cells: it takes {needed} blocks to detect a single \
                 regression, but there are only {blocks}"
            )
        })
    };
    guardrails.into_iter().filter_map(shortfall).collect()
}

/// Returns how small the smallest of so many p must be for a regression.
fn allowed(cells: usize) -> f64 {
    FALSE_ALARMS / cells.max(1) as f64
}

fn paired(cells: usize) -> usize {
    let enough = |blocks: &usize| p_min(*blocks) / 2.0 <= allowed(cells);
    let mut blocks = BLOCKS_WHOLE..=BLOCKS_MAX;
    blocks.find(enough).unwrap_or(BLOCKS_MAX)
}

fn between(cells: usize) -> usize {
    let enough = |blocks: &usize| p_above_between_min(*blocks, *blocks) <= allowed(cells);
    let mut blocks = BLOCKS_WHOLE_BETWEEN..=BLOCKS_MAX;
    blocks.find(enough).unwrap_or(BLOCKS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_cells_need_more_blocks() {
        // 0.5^6 = 0.016 ≤ 0.05, and 0.5^11 = 0.00049 ≤ 0.05 / 88.
        assert_eq!([1, 2, 4, 88].map(paired), [6, 6, 7, 11]);
        // 1 / C(8, 4) = 0.014, 1 / C(14, 7) = 0.00029 ≤ 0.05 / 88 = 0.00057.
        assert_eq!([1, 88, 264].map(between), [4, 7, 8]);
    }
}
