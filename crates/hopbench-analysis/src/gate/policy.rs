//! A policy: guardrails, as a file says them and as they are checked.

use std::fmt;

use serde::Deserialize;

use super::{filter::Filter, invariant::Invariant};
use crate::figures::Figure;

/// Guardrails, and the question that they answer together.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: String,
    pub question: String,
    pub guardrails: Vec<Guardrail>,
}

/// One limit, of every cell that it applies to.
#[derive(Clone, Debug, PartialEq)]
pub enum Guardrail {
    /// Of what is new over what was there.
    Relative(Relative),
    /// Of a cell by itself.
    Absolute(Absolute),
    /// Between two paths.
    Invariant(Invariant),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "WireRelative")]
pub struct Relative {
    pub change: Change,
    pub filter: Filter,
}

/// Of which figure how much change is still good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    FallPercent(Figure, f64),
    RisePercent(Figure, f64),
    /// Of the growth of memory under load.
    GrowthRiseMib(f64),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "WireAbsolute")]
pub struct Absolute {
    pub figure: AbsoluteFigure,
    pub limit: Limit,
    pub filter: Filter,
}

/// Where the good side is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum AbsoluteFigure {
    /// Requests without a right answer; a trial that failed altogether is always too much.
    #[serde(rename = "errors")]
    Errors,
    #[serde(rename = "rps")]
    Rps,
    #[serde(rename = "p50_ms")]
    P50Ms,
    #[serde(rename = "p95_ms")]
    P95Ms,
    #[serde(rename = "p99_ms")]
    P99Ms,
    #[serde(rename = "cpu_us_per_request")]
    CpuUsPerRequest,
    #[serde(rename = "rss_peak_mib")]
    RssPeakMib,
    #[serde(rename = "rss_growth_mib")]
    RssGrowthMib,
}

/// More than anybody reads the verdicts of.
const GUARDRAILS_MAX: usize = 100;

/// The text of a policy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    question: String,
    #[serde(default)]
    relative: Vec<Relative>,
    #[serde(default)]
    absolute: Vec<Absolute>,
    #[serde(default)]
    invariant: Vec<WireInvariant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireRelative {
    figure: RelativeFigure,
    max_fall_percent: Option<f64>,
    max_rise_percent: Option<f64>,
    max_rise_mib: Option<f64>,
    #[serde(default, rename = "where")]
    filter: Filter,
}

/// What is compared as a ratio, or the growth of memory, which is a difference.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
enum RelativeFigure {
    Ratio(Figure),
    RssGrowth,
}

const RSS_GROWTH: &str = "rss-growth";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAbsolute {
    figure: AbsoluteFigure,
    max: Option<f64>,
    min: Option<f64>,
    #[serde(default, rename = "where")]
    filter: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireInvariant {
    rule: Invariant,
}

impl Policy {
    /// # Errors
    /// If there is nothing to judge, or more than anybody would read.
    pub fn new(name: &str, file: PolicyFile) -> Result<Self, String> {
        let relative = file.relative.into_iter().map(Guardrail::Relative);
        let absolute = file.absolute.into_iter().map(Guardrail::Absolute);
        let rules = file.invariant.into_iter().map(|wire| wire.rule);
        let guardrails: Vec<Guardrail> = relative
            .chain(absolute)
            .chain(rules.map(Guardrail::Invariant))
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

    /// Whether something of it can be judged only against another side.
    pub fn is_relative(&self) -> bool {
        let mut all = self.guardrails.iter();
        all.any(|guardrail| matches!(guardrail, Guardrail::Relative(_)))
    }
}

impl TryFrom<WireRelative> for Relative {
    type Error = String;

    fn try_from(wire: WireRelative) -> Result<Self, String> {
        use RelativeFigure::{Ratio, RssGrowth};
        let limits = (
            wire.figure,
            wire.max_fall_percent,
            wire.max_rise_percent,
            wire.max_rise_mib,
        );
        let change = match limits {
            (Ratio(figure), Some(percent), None, None) => {
                within("max-fall-percent", percent, 0.1, 99.9)?;
                Change::FallPercent(figure, percent)
            }
            (Ratio(figure), None, Some(percent), None) => {
                within("max-rise-percent", percent, 0.1, 10_000.0)?;
                Change::RisePercent(figure, percent)
            }
            (RssGrowth, None, None, Some(mib)) => {
                within("max-rise-mib", mib, 0.1, 1_048_576.0)?;
                Change::GrowthRiseMib(mib)
            }
            (Ratio(figure), ..) => {
                return Err(format!(
                    "'{}': expected either 'max-fall-percent' or 'max-rise-percent'",
                    figure.key()
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

impl TryFrom<String> for RelativeFigure {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ratio = Figure::ALL.into_iter().find(|figure| figure.key() == text);
        match ratio {
            Some(figure) => Ok(Self::Ratio(figure)),
            None if text == RSS_GROWTH => Ok(Self::RssGrowth),
            None => Err(format!(
                "figure '{text}': expected {} or {RSS_GROWTH}",
                Figure::ALL.map(Figure::key).join(", ")
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
        match (wire.figure, limit) {
            (AbsoluteFigure::Errors, Limit::AtLeast(_)) => {
                return Err("'errors': expected 'max'".to_owned());
            }
            (AbsoluteFigure::Errors, _) => {}
            // A limit that nothing can be under, or that nothing can fall below.
            _ => within(name, number, 1e-6, 1e12)?,
        }
        Ok(Self {
            figure: wire.figure,
            limit,
            filter: wire.filter,
        })
    }
}

fn within(name: &str, value: f64, min: f64, max: f64) -> Result<(), String> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("'{name}': expected {min} to {max}, found {value}")),
    }
}

impl Change {
    /// The change's limit: a ratio, or mebibytes.
    pub fn limit(self) -> Limit {
        match self {
            Self::FallPercent(_, percent) => Limit::AtLeast(1.0 - percent / 100.0),
            Self::RisePercent(_, percent) => Limit::AtMost(1.0 + percent / 100.0),
            Self::GrowthRiseMib(mib) => Limit::AtMost(mib),
        }
    }
}

impl Limit {
    pub fn bound(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

impl AbsoluteFigure {
    /// As in a policy.
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
            Self::Absolute(Absolute { figure, limit, .. }) => {
                write!(f, "{} {limit}", figure.key())?;
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
            Self::FallPercent(figure, percent) => {
                write!(f, "{} falls by at most {percent} %", figure.title())
            }
            Self::RisePercent(figure, percent) => {
                write!(f, "{} rises by at most {percent} %", figure.title())
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

/// What is shipped, for tests and fuzzing: nothing here reads TOML.
#[cfg(any(test, fuzzing))]
pub(crate) fn usual_policy() -> Policy {
    let file = serde_json::json!({
        "question": "slower?",
        "relative": [
            {"figure": "rps", "max-fall-percent": 15},
            {"figure": "p95", "max-rise-percent": 20},
            {"figure": "rss-growth", "max-rise-mib": 128},
        ],
        "absolute": [{"figure": "errors", "max": 0}],
    });
    let file = serde_json::from_value(file).expect("valid");
    Policy::new("test", file).expect("valid")
}
