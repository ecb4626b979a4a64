//! A limit between two paths: for example, one has at least 1.5 times the RPS of the other.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    filter::Filter,
    policy::{Limit, within},
};
use crate::metrics::Metric;

/// A limit for the ratio of one path's metric to another's, in the same block and in cells that are
/// equal otherwise.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "WireInvariant")]
pub struct Invariant {
    /// The path that is judged.
    pub path: String,
    /// The path that it is compared with.
    pub over: String,
    /// The metric that is compared.
    pub metric: Metric,
    /// The limit of the ratio.
    pub limit: Limit,
    /// The cells that are compared. It names no path: the invariant names its own.
    pub filter: Filter,
}

/// An `[[invariant]]` of a policy file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireInvariant {
    /// Path that is judged.
    path: String,
    /// Path that it is compared with.
    over: String,
    /// Metric that is compared.
    metric: Metric,
    /// Smallest ratio.
    min_ratio: Option<f64>,
    /// Largest ratio.
    max_ratio: Option<f64>,
    /// Cells that are compared; by default all.
    #[serde(default, rename = "where")]
    filter: Filter,
}

impl TryFrom<WireInvariant> for Invariant {
    type Error = String;

    fn try_from(wire: WireInvariant) -> Result<Self, String> {
        let (name, ratio, limit) = match (wire.min_ratio, wire.max_ratio) {
            (Some(min), None) => ("min-ratio", min, Limit::AtLeast(min)),
            (None, Some(max)) => ("max-ratio", max, Limit::AtMost(max)),
            _ => return Err("expected either 'min-ratio' or 'max-ratio'".to_owned()),
        };
        within(name, ratio, 1e-6, 1e6)?;
        if wire.path == wire.over {
            return Err(format!(
                "'{}' is compared with itself: expected two different paths in 'path' and 'over'",
                wire.path
            ));
        }
        if !wire.filter.path.0.is_empty() {
            return Err(
                "'where': expected no 'path', since 'path' and 'over' name both paths".to_owned(),
            );
        }
        Ok(Self {
            path: wire.path,
            over: wire.over,
            metric: wire.metric,
            limit,
            filter: wire.filter,
        })
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            over,
            metric,
            limit,
            filter,
        } = self;
        let metric = metric.key();
        write!(f, "{path}.{metric} {limit} * {over}.{metric}")?;
        if *filter != Filter::default() {
            write!(f, " where {filter}")?;
        }
        Ok(())
    }
}

crate::has_schema_of! {
    Invariant => WireInvariant;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(wire: Value) -> Result<Invariant, String> {
        serde_json::from_value(wire).map_err(|error| error.to_string())
    }

    #[test]
    fn an_invariant_says_what_it_asks() {
        let invariant = read(json!({
            "path": "a", "over": "b", "metric": "rps", "min-ratio": 1.5,
            "where": {"endpoint": "/small", "concurrency": [1, 8]},
        }));
        assert_eq!(
            invariant.expect("valid").to_string(),
            "a.rps >= 1.5 * b.rps where endpoint = /small and concurrency = 1 or 8"
        );
        let invariant = read(json!({"path": "a", "over": "b", "metric": "p99", "max-ratio": 2}));
        assert_eq!(invariant.expect("valid").to_string(), "a.p99 <= 2 * b.p99");
    }

    #[test]
    fn mistakes_are_named() {
        for (wire, expected) in [
            (
                json!({"path": "a", "over": "b", "metric": "rps"}),
                "expected either 'min-ratio' or 'max-ratio'",
            ),
            (
                json!({"path": "a", "over": "b", "metric": "rps", "min-ratio": 1, "max-ratio": 2}),
                "expected either 'min-ratio' or 'max-ratio'",
            ),
            (
                json!({"path": "a", "over": "b", "metric": "rps", "min-ratio": 0}),
                "'min-ratio': expected 0.000001 to 1000000, found 0",
            ),
            (
                json!({"path": "a", "over": "a", "metric": "rps", "min-ratio": 1}),
                "'a' is compared with itself",
            ),
            (
                json!({"path": "a", "over": "b", "metric": "rsp", "min-ratio": 1}),
                "metric 'rsp': expected rps, p50",
            ),
            (
                json!({"path": "a", "over": "b", "metric": "rps", "min-ratio": 1,
                       "where": {"path": "a"}}),
                "'where': expected no 'path'",
            ),
            (
                json!({"path": "a", "over": "b", "metric": "rps", "min-ratio": 1, "rule": "x"}),
                "unknown field `rule`",
            ),
        ] {
            let message = read(wire).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
    }
}
