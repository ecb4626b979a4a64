//! A policy: guardrails, as a file gives them and as they are checked.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{filter::Filter, invariant::Invariant};
use crate::metrics::Metric;

/// Guardrails, and the question that they answer together.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name of the policy.
    pub name: String,
    /// The question, for reports.
    pub question: String,
    /// The guardrails; at least one.
    pub guardrails: Vec<Guardrail>,
}

/// A limit for every cell that it applies to.
#[derive(Clone, Debug, PartialEq)]
pub enum Guardrail {
    /// A limit for a change: of B over A, or of a run over its base.
    Relative(Relative),
    /// A limit for a metric of a cell by itself.
    Absolute(Absolute),
    /// A limit for the ratio between two paths.
    Invariant(Invariant),
}

/// A limit for the change of a metric from one side to the other.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "WireRelative")]
pub struct Relative {
    /// The largest change that passes.
    pub change: Change,
    /// The cells that it applies to.
    pub filter: Filter,
}

/// A metric, and the largest change of it that is still good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The metric may fall by this many percent.
    FallPercent(Metric, f64),
    /// The metric may rise by this many percent.
    RisePercent(Metric, f64),
    /// The growth of memory under load may rise by this many MiB.
    GrowthRiseMib(f64),
}

/// A limit for a metric of a cell by itself.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "WireAbsolute")]
pub struct Absolute {
    /// The metric that is limited.
    pub metric: AbsoluteMetric,
    /// The limit, in the unit of the metric.
    pub limit: Limit,
    /// The cells that it applies to.
    pub filter: Filter,
}

/// A bound, and the side of it that is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The bound and everything above it is good.
    AtLeast(f64),
    /// The bound and everything below it is good.
    AtMost(f64),
}

/// A metric of a cell by itself, with its unit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum AbsoluteMetric {
    /// Requests without a right answer. A trial that failed altogether is always too much.
    #[serde(rename = "errors")]
    Errors,
    /// Right answers per second.
    #[serde(rename = "rps")]
    Rps,
    /// Median latency, in milliseconds.
    #[serde(rename = "p50_ms")]
    P50Ms,
    /// 95th percentile of the latencies, in milliseconds.
    #[serde(rename = "p95_ms")]
    P95Ms,
    /// 99th percentile of the latencies, in milliseconds.
    #[serde(rename = "p99_ms")]
    P99Ms,
    /// CPU time of everything but the client per right answer, in microseconds.
    #[serde(rename = "cpu_us_per_request")]
    CpuUsPerRequest,
    /// Peak of the resident memory of the path's processes together, in MiB.
    #[serde(rename = "rss_peak_mib")]
    RssPeakMib,
    /// Growth of that memory from before the warm-up to the peak, in MiB.
    #[serde(rename = "rss_growth_mib")]
    RssGrowthMib,
}

/// Largest number of guardrails. Nobody would read the verdicts of more.
const GUARDRAILS_MAX: usize = 100;

/// A policy file as it was parsed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// Question that the gate answers.
    question: String,
    /// Limits for the change from one side to the other.
    #[serde(default)]
    relative: Vec<Relative>,
    /// Limits for the metrics of a cell by itself.
    #[serde(default)]
    absolute: Vec<Absolute>,
    /// Limits for the ratio between two paths of a run.
    #[serde(default)]
    invariant: Vec<Invariant>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireRelative {
    /// Metric that is compared.
    metric: RelativeMetric,
    /// Largest fall, in per cent.
    max_fall_percent: Option<f64>,
    /// Largest rise, in per cent.
    max_rise_percent: Option<f64>,
    /// Largest rise of the growth of memory, in MiB.
    max_rise_mib: Option<f64>,
    /// Cells that it applies to; by default all.
    #[serde(default, rename = "where")]
    filter: Filter,
}

/// A metric that is compared as a ratio, or the growth of memory, which is a difference.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
enum RelativeMetric {
    Ratio(Metric),
    RssGrowth,
}

const RSS_GROWTH: &str = "rss-growth";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireAbsolute {
    /// Metric that is limited.
    metric: AbsoluteMetric,
    /// Largest value.
    max: Option<f64>,
    /// Smallest value.
    min: Option<f64>,
    /// Cells that it applies to; by default all.
    #[serde(default, rename = "where")]
    filter: Filter,
}

impl Policy {
    /// Makes a policy of the guardrails in a file.
    ///
    /// # Errors
    /// Fails if there is no guardrail, or more than anybody would read.
    pub fn new(name: &str, file: PolicyFile) -> Result<Self, String> {
        let relative = file.relative.into_iter().map(Guardrail::Relative);
        let absolute = file.absolute.into_iter().map(Guardrail::Absolute);
        let invariants = file.invariant.into_iter();
        let guardrails: Vec<Guardrail> = relative
            .chain(absolute)
            .chain(invariants.map(Guardrail::Invariant))
            .collect();
        match guardrails.len() {
            0 => {
                Err("expected at least one [[relative]], [[absolute]] or [[invariant]]".to_owned())
            }
            1..=GUARDRAILS_MAX => Ok(Self {
                name: name.to_owned(),
                question: file.question.trim().to_owned(),
                guardrails,
            }),
            many => Err(format!(
                "expected at most {GUARDRAILS_MAX} guardrails, found {many}; use more than one \
                 policy"
            )),
        }
    }

    /// Returns whether any guardrail needs another side to compare with.
    pub fn is_relative(&self) -> bool {
        let mut all = self.guardrails.iter();
        all.any(|guardrail| matches!(guardrail, Guardrail::Relative(_)))
    }
}

impl TryFrom<WireRelative> for Relative {
    type Error = String;

    fn try_from(wire: WireRelative) -> Result<Self, String> {
        use RelativeMetric::{Ratio, RssGrowth};
        let limits = (
            wire.metric,
            wire.max_fall_percent,
            wire.max_rise_percent,
            wire.max_rise_mib,
        );
        let change = match limits {
            (Ratio(metric), Some(percent), None, None) => {
                within("max-fall-percent", percent, 0.1, 99.9)?;
                Change::FallPercent(metric, percent)
            }
            (Ratio(metric), None, Some(percent), None) => {
                within("max-rise-percent", percent, 0.1, 10_000.0)?;
                Change::RisePercent(metric, percent)
            }
            (RssGrowth, None, None, Some(mib)) => {
                within("max-rise-mib", mib, 0.1, 1_048_576.0)?;
                Change::GrowthRiseMib(mib)
            }
            (Ratio(metric), ..) => {
                return Err(format!(
                    "'{}': expected either 'max-fall-percent' or 'max-rise-percent'",
                    metric.key()
                ));
            }
            (RssGrowth, ..) => {
                return Err(format!(
                    "'{RSS_GROWTH}': expected 'max-rise-mib' and nothing else"
                ));
            }
        };
        Ok(Self {
            change,
            filter: wire.filter,
        })
    }
}

impl TryFrom<String> for RelativeMetric {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ratio = Metric::ALL.into_iter().find(|metric| metric.key() == text);
        match ratio {
            Some(metric) => Ok(Self::Ratio(metric)),
            None if text == RSS_GROWTH => Ok(Self::RssGrowth),
            None => Err(format!(
                "metric '{text}': expected {} or {RSS_GROWTH}",
                Metric::ALL.map(Metric::key).join(", ")
            )),
        }
    }
}

impl TryFrom<WireAbsolute> for Absolute {
    type Error = String;

    fn try_from(wire: WireAbsolute) -> Result<Self, String> {
        let (name, number, limit) = match (wire.max, wire.min) {
            (Some(max), None) => ("max", max, Limit::AtMost(max)),
            (None, Some(min)) => ("min", min, Limit::AtLeast(min)),
            _ => return Err("expected either 'max' or 'min'".to_owned()),
        };
        within(name, number, 0.0, 1e12)?;
        match (wire.metric, limit) {
            (AbsoluteMetric::Errors, Limit::AtLeast(_)) => {
                return Err("'errors': expected 'max'".to_owned());
            }
            (AbsoluteMetric::Errors, _) => {}
            // A `max` of 0 could hardly be kept, and a `min` of 0 always would be.
            _ => within(name, number, 1e-6, 1e12)?,
        }
        Ok(Self {
            metric: wire.metric,
            limit,
            filter: wire.filter,
        })
    }
}

pub(super) fn within(name: &str, value: f64, min: f64, max: f64) -> Result<(), String> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("'{name}': expected {min} to {max}, found {value}")),
    }
}

impl Change {
    /// Returns the limit of the change: a ratio, or a difference in MiB.
    pub fn limit(self) -> Limit {
        match self {
            Self::FallPercent(_, percent) => Limit::AtLeast(1.0 - percent / 100.0),
            Self::RisePercent(_, percent) => Limit::AtMost(1.0 + percent / 100.0),
            Self::GrowthRiseMib(mib) => Limit::AtMost(mib),
        }
    }
}

impl Limit {
    /// Returns the bound, whichever side is good.
    pub fn bound(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

impl AbsoluteMetric {
    /// Returns the name that a policy file uses.
    pub fn key(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Rps => "rps",
            Self::P50Ms => "p50_ms",
            Self::P95Ms => "p95_ms",
            Self::P99Ms => "p99_ms",
            Self::CpuUsPerRequest => "cpu_us_per_request",
            Self::RssPeakMib => "rss_peak_mib",
            Self::RssGrowthMib => "rss_growth_mib",
        }
    }
}

impl Guardrail {
    /// Returns the filter of the cells that the guardrail applies to.
    pub fn filter(&self) -> &Filter {
        match self {
            Self::Relative(Relative { filter, .. })
            | Self::Absolute(Absolute { filter, .. })
            | Self::Invariant(Invariant { filter, .. }) => filter,
        }
    }
}

impl fmt::Display for Guardrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(relative) => relative.change.fmt(f)?,
            Self::Absolute(Absolute { metric, limit, .. }) => {
                write!(f, "{} {limit}", metric.key())?;
            }
            Self::Invariant(invariant) => return invariant.fmt(f),
        }
        match self.filter() {
            all if *all == Filter::default() => Ok(()),
            filter => write!(f, " where {filter}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FallPercent(metric, percent) => {
                write!(f, "{} falls by at most {percent} %", metric.title())
            }
            Self::RisePercent(metric, percent) => {
                write!(f, "{} rises by at most {percent} %", metric.title())
            }
            Self::GrowthRiseMib(mib) => write!(f, "growth of RSS rises by at most {mib} MiB"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

/// Returns the guardrails of the built-in policy, for tests and fuzzing: nothing here reads TOML.
#[cfg(any(test, fuzzing))]
pub(crate) fn usual_policy() -> Policy {
    let file = serde_json::json!({
        "question": "slower?",
        "relative": [
            {"metric": "rps", "max-fall-percent": 15},
            {"metric": "p95", "max-rise-percent": 20},
            {"metric": "rss-growth", "max-rise-mib": 128},
        ],
        "absolute": [{"metric": "errors", "max": 0}],
    });
    let file = serde_json::from_value(file).expect("valid");
    Policy::new("test", file).expect("valid")
}

crate::has_schema_of! {
    Relative => WireRelative;
    Absolute => WireAbsolute;
    RelativeMetric => String;
}
