//! Permutes the labels of a run of equal builds, as if other trials had been those of B.
//!
//! If nothing differs, it doesn't matter which of a block's three trials of a cell were A's and
//! which was B's: every assignment is as probable as the one that happened (Fisher 1935, *The
//! design of experiments*). So one long run of a build against itself shows how often a gate would
//! raise a false alarm on such a machine, with as many permutations as desired. A scenario's cells
//! in a block are permuted alike, so that the effects of a disturbance stay together.

use std::collections::BTreeMap;

use crate::record::{Build, PlannedTrial};

/// Label of a trial: its build, and 1 for a replicate, otherwise 0.
type Role = (Option<Build>, u8);

/// Permutes the labels within every block, and returns the trials with their new labels, by number.
/// `choose` returns a number below its argument.
pub fn permute_labels(
    planned: &[PlannedTrial],
    mut choose: impl FnMut(usize) -> usize,
) -> BTreeMap<u32, PlannedTrial> {
    let mut orders: BTreeMap<(u32, String), Vec<usize>> = BTreeMap::new();
    let mut cells: BTreeMap<_, Vec<&PlannedTrial>> = BTreeMap::new();
    for trial in planned {
        let cell = trial.cell.without_build();
        cells.entry((trial.block, cell)).or_default().push(trial);
    }
    let mut permuted = BTreeMap::new();
    for ((block, cell), mut trials) in cells {
        trials.sort_by_key(|trial| role(trial));
        let order = orders
            .entry((block, cell.scenario))
            .or_insert_with(|| shuffled(trials.len(), &mut choose));
        let roles: Vec<Role> = trials.iter().map(|trial| role(trial)).collect();
        for (index, trial) in trials.into_iter().enumerate() {
            let mut trial = trial.clone();
            // A cell with fewer or more trials than the first of its block keeps its labels.
            let taken = order.get(index).and_then(|at| roles.get(*at));
            if let Some((build, replicate)) = taken.filter(|_| roles.len() == order.len()) {
                trial.cell.build = *build;
                trial.replicate = *replicate;
            }
            permuted.insert(trial.trial, trial);
        }
    }
    permuted
}

fn role(trial: &PlannedTrial) -> Role {
    (trial.cell.build, trial.replicate)
}

/// Shuffles the numbers below `count`, after Fisher and Yates.
fn shuffled(count: usize, choose: &mut impl FnMut(usize) -> usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, choose(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::tests;

    /// Two blocks of two cells, each with two trials of A and one of B.
    fn planned() -> Vec<PlannedTrial> {
        let mut planned = Vec::new();
        for block in 1..=2 {
            for path in ["plain", "fast"] {
                for (build, replicate) in [(Build::A, 0), (Build::A, 1), (Build::B, 0)] {
                    let mut trial = tests::trial(path, 1, block, replicate, 1, 1).planned;
                    trial.cell.build = Some(build);
                    trial.trial = u32::try_from(planned.len()).expect("few") + 1;
                    planned.push(trial);
                }
            }
        }
        planned
    }

    #[test]
    fn every_way_is_dealt_and_cells_of_a_block_alike() {
        let planned = planned();
        let mut ways = BTreeSet::new();
        for way in 0..6 {
            let mut choices = [way / 2, way % 2].into_iter().cycle();
            let permuted = permute_labels(&planned, |_| choices.next().expect("endless"));
            let roles: Vec<Role> = permuted.values().map(role).collect();
            assert_eq!(roles[..3], roles[3..6]);
            let mut sorted = roles[..3].to_vec();
            sorted.sort_unstable();
            assert_eq!(
                sorted,
                [
                    (Some(Build::A), 0),
                    (Some(Build::A), 1),
                    (Some(Build::B), 0)
                ]
            );
            ways.insert(roles[..3].to_vec());
            // Nothing but the labels has changed.
            for (before, after) in planned.iter().zip(permuted.values()) {
                assert_eq!(before.trial, after.trial);
                assert_eq!(before.cell.without_build(), after.cell.without_build());
            }
        }
        assert_eq!(ways.len(), 6);
    }
}
