//! A case of the self-test: a cost that is injected into one of two equal builds, and the verdict
//! that a gate must reach.

use std::time::Duration;

use serde::Deserialize;

use super::{parse_duration, read::from_text};

/// A validated case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) question: String,
    pub(crate) scenario: String,
    pub(crate) policy: String,
    /// Arguments added to A's origin, so that the cost of injecting itself is in both builds.
    pub(crate) inject_a: Vec<String>,
    /// Arguments added to B's origin.
    pub(crate) inject: Vec<String>,
    /// Latency added to B's origin, in per cent of A's p50.
    pub(crate) inject_delay_percent: Option<f64>,
    /// Time that a gate may measure, unless the command line says otherwise.
    pub(crate) time: Duration,
    pub(crate) expect: Expectation,
    /// Minimum share of gates with the right verdict, in per cent.
    pub(crate) right_percent_min: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expectation {
    Alarm,
    NoAlarm,
}

/// A case file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Wire {
    question: String,
    scenario: String,
    policy: String,
    #[serde(default)]
    inject_a: Vec<String>,
    #[serde(default)]
    inject: Vec<String>,
    inject_delay_percent: Option<f64>,
    time: String,
    expect: Expectation,
    right_percent_min: f64,
}

impl Case {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wire: Wire = from_text(text)?;
        let percent = |key: &str, value: f64| match (0.0..=100.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("'{key}': expected 0 to 100, found {value}")),
        };
        percent("right-percent-min", wire.right_percent_min)?;
        percent(
            "inject-delay-percent",
            wire.inject_delay_percent.unwrap_or_default(),
        )?;
        Ok(Self {
            name: name.to_owned(),
            question: wire.question,
            scenario: wire.scenario,
            policy: wire.policy,
            inject_a: wire.inject_a,
            inject: wire.inject,
            inject_delay_percent: wire.inject_delay_percent,
            time: parse_duration(&wire.time).map_err(|error| format!("'time': {error}"))?,
            expect: wire.expect,
            right_percent_min: wire.right_percent_min,
        })
    }
}
