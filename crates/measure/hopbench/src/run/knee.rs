//! The knee of a path: the largest rate that it holds.
//!
//! Beyond the knee a queue grows for as long as the load lasts, and a latency only shows how long
//! that was. [`Search`] decides which rate to try next, without a clock; [`calibrate`] asks it.

use std::time::Duration;

use hopbench_analysis::record::{Cell, Knee, Outcome, PlannedTrial, Source, Trial, Warning};

use crate::{
    catalog::RATE_RPS_MAX,
    plan::{
        planner::TRIAL_OVERHEAD_MS,
        selection::{SelectedScenario, Selection},
    },
    process::Interrupted,
    run::trial::Executor,
};

/// Searches for the largest rate that is held: by steps until one rate is held and one is not, then
/// by halves.
#[derive(Debug)]
struct Search {
    rate_rps: u32,
    /// Largest rate that was held.
    held_rps: Option<u32>,
    /// Smallest rate that was not held.
    missed_rps: Option<u32>,
    votes: Votes,
}

/// Verdicts of the probes at one rate.
#[derive(Debug, Default)]
struct Votes {
    held: u32,
    missed: u32,
    /// Probes that said nothing about the path.
    silent: u32,
}

/// Verdict of a probe on the path at its rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Held,
    Missed,
    /// The load generator did not send everything, something other than the path failed, or other
    /// programs used the machine, so nothing is known about the path.
    Silent,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "not held",
            Self::Silent => "says nothing",
        }
    }
}

/// Number of equal verdicts that decide about a rate. One disturbed probe decides nothing.
const VOTES: u32 = 2;

/// Number of silent probes at which a rate is given up: the load generator can't reach it, or the
/// machine isn't quiet.
const SILENT_MAX: u32 = 3;

/// Factor between the rates that are tried until the knee lies between two.
const STEP: f64 = 1.4;

/// Factor between the rates around the knee at which the search ends. A knee is not reproducible to
/// less than that.
const RESOLUTION: f64 = 1.1;

/// First rate, as a share of what a closed loop achieves. A closed loop waits for its answers, so
/// it sends about as much as is held. A schedule that doesn't wait holds less.
const FIRST_SHARE: f64 = 0.7;

/// Share of requests that may wait for a connection as the load ends, which is not yet a queue that
/// grows. With more, the p99 would be that of the others.
const DROPPED_SHARE_MAX: f64 = 0.01;

/// Minimum and maximum duration of a probe's load, in milliseconds: a queue needs time to grow.
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

    /// Returns the rate of the next probe; `None` if the knee is found.
    fn next(&self) -> Option<u32> {
        match (self.held_rps, self.missed_rps) {
            (Some(held), Some(missed)) if near(held, missed) => None,
            (Some(RATE_RPS_MAX), None) | (None, Some(1)) => None,
            _ => Some(self.rate_rps),
        }
    }

    /// Adds the verdict of a probe. Returns true if the rate is given up because its probes are
    /// silent.
    fn add(&mut self, verdict: Verdict) -> bool {
        let (votes, enough) = match verdict {
            Verdict::Held => (&mut self.votes.held, VOTES),
            Verdict::Missed => (&mut self.votes.missed, VOTES),
            Verdict::Silent => (&mut self.votes.silent, SILENT_MAX),
        };
        *votes += 1;
        if *votes < enough {
            return false;
        }
        self.votes = Votes::default();
        match verdict {
            Verdict::Held => self.held_rps = Some(self.rate_rps),
            Verdict::Missed | Verdict::Silent => self.missed_rps = Some(self.rate_rps),
        }
        let rate = f64::from(self.rate_rps);
        self.rate_rps = whole(match (self.held_rps, self.missed_rps) {
            (Some(held), Some(missed)) => (f64::from(held) * f64::from(missed)).sqrt(),
            (_, None) => rate * STEP,
            (None, _) => rate / STEP,
        });
        verdict == Verdict::Silent
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

/// Finds the knee of every path, for each endpoint and concurrency of every scenario, or only of
/// those whose rates depend on it if `only_needed`. `keep` gets the record of each probe, and what
/// it says about the rate. The knees of the slowest paths go into the selection.
pub(crate) fn calibrate(
    selection: &mut Selection,
    only_needed: bool,
    executor: &mut impl Executor,
    mut keep: impl FnMut(&Trial, Option<&str>) -> anyhow::Result<()>,
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

/// Trials that search for a knee. They belong to no block.
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
        keep: &mut impl FnMut(&Trial, Option<&str>) -> anyhow::Result<()>,
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
            staged: false,
            placement: Default::default(),
        };
        let duration_ms = probe_ms(definition.duration_ms);
        let before = self.trials;
        let mut probe = |rate_rps| -> anyhow::Result<Trial> {
            self.trials += 1;
            let trial = self.executor.execute(
                &PlannedTrial {
                    trial: self.trials,
                    block: 0,
                    cell: cell(rate_rps),
                    replicate: 0,
                    duration_ms,
                    warm_up_ms: definition.warm_up_ms,
                    requests: None,
                    stages: Vec::new(),
                    think_time_ms: 0,
                    attempt: 0,
                },
                &mut |_| {},
            );
            Ok(trial.map_err(|Interrupted| Interrupted)?)
        };
        let closed_loop = probe(None)?;
        keep(&closed_loop, None)?;
        let capacity_rps = closed_loop.rps();
        let mut search = capacity_rps.map(|rps| Search::new(whole(FIRST_SHARE * rps)));
        let mut generator_bound = false;
        if let Some(search) = &mut search {
            while let Some(rate_rps) = search.next() {
                let trial = probe(Some(rate_rps))?;
                let (verdict, why) = judge(&trial, p99_ms_max);
                keep(&trial, Some(&format!("{}: {why}", verdict.word())))?;
                generator_bound |= verdict == Verdict::Missed && is_generator_bound(&trial);
                generator_bound |= search.add(verdict);
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

/// Judges whether a probe's requests were answered correctly, and mostly in time. Returns the
/// verdict, and why.
fn judge(trial: &Trial, p99_ms_max: f64) -> (Verdict, String) {
    let (verdict, why) = judge_undisturbed(trial, p99_ms_max);
    // What holds a rate beside other load holds it without, but not the other way round.
    match trial
        .warnings
        .iter()
        .find(|warning| warning.taken_share().is_some())
    {
        Some(disturbance) if verdict == Verdict::Missed => {
            (Verdict::Silent, format!("{why}, but {disturbance}"))
        }
        _ => (verdict, why),
    }
}

fn judge_undisturbed(trial: &Trial, p99_ms_max: f64) -> (Verdict, String) {
    let Some(load) = trial.measured() else {
        return match &trial.outcome {
            Outcome::Failed(failure) if failure.source != Source::Subject => {
                (Verdict::Silent, failure.cause.clone())
            }
            Outcome::Failed(failure) => (Verdict::Missed, failure.kind.to_string()),
            Outcome::Ok => (Verdict::Missed, "no load".to_owned()),
        };
    };
    let (dropped, due) = (load.dropped_by_path(), load.due());
    let dropped_late = load.open_loop.as_ref().map_or(0, |open| open.dropped_late);
    let dropped_share = dropped as f64 / due.max(1) as f64;
    // The last requests are dropped, so they are as long as the queue was at the end.
    let queue_ms = trial.planned.duration_ms as f64 * dropped_share;
    let p99_us = load.latency.p99_us.unwrap_or(f64::INFINITY);
    if load.failed() > 0 {
        let failed = load.failed();
        (Verdict::Missed, format!("{failed} of {due} failed"))
    } else if dropped_share > DROPPED_SHARE_MAX || queue_ms > p99_ms_max {
        let why = format!("{dropped} of {due} dropped, a queue of {queue_ms:.1} ms");
        (Verdict::Missed, why)
    } else if dropped_late > 0 {
        let why = format!("the load generator was late for {dropped_late} of {due}");
        (Verdict::Silent, why)
    } else if p99_us <= p99_ms_max * 1e3 {
        let why = match dropped {
            0 => "nothing dropped".to_owned(),
            _ => format!("{dropped} of {due} dropped as the load ended"),
        };
        (Verdict::Held, why)
    } else {
        (Verdict::Missed, format!("p99 above {p99_ms_max} ms"))
    }
}

fn is_generator_bound(trial: &Trial) -> bool {
    let mut warnings = trial.warnings.iter();
    warnings.any(|warning| matches!(warning, Warning::GeneratorBound { .. }))
}

/// Estimates how long [`calibrate`] takes.
pub(crate) fn estimate(selection: &Selection, only_needed: bool) -> Duration {
    // A closed loop, and the usual number of rates, each probed twice.
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
    use hopbench_analysis::record::{Failure, FailureKind, Load, OpenLoop};
    use proptest::prelude::*;

    use super::*;

    /// Runs a search in which `holds` judges each probe. Returns the knee and the number of probes.
    fn search(first: u32, holds: impl Fn(u32, u32) -> bool) -> (Option<u32>, u32) {
        let (mut search, mut probes) = (Search::new(first), 0);
        while let Some(rate) = search.next() {
            search.add(match holds(rate, probes) {
                true => Verdict::Held,
                false => Verdict::Missed,
            });
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
    fn probes_that_say_nothing_are_repeated_and_then_end_the_rate() {
        let mut search = Search::new(1_000);
        let verdicts = [Verdict::Held, Verdict::Silent, Verdict::Silent];
        assert!(!verdicts.into_iter().any(|verdict| search.add(verdict)));
        assert_eq!(search.next(), Some(1_000), "nothing is decided");
        assert!(!search.add(Verdict::Held));
        assert_eq!(search.next(), Some(1_400));
        let silent = [Verdict::Silent; 3].map(|verdict| search.add(verdict));
        assert_eq!(silent, [false, false, true]);
        assert_eq!(
            (search.knee(), search.missed_rps),
            (Some(1_000), Some(1_400))
        );
    }

    #[test]
    fn a_probe_says_what_the_path_did() {
        let probe = |change: &dyn Fn(&mut Load)| {
            let planned = serde_json::json!({
                "trial": 1, "block": 0, "twin": 0, "duration_ms": 1000, "warm_up_ms": 0,
                "scenario": "x", "endpoint": "/", "path": "x", "concurrency": 8,
                "keep_alive": true, "rate_rps": 100,
            });
            let mut load = Load {
                elapsed_us: 1e6,
                requests: 100,
                good: 100,
                open_loop: Some(OpenLoop {
                    scheduled: 100,
                    ..OpenLoop::default()
                }),
                ..Load::default()
            };
            load.latency.p99_us = Some(5e3);
            change(&mut load);
            let mut trial =
                crate::run::trial::empty_record(serde_json::from_value(planned).expect("one"));
            trial.load = Some(load);
            trial
        };
        let verdict = |change: &dyn Fn(&mut Load)| judge(&probe(change), 10.0).0;
        assert_eq!(verdict(&|_| {}), Verdict::Held);
        assert_eq!(
            verdict(&|load| load.latency.p99_us = Some(11e3)),
            Verdict::Missed
        );
        assert_eq!(verdict(&|load| load.good = 99), Verdict::Missed);
        let dropped = |load: &mut Load, dropped, late| {
            load.open_loop = Some(OpenLoop {
                scheduled: 100_000,
                dropped,
                dropped_late: late,
                ..OpenLoop::default()
            });
            load.requests = 100_000 - dropped;
            load.good = load.requests;
        };
        // They were due in the last 0.15 ms, then in the last 10.1 ms.
        assert_eq!(verdict(&|load| dropped(load, 15, 0)), Verdict::Held);
        assert_eq!(verdict(&|load| dropped(load, 1_010, 0)), Verdict::Missed);
        assert_eq!(verdict(&|load| dropped(load, 15, 15)), Verdict::Silent);
        // Within a longer limit, but more than a hundredth.
        let long = |dropped_late| {
            let trial = probe(&|load| dropped(load, 1_010, dropped_late));
            judge(&trial, 100.0)
        };
        let missed = (
            Verdict::Missed,
            "1010 of 100000 dropped, a queue of 10.1 ms".to_owned(),
        );
        assert_eq!(long(0), missed);
        let failed = |source| {
            let mut trial = probe(&|_| {});
            let kind = FailureKind::Unable;
            trial.outcome = Outcome::Failed(Failure {
                source,
                kind,
                cause: String::new(),
                log: Vec::new(),
            });
            judge(&trial, 10.0).0
        };
        assert_eq!(failed(Source::Subject), Verdict::Missed);
        assert_eq!(failed(Source::LoadGenerator), Verdict::Silent);
    }

    #[test]
    fn a_probe_beside_other_load_says_nothing_unless_it_held() {
        let planned = serde_json::json!({
            "trial": 1, "block": 0, "twin": 0, "duration_ms": 1000, "warm_up_ms": 0,
            "scenario": "x", "endpoint": "/", "path": "x", "concurrency": 8,
            "keep_alive": true, "rate_rps": 100,
        });
        let verdict = |p99_us, warning: Option<Warning>| {
            let planned = serde_json::from_value(planned.clone()).expect("one");
            let mut trial = crate::run::trial::empty_record(planned);
            let mut load = Load {
                elapsed_us: 1e6,
                requests: 100,
                good: 100,
                ..Load::default()
            };
            load.latency.p99_us = Some(p99_us);
            trial.load = Some(load);
            trial.warnings = warning.into_iter().collect();
            judge(&trial, 10.0)
        };
        let other = Some(Warning::OtherLoad { share: 0.3 });
        assert_eq!(verdict(11e3, None).0, Verdict::Missed);
        let (silent, why) = verdict(11e3, other.clone());
        assert_eq!(silent, Verdict::Silent);
        assert!(
            why.contains("30 %") && why.contains("p99 above 10 ms"),
            "{why}"
        );
        assert_eq!(verdict(9e3, other).0, Verdict::Held);
    }

    #[test]
    fn nothing_is_held_and_everything_is() {
        assert_eq!(search(500, |_, _| false).0, None);
        assert_eq!(search(500, |_, _| true).0, Some(RATE_RPS_MAX));
    }
}
