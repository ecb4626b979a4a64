//! What a run directory holds: `manifest.json`, `plan.json` and the lines of `trials.jsonl`.
//!
//! These types are the format (`docs/FORMAT.md`). Durations are in microseconds or milliseconds as
//! named; a missing number is `null`, never a zero.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Raised when a reader of the old records would misread the new ones.
pub const SCHEMA: u32 = 1;

/// `manifest.json`: what was run, where, and with what.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
}

/// The revision of the working directory; empty outside of one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Git {
    pub revision: String,
    pub dirty: bool,
}

/// The machine. What can't be found out is empty or `None`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    pub cpu_model: String,
    pub cores: usize,
    pub memory_kib: u64,
    pub kernel: String,
    pub operating_system: String,
    pub virtualization: String,
    pub governor: String,
    /// cgroup limits of the orchestrator, as the kernel prints them.
    pub cgroup: BTreeMap<String, String>,
    /// File system of the run directory.
    pub storage: String,
    /// Network interfaces and their speed; the load itself stays on loopback.
    pub network: Vec<String>,
    pub open_files_max: u64,
}

/// A scenario, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PathologyRules {
    /// p99 over this many times the reference's.
    pub p99_over_reference: Option<f64>,
    /// RPS below this share of the same path's at the next lower concurrency.
    pub rps_collapse: Option<f64>,
    /// Pairs of paths of which the first must not be slower than the second.
    pub slower: Vec<SlowerRule>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlowerRule {
    pub path: String,
    pub than: String,
}

/// A path, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Estimate for the whole run.
    pub estimate_ms: u64,
    pub trials: Vec<PlannedTrial>,
}

/// One trial to be run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PlannedTrial {
    /// Position in the plan, from 1.
    pub trial: u32,
    pub block: u32,
    #[serde(flatten)]
    pub cell: Cell,
    /// 0, or 1 for the second occurrence of the reference in a block.
    pub twin: u8,
    pub duration_ms: u64,
    pub warm_up_ms: u64,
}

/// Path × endpoint × load.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Cell {
    pub scenario: String,
    pub endpoint: String,
    pub path: String,
    pub concurrency: u32,
    pub keep_alive: bool,
}

/// A line of `trials.jsonl`.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// By process: each counter's change during the load; gauges as they were at its end.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    pub disturbance: Disturbance,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Failed(Failure),
    Ok,
}

/// Why a trial yielded no figures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Failure {
    pub source: Source,
    pub kind: FailureKind,
    pub cause: String,
    /// The last lines that the processes logged.
    pub log: Vec<String>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The measuring program itself, or the machine.
    Harness,
    LoadGenerator,
    /// The path under test.
    Subject,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Timing {
    pub start_ms: f64,
    pub verify_ms: f64,
    pub warm_up_ms: f64,
    pub load_ms: f64,
    /// Reading usage and counters, and the load generator's own evaluation.
    pub scrape_ms: f64,
    pub stop_ms: f64,
}

/// What the load generator reports. Latencies are those of right answers, in microseconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
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
    pub latency: Latency,
    pub cpu_us: f64,
    pub peak_rss_kib: u64,
    pub context_switches: u64,
    pub threads: usize,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    pub mean_us: Option<f64>,
    pub min_us: Option<f64>,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p95_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub max_us: Option<f64>,
    /// HdrHistogram of nanoseconds, V2 compressed, in base64.
    pub histogram: String,
}

/// One process of a path during the load, with its children.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ProcessUsage {
    pub name: String,
    pub role: String,
    pub cpu_us: f64,
    pub context_switches_voluntary: u64,
    pub context_switches_involuntary: u64,
    pub rss_before_kib: u64,
    pub rss_after_kib: u64,
    /// Highest since the process started.
    pub rss_peak_kib: u64,
    pub threads: u64,
}

/// What else the machine did during the load.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Disturbance {
    /// Time in which cores did something, whoever for, over all cores, in microseconds.
    pub busy_us: Option<u64>,
    /// The same of doing nothing.
    pub idle_us: Option<u64>,
    /// Time the hypervisor gave to others, over all cores, in microseconds.
    pub steal_us: u64,
    /// Time in which a runnable task waited for a core; `None` without pressure information.
    pub cpu_pressure_us: Option<u64>,
}

/// A rule of validity that a trial breaks. Its figures stand, with this beside them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// Requests failed or were answered wrongly.
    Errors { failed: u64, requests: u64 },
    /// The load generator used all the cores that it can use: it is the limit.
    GeneratorBound { cores_used: f64, cores_max: f64 },
    /// With many connections the machine did nothing for this share of its time.
    Idle { share: f64 },
    /// Concurrency and rate × latency disagree (Little 1961): the generator was not always asking.
    LittlesLaw { concurrency: u32, in_flight: f64 },
    /// A few answers took so long that the p99 says nothing of them.
    MeanAboveP99 { mean_us: f64, p99_us: f64 },
    /// Neither the path nor the load generator used this share of the machine's time.
    OtherLoad { share: f64 },
    /// The load ended long after it should have: some requests were answered very late.
    Overrun { asked_ms: u64, took_ms: f64 },
    /// The hypervisor took this share of the machine's time.
    Steal { share: f64 },
    /// Too few answers for a p99: fewer than 20 lie above it.
    ShortTail { good: u64 },
    /// A process had to be killed at the end.
    Unstoppable { process: String },
}

impl Trial {
    /// Right answers per second; `None` if the trial failed.
    pub fn rps(&self) -> Option<f64> {
        let load = self.measured()?;
        Some(load.good as f64 / load.elapsed_us * 1e6)
    }

    /// The load, if the trial has figures.
    pub fn measured(&self) -> Option<&Load> {
        match self.outcome {
            Outcome::Ok => self.load.as_ref(),
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
    /// Requests that got no right answer.
    pub fn failed(&self) -> u64 {
        self.requests - self.good
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
            concurrency,
            ..
        } = self;
        write!(f, "{path} {endpoint} c={concurrency}{keep_alive}")
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

impl Warning {
    /// For a list of how many there are of each.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Errors { .. } => "errors",
            Self::GeneratorBound { .. } => "generator is the limit",
            Self::Idle { .. } => "machine idle",
            Self::LittlesLaw { .. } => "generator not always asking",
            Self::MeanAboveP99 { .. } => "mean above p99",
            Self::OtherLoad { .. } => "other load",
            Self::Overrun { .. } => "overrun",
            Self::ShortTail { .. } => "too few answers for a p99",
            Self::Steal { .. } => "stolen time",
            Self::Unstoppable { .. } => "killed at the end",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors { failed, requests } => {
                write!(f, "{failed} of {requests} requests got no right answer")
            }
            Self::GeneratorBound {
                cores_used,
                cores_max,
            } => write!(
                f,
                "the load generator used {cores_used:.2} of {cores_max:.0} cores: it is the limit, \
                 not the path; compare CPU per request, or use more --load-threads"
            ),
            Self::Idle { share } => write!(
                f,
                "the machine was idle for {:.0} % of the time: what limits this path is not CPU \
                 time",
                share * 100.0
            ),
            Self::LittlesLaw {
                concurrency,
                in_flight,
            } => write!(
                f,
                "rate × latency says {in_flight:.1} requests in flight, not {concurrency}: the \
                 load generator was not always asking; use a longer --duration-ms or more \
                 --load-threads"
            ),
            Self::MeanAboveP99 { mean_us, p99_us } => write!(
                f,
                "the mean ({:.2} ms) is above the p99 ({:.2} ms): a few answers took very long; \
                 look at the maximum",
                mean_us / 1e3,
                p99_us / 1e3
            ),
            Self::OtherLoad { share } => write!(
                f,
                "others used {:.0} % of the machine; repeat when it is quiet",
                share * 100.0
            ),
            Self::Overrun { asked_ms, took_ms } => write!(
                f,
                "the load took {took_ms:.0} ms instead of {asked_ms}: it waited for single \
                 requests, and its RPS is of a path that stood still; see the path's logs"
            ),
            Self::ShortTail { good } => {
                write!(
                    f,
                    "{good} answers are too few for a p99; use a longer --duration-ms"
                )
            }
            Self::Steal { share } => write!(
                f,
                "the hypervisor took {:.1} % of the machine; repeat when it is quiet",
                share * 100.0
            ),
            Self::Unstoppable { process } => {
                write!(f, "'{process}' did not stop when asked and was killed")
            }
        }
    }
}
