//! Counters of a path's processes, as its file declares them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A counter that reports show. Processes may serve others, too; those are only recorded.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CounterInfo {
    /// Name under which the processes serve it.
    pub name: String,
    /// Heading of its columns.
    pub label: String,
    /// Unit of its value, such as `bytes`.
    pub unit: String,
    /// Divisors of its value. Each makes a column of its own.
    pub per: Vec<Per>,
    /// Explanation of what it counts, as a clause that follows the label and a colon.
    pub help: String,
}

/// The divisor of a counter in a report.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Correct answers.
    Request,
    /// Bytes of the bodies that the client received.
    BodyByte,
    /// Trials that have metrics.
    Trial,
}
