//! Rates that are held.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest rate that a path holds.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Knee {
    pub scenario: String,
    pub endpoint: String,
    pub path: String,
    pub concurrency: u32,
    /// A rate is held if nothing is dropped, nothing fails, and p99 is at most this.
    pub p99_ms_max: f64,
    /// `None` if no rate is.
    pub rate_rps: Option<u32>,
    /// What a closed loop with as many connections gets through; `None` if it failed.
    pub closed_loop_rps: Option<f64>,
    /// The load generator could not ask any faster: the path may hold more.
    #[serde(default)]
    pub generator_bound: bool,
    /// Trials that it took.
    pub probes: u32,
}

impl Knee {
    /// The rate for a table, by `number`.
    pub fn rate(&self, number: impl FnOnce(f64) -> String) -> String {
        let at_least = if self.generator_bound { "≥ " } else { "" };
        match self.rate_rps {
            Some(rate) => format!("{at_least}{}", number(rate.into())),
            None => "nothing".to_owned(),
        }
    }
}
