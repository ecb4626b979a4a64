//! A scenario file: a question, and the cells that answer it.

use std::{fmt, str::FromStr};

use hopbench_analysis::{
    estimate::BLOCKS_MAX,
    record::{PathologyRules, SlowerRule},
};
use serde::Deserialize;

/// A validated scenario.
#[derive(Clone, Debug)]
pub(crate) struct ScenarioDefinition {
    pub(crate) name: String,
    pub(crate) question: String,
    pub(crate) analysis: String,
    /// Selector of the path that the others are compared with.
    pub(crate) reference: String,
    /// Selectors of paths: a name, `tag:` and a tag, a file, or `*`.
    pub(crate) paths: Vec<String>,
    /// `None`: every endpoint that the origin has.
    pub(crate) endpoints: Option<Vec<Target>>,
    pub(crate) concurrency: Vec<u32>,
    pub(crate) rates: Rates,
    pub(crate) keep_alive: bool,
    pub(crate) duration_ms: u64,
    pub(crate) warm_up_ms: u64,
    pub(crate) blocks: u32,
    /// Whether each block measures the reference twice.
    pub(crate) control: bool,
    pub(crate) pathologies: PathologyRules,
}

/// Rates at which requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rates {
    /// Each connection sends its next request as soon as it has its answer.
    ClosedLoop,
    /// Requests per second, however long the answers take.
    Fixed(Vec<u32>),
    /// Shares, in per cent, of the rate that the slowest path holds. That rate is found first.
    OfKnee {
        percent: Vec<u32>,
        /// Maximum p99 of a rate that is held, in milliseconds.
        p99_ms_max: f64,
    },
}

/// A request's target: a path and query and, for a request with a body, `:` and its length in
/// bytes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) body_bytes: Option<u64>,
}

/// Maximum length of a request body, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Maximum number of connections of a load: the listen backlog of origin and tunnel.
pub(crate) const CONCURRENCY_MAX: u32 = 4096;

/// Maximum rate, in requests per second: that of the load generator.
pub(crate) const RATE_RPS_MAX: u32 = 1_000_000;

/// Maximum share of a knee, in per cent: beyond ten times the knee, only the queue is to be seen.
const KNEE_PERCENT_MAX: u32 = 1_000;

/// Maximum p99 of a rate that is held, in milliseconds, unless a scenario sets it. It is far above
/// the p99 of any path here that is not overloaded, and far below that of a growing queue.
const P99_MS_MAX: f64 = 10.0;

/// Maximum duration of a load, in milliseconds: an hour.
const DURATION_MS_MAX: u64 = 3_600_000;

/// A scenario file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Wire {
    question: String,
    #[serde(default)]
    analysis: String,
    #[serde(default = "default_reference")]
    reference: String,
    paths: Vec<String>,
    endpoints: Vec<String>,
    concurrency: Vec<u32>,
    rates: Option<Vec<u32>>,
    rates_percent_of_knee: Option<Vec<u32>>,
    knee_p99_ms: Option<f64>,
    #[serde(default = "yes")]
    keep_alive: bool,
    duration_ms: u64,
    #[serde(default)]
    warm_up_ms: u64,
    blocks: u32,
    #[serde(default = "yes")]
    control: bool,
    #[serde(default)]
    pathologies: WirePathologies,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WirePathologies {
    p99_over_reference: Option<f64>,
    rps_collapse: Option<f64>,
    #[serde(default)]
    slower: Vec<WireSlower>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireSlower {
    path: String,
    than: String,
}

impl ScenarioDefinition {
    /// Parses the text of a scenario file.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wire: Wire = toml::from_str(text).map_err(|error| error.to_string())?;
        let endpoints = match wire.endpoints.as_slice() {
            [all] if all == "*" => None,
            some => Some(
                some.iter()
                    .map(|target| target.parse())
                    .collect::<Result<_, _>>()?,
            ),
        };
        let slower = wire.pathologies.slower.into_iter();
        let rates = match (wire.rates, wire.rates_percent_of_knee, wire.knee_p99_ms) {
            (None, None, None) => Rates::ClosedLoop,
            (Some(rates), None, None) => Rates::Fixed(rates),
            (None, Some(percent), p99_ms) => Rates::OfKnee {
                percent,
                p99_ms_max: p99_ms.unwrap_or(P99_MS_MAX),
            },
            _ => {
                return Err(
                    "'rates': expected either these or 'rates-percent-of-knee'; 'knee-p99-ms' \
                     goes only with the latter"
                        .to_owned(),
                );
            }
        };
        let scenario = Self {
            name: name.to_owned(),
            question: wire.question,
            analysis: wire.analysis,
            reference: wire.reference,
            paths: wire.paths,
            endpoints,
            concurrency: wire.concurrency,
            rates,
            keep_alive: wire.keep_alive,
            duration_ms: wire.duration_ms,
            warm_up_ms: wire.warm_up_ms,
            blocks: wire.blocks,
            control: wire.control,
            pathologies: PathologyRules {
                p99_over_reference: wire.pathologies.p99_over_reference,
                rps_collapse: wire.pathologies.rps_collapse,
                slower: slower
                    .map(|WireSlower { path, than }| SlowerRule { path, than })
                    .collect(),
            },
        };
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what the types can't express. Also called after the command line's overrides.
    pub(crate) fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: u64, min: u64, max: u64| match (min..=max).contains(&value)
        {
            true => Ok(()),
            false => Err(format!("'{name}': expected {min} to {max}, found {value}")),
        };
        within("duration-ms", self.duration_ms, 1, DURATION_MS_MAX)?;
        within("warm-up-ms", self.warm_up_ms, 0, DURATION_MS_MAX)?;
        within("blocks", self.blocks.into(), 1, BLOCKS_MAX as u64)?;
        for concurrency in &self.concurrency {
            within(
                "concurrency",
                (*concurrency).into(),
                1,
                CONCURRENCY_MAX.into(),
            )?;
        }
        each_once("concurrency", &self.concurrency)?;
        each_once("endpoints", self.endpoints.as_deref().unwrap_or_default())?;
        match &self.rates {
            Rates::ClosedLoop => {}
            Rates::Fixed(rates) => {
                for rate in rates {
                    within("rates", (*rate).into(), 1, RATE_RPS_MAX.into())?;
                    let least = rate_min(self.duration_ms);
                    if *rate < least {
                        return Err(format!(
                            "'rates': {rate} per second is less than one request in {} ms \
                             ('duration-ms'); expected {least} or more, or a longer load",
                            self.duration_ms
                        ));
                    }
                }
                each_once("rates", rates)?;
            }
            Rates::OfKnee {
                percent,
                p99_ms_max,
            } => {
                let max = KNEE_PERCENT_MAX.into();
                for percent in percent {
                    within("rates-percent-of-knee", (*percent).into(), 1, max)?;
                }
                each_once("rates-percent-of-knee", percent)?;
                if !(0.001..=60_000.0).contains(p99_ms_max) {
                    return Err(format!(
                        "'knee-p99-ms': expected 0.001 to 60000, found {p99_ms_max}"
                    ));
                }
            }
        }
        let empty = [
            ("rates", self.rates.is_empty()),
            ("paths", self.paths.is_empty()),
            ("concurrency", self.concurrency.is_empty()),
            (
                "endpoints",
                self.endpoints.as_ref().is_some_and(Vec::is_empty),
            ),
        ];
        match empty.into_iter().find(|(_, empty)| *empty) {
            Some((name, _)) => Err(format!("'{name}': expected at least one")),
            None => Ok(()),
        }
    }
}

/// Rejects repeated values: a block measures each cell once.
fn each_once<T: fmt::Display + PartialEq>(name: &str, values: &[T]) -> Result<(), String> {
    let twice = (1..values.len()).find(|index| values[..*index].contains(&values[*index]));
    match twice {
        Some(index) => Err(format!("'{name}': '{}' is repeated", values[index])),
        None => Ok(()),
    }
}

/// Returns the lowest rate at which a load has at least one request.
pub(crate) fn rate_min(duration_ms: u64) -> u32 {
    let rate = 1_000_u64.div_ceil(duration_ms.max(1));
    u32::try_from(rate).unwrap_or(RATE_RPS_MAX)
}

impl Rates {
    fn is_empty(&self) -> bool {
        match self {
            Self::ClosedLoop => false,
            Self::Fixed(some) | Self::OfKnee { percent: some, .. } => some.is_empty(),
        }
    }

    pub(crate) fn depend_on_knee(&self) -> bool {
        matches!(self, Self::OfKnee { .. })
    }

    /// Returns the maximum p99 of a rate that is held, in milliseconds.
    pub(crate) fn p99_ms_max(&self) -> f64 {
        match self {
            Self::OfKnee { p99_ms_max, .. } => *p99_ms_max,
            Self::ClosedLoop | Self::Fixed(_) => P99_MS_MAX,
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[u32]| {
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            numbers.join(", ")
        };
        match self {
            Self::ClosedLoop => f.write_str("closed loop"),
            Self::Fixed(rates) => write!(f, "{} per second", list(rates)),
            Self::OfKnee {
                percent,
                p99_ms_max,
            } => write!(
                f,
                "{} % of the slowest path's knee (p99 at most {p99_ms_max} ms)",
                list(percent)
            ),
        }
    }
}

fn default_reference() -> String {
    // The catalog has one path with this tag; a scenario file may name another path.
    REFERENCE_TAG.to_owned()
}

/// Selector of the reference if a scenario doesn't name one: the path with this tag.
const REFERENCE_TAG: &str = "tag:reference";

fn yes() -> bool {
    true
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, body) = match text.rsplit_once(':') {
            Some((path, body)) => (path, Some(body)),
            None => (text, None),
        };
        if !path.starts_with('/') || path.contains(char::is_whitespace) {
            return Err(format!(
                "endpoint '{text}': expected a path that begins with '/'"
            ));
        }
        let body_bytes = match body {
            None => None,
            Some(body) => match body.parse() {
                Ok(bytes) if bytes <= BODY_BYTES_MAX => Some(bytes),
                _ => {
                    return Err(format!(
                        "endpoint '{text}': expected a body length of at most {BODY_BYTES_MAX} \
                         bytes after ':'"
                    ));
                }
            },
        };
        Ok(Self {
            path: path.to_owned(),
            body_bytes,
        })
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match self.body_bytes {
            Some(bytes) => write!(f, ":{bytes}"),
            None => Ok(()),
        }
    }
}
