//! A load as data: the file that `--plan` names.

use std::{fs, path::Path, path::PathBuf};

use anyhow::Context;
use serde::Deserialize;

/// The requests and the stages of a load.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadPlan {
    pub(crate) requests: Vec<PlannedRequest>,
    /// Changes of the load over time. Empty for a load that stays the same.
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
    /// Time that a connection of a closed loop waits between an answer and its next request, in
    /// milliseconds.
    #[serde(default)]
    pub(crate) think_time_ms: u64,
}

/// One kind of request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedRequest {
    pub(crate) name: String,
    pub(crate) method: String,
    /// Targets that are asked for in turn.
    pub(crate) targets: Vec<String>,
    /// Names and values of fields. Those that the generator sends by itself are replaced.
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<PathBuf>,
    pub(crate) weight: u32,
    /// The correct answer: one for all targets, or one for each.
    pub(crate) expect: Vec<Expectation>,
}

/// A correct answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectation {
    pub(crate) status: u16,
    pub(crate) length: Option<u64>,
    pub(crate) sha256: Option<String>,
    /// Fields that must be there, and their values if these matter.
    #[serde(default)]
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// A part of the load's duration, over which the load changes evenly.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    pub(crate) duration_ms: u64,
    /// Level at the beginning: requests per second, or connections of a closed loop.
    pub(crate) from: f64,
    /// Level at the end.
    pub(crate) to: f64,
}

/// Largest number of requests in a cycle, over which weights are exact.
const WEIGHTS_MAX: u32 = 1_000;

impl LoadPlan {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("could not read '{name}'"))?;
        let plan: Self = serde_json::from_str(&text).with_context(|| format!("'{name}'"))?;
        plan.check().with_context(|| format!("'{name}'"))?;
        Ok(plan)
    }

    fn check(&self) -> anyhow::Result<()> {
        let weights = self.requests.iter().map(|it| it.weight);
        let sum = weights.fold(0, u32::saturating_add);
        anyhow::ensure!(
            (1..=WEIGHTS_MAX).contains(&sum),
            "the weights add up to {sum}, expected 1 to {WEIGHTS_MAX}"
        );
        for PlannedRequest {
            name,
            targets,
            expect,
            ..
        } in &self.requests
        {
            anyhow::ensure!(!targets.is_empty(), "request '{name}': expected a target");
            let answers = expect.len();
            anyhow::ensure!(
                answers == 1 || answers == targets.len(),
                "request '{name}': {answers} expected answers for {} targets",
                targets.len()
            );
        }
        for Stage {
            duration_ms,
            from,
            to,
        } in &self.stages
        {
            let is_level = |level: &f64| (0.0..=1e6).contains(level);
            anyhow::ensure!(
                *duration_ms > 0 && is_level(from) && is_level(to),
                "a stage of {duration_ms} ms from {from} to {to}: expected a duration, and levels \
                 from 0 to 1,000,000"
            );
        }
        Ok(())
    }
}
