//! The knee of a path: the largest rate that it holds.
//!
//! Beyond it a queue grows for as long as the load lasts, and a latency says how long that was.
//! [`Search`] decides what rate to try next and knows no clock; [`calibrate`] asks it.

use std::time::Duration;

use hopbench_analysis::record::{Cell, Knee, PlannedTrial, Trial, Warning};

use crate::{
    catalog::RATE_RPS_MAX,
    plan::TRIAL_OVERHEAD_MS,
    process::Interrupted,
    selection::{SelectedScenario, Selection},
    trial::Executor,
};

/// Looks for the largest rate that is held: by steps until one is held and one is not, then by
/// halves.
#[derive(Debug)]
struct Search {
    rate_rps: u32,
    /// Largest rate that was held.
    held_rps: Option<u32>,
    /// Smallest rate that was not.
    missed_rps: Option<u32>,
    votes: Votes,
}

/// What the probes of one rate said.
#[derive(Debug, Default)]
struct Votes {
    held: u32,
    missed: u32,
}

/// A rate is held or not if two probes say so, of three at most: one that something else disturbed
/// decides nothing.
const VOTES: u32 = 2;

/// Factor between the rates that are tried until the knee lies between two.
const STEP: f64 = 1.4;

/// How near the rates around the knee must come: a knee is not the same twice to less.
const RESOLUTION: f64 = 1.1;

/// The first rate, as a share of what a closed loop gets through. With its answers always waited
/// for, that loop asks no more than is held, about; a schedule that doesn't wait holds less.
const FIRST_SHARE: f64 = 0.7;

/// Least and most time that a probe loads a path: a queue must have time to grow.
const PROBE_MS: std::ops::RangeInclusive<u64> = 250..=2_000;

impl Search {
    fn new(rate_rps: u32) -> Self {
        Self {
            rate_rps: rate_rps.clamp(1, RATE_RPS_MAX),
            held_rps: None,
            missed_rps: None,
            votes: Votes::default(),
        }
    }

    /// The rate of the next probe; `None` if the knee is found.
    fn next(&self) -> Option<u32> {
        match (self.held_rps, self.missed_rps) {
            (Some(held), Some(missed)) if near(held, missed) => None,
            (Some(RATE_RPS_MAX), None) | (None, Some(1)) => None,
            _ => Some(self.rate_rps),
        }
    }

    /// What a probe of that rate said.
    fn add(&mut self, is_held: bool) {
        let votes = match is_held {
            true => &mut self.votes.held,
            false => &mut self.votes.missed,
        };
        *votes += 1;
        if *votes < VOTES {
            return;
        }
        self.votes = Votes::default();
        match is_held {
            true => self.held_rps = Some(self.rate_rps),
            false => self.missed_rps = Some(self.rate_rps),
        }
        let rate = f64::from(self.rate_rps);
        self.rate_rps = whole(match (self.held_rps, self.missed_rps) {
            (Some(held), Some(missed)) => (f64::from(held) * f64::from(missed)).sqrt(),
            (_, None) => rate * STEP,
            (None, _) => rate / STEP,
        });
    }

    fn knee(&self) -> Option<u32> {
        self.held_rps
    }
}

fn near(held: u32, missed: u32) -> bool {
    f64::from(missed) <= f64::from(held) * RESOLUTION || missed <= held + 1
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the rates there are"
)]
fn whole(rate_rps: f64) -> u32 {
    rate_rps.round().clamp(1.0, f64::from(RATE_RPS_MAX)) as u32
}

/// Finds the knee of every path of every scenario (whose rates depend on it, if `only_needed`), for
/// each endpoint and concurrency; `keep` is given each probe's record. The knees of the slowest
/// paths go into the selection.
pub(crate) fn calibrate(
    selection: &mut Selection,
    only_needed: bool,
    executor: &mut impl Executor,
    mut keep: impl FnMut(&Trial) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Knee>> {
    let mut knees: Vec<Knee> = Vec::new();
    let mut probes = Probes {
        executor,
        trials: 0,
    };
    for scenario in &mut selection.scenarios {
        if only_needed && !scenario.definition.rates.depend_on_knee() {
            continue;
        }
        for (target, concurrency) in scenario.loads() {
            let found = scenario
                .paths
                .iter()
                .map(|path| probes.knee(scenario, &target, concurrency, path, &mut keep))
                .collect::<anyhow::Result<Vec<Knee>>>()?;
            let slowest = found.iter().filter_map(|knee| knee.rate_rps).min();
            if let Some(slowest) = slowest {
                scenario.knees.insert((target, concurrency), slowest);
            }
            knees.extend(found);
        }
    }
    Ok(knees)
}

/// Trials that look for a knee. They belong to no block.
struct Probes<'a, E> {
    executor: &'a mut E,
    trials: u32,
}

impl<E: Executor> Probes<'_, E> {
    fn knee(
        &mut self,
        scenario: &SelectedScenario,
        target: &str,
        concurrency: u32,
        path: &str,
        keep: &mut impl FnMut(&Trial) -> anyhow::Result<()>,
    ) -> anyhow::Result<Knee> {
        let definition = &scenario.definition;
        let p99_ms_max = definition.rates.p99_ms_max();
        let cell = |rate_rps| Cell {
            scenario: definition.name.clone(),
            endpoint: target.to_owned(),
            path: path.to_owned(),
            concurrency,
            keep_alive: definition.keep_alive,
            rate_rps,
            build: None,
        };
        let duration_ms = probe_ms(definition.duration_ms);
        let before = self.trials;
        let mut probe = |rate_rps| -> anyhow::Result<Trial> {
            self.trials += 1;
            let trial = self.executor.execute(&PlannedTrial {
                trial: self.trials,
                block: 0,
                cell: cell(rate_rps),
                twin: 0,
                duration_ms,
                warm_up_ms: definition.warm_up_ms,
            });
            let trial = trial.map_err(|Interrupted| Interrupted)?;
            keep(&trial)?;
            Ok(trial)
        };
        let capacity_rps = probe(None)?.rps();
        let mut search = capacity_rps.map(|rps| Search::new(whole(FIRST_SHARE * rps)));
        let mut generator_bound = false;
        if let Some(search) = &mut search {
            while let Some(rate_rps) = search.next() {
                let trial = probe(Some(rate_rps))?;
                let is_held = holds(&trial, p99_ms_max);
                generator_bound |= !is_held && is_generator_bound(&trial);
                search.add(is_held);
            }
        }
        Ok(Knee {
            scenario: definition.name.clone(),
            endpoint: target.to_owned(),
            path: path.to_owned(),
            concurrency,
            p99_ms_max,
            rate_rps: search.and_then(|search| search.knee()),
            closed_loop_rps: capacity_rps,
            generator_bound,
            probes: self.trials - before,
        })
    }
}

/// Whether everything was asked, answered rightly, and mostly in time.
fn holds(trial: &Trial, p99_ms_max: f64) -> bool {
    let Some(load) = trial.measured() else {
        return false;
    };
    let dropped = load.open_loop.as_ref().map_or(0, |open| open.dropped);
    let p99_us = load.latency.p99_us.unwrap_or(f64::INFINITY);
    dropped == 0 && load.failed() == 0 && p99_us <= p99_ms_max * 1e3
}

fn is_generator_bound(trial: &Trial) -> bool {
    let mut warnings = trial.warnings.iter();
    warnings.any(|warning| matches!(warning, Warning::GeneratorBound { .. }))
}

/// About how long [`calibrate`] takes.
pub(crate) fn estimate(selection: &Selection, only_needed: bool) -> Duration {
    // A closed loop, and as many rates as it mostly takes, each asked twice.
    const PROBES: u64 = 12;
    let scenarios = selection.scenarios.iter();
    let of = scenarios.filter(|one| !only_needed || one.definition.rates.depend_on_knee());
    let ms = of.map(|scenario| {
        let (definition, knees) = (&scenario.definition, scenario.loads().len());
        let probe_ms = probe_ms(definition.duration_ms) + definition.warm_up_ms + TRIAL_OVERHEAD_MS;
        (knees * scenario.paths.len()) as u64 * PROBES * probe_ms
    });
    Duration::from_millis(ms.sum())
}

fn probe_ms(duration_ms: u64) -> u64 {
    duration_ms.clamp(*PROBE_MS.start(), *PROBE_MS.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is found when a rate is held up to `knee`, and after how many probes.
    fn search(first: u32, holds: impl Fn(u32, u32) -> bool) -> (Option<u32>, u32) {
        let (mut search, mut probes) = (Search::new(first), 0);
        while let Some(rate) = search.next() {
            search.add(holds(rate, probes));
            probes += 1;
            assert!(probes < 1_000, "no end: {search:?}");
        }
        (search.knee(), probes)
    }

    proptest! {
        #[test]
        fn a_knee_is_found_from_anywhere(first in 1..RATE_RPS_MAX, knee in 1..RATE_RPS_MAX) {
            let (found, probes) = search(first, |rate, _| rate <= knee);
            let found = found.expect("some rate is held");
            prop_assert!(found <= knee);
            prop_assert!(f64::from(found) * RESOLUTION >= f64::from(knee) || found + 1 >= knee);
            prop_assert!(probes < 120);
        }

        #[test]
        fn chance_ends_it_too(first in 1..RATE_RPS_MAX, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let votes: Vec<bool> = (0..1_000).map(|_| rng.bool()).collect();
            search(first, |_, probe| votes[probe as usize]);
        }
    }

    #[test]
    fn one_disturbed_probe_decides_nothing() {
        let undisturbed = search(700, |rate, _| rate <= 1_000);
        let disturbed = search(700, |rate, probe| probe != 1 && rate <= 1_000);
        assert_eq!(undisturbed.0, disturbed.0);
        assert_eq!(undisturbed.1 + 1, disturbed.1);
    }

    #[test]
    fn nothing_is_held_and_everything_is() {
        assert_eq!(search(500, |_, _| false).0, None);
        assert_eq!(search(500, |_, _| true).0, Some(RATE_RPS_MAX));
    }
}
