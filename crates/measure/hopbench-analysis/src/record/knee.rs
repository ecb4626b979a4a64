//! Rates that paths hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest rate that a path holds.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Knee {
    /// Name of the scenario.
    pub scenario: String,
    /// Endpoint that was requested.
    pub endpoint: String,
    /// Name of the path.
    pub path: String,
    /// Number of connections.
    pub concurrency: u32,
    /// Largest p99 of a rate that is held, in milliseconds. Nothing may fail, and nothing may be
    /// dropped but what waits as the load ends.
    pub p99_ms_max: f64,
    /// The largest rate, in requests per second. `None` if no rate is held.
    pub rate_rps: Option<u32>,
    /// Correct answers per second of a closed loop with as many connections; `None` if it failed.
    pub closed_loop_rps: Option<f64>,
    /// Whether the load generator, or other load on the machine, was the limit, so that the path
    /// may hold more.
    #[serde(default)]
    pub generator_bound: bool,
    /// Number of trials that the search took.
    pub probes: u32,
}

impl Knee {
    /// Writes the rate for a table. `number` formats it.
    pub fn rate(&self, number: impl FnOnce(f64) -> String) -> String {
        let at_least = if self.generator_bound { "≥ " } else { "" };
        match self.rate_rps {
            Some(rate) => format!("{at_least}{}", number(rate.into())),
            None => "nothing".to_owned(),
        }
    }
}
