//! Blocks that were measured again, because something outside had disturbed them.
//!
//! A *slot* is repeated as a whole: all paths, builds and replicates at one load in one block, so
//! that every ratio is still formed between trials that ran side by side. Of a slot's attempts, one
//! counts, and no metric decides which: the first one that is final. An attempt is final if nothing
//! disturbed it, or if a trial of it failed or got a wrong answer, since that is a result. If none
//! is final, the first attempt counts, with its warnings.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Cell, Outcome, Plan, PlannedTrial, Trial, Warning};

/// A block of one load.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    block: u32,
    /// The cell without its path and build.
    load: Cell,
}

/// A slot whose attempts have all been disturbed.
#[derive(Debug)]
pub struct Disturbed {
    /// Trials of the first attempt, as they were planned.
    pub planned: Vec<PlannedTrial>,
    /// Number of attempts so far.
    pub attempts: u32,
}

impl Slot {
    fn of(planned: &PlannedTrial) -> Self {
        let load = Cell {
            path: String::new(),
            ..planned.cell.without_build()
        };
        Self {
            block: planned.block,
            load,
        }
    }
}

/// Attempts of each slot, by their numbers.
type Attempts<'t> = BTreeMap<Slot, BTreeMap<u32, Vec<&'t Trial>>>;

fn attempts(trials: &[Trial]) -> Attempts<'_> {
    let mut slots = Attempts::new();
    for trial in trials {
        let of_slot = slots.entry(Slot::of(&trial.planned)).or_default();
        let attempt = of_slot.entry(trial.planned.attempt).or_default();
        attempt.push(trial);
    }
    slots
}

/// Returns the attempt that counts. A repetition counts only if all of its trials were run.
fn counting(attempts: &BTreeMap<u32, Vec<&Trial>>) -> Option<u32> {
    let first = attempts.values().next().map_or(0, Vec::len);
    let whole = attempts.iter().filter(|(_, trials)| trials.len() >= first);
    let mut last = whole.filter(|(_, trials)| is_final(trials));
    last.next().map(|(attempt, _)| *attempt)
}

fn is_final(trials: &[&Trial]) -> bool {
    trials.iter().any(|trial| is_faulty(trial)) || !trials.iter().any(|trial| is_passing(trial))
}

/// Returns whether a trial has a fault to report.
fn is_faulty(trial: &Trial) -> bool {
    let has_errors = trial.load.as_ref().is_some_and(|load| load.failed() > 0);
    has_errors || matches!(trial.outcome, Outcome::Failed(_))
}

/// Returns whether something outside disturbed a trial that may be over in another one.
fn is_passing(trial: &Trial) -> bool {
    trial.warnings.iter().any(Warning::is_passing)
}

/// Returns the trials that count: of each slot, those of one attempt.
pub fn counted(trials: Vec<Trial>) -> Vec<Trial> {
    if trials.iter().all(|trial| trial.planned.attempt == 0) {
        return trials;
    }
    let chosen = |(slot, attempts): (Slot, BTreeMap<u32, Vec<&Trial>>)| {
        let first = attempts.keys().next().copied().unwrap_or_default();
        (slot, counting(&attempts).unwrap_or(first))
    };
    let chosen: BTreeMap<Slot, u32> = attempts(&trials).into_iter().map(chosen).collect();
    let is_counted =
        |trial: &Trial| chosen.get(&Slot::of(&trial.planned)) == Some(&trial.planned.attempt);
    let mut trials = trials;
    trials.retain(is_counted);
    trials
}

/// Returns the planned trials that count, or would if they had been run, given those of them that
/// were.
pub fn counted_plan(plan: Plan, counted: &[Trial]) -> Vec<PlannedTrial> {
    let run = counted.iter().map(|trial| &trial.planned);
    let attempts: BTreeMap<Slot, u32> = run.map(|it| (Slot::of(it), it.attempt)).collect();
    let mut planned = plan.trials;
    planned.retain(|it| attempts.get(&Slot::of(it)).copied().unwrap_or(0) == it.attempt);
    planned
}

/// Returns the slots that may be measured again.
pub fn disturbed(trials: &[Trial]) -> Vec<Disturbed> {
    let slots = attempts(trials).into_values();
    let open = slots.filter(|attempts| counting(attempts).is_none());
    open.map(|attempts| {
        let first = attempts.values().next().into_iter().flatten();
        Disturbed {
            planned: first.map(|trial| trial.planned.clone()).collect(),
            attempts: attempts.keys().next_back().map_or(0, |last| last + 1),
        }
    })
    .collect()
}

/// Returns the number of slots, and of how many of them a repetition counts.
pub fn repeated(counted: &[Trial]) -> (usize, usize) {
    let slots = |trials: &mut dyn Iterator<Item = &Trial>| {
        let slots: BTreeSet<Slot> = trials.map(|it| Slot::of(&it.planned)).collect();
        slots.len()
    };
    let mut again = counted.iter().filter(|trial| trial.planned.attempt > 0);
    (slots(&mut counted.iter()), slots(&mut again))
}

#[cfg(test)]
mod tests {
    //! Goal: disturbed slots are found, and one attempt of each counts, whatever its figures.
    //! Method: scripted trials of two paths at two loads.

    use super::*;
    use crate::{
        record::{Failure, FailureKind, Source},
        report::tests,
    };

    fn attempt(block: u32, load: u32, attempt: u32, warnings: &[Warning]) -> Vec<Trial> {
        let mut trials = ["plain", "fast"].map(|path| {
            let mut trial = tests::trial(path, load, block, 0, 1_000, 100);
            trial.planned.attempt = attempt;
            trial
        });
        trials[1].warnings = warnings.to_vec();
        trials.into()
    }

    const STEAL: Warning = Warning::Steal { share: 0.2 };

    fn attempts_of(trials: &[Trial]) -> Vec<(u32, u32, u32)> {
        let key = |trial: &Trial| {
            let planned = &trial.planned;
            (planned.block, planned.cell.concurrency, planned.attempt)
        };
        let mut keys: Vec<_> = trials.iter().map(key).collect();
        // Both paths have the same attempt.
        keys.dedup();
        keys
    }

    #[test]
    fn the_first_calm_attempt_counts() {
        let mut trials = attempt(1, 8, 0, &[STEAL]);
        trials.extend(attempt(1, 64, 0, &[]));
        let open = disturbed(&trials);
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].attempts, open[0].planned.len()), (1, 2));
        assert!(open[0].planned.iter().all(|it| it.cell.concurrency == 8));

        trials.extend(attempt(1, 8, 1, &[STEAL]));
        // No attempt was calm: the first one counts.
        assert_eq!(
            attempts_of(&counted(trials.clone())),
            [(1, 8, 0), (1, 64, 0)]
        );
        assert_eq!(disturbed(&trials)[0].attempts, 2);

        trials.extend(attempt(1, 8, 2, &[]));
        trials.extend(attempt(1, 8, 3, &[]));
        let counted = counted(trials.clone());
        assert_eq!(attempts_of(&counted), [(1, 64, 0), (1, 8, 2)]);
        assert!(disturbed(&trials).is_empty());
        assert_eq!(repeated(&counted), (2, 1));
        let plan = Plan {
            estimate_ms: 0,
            trials: trials.iter().map(|trial| trial.planned.clone()).collect(),
        };
        let planned = counted_plan(plan, &counted);
        assert!(
            planned
                .iter()
                .eq(counted.iter().map(|trial| &trial.planned))
        );
    }

    #[test]
    fn a_repetition_that_was_cut_off_does_not_count() {
        let mut trials = attempt(1, 8, 0, &[STEAL]);
        trials.extend(attempt(1, 8, 1, &[]).into_iter().take(1));
        assert_eq!(attempts_of(&counted(trials)), [(1, 8, 0)]);
    }

    #[test]
    fn what_went_wrong_is_a_result_and_is_not_repeated() {
        let mut failed = attempt(1, 8, 0, &[STEAL]);
        failed[0].outcome = Outcome::Failed(Failure {
            source: Source::Subject,
            kind: FailureKind::Crash,
            cause: String::new(),
            log: Vec::new(),
        });
        assert!(disturbed(&failed).is_empty());
        let mut wrong = attempt(1, 8, 0, &[STEAL]);
        wrong[0].load.as_mut().expect("loaded").requests += 1;
        assert!(disturbed(&wrong).is_empty());
        // A repetition that fails counts, so that the failure is reported.
        let mut trials = attempt(1, 8, 0, &[STEAL]);
        let mut again = wrong;
        again.iter_mut().for_each(|trial| trial.planned.attempt = 1);
        trials.extend(again);
        assert_eq!(attempts_of(&counted(trials)), [(1, 8, 1)]);
    }

    #[test]
    fn only_what_passes_is_repeated() {
        for (warning, is_repeated) in [
            (STEAL, true),
            (Warning::OtherLoad { share: 0.3 }, true),
            (Warning::SlowClock { share: 0.5 }, true),
            (Warning::Throttled { times: 1 }, true),
            // A hop that needs more CPU time is stopped more often.
            (Warning::QuotaStops { times: 3 }, false),
            (
                Warning::MeanAboveP99 {
                    mean_us: 2.0,
                    p99_us: 1.0,
                },
                false,
            ),
        ] {
            let trials = attempt(1, 8, 0, std::slice::from_ref(&warning));
            assert_eq!(!disturbed(&trials).is_empty(), is_repeated, "{warning:?}");
        }
    }
}
