//! The usage of a path's processes in each second of a load.

use std::time::Instant;

use hopbench_analysis::record::UsageSecond;

use super::{Stage, TrialError};
use crate::observe::usage::Snapshot;

/// Reads the usage once per second.
#[derive(Debug)]
pub(super) struct Seconds {
    pub(super) of: Vec<UsageSecond>,
    before: Vec<Snapshot>,
    at: Instant,
}

impl Seconds {
    pub(super) fn begin(stage: &mut Stage) -> Result<Self, TrialError> {
        Ok(Self {
            of: Vec::new(),
            before: stage.usage()?,
            at: Instant::now(),
        })
    }

    /// Adds the second that has passed. A process that can't be read has ended, which is noticed
    /// elsewhere.
    pub(super) fn next(&mut self, stage: &mut Stage) {
        let Ok(after) = stage.usage() else {
            return;
        };
        let now = Instant::now();
        let mut second = stage.usage_second(&self.before, &after);
        second.elapsed_us = (now - self.at).as_secs_f64() * 1e6;
        self.of.push(second);
        (self.before, self.at) = (after, now);
    }
}
