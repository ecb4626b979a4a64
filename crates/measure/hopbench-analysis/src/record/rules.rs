//! Rules of a scenario about what a report names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// Limits beyond which a metric is a pathology. A limit that is `None` is not checked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct PathologyRules {
    /// Largest p99, as a multiple of the reference's.
    pub p99_over_reference: Option<f64>,
    /// Smallest RPS, as a share of the same path's at the next lower concurrency.
    pub rps_collapse: Option<f64>,
    /// Pairs of paths of which the first must not be slower than the second.
    pub slower: Vec<SlowerRule>,
    /// Whether percentiles that are as long as a delayed acknowledgement are looked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stalls: bool,
    /// Smallest RPS of the last quarter of a load, as a share of those of the first quarter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<f64>,
    /// Largest growth of memory for each correct answer, in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_kib_per_request: Option<f64>,
    /// Largest growth of open descriptors for each correct answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_descriptors_per_request: Option<f64>,
}

/// When a path counts as recovered from whatever disturbed it during a load in stages.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Recovery {
    /// Name of the stage that shows how the path is without a disturbance.
    pub baseline: String,
    /// Largest p95 of a good second, as a multiple of the baseline's.
    pub p95_factor: f64,
    /// Number of good seconds in a row after which the path has recovered at the first of them.
    pub seconds: u32,
}

/// A pair of paths of which the first must not be slower.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct SlowerRule {
    /// Path that must not be slower.
    pub path: String,
    /// Path that it is compared with.
    pub than: String,
}
