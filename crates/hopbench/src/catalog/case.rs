//! A case of the self-test: something that is put into one of two equal builds, and what a gate
//! must say of it.

use std::time::Duration;

use serde::Deserialize;

use crate::cli::parse_duration;

/// A case, checked.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) question: String,
    pub(crate) scenario: String,
    pub(crate) policy: String,
    /// Words that are added to A's origin: what injecting takes by itself is no part of what is
    /// injected.
    pub(crate) inject_a: Vec<String>,
    /// Words that are added to B's origin.
    pub(crate) inject: Vec<String>,
    /// So much more latency, in per cent of what A's p50 is without.
    pub(crate) inject_delay_percent: Option<f64>,
    /// How long a gate may measure, unless somebody says otherwise.
    pub(crate) time: Duration,
    pub(crate) expect: Expectation,
    /// Of so many of a hundred gates, the verdict must be right.
    pub(crate) right_percent_min: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expectation {
    Alarm,
    NoAlarm,
}

/// The text of a case's file.
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
        let wire: Wire = toml::from_str(text).map_err(|error| error.to_string())?;
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
