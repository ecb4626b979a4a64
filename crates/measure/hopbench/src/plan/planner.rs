//! Turns scenarios into a flat list of trials, in the order in which they run.

use fastrand::Rng;
use hopbench_analysis::{
    estimate::BLOCKS_MAX,
    record::{Build, Cell, Plan, PlannedTrial},
};

use crate::{
    console::seconds,
    plan::{
        goal::Goal,
        selection::{SelectedScenario, Selection},
    },
};

/// Time that a trial takes besides its load, in milliseconds: starting, verifying, evaluating and
/// stopping. Only the estimate uses it.
pub(crate) const TRIAL_OVERHEAD_MS: u64 = 450;

/// Plans blocks: every cell of a scenario once, in a random order per block. The same seed gives
/// the same orders.
#[derive(Debug)]
pub(crate) struct Planner<'a> {
    scenarios: &'a [SelectedScenario],
    /// Whether every cell is measured with two builds.
    of_builds: bool,
    /// If `Some`, the only cells to plan. They have no build.
    only: Option<&'a [Cell]>,
    rng: Rng,
    /// Blocks planned so far, by scenario.
    blocks: Vec<u32>,
    /// Trials planned so far.
    trials: u32,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        selection: &'a Selection,
        seed: u64,
        of_builds: bool,
        only: Option<&'a [Cell]>,
    ) -> Self {
        Self {
            scenarios: &selection.scenarios,
            of_builds,
            only,
            rng: Rng::with_seed(seed),
            blocks: vec![0; selection.scenarios.len()],
            trials: 0,
        }
    }

    /// Plans the blocks that the scenarios ask for.
    pub(crate) fn plan(&mut self) -> Plan {
        let mut trials = Vec::new();
        for (index, scenario) in self.scenarios.iter().enumerate() {
            for _ in 0..scenario.definition.blocks {
                trials.append(&mut self.next_block(index));
            }
        }
        Plan {
            estimate_ms: estimate_ms(&trials),
            trials,
        }
    }

    /// Plans one more block of a scenario; `None` if it has the maximum number of blocks.
    pub(crate) fn block(&mut self, scenario: &str) -> Option<Vec<PlannedTrial>> {
        let index = self.index(scenario)?;
        (!self.is_full(scenario)).then(|| self.next_block(index))
    }

    /// Plans trials of a block once more, in another order.
    pub(crate) fn again(&mut self, trials: &[PlannedTrial], attempt: u32) -> Vec<PlannedTrial> {
        let mut trials = trials.to_vec();
        self.rng.shuffle(&mut trials);
        for trial in &mut trials {
            self.trials += 1;
            (trial.trial, trial.attempt) = (self.trials, attempt);
        }
        trials
    }

    /// Shuffles what has no order of its own.
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        self.rng.shuffle(all);
    }

    /// Returns whether a scenario has the maximum number of blocks.
    pub(crate) fn is_full(&self, scenario: &str) -> bool {
        let index = self.index(scenario);
        index.is_none_or(|index| self.blocks[index] as usize >= BLOCKS_MAX)
    }

    /// Estimates how long a block of a scenario takes.
    pub(crate) fn block_ms(&self, scenario: &str) -> u64 {
        self.index(scenario)
            .map_or(0, |index| estimate_ms(&self.block_trials(index)))
    }

    /// Describes what a goal adds to the plan.
    pub(crate) fn prospect(&self, goal: Goal) -> String {
        let blocks = self.scenarios.iter().map(|scenario| {
            let name = &scenario.definition.name;
            let block_ms = self.block_ms(name);
            format!("'{name}' {} each", seconds(block_ms as f64 / 1e3))
        });
        let blocks: Vec<String> = blocks.collect();
        format!(
            "then more blocks ({}), until every interval is within ±{} % or {} have passed\n",
            blocks.join(", "),
            goal.half_width_percent,
            seconds(goal.time_max.as_secs_f64())
        )
    }

    fn index(&self, scenario: &str) -> Option<usize> {
        let mut names = self.scenarios.iter().map(|one| &one.definition.name);
        names.position(|name| name == scenario)
    }

    /// Returns a block without its number, in no particular order.
    fn block_trials(&self, index: usize) -> Vec<PlannedTrial> {
        let mut trials = block_trials(&self.scenarios[index], self.of_builds);
        if let Some(only) = self.only {
            let is_of_them = |cell: &Cell| {
                let build = None;
                only.contains(&Cell {
                    build,
                    ..cell.clone()
                })
            };
            trials.retain(|trial| is_of_them(&trial.cell));
        }
        trials
    }

    fn next_block(&mut self, index: usize) -> Vec<PlannedTrial> {
        self.blocks[index] += 1;
        let mut block = self.block_trials(index);
        for trial in &mut block {
            trial.block = self.blocks[index];
        }
        self.rng.shuffle(&mut block);
        for trial in &mut block {
            self.trials += 1;
            trial.trial = self.trials;
        }
        block
    }
}

/// Estimates how long trials take.
pub(crate) fn estimate_ms(trials: &[PlannedTrial]) -> u64 {
    let trial_ms = |trial: &PlannedTrial| trial.duration_ms + trial.warm_up_ms + TRIAL_OVERHEAD_MS;
    trials.iter().map(trial_ms).sum()
}

fn block_trials(scenario: &SelectedScenario, of_builds: bool) -> Vec<PlannedTrial> {
    let definition = &scenario.definition;
    let mut trials = Vec::new();
    for endpoint in &scenario.endpoints {
        for concurrency in &definition.concurrency {
            let rates = scenario.rates(endpoint, *concurrency);
            let stages = scenario.stages(endpoint, *concurrency).unwrap_or_default();
            let loads = product(&rates, &definition.placements);
            let loads: Vec<_> = loads.collect();
            for (path, (rate_rps, placement)) in product(&scenario.paths, &loads) {
                let is_reference = *path == scenario.reference;
                for (build, replicate) in occurrences(definition.control && is_reference, of_builds)
                {
                    trials.push(PlannedTrial {
                        trial: 0,
                        block: 0,
                        cell: Cell {
                            scenario: definition.name.clone(),
                            endpoint: endpoint.clone(),
                            path: path.clone(),
                            concurrency: *concurrency,
                            keep_alive: definition.keep_alive,
                            rate_rps: **rate_rps,
                            build,
                            staged: !stages.is_empty(),
                            placement: **placement,
                        },
                        replicate,
                        duration_ms: definition.duration_ms,
                        warm_up_ms: definition.warm_up_ms,
                        requests: definition.requests,
                        stages: stages.clone(),
                        think_time_ms: definition.think_time_ms,
                        attempt: 0,
                    });
                }
            }
        }
    }
    trials
}

fn product<'a, A, B>(ones: &'a [A], others: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    ones.iter()
        .flat_map(move |one| others.iter().map(move |other| (one, other)))
}

/// Returns how often a cell is in a block: once per build, twice if it is its own control. With two
/// builds, the first one is.
fn occurrences(twice: bool, of_builds: bool) -> Vec<(Option<Build>, u8)> {
    match (of_builds, twice) {
        (false, false) => vec![(None, 0)],
        (false, true) => vec![(None, 0), (None, 1)],
        (true, _) => vec![
            (Some(Build::A), 0),
            (Some(Build::A), 1),
            (Some(Build::B), 0),
        ],
    }
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
        let scenario = SelectedScenario {
            reference: "direct".to_owned(),
            paths: vec!["direct".to_owned(), "rapace-stream".to_owned()],
            endpoints: vec!["/small".to_owned(), "/large".to_owned()],
            definition,
            knees: BTreeMap::new(),
        };
        Selection {
            request: Default::default(),
            scenarios: vec![scenario],
            paths: Vec::new(),
            work: BTreeMap::new(),
        }
    }

    #[test]
    fn a_block_has_every_cell_once_and_the_reference_twice() {
        let plan = Planner::new(&selection(), 7, false, None).plan();
        for block in 1..=2 {
            let mut cells: Vec<String> = plan
                .trials
                .iter()
                .filter(|trial| trial.block == block)
                .map(|trial| {
                    let cell = &trial.cell;
                    let replicate = trial.replicate;
                    format!(
                        "{} {} c={} {replicate}",
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
        let order = |seed| Planner::new(&selection(), seed, false, None).plan().trials;
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let cells = |trials: &[PlannedTrial]| -> Vec<(Cell, u8)> {
            trials
                .iter()
                .map(|trial| (trial.cell.clone(), trial.replicate))
                .collect()
        };
        let trials = order(7);
        assert_ne!(cells(&trials[..12]), cells(&trials[12..]));
    }

    #[test]
    fn blocks_that_are_added_go_on_where_the_plan_ends() {
        let selection = selection();
        let mut planner = Planner::new(&selection, 7, false, None);
        let planned = planner.plan();
        let block = planner.block("http-tunnel").expect("there may be more");
        assert_eq!(block.len(), 12);
        let numbers: Vec<u32> = block.iter().map(|trial| trial.trial).collect();
        assert_eq!(numbers, (25..=36).collect::<Vec<u32>>());
        assert!(block.iter().all(|trial| trial.block == 3));
        assert_eq!(planner.block("absent"), None);
        assert_eq!(planner.block_ms("http-tunnel"), planned.estimate_ms / 2);
        while planner.block("http-tunnel").is_some() {}
        assert_eq!(planner.blocks[0] as usize, BLOCKS_MAX);

        // The block is the same as if all had been planned at once.
        let mut three = self::selection();
        three.scenarios[0].definition.blocks = 3;
        let at_once = Planner::new(&three, 7, false, None).plan().trials;
        assert_eq!(at_once[24..], block);
    }

    /// The order is part of a result, so another release of the random number generator must not
    /// change it.
    #[test]
    fn the_order_of_a_seed_is_what_it_was() {
        let first: Vec<String> = Planner::new(&selection(), 1, false, None).plan().trials[..4]
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
