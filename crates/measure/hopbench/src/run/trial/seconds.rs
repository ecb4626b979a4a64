//! The usage of a path's processes in each second of a load.

use std::time::Instant;

use hopbench_analysis::record::{self, UsageSecond};

use super::{Stage, TrialError};
use crate::observe::usage::Snapshot;

/// Reads the usage once per second.
#[derive(Debug)]
pub(super) struct Seconds {
    pub(super) of: Vec<UsageSecond>,
    before: Vec<Snapshot>,
    at: Instant,
    begun: Instant,
    /// Index of the stage of the load.
    stage: usize,
}

/// Returns the index of the stage at this time; after the end, the last one.
fn stage_at(stages: &[record::Stage], at_ms: u128) -> usize {
    let mut end_ms = 0;
    let passed = stages.iter().take_while(|stage| {
        end_ms += u128::from(stage.duration_ms);
        end_ms <= at_ms
    });
    passed.count().min(stages.len().saturating_sub(1))
}

impl Seconds {
    pub(super) fn begin(stage: &mut Stage) -> Result<Self, TrialError> {
        Ok(Self {
            of: Vec::new(),
            before: stage.usage()?,
            at: Instant::now(),
            begun: Instant::now(),
            stage: 0,
        })
    }

    /// Adds the second that has passed. A process that can't be read has ended, which is noticed
    /// elsewhere. Calls `on_stage` if another stage of the load has begun.
    pub(super) fn next(
        &mut self,
        stage: &mut Stage,
        stages: &[record::Stage],
        on_stage: &mut dyn FnMut(usize),
    ) {
        let now = Instant::now();
        let index = stage_at(stages, (now - self.begun).as_millis());
        if index != self.stage {
            self.stage = index;
            on_stage(index);
        }
        let Ok(after) = stage.usage() else {
            return;
        };
        let mut second = stage.usage_second(&self.before, &after);
        second.elapsed_us = (now - self.at).as_secs_f64() * 1e6;
        self.of.push(second);
        (self.before, self.at) = (after, now);
    }
}
