//! Loads in stages, second by second: how long disturbances lasted, and what grows over time.

pub mod slope;

use crate::{
    record::{LoadSecond, Recovery, Trial},
    statistics::median,
    timeline::slope::Slope,
};

/// Share of failed requests, beyond the baseline's, up to which a second is good. It is what one
/// request in a hundred makes.
const ERROR_SHARE_MAX: f64 = 0.01;

/// A time in which a path did not do as well as in the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disruption {
    /// First bad second, from the start of the load.
    pub from_s: usize,
    /// Seconds from the first bad one to the first of enough good ones in a row, or to the first
    /// from which on all are good. `None` if the path did not recover.
    pub lasted_s: Option<usize>,
    /// Requests that failed, or were answered incorrectly, in that time.
    pub errors: u64,
}

/// Disruptions of one trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disruptions {
    /// In the order in which they came.
    pub all: Vec<Disruption>,
}

impl Disruptions {
    /// Finds the disruptions after the stage that is the baseline. `None` if the trial has no
    /// seconds, or if that stage has no answers.
    pub fn find(trial: &Trial, rule: &Recovery) -> Option<Self> {
        let load = trial.measured()?;
        let stages = &trial.planned.stages;
        let index = stages
            .iter()
            .position(|stage| stage.name == rule.baseline)?;
        let begin_ms: u64 = stages[..index].iter().map(|stage| stage.duration_ms).sum();
        let end_ms = begin_ms + stages[index].duration_ms;
        let whole = usize::try_from(trial.planned.duration_ms / 1_000).ok()?;
        // After the load's end, there are only answers to what was asked before.
        let seconds = &load.seconds[..whole.min(load.seconds.len())];
        let [begin, end] = [begin_ms.div_ceil(1_000), end_ms / 1_000];
        let [begin, end] = [begin, end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let baseline = seconds.get(begin..end.min(seconds.len()))?;
        let p95s: Vec<f64> = baseline.iter().filter_map(|second| second.p95_us).collect();
        let p95_us_max = median(&p95s)? * rule.p95_factor;
        let [good, errors] = [good, errors].map(|of| baseline.iter().map(of).sum::<u64>());
        let error_share_max = share(errors, good) + ERROR_SHARE_MAX;
        let is_good = |second: &LoadSecond| {
            let is_quick = second.p95_us.is_some_and(|p95_us| p95_us <= p95_us_max);
            second.good > 0
                && is_quick
                && share(self::errors(second), second.good) <= error_share_max
        };
        let are_good: Vec<bool> = seconds.iter().map(is_good).collect();
        let needed = usize::try_from(rule.seconds).unwrap_or(usize::MAX);
        Some(Self::of(seconds, &are_good, end, needed))
    }

    fn of(seconds: &[LoadSecond], are_good: &[bool], begin: usize, needed: usize) -> Self {
        let mut all = Vec::new();
        let mut at = begin;
        while let Some(from) = (at..are_good.len()).find(|second| !are_good[*second]) {
            // At the end, fewer seconds are all that there are.
            let is_good_from = |second: usize| {
                let next = &are_good[second..(second + needed).min(are_good.len())];
                next.iter().all(|is_good| *is_good)
            };
            let lasted = (from..are_good.len()).find(|second| is_good_from(*second));
            let lasted = lasted.map(|second| second - from);
            let until = lasted.map_or(are_good.len(), |lasted| from + lasted);
            all.push(Disruption {
                from_s: from,
                lasted_s: lasted,
                errors: seconds[from..until].iter().map(errors).sum(),
            });
            at = until;
        }
        Self { all }
    }

    /// Returns how long the longest disruption lasted, in seconds: 0 if there was none, and `None`
    /// if the path did not recover from one.
    pub fn longest_s(&self) -> Option<usize> {
        let lasted = self.all.iter().map(|disruption| disruption.lasted_s);
        let lasted: Option<Vec<usize>> = lasted.collect();
        Some(lasted?.into_iter().max().unwrap_or_default())
    }

    /// Returns the requests that failed in all of them.
    pub fn errors(&self) -> u64 {
        self.all.iter().map(|disruption| disruption.errors).sum()
    }
}

fn good(second: &LoadSecond) -> u64 {
    second.good
}

/// Returns the wrong answers and the failed requests of a second.
pub fn errors(second: &LoadSecond) -> u64 {
    second.errors.values().sum()
}

fn share(errors: u64, good: u64) -> f64 {
    errors as f64 / (errors + good).max(1) as f64
}

/// Growth over the seconds of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slopes {
    /// Resident memory of the path's processes, in KiB per second.
    pub rss_kib: Option<Slope>,
    /// Open descriptors of the path's processes, per second.
    pub descriptors: Option<Slope>,
    /// 99th percentile of each second, in microseconds per second.
    pub p99_us: Option<Slope>,
}

impl Slopes {
    /// Estimates the slopes of a trial. Those of too few seconds are `None`.
    pub fn of(trial: &Trial) -> Self {
        let usage = |value: fn(&crate::record::UsageSecond) -> Option<f64>| {
            let mut at_s = 0.0;
            let points = trial.seconds.iter().filter_map(|second| {
                at_s += second.elapsed_us / 1e6;
                Some((at_s, value(second)?))
            });
            Slope::of(&points.collect::<Vec<_>>())
        };
        let seconds = trial.measured().map_or(&[][..], |load| &load.seconds);
        let p99 = seconds.iter().enumerate();
        let p99 = p99.filter_map(|(at, second)| Some((at as f64, second.p99_us?)));
        Self {
            rss_kib: usage(|second| Some(second.rss_kib as f64)),
            descriptors: usage(|second| second.descriptors.map(|it| it as f64)),
            p99_us: Slope::of(&p99.collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes seconds of a string: '.' is good, 'x' is bad with an error.
    fn disruptions(seconds: &str, begin: usize, needed: usize) -> Vec<(usize, Option<usize>, u64)> {
        let are_good: Vec<bool> = seconds.chars().map(|second| second == '.').collect();
        let seconds: Vec<LoadSecond> = are_good
            .iter()
            .map(|is_good| LoadSecond {
                errors: [("timeout".to_owned(), u64::from(!is_good))].into(),
                ..LoadSecond::default()
            })
            .collect();
        let found = Disruptions::of(&seconds, &are_good, begin, needed).all;
        found
            .iter()
            .map(|it| (it.from_s, it.lasted_s, it.errors))
            .collect()
    }

    #[test]
    fn a_disruption_ends_at_the_first_of_enough_good_seconds() {
        assert_eq!(disruptions("x.....", 1, 3), []);
        assert_eq!(disruptions("..xxx...", 2, 3), [(2, Some(3), 3)]);
        // A good second between two bad ones is not a recovery.
        assert_eq!(disruptions("..x.x.x...", 2, 3), [(2, Some(5), 3)]);
        assert_eq!(
            disruptions("..x...x..", 2, 3),
            [(2, Some(1), 1), (6, Some(1), 1)]
        );
        assert_eq!(disruptions("..xx", 2, 1), [(2, None, 2)]);
    }

    #[test]
    fn what_did_not_recover_has_no_length() {
        let of = |lasted: &[Option<usize>]| {
            let all = lasted.iter().map(|lasted_s| Disruption {
                from_s: 0,
                lasted_s: *lasted_s,
                errors: 1,
            });
            Disruptions { all: all.collect() }
        };
        assert_eq!(of(&[]).longest_s(), Some(0));
        assert_eq!(of(&[Some(2), Some(5)]).longest_s(), Some(5));
        assert_eq!(of(&[Some(2), None]).longest_s(), None);
        assert_eq!(of(&[Some(2), None]).errors(), 2);
    }
}
