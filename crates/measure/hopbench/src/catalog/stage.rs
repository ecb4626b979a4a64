//! Loads that change over time, and loads that come before them.

use std::collections::{BTreeMap, BTreeSet};

use hopbench_analysis::record::Recovery;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    limits::{CONCURRENCY_MAX, DURATION_MS_MAX, KNEE_PERCENT_MAX, RATE_RPS_MAX},
    path::PathDefinition,
};

/// A load before the warm-up, which fills a store or makes a path ready in another way.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Prepare {
    /// Name in messages and records.
    pub(crate) name: String,
    /// Number of requests.
    pub(crate) requests: u64,
    /// Number of connections.
    #[serde(default = "one")]
    pub(crate) concurrency: u32,
    /// Names of the requests to send; all of the scenario's if empty.
    #[serde(default)]
    pub(crate) of: Vec<String>,
    /// Names of the paths that are prepared, as in the scenario's `paths`; all if empty.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// By how much counters must have grown at least. A counter that a path doesn't declare is not
    /// checked.
    #[serde(default)]
    pub(crate) counters_at_least: BTreeMap<String, u64>,
}

impl Prepare {
    /// Returns whether a path gets the load.
    pub(crate) fn applies_to(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|name| name == path)
    }

    /// Names variants of a path where the path itself is named.
    pub(crate) fn name_variants(&mut self, path: &str, variants: &[PathDefinition]) {
        let names = variants.iter().map(|variant| variant.name.clone());
        let names: Vec<String> = names.filter(|name| !self.applies_to(name)).collect();
        if self.paths.iter().any(|name| name == path) {
            self.paths.extend(names);
        }
    }
}

/// A part of a load's duration.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Stage {
    /// Name in reports; by default its number.
    pub(crate) name: Option<String>,
    /// Duration, in milliseconds.
    pub(crate) duration_ms: u64,
    /// Rate at its end, in requests per second.
    pub(crate) rate: Option<f64>,
    /// Rate at its end, in per cent of the slowest path's knee.
    pub(crate) percent_of_knee: Option<f64>,
    /// Connections of a closed loop at its end.
    pub(crate) concurrency: Option<u32>,
    /// How the load gets there.
    #[serde(default)]
    pub(crate) change: Change,
}

/// How the load gets to the level of a stage.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// Evenly, from the level of the stage before, or from 0.
    Ramp,
    /// At once.
    #[default]
    Step,
}

/// Largest p95 of a good second, as a multiple of the baseline's, unless a scenario sets it: what a
/// user would notice.
const P95_FACTOR: f64 = 2.0;

/// Number of good seconds in a row after which a path has recovered, unless a scenario sets it.
const GOOD_SECONDS: u32 = 3;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireRecovery {
    /// Name of the stage that shows the path without a disturbance.
    baseline: String,
    /// Largest p95 of a good second, as a multiple of the baseline's; 2 by default.
    p95_factor: Option<f64>,
    /// Good seconds in a row after which a path has recovered; 3 by default.
    seconds: Option<u32>,
}

impl WireRecovery {
    pub(super) fn read(self) -> Recovery {
        Recovery {
            baseline: self.baseline,
            p95_factor: self.p95_factor.unwrap_or(P95_FACTOR),
            seconds: self.seconds.unwrap_or(GOOD_SECONDS),
        }
    }
}

/// Checks the stages of a load, each by itself and together.
pub(super) fn check(stages: &[Stage]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (index, stage) in stages.iter().enumerate() {
        let of = |message: String| format!("stage {}: {message}", index + 1);
        stage.check().map_err(of)?;
        if stage.unit() != stages[0].unit() {
            return Err(of(format!(
                "expected '{}', as in the first stage, found '{}'",
                stages[0].unit(),
                stage.unit()
            )));
        }
        let name = stage
            .name
            .clone()
            .unwrap_or_else(|| (index + 1).to_string());
        if !names.insert(name.clone()) {
            return Err(of(format!(
                "'name': '{name}' is repeated: expected unique names"
            )));
        }
    }
    Ok(())
}

impl Stage {
    pub(crate) fn is_of_knee(&self) -> bool {
        self.percent_of_knee.is_some()
    }

    /// Returns the field that has the level.
    pub(crate) fn unit(&self) -> &'static str {
        match (self.rate, self.percent_of_knee) {
            (Some(_), _) => "rate",
            (None, Some(_)) => "percent-of-knee",
            (None, None) => "concurrency",
        }
    }

    /// Returns the level at the end, in the unit of its field.
    pub(crate) fn level(&self) -> f64 {
        let level = self.rate.or(self.percent_of_knee);
        level.unwrap_or_else(|| self.concurrency.unwrap_or_default().into())
    }

    fn check(&self) -> Result<(), String> {
        let fields = [
            self.rate.is_some(),
            self.percent_of_knee.is_some(),
            self.concurrency.is_some(),
        ];
        if fields.into_iter().filter(|is_given| *is_given).count() != 1 {
            return Err("expected one of 'rate', 'percent-of-knee' and 'concurrency'".to_owned());
        }
        let max = match self.unit() {
            "rate" => f64::from(RATE_RPS_MAX),
            "percent-of-knee" => f64::from(KNEE_PERCENT_MAX),
            _ => f64::from(CONCURRENCY_MAX),
        };
        let level = self.level();
        if !(0.0..=max).contains(&level) {
            return Err(format!(
                "'{}': expected 0 to {max}, found {level}",
                self.unit()
            ));
        }
        match self.duration_ms {
            1..=DURATION_MS_MAX => Ok(()),
            other => Err(format!(
                "'duration-ms': expected 1 to {DURATION_MS_MAX}, found {other}"
            )),
        }
    }
}

fn one() -> u32 {
    1
}
