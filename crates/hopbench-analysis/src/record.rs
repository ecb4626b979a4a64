//! What a run directory holds: `manifest.json`, `plan.json` and the lines of `trials.jsonl`.
//!
//! These types are the format (`docs/FORMAT.md`). Durations are in microseconds or milliseconds as
//! named; a missing number is `null`, never a zero.

mod disturbance;
mod knee;
mod profile;
mod read;
mod warning;

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    disturbance::Disturbance,
    knee::Knee,
    profile::{Profile, RoleProfile},
    read::RecordError,
    warning::Warning,
};

/// Raised when a reader of the old records would misread the new ones. Since 2, a cell has a rate
/// and a build; records of 1 have neither, and are read as they were.
pub const SCHEMA: u32 = 2;

/// `manifest.json`: what was run, where, and with what.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Manifest {
    pub schema: u32,
    pub hopbench: String,
    /// UTC, RFC 3339.
    pub started: String,
    pub command_line: Vec<String>,
    pub seed: u64,
    pub git: Git,
    pub machine: Machine,
    /// The compiler, as it names itself; empty if it is not installed.
    pub toolchain: String,
    /// Cargo profile of the orchestrator, and by the way it is built of everything else.
    pub profile: String,
    pub scenarios: Vec<ScenarioInfo>,
    pub paths: Vec<PathInfo>,
    /// Conditions that make figures doubtful, known before the first trial.
    pub warnings: Vec<String>,
    /// What was built twice; empty unless two builds were measured against each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildInfo>,
    /// What rates the paths hold; empty unless that was looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knees: Vec<Knee>,
}

/// One of two builds of this workspace.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct BuildInfo {
    pub build: Build,
    /// A directory or a revision, as it was asked for.
    pub asked: String,
    pub git: Git,
}

/// Which of two builds: `A` is what is there, `B` what may become of it.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Build {
    A,
    B,
}

/// The revision of the working directory; empty outside of one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Git {
    pub revision: String,
    pub dirty: bool,
}

/// The machine. What can't be found out is empty or `None`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Machine {
    pub cpu_model: String,
    pub cores: usize,
    pub memory_kib: u64,
    pub kernel: String,
    pub operating_system: String,
    pub virtualization: String,
    pub governor: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clock_source: String,
    /// cgroup limits of the orchestrator, as the kernel prints them.
    pub cgroup: BTreeMap<String, String>,
    /// File system of the run directory.
    pub storage: String,
    /// Network interfaces and their speed; the load itself stays on loopback.
    pub network: Vec<String>,
    pub open_files_max: u64,
    /// Whether the kernel counts time in interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`): then the
    /// CPU time of processes has none of it, otherwise that of whatever they interrupted. `None` if
    /// it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_time_accounted: Option<bool>,
}

/// A scenario, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct ScenarioInfo {
    pub name: String,
    pub question: String,
    pub analysis: String,
    /// The path that all others are compared with.
    pub reference: String,
    /// In the order in which they are reported. A request body's length in bytes follows a colon.
    pub endpoints: Vec<String>,
    pub blocks: u32,
    pub pathologies: PathologyRules,
}

/// When a figure is called a pathology.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct PathologyRules {
    /// p99 over this many times the reference's.
    pub p99_over_reference: Option<f64>,
    /// RPS below this share of the same path's at the next lower concurrency.
    pub rps_collapse: Option<f64>,
    /// Pairs of paths of which the first must not be slower than the second.
    pub slower: Vec<SlowerRule>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct SlowerRule {
    pub path: String,
    pub than: String,
}

/// A path, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct PathInfo {
    pub name: String,
    pub summary: String,
    pub analysis: String,
    /// What each process says of its version, by process.
    pub receipts: BTreeMap<String, String>,
    /// Why the path was left out, if it was.
    pub skipped: Option<String>,
}

/// `plan.json`: every trial, in the order in which they are run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Plan {
    /// Estimate for the whole run.
    pub estimate_ms: u64,
    pub trials: Vec<PlannedTrial>,
}

/// One trial to be run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PlannedTrial {
    /// Position in the plan, from 1.
    pub trial: u32,
    pub block: u32,
    #[serde(flatten)]
    pub cell: Cell,
    /// 0, or 1 for the second occurrence of the cell in a block, which the reference has, and
    /// every cell of build A.
    pub twin: u8,
    pub duration_ms: u64,
    pub warm_up_ms: u64,
}

/// Path × endpoint × load.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Cell {
    pub scenario: String,
    pub endpoint: String,
    pub path: String,
    /// Connections.
    pub concurrency: u32,
    pub keep_alive: bool,
    /// Requests per second, whether or not earlier ones are answered. `None`: a closed loop, in
    /// which every connection asks again when it has its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rps: Option<u32>,
    /// `None` unless two builds are measured against each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// A line of `trials.jsonl`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Trial {
    #[serde(flatten)]
    pub planned: PlannedTrial,
    /// UTC, RFC 3339.
    pub started: String,
    pub outcome: Outcome,
    pub timing: Timing,
    /// Absent if the load never came about.
    pub load: Option<Load>,
    pub processes: Vec<ProcessUsage>,
    /// CPU time during the load, by role, in microseconds.
    pub cpu_us: BTreeMap<String, f64>,
    /// Time for which threads of the path were runnable and waited for a core during the load, by
    /// role, in microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub run_queue_wait_us: BTreeMap<String, f64>,
    /// By process: each counter's change during the load; gauges as they were at its end.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    pub disturbance: Disturbance,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Failed(Failure),
    Ok,
}

/// Why a trial yielded no figures.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Failure {
    pub source: Source,
    pub kind: FailureKind,
    pub cause: String,
    /// The last lines that the processes logged.
    pub log: Vec<String>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The measuring program itself, or the machine.
    Harness,
    LoadGenerator,
    /// The path under test.
    Subject,
}

#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A process ended by itself.
    Crash,
    /// Bytes that the client received are missing in the tunnel's counters.
    Conservation,
    /// Nothing went on any more, and the deadline passed.
    Hang,
    /// A process didn't come up.
    Start,
    /// Requests that got no answer in time, among others that did.
    TimeOut,
    /// Not done for a reason outside of the path.
    Unable,
    /// An answer of wrong status, length or digest.
    WrongAnswer,
}

/// Where the time of a trial went, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Timing {
    pub start_ms: f64,
    pub verify_ms: f64,
    pub warm_up_ms: f64,
    pub load_ms: f64,
    /// Reading usage and counters, and the load generator's own evaluation.
    pub scrape_ms: f64,
    pub stop_ms: f64,
}

/// What the load generator reports. Latencies are those of right answers, in microseconds, and of
/// requests that are [censored](Latency::censored).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Load {
    pub generator: String,
    pub elapsed_us: f64,
    pub requests: u64,
    /// Answers of the expected status and length.
    pub good: u64,
    pub wrong: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    pub body_bytes: u64,
    pub connect_us_max: Option<f64>,
    /// Open in the middle of the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Connections that were opened while the load was measured; those of the warm-up are not
    /// counted. A closed loop opens its own then, a load at a fixed rate has opened them before.
    /// `None` if the load generator did not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_opened: Option<u64>,
    /// Answers whose body was compared with the expected one: at a fixed rate all, in a closed loop
    /// those that were asked for on another connection, right after the load and under one like it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub digests_checked: u64,
    pub latency: Latency,
    /// Absent if no answers are kept apart, as at a fixed rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstAnswers>,
    pub cpu_us: f64,
    pub peak_rss_kib: u64,
    pub context_switches: u64,
    pub threads: usize,
    /// `None` of a closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
}

/// Right answers to the first requests of connections in a closed loop, which have the opening of
/// the connection in their time: they are good, and in no other latency.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FirstAnswers {
    pub answers: u64,
    pub mean_us: f64,
    pub max_us: f64,
}

/// How a load at a fixed rate kept to its schedule. Its latencies begin at the scheduled instants.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct OpenLoop {
    /// Requests that were due within the load's duration.
    pub scheduled: u64,
    /// Of those, never started before the load's end.
    pub dropped: u64,
    /// Of the dropped ones, those that the load generator was late for: it did not wait for the
    /// path since they were due, but was busy or not awake. The others found no connection free,
    /// because the path had not answered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_late: u64,
    /// From the scheduled instant to the one at which the request was started.
    pub late_us_p50: Option<f64>,
    pub late_us_p99: Option<f64>,
    pub late_us_max: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Latency {
    pub mean_us: Option<f64>,
    pub min_us: Option<f64>,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p95_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub max_us: Option<f64>,
    /// How many of the latencies are lower bounds: requests at a fixed rate that were never
    /// answered count with the time until they failed, those that were never asked with the time
    /// until a connection was free again after the schedule's end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub censored: u64,
    /// HdrHistogram of nanoseconds, V2 compressed, in base64.
    pub histogram: String,
}

/// One process of a path during the load, with its children.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ProcessUsage {
    pub name: String,
    pub role: String,
    pub cpu_us: f64,
    pub context_switches_voluntary: u64,
    pub context_switches_involuntary: u64,
    /// How often threads went to another core; `None` if the kernel doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<u64>,
    /// Before the warm-up.
    pub rss_before_kib: u64,
    pub rss_after_kib: u64,
    /// Highest since the process started.
    pub rss_peak_kib: u64,
    pub threads: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Trial {
    /// Right answers per second; `None` if the trial failed.
    pub fn rps(&self) -> Option<f64> {
        let load = self.measured()?;
        Some(load.good as f64 / load.elapsed_us * 1e6)
    }

    /// Whether its warnings say that something outside used the machine meanwhile.
    pub fn is_disturbed(&self) -> bool {
        let mut warnings = self.warnings.iter();
        warnings.any(|it| matches!(it, Warning::OtherLoad { .. } | Warning::Steal { .. }))
    }

    /// What servers used; `None` if one of their processes went unwatched, so that it isn't known.
    pub fn watched(&self) -> Option<&[ProcessUsage]> {
        let mut warnings = self.warnings.iter();
        let has_strays = warnings.any(|it| matches!(it, Warning::Strayed { .. }));
        (!has_strays).then_some(&self.processes)
    }

    /// CPU time that neither the path nor the load generator nor hopbench used: all of the cores'
    /// time, less what they idled, what the hypervisor took and what is known of. About zero on a
    /// quiet machine; the kernel counts idle time in ticks of 10 ms, so it may be less.
    /// `irq_is_separate` is [`Machine::irq_time_accounted`].
    pub fn others_us(&self, irq_is_separate: bool) -> Option<f64> {
        let seen = &self.disturbance;
        let known_us: f64 = self.cpu_us.values().sum::<f64>() + seen.harness_us?;
        let irq_us = match irq_is_separate {
            true => seen.irq_us? + seen.softirq_us?,
            false => 0,
        };
        let unused_us = seen.idle_us? + seen.steal_us + irq_us;
        Some(seen.machine_us()? - unused_us as f64 - known_us)
    }

    /// The load, if the trial has figures: without a right answer there are none, whatever the
    /// record says of its outcome.
    pub fn measured(&self) -> Option<&Load> {
        match self.outcome {
            Outcome::Ok => self.load.as_ref().filter(|load| load.has_figures()),
            Outcome::Failed(_) => None,
        }
    }

    /// A counter's sum over the processes of the path.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters
            .values()
            .filter_map(|counters| counters.get(name))
            .sum()
    }
}

impl Load {
    /// Whether there is a right answer to form figures of.
    pub fn has_figures(&self) -> bool {
        self.good > 0 && self.elapsed_us > 0.0
    }

    /// Latencies that were recorded: of right answers, but for the first ones of connections, and
    /// of requests without an answer.
    pub fn latencies(&self) -> u64 {
        let first = self.first.as_ref().map_or(0, |first| first.answers);
        let good = self.good.saturating_sub(first);
        good.saturating_add(self.latency.censored)
    }

    /// Requests that were asked and got no right answer.
    pub fn failed(&self) -> u64 {
        self.requests - self.good
    }

    /// Requests that were due and never asked, because the path kept every connection waiting.
    pub fn dropped_by_path(&self) -> u64 {
        let open = self.open_loop.as_ref();
        open.map_or(0, |open| open.dropped.saturating_sub(open.dropped_late))
    }

    /// Requests that the path did not answer rightly, whether they were asked or not.
    pub fn lost(&self) -> u64 {
        self.failed() + self.dropped_by_path()
    }

    /// Requests that were asked or due.
    pub fn due(&self) -> u64 {
        let dropped = self.open_loop.as_ref().map_or(0, |open| open.dropped);
        self.requests + dropped
    }
}

impl Timing {
    /// Time outside of any load: start, verify, scrape, stop.
    pub fn overhead_ms(&self) -> f64 {
        self.start_ms + self.verify_ms + self.scrape_ms + self.stop_ms
    }

    pub fn total_ms(&self) -> f64 {
        self.overhead_ms() + self.warm_up_ms + self.load_ms
    }
}

impl Cell {
    /// How it is loaded, in short: connections, and the rate if there is one.
    pub fn load(&self) -> String {
        match self.rate_rps {
            None => self.concurrency.to_string(),
            Some(rate) => format!("{} at {rate}/s", self.concurrency),
        }
    }

    /// The path, and which build of it there is more than one of.
    pub fn path_and_build(&self) -> String {
        match self.build {
            None => self.path.clone(),
            Some(build) => format!("{} ({build})", self.path),
        }
    }

    /// The same of no build in particular.
    pub fn without_build(&self) -> Self {
        Self {
            build: None,
            ..self.clone()
        }
    }

    /// For a sentence about more than one scenario.
    pub fn full_name(&self) -> String {
        format!("{} {self}", self.scenario)
    }
}

impl fmt::Display for Cell {
    /// For a sentence about its scenario.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keep_alive = if self.keep_alive {
            ""
        } else {
            ", no keep-alive"
        };
        let Self {
            path,
            endpoint,
            build,
            ..
        } = self;
        let build = build.map_or_else(String::new, |build| format!(" ({build})"));
        write!(f, "{path} {endpoint} c={}{keep_alive}{build}", self.load())
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conservation => "bytes unaccounted for",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Start => "did not start",
            Self::TimeOut => "time-out",
            Self::Unable => "not done",
            Self::WrongAnswer => "wrong answer",
        })
    }
}
