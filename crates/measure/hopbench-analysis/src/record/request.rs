//! The request that a run was made for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;

/// Scenarios, overrides and settings of a run, so that the same can be measured again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Request {
    /// Names or files of scenarios.
    pub scenarios: Vec<String>,
    /// Names, tags or files of paths that replace those of the scenarios; empty if none do.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Targets that replace those of the scenarios; empty if none do.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Numbers of connections that replace those of the scenarios; empty if none do.
    #[serde(default)]
    pub concurrency: Vec<u32>,
    /// Fixed rates, in requests per second, that replace those of the scenarios.
    #[serde(default)]
    pub rates_rps: Vec<u32>,
    /// Placements that replace those of the scenarios; empty if none do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<Placement>,
    /// Milliseconds of each load, if it is not the scenario's.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Milliseconds of each warm-up, if it is not the scenario's.
    #[serde(default)]
    pub warm_up_ms: Option<u64>,
    /// Number of blocks, if it is not the scenario's.
    #[serde(default)]
    pub blocks: Option<u32>,
    /// Whether everything is measured once and briefly.
    #[serde(default)]
    pub quick: bool,
    /// Values of parameters of the paths' files, each as `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Values of which each made a path of its own, as `NAME=VALUE,VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<String>,
    /// Threads of the load generator, if it does not choose them itself.
    #[serde(default)]
    pub load_threads: Option<u16>,
    /// Milliseconds after which a request counts as timed out.
    pub request_timeout_ms: u64,
}
