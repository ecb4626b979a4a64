//! Scenarios into a flat list of trials, in the order in which they are run.

use fastrand::Rng;
use hopbench_analysis::record::{Cell, Plan, PlannedTrial};

use crate::selection::{SelectedScenario, Selection};

/// What a trial takes besides its load: starting, verifying, evaluating and stopping, in
/// milliseconds. Only for the estimate.
const TRIAL_OVERHEAD_MS: u64 = 450;

/// Plans every cell of every scenario once per block, each block in a random order of its own. The
/// same seed gives the same order.
pub(crate) fn plan(selection: &Selection, seed: u64) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let mut trials = Vec::new();
    for scenario in &selection.scenarios {
        for block in 1..=scenario.definition.blocks {
            let mut of_block = block_trials(scenario, block);
            rng.shuffle(&mut of_block);
            trials.append(&mut of_block);
        }
    }
    for (trial, number) in trials.iter_mut().zip(1..) {
        trial.trial = number;
    }
    let trial_ms = |trial: &PlannedTrial| trial.duration_ms + trial.warm_up_ms + TRIAL_OVERHEAD_MS;
    Plan {
        estimate_ms: trials.iter().map(trial_ms).sum(),
        trials,
    }
}

fn block_trials(scenario: &SelectedScenario, block: u32) -> Vec<PlannedTrial> {
    let definition = &scenario.definition;
    let mut trials = Vec::new();
    for target in &scenario.targets {
        for concurrency in &definition.concurrency {
            for path in &scenario.paths {
                let twice = definition.control && *path == scenario.reference;
                for twin in 0..=u8::from(twice) {
                    trials.push(PlannedTrial {
                        trial: 0,
                        block,
                        cell: Cell {
                            scenario: definition.name.clone(),
                            endpoint: target.to_string(),
                            path: path.clone(),
                            concurrency: *concurrency,
                            keep_alive: definition.keep_alive,
                        },
                        twin,
                        duration_ms: definition.duration_ms,
                        warm_up_ms: definition.warm_up_ms,
                    });
                }
            }
        }
    }
    trials
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Catalog;

    fn selection() -> Selection {
        let catalog = Catalog::built_in().expect("valid");
        let mut definition = catalog.scenario("http-tunnel").expect("built in");
        definition.blocks = 2;
        definition.concurrency = vec![1, 8];
        let targets = definition.endpoints.clone().expect("listed");
        let scenario = SelectedScenario {
            reference: "direct".to_owned(),
            paths: vec!["direct".to_owned(), "rapace-stream".to_owned()],
            targets,
            definition,
        };
        Selection {
            scenarios: vec![scenario],
            paths: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_block_has_every_cell_once_and_the_reference_twice() {
        let plan = plan(&selection(), 7);
        for block in 1..=2 {
            let mut cells: Vec<String> = plan
                .trials
                .iter()
                .filter(|trial| trial.block == block)
                .map(|trial| {
                    let cell = &trial.cell;
                    let twin = trial.twin;
                    format!(
                        "{} {} c={} {twin}",
                        cell.path, cell.endpoint, cell.concurrency
                    )
                })
                .collect();
            cells.sort();
            assert_eq!(cells.len(), 2 * 2 * (1 + 2));
            cells.dedup();
            assert_eq!(cells.len(), 2 * 2 * (1 + 2));
        }
        let numbers: Vec<u32> = plan.trials.iter().map(|trial| trial.trial).collect();
        assert_eq!(numbers, (1..=24).collect::<Vec<u32>>());
    }

    #[test]
    fn the_seed_decides_the_order_and_blocks_differ() {
        let order = |seed| plan(&selection(), seed).trials;
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let cells = |trials: &[PlannedTrial]| -> Vec<(Cell, u8)> {
            trials
                .iter()
                .map(|trial| (trial.cell.clone(), trial.twin))
                .collect()
        };
        let trials = order(7);
        assert_ne!(cells(&trials[..12]), cells(&trials[12..]));
    }

    /// The order is part of a result: another release of the random numbers must not change it.
    #[test]
    fn the_order_of_a_seed_is_what_it_was() {
        let first: Vec<String> = plan(&selection(), 1).trials[..4]
            .iter()
            .map(|trial| format!("{} {}", trial.cell.path, trial.cell.endpoint))
            .collect();
        let expected = [
            "rapace-stream /large",
            "direct /large",
            "direct /small",
            "direct /small",
        ];
        assert_eq!(first, expected);
    }
}
