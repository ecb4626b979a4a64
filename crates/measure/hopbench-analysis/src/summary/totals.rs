//! Sums over the trials of a cell.

use std::collections::BTreeMap;

use crate::record::{Load, Per, Trial};

/// Sums over those trials of a cell that have metrics.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Duration of the loads, in microseconds.
    pub elapsed_us: f64,
    /// Requests that were sent.
    pub requests: u64,
    /// Correct answers.
    pub good: u64,
    /// Requests that were due at a fixed rate.
    pub scheduled: u64,
    /// Due requests that were never sent, because the path kept every connection waiting.
    pub dropped_by_path: u64,
    /// Due requests that were never sent, because the load generator was late.
    pub dropped_late: u64,
    /// Bytes of all bodies that the client received.
    pub body_bytes: u64,
    /// Number of trials.
    pub trials: u64,
    /// Requests that were sent and got no correct answer, by what was wrong.
    pub errors: BTreeMap<String, u64>,
    /// Each counter, summed over the path's processes.
    pub counters: BTreeMap<String, u64>,
}

impl Totals {
    /// Counts the requests that got no correct answer, or that the path dropped.
    pub fn lost(&self) -> u64 {
        self.requests - self.good + self.dropped_by_path
    }

    /// Counts the requests that were sent or due.
    pub fn due(&self) -> u64 {
        self.requests + self.dropped_by_path + self.dropped_late
    }

    /// Returns [`Self::lost`] as a share of [`Self::due`]; 0 if no request was due.
    pub fn lost_share(&self) -> f64 {
        self.lost() as f64 / self.due().max(1) as f64
    }

    /// Returns a counter in the given terms; `None` if the path doesn't have it, or if there is
    /// nothing to divide by.
    pub fn counter(&self, name: &str, per: Per) -> Option<f64> {
        let value = *self.counters.get(name)?;
        let by = match per {
            Per::Request => self.good,
            Per::BodyByte => self.body_bytes,
            Per::Trial => self.trials,
        };
        (by > 0).then(|| value as f64 / by as f64)
    }

    pub(super) fn of<'t>(loads: impl Iterator<Item = (&'t Trial, &'t Load)>) -> Self {
        let mut totals = Self::default();
        for (trial, load) in loads {
            totals.elapsed_us += load.elapsed_us;
            totals.requests += load.requests;
            totals.good += load.good;
            if let Some(open) = &load.open_loop {
                totals.scheduled += open.scheduled;
                totals.dropped_by_path += load.dropped_by_path();
                totals.dropped_late += open.dropped.min(open.dropped_late);
            }
            totals.body_bytes += load.body_bytes;
            totals.trials += 1;
            for (what, count) in load.wrong.iter().chain(&load.errors) {
                *totals.errors.entry(what.clone()).or_default() += count;
            }
            for (name, value) in trial.counters.values().flatten() {
                let sum = totals.counters.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
        totals
    }
}
