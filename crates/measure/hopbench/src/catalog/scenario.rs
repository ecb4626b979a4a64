//! A scenario file: a question, and the cells that answer it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use hopbench_analysis::record::{PathologyRules, Placement, Recovery, SlowerRule};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    parameters::DefaultValue,
    read::from_text,
    request::{RequestDefinition, WireRequest},
    stage::{self, Prepare, Stage, WireRecovery},
    target::Target,
};

/// A validated scenario.
#[derive(Clone, Debug)]
pub(crate) struct ScenarioDefinition {
    /// Text of its file.
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) question: String,
    pub(crate) analysis: String,
    /// Tags, by which commands find the scenario that they need.
    pub(crate) tags: Vec<String>,
    /// Selector of the path that the others are compared with.
    pub(crate) reference: String,
    /// Selectors of paths: a name, `tag:` and a tag, a file, or `*`.
    pub(crate) paths: Vec<String>,
    /// Values for parameters of the paths, of which each makes a path of its own.
    pub(crate) sweep: BTreeMap<String, Vec<String>>,
    /// Requests of each load.
    pub(crate) asks: Asks,
    pub(crate) concurrency: Vec<u32>,
    pub(crate) rates: Rates,
    pub(crate) keep_alive: bool,
    pub(crate) placements: Vec<Placement>,
    /// Duration of a load; for a number of requests, its limit.
    pub(crate) duration_ms: u64,
    /// Number of requests of a load. `None`: the duration decides.
    pub(crate) requests: Option<u64>,
    /// Changes of the load over time. Empty for a load that stays the same.
    pub(crate) stages: Vec<Stage>,
    pub(crate) recovery: Option<Recovery>,
    /// Time that a connection of a closed loop waits between an answer and its next request.
    pub(crate) think_time_ms: u64,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) prepare: Vec<Prepare>,
    /// Whether the load is the first thing that a path is asked.
    pub(crate) is_cold: bool,
    pub(crate) warm_up_ms: u64,
    pub(crate) blocks: u32,
    /// Whether each block measures the reference twice.
    pub(crate) control: bool,
    pub(crate) pathologies: PathologyRules,
}

/// Requests of a scenario's loads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asks {
    /// Every endpoint that the reference has, each in a load of its own.
    AllEndpoints,
    /// These endpoints, each in a load of its own.
    Endpoints(Vec<Target>),
    /// These requests, all in one load.
    Mix(Vec<RequestDefinition>),
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

/// Maximum p99 of a rate that is held, in milliseconds, unless a scenario sets it. It is far above
/// the p99 of any path here that is not overloaded, and far below that of a growing queue.
const P99_MS_MAX: f64 = 10.0;

/// Largest p99, as a multiple of the reference's, unless a scenario sets it.
const P99_OVER_REFERENCE: f64 = 10.0;

/// Smallest RPS, as a share of those with fewer connections, or earlier in the load, unless a
/// scenario sets it.
const RPS_SHARE_MIN: f64 = 0.5;

/// Largest growth of memory for each answer, in KiB, unless a scenario sets it: that of a path that
/// keeps what it has read of a request.
const GROWTH_KIB_PER_REQUEST: f64 = 1.0;

/// Largest growth of open descriptors for each answer, unless a scenario sets it: that of a path
/// that keeps one in a hundred.
const GROWTH_DESCRIPTORS_PER_REQUEST: f64 = 0.01;

/// Time within which a number of requests must be answered, unless a scenario sets it: a minute.
const LIMIT_MS: u64 = 60_000;

/// A scenario file as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Wire {
    /// Question that the scenario answers.
    question: String,
    /// How to read the answer.
    #[serde(default)]
    analysis: String,
    /// Tags, by which commands find the scenario that they need.
    #[serde(default)]
    tags: Vec<String>,
    /// Selector of the path that the others are compared with.
    #[serde(default = "default_reference")]
    reference: String,
    /// Names of paths, 'tag:NAME', files, or '*'.
    paths: Vec<String>,
    /// Values for parameters of the paths, of which each makes a path of its own. '--sweep' has
    /// precedence.
    #[serde(default)]
    sweep: BTreeMap<String, Vec<DefaultValue>>,
    /// Targets, each in a load of its own, or '*'.
    endpoints: Option<Vec<String>>,
    /// Requests that are all in one load, instead of endpoints.
    #[serde(default)]
    request: Vec<WireRequest>,
    /// Numbers of connections.
    concurrency: Option<Vec<u32>>,
    /// Rates of an open loop, in requests per second; by default a closed loop.
    rates: Option<Vec<u32>>,
    /// Rates in per cent of the slowest path's knee.
    rates_percent_of_knee: Option<Vec<u32>>,
    /// Largest p99 at which a rate counts as held, in milliseconds; 10 by default.
    knee_p99_ms: Option<f64>,
    /// Whether a connection carries more than one request.
    #[serde(default = "yes")]
    keep_alive: bool,
    /// Cores that the client and the path may use; 'free' by default.
    placement: Option<Vec<Placement>>,
    /// Duration of each load, in milliseconds.
    duration_ms: Option<u64>,
    /// Number of requests of each load, instead of a duration.
    requests: Option<u64>,
    /// Time within which these must be answered, in milliseconds; a minute by default.
    limit_ms: Option<u64>,
    /// Stages, instead of a duration.
    #[serde(default)]
    stage: Vec<Stage>,
    /// When a path counts as recovered.
    recovery: Option<WireRecovery>,
    /// Time that a connection of a closed loop waits after an answer, in milliseconds.
    think_time_ms: Option<u64>,
    /// Time limit of a request, in milliseconds; 5,000 by default.
    timeout_ms: Option<u64>,
    /// Loads that make a path ready, before the warm-up.
    #[serde(default)]
    prepare: Vec<Prepare>,
    /// A warm-up other than a load of some duration.
    warm_up: Option<WarmUp>,
    /// Duration of the warm-up, in milliseconds.
    warm_up_ms: Option<u64>,
    /// How often each cell is measured.
    blocks: u32,
    /// Whether each block measures the reference twice.
    #[serde(default = "yes")]
    control: bool,
    /// Limits beyond which a metric is a pathology.
    #[serde(default)]
    pathologies: WirePathologies,
}

/// A warm-up other than a load of some duration.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum WarmUp {
    /// Nothing: no load, and no check of the answers either.
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WirePathologies {
    /// Largest p99, as a multiple of the reference's.
    p99_over_reference: Option<f64>,
    /// Smallest RPS, as a share of that at the next lower concurrency.
    rps_collapse: Option<f64>,
    /// Whether percentiles as long as a delayed acknowledgement are looked for.
    #[serde(default = "yes")]
    stalls: bool,
    /// Smallest RPS of the last quarter of a load, as a share of those of the first.
    slowdown: Option<f64>,
    /// Largest growth of memory for each answer, in KiB.
    growth_kib_per_request: Option<f64>,
    /// Largest growth of open descriptors for each answer.
    growth_descriptors_per_request: Option<f64>,
    /// Pairs of paths of which the first must not be slower.
    #[serde(default)]
    slower: Vec<WireSlower>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireSlower {
    /// Path that must not be slower.
    path: String,
    /// Path that it is compared with.
    than: String,
}

impl ScenarioDefinition {
    /// Parses the text of a scenario file.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wire: Wire = from_text(text)?;
        stage::check(&wire.stage)?;
        let asks = asks(wire.endpoints.as_deref(), wire.request)?;
        let duration_ms = duration_ms(wire.duration_ms, wire.requests, wire.limit_ms, &wire.stage)?;
        let concurrency = concurrency(wire.concurrency, &wire.stage)?;
        if wire.warm_up.is_some() && wire.warm_up_ms.is_some() {
            return Err("'warm-up': expected either this or 'warm-up-ms'".to_owned());
        }
        let rates = rates(
            wire.rates,
            wire.rates_percent_of_knee,
            wire.knee_p99_ms,
            wire.stage.iter().any(Stage::is_of_knee),
        )?;
        let scenario = Self {
            text: text.to_owned(),
            name: name.to_owned(),
            question: wire.question,
            analysis: wire.analysis,
            tags: wire.tags,
            reference: wire.reference,
            paths: wire.paths,
            sweep: sweep(wire.sweep)?,
            asks,
            concurrency,
            rates,
            keep_alive: wire.keep_alive,
            placements: wire.placement.unwrap_or_else(|| vec![Placement::Free]),
            duration_ms,
            requests: wire.requests,
            stages: wire.stage,
            recovery: wire.recovery.map(WireRecovery::read),
            think_time_ms: wire.think_time_ms.unwrap_or_default(),
            timeout_ms: wire.timeout_ms,
            prepare: wire.prepare,
            is_cold: wire.warm_up.is_some(),
            warm_up_ms: wire.warm_up_ms.unwrap_or_default(),
            blocks: wire.blocks,
            control: wire.control,
            pathologies: wire.pathologies.read(),
        };
        scenario.check()?;
        Ok(scenario)
    }
}

impl Default for WirePathologies {
    fn default() -> Self {
        Self {
            p99_over_reference: None,
            rps_collapse: None,
            stalls: true,
            slowdown: None,
            growth_kib_per_request: None,
            growth_descriptors_per_request: None,
            slower: Vec::new(),
        }
    }
}

impl WirePathologies {
    fn read(self) -> PathologyRules {
        let slower = self.slower.into_iter();
        PathologyRules {
            p99_over_reference: self.p99_over_reference.or(Some(P99_OVER_REFERENCE)),
            rps_collapse: self.rps_collapse.or(Some(RPS_SHARE_MIN)),
            stalls: self.stalls,
            slowdown: self.slowdown.or(Some(RPS_SHARE_MIN)),
            growth_kib_per_request: self.growth_kib_per_request.or(Some(GROWTH_KIB_PER_REQUEST)),
            growth_descriptors_per_request: self
                .growth_descriptors_per_request
                .or(Some(GROWTH_DESCRIPTORS_PER_REQUEST)),
            slower: slower
                .map(|WireSlower { path, than }| SlowerRule { path, than })
                .collect(),
        }
    }
}

fn rates(
    rates: Option<Vec<u32>>,
    percent_of_knee: Option<Vec<u32>>,
    p99_ms_max: Option<f64>,
    stages_are_of_knee: bool,
) -> Result<Rates, String> {
    match (rates, percent_of_knee, p99_ms_max) {
        // What is looked for is the knee itself.
        (None, None, p99_ms_max) if stages_are_of_knee => Ok(Rates::OfKnee {
            percent: vec![100],
            p99_ms_max: p99_ms_max.unwrap_or(P99_MS_MAX),
        }),
        (None, None, None) => Ok(Rates::ClosedLoop),
        (Some(rates), None, None) => Ok(Rates::Fixed(rates)),
        (None, Some(percent), p99_ms_max) => Ok(Rates::OfKnee {
            percent,
            p99_ms_max: p99_ms_max.unwrap_or(P99_MS_MAX),
        }),
        _ => Err(
            "'rates': expected either these or 'rates-percent-of-knee'; 'knee-p99-ms' goes only \
             with the latter, or with stages that are shares of a knee"
                .to_owned(),
        ),
    }
}

impl Rates {
    pub(super) fn is_empty(&self) -> bool {
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

fn sweep(
    wire: BTreeMap<String, Vec<DefaultValue>>,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let read = |(name, values): (String, Vec<DefaultValue>)| {
        let values: Vec<String> = values
            .into_iter()
            .map(|DefaultValue(value)| value)
            .collect();
        let mut seen = BTreeSet::new();
        match values.iter().find(|value| !seen.insert(*value)) {
            _ if values.is_empty() => Err(format!("'sweep': expected values for '{name}'")),
            Some(twice) => Err(format!("'sweep': expected each value once: '{twice}'")),
            None => Ok((name, values)),
        }
    };
    wire.into_iter().map(read).collect()
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

fn asks(endpoints: Option<&[String]>, requests: Vec<WireRequest>) -> Result<Asks, String> {
    match (endpoints, requests.is_empty()) {
        (Some([all]), true) if all == "*" => Ok(Asks::AllEndpoints),
        (Some(some), true) => {
            let targets = some.iter().map(|target| target.parse());
            Ok(Asks::Endpoints(targets.collect::<Result<_, _>>()?))
        }
        (None, false) => {
            let requests = requests.into_iter().map(WireRequest::read);
            Ok(Asks::Mix(requests.collect::<Result<_, _>>()?))
        }
        (None, true) => Err("expected 'endpoints', or [[request]] tables".to_owned()),
        (Some(_), false) => {
            Err("'endpoints': expected either these or [[request]] tables".to_owned())
        }
    }
}

fn duration_ms(
    duration_ms: Option<u64>,
    requests: Option<u64>,
    limit_ms: Option<u64>,
    stages: &[Stage],
) -> Result<u64, String> {
    let staged_ms = stages
        .iter()
        .fold(0_u64, |sum, it| sum.saturating_add(it.duration_ms));
    match (duration_ms, requests, stages.is_empty()) {
        (Some(_), Some(_), _) => {
            Err("'requests': expected either these or 'duration-ms'".to_owned())
        }
        (_, Some(_), false) => {
            Err("'requests': expected either these or [[stage]] tables".to_owned())
        }
        (Some(_), _, false) => {
            Err("'duration-ms': expected either this or [[stage]] tables".to_owned())
        }
        _ if requests.is_none() && limit_ms.is_some() => {
            Err("'limit-ms': expected 'requests', which it limits".to_owned())
        }
        (None, None, true) => {
            Err("expected 'duration-ms', 'requests' or [[stage]] tables".to_owned())
        }
        (Some(duration_ms), None, true) => Ok(duration_ms),
        (None, Some(_), true) => Ok(limit_ms.unwrap_or(LIMIT_MS)),
        (None, None, false) => Ok(staged_ms),
    }
}

fn concurrency(given: Option<Vec<u32>>, stages: &[Stage]) -> Result<Vec<u32>, String> {
    let staged = stages.iter().filter_map(|stage| stage.concurrency).max();
    match (given, staged) {
        (Some(given), None) => Ok(given),
        (None, Some(highest)) => Ok(vec![highest.max(1)]),
        (Some(_), Some(_)) => Err(
            "'concurrency': expected either this or 'concurrency' in [[stage]] tables".to_owned(),
        ),
        (None, None) => Err("expected 'concurrency': numbers of connections".to_owned()),
    }
}
