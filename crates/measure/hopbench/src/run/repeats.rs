//! Repeats blocks that something outside disturbed.
//!
//! `hopbench_analysis::repeats` says which, and which attempt counts. How many trials this may add
//! is bounded, since a machine that others always use would never be quiet.

use hopbench_analysis::{
    record::Trial,
    repeats::{self, Disturbed},
    report::plural,
};

use crate::{plan::planner::Planner, run::runner::Added};

/// Plans repetitions of the disturbed blocks, as many as there is room for: those that have been
/// repeated the least first. `percent_max` is the share of the planned trials that may be added.
pub(crate) fn more(planner: &mut Planner<'_>, percent_max: u8, trials: &[Trial]) -> Added {
    let mut disturbed = repeats::disturbed(trials);
    if disturbed.is_empty() {
        return Added::default();
    }
    let again = trials.iter().filter(|trial| trial.planned.attempt > 0);
    let again = again.count();
    let allowed = (trials.len() - again) * usize::from(percent_max) / 100;
    let mut left = allowed.saturating_sub(again);
    // Without an order, those that come late in the plan would never have their turn.
    planner.shuffle(&mut disturbed);
    disturbed.sort_by_key(|slot| slot.attempts);
    let mut added = Added::default();
    let mut blocks = 0_usize;
    for Disturbed { planned, attempts } in &disturbed {
        if planned.len() <= left {
            left -= planned.len();
            blocks += 1;
            added.trials.extend(planner.again(planned, *attempts));
        }
    }
    if blocks > 0 {
        added.reasons.push(format!(
            "others disturbed {} of a load: measuring {blocks} again",
            plural(disturbed.len(), "block")
        ));
    }
    added
}

#[cfg(test)]
mod tests {
    //! Goal: what others disturb is planned again, within the bound, and nothing else. Method: a
    //! plan of three blocks at two loads, and trials that are made from it.

    use std::collections::BTreeMap;

    use hopbench_analysis::record::{PlannedTrial, Warning};

    use super::*;
    use crate::{
        catalog::Catalog,
        plan::selection::{SelectedScenario, Selection},
    };

    fn selection() -> Selection {
        let catalog = Catalog::built_in().expect("valid");
        let mut definition = catalog.scenario("http-tunnel").expect("built in");
        definition.blocks = 3;
        definition.concurrency = vec![1, 8];
        let scenario = SelectedScenario {
            reference: "direct".to_owned(),
            paths: vec!["direct".to_owned(), "ring".to_owned()],
            endpoints: vec!["/small".to_owned()],
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

    /// Makes the trial of a plan; something took half of the machine if `is_disturbed`.
    fn trial(planned: &PlannedTrial, is_disturbed: bool) -> Trial {
        let warnings = is_disturbed.then_some(Warning::Steal { share: 0.5 });
        Trial {
            planned: planned.clone(),
            started: String::new(),
            outcome: hopbench_analysis::record::Outcome::Ok,
            timing: Default::default(),
            load: None,
            processes: Vec::new(),
            cpu_us: BTreeMap::new(),
            run_queue_wait_us: BTreeMap::new(),
            counters: BTreeMap::new(),
            disturbance: Default::default(),
            warnings: warnings.into_iter().collect(),
            prepared: Vec::new(),
            seconds: Vec::new(),
        }
    }

    #[test]
    fn a_disturbed_block_is_planned_again_with_its_reference_and_control() {
        let selection = selection();
        let mut planner = Planner::new(&selection, 7, false, None);
        let planned = planner.plan().trials;
        let is_it = |it: &PlannedTrial| {
            (it.block, it.cell.concurrency, it.cell.path.as_str()) == (2, 8, "ring")
        };
        let mut trials: Vec<Trial> = planned.iter().map(|it| trial(it, is_it(it))).collect();
        let added = more(&mut planner, 50, &trials);
        assert_eq!(added.reasons.len(), 1);
        let numbers: Vec<u32> = added.trials.iter().map(|it| it.trial).collect();
        // The plan has 18 trials: 3 in each of 6 blocks of a load.
        assert_eq!(numbers, [19, 20, 21]);
        assert!(
            added
                .trials
                .iter()
                .all(|it| (it.block, it.cell.concurrency) == (2, 8))
        );
        assert!(added.trials.iter().all(|it| it.attempt == 1));
        let mut roles: Vec<(&str, u8)> = added
            .trials
            .iter()
            .map(|it| (it.cell.path.as_str(), it.replicate))
            .collect();
        roles.sort_unstable();
        assert_eq!(roles, [("direct", 0), ("direct", 1), ("ring", 0)]);
        trials.extend(added.trials.iter().map(|it| trial(it, false)));
        assert!(more(&mut planner, 50, &trials).trials.is_empty());
    }

    #[test]
    fn a_machine_that_is_never_quiet_ends_the_repetitions() {
        let selection = selection();
        let mut planner = Planner::new(&selection, 7, false, None);
        let planned = planner.plan().trials;
        let mut trials: Vec<Trial> = planned.iter().map(|it| trial(it, true)).collect();
        assert!(more(&mut planner, 0, &trials).trials.is_empty());
        let mut rounds = 0;
        loop {
            let added = more(&mut planner, 50, &trials).trials;
            if added.is_empty() {
                break;
            }
            rounds += 1;
            trials.extend(added.iter().map(|it| trial(it, true)));
        }
        // Half of 18 trials.
        assert_eq!((rounds, trials.len() - planned.len()), (1, 9));
        // With more room, none is repeated a second time before all have been once.
        let added = more(&mut planner, 100, &trials).trials;
        assert_eq!(added.len(), 9);
        assert!(added.iter().all(|it| it.attempt == 1), "{added:?}");
    }
}
