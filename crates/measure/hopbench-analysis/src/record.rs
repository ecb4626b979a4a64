//! Types of the records in a run directory: `manifest.json`, `plan.json`, lines of `trials.jsonl`.
//!
//! These types are the format (`docs/FORMAT.md`). The names of durations end in their unit. A
//! missing number is `null`, never zero.

mod counter;
mod disturbance;
mod front;
mod knee;
mod load;
mod names;
mod placement;
mod profile;
mod read;
mod request;
mod rules;
mod warning;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    counter::{CounterInfo, Per},
    disturbance::Disturbance,
    front::{FrontProtocol, Protocol},
    knee::Knee,
    load::{FirstAnswers, Latency, Load, LoadOfRequest, LoadOfStage, LoadSecond, OpenLoop},
    placement::Placement,
    profile::{Profile, RoleProfile},
    read::RecordError,
    request::Request,
    rules::{PathologyRules, Recovery, SlowerRule},
    warning::Warning,
};
pub(crate) use self::{names::setting, read::line_trouble};

/// Version of the format. It is raised when a reader of old records would misread new ones. Since
/// 2, a cell has a rate and a build. Records of 1 have neither, and can still be read.
pub const SCHEMA: u32 = 2;

/// `manifest.json`: the scenarios, paths, programs and machine of a run.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Manifest {
    /// Version of the format.
    pub schema: u32,
    /// Version of hopbench.
    pub hopbench: String,
    /// Start of the run, in UTC and as RFC 3339.
    pub started: String,
    /// Command line of hopbench, word by word.
    pub command_line: Vec<String>,
    /// Absent from runs of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Seed of the random order of trials.
    pub seed: u64,
    /// Revision that was measured.
    pub git: Git,
    /// Machine that was used.
    pub machine: Machine,
    /// Version of the compiler, in its own words; empty if it is not installed.
    pub toolchain: String,
    /// Cargo profile of hopbench. The other programs of the workspace are built with the same one.
    pub profile: String,
    /// Scenarios of the run.
    pub scenarios: Vec<ScenarioInfo>,
    /// Paths of the run, skipped ones included.
    pub paths: Vec<PathInfo>,
    /// Conditions that make metrics doubtful, known before the first trial.
    pub warnings: Vec<String>,
    /// The two builds; empty unless two builds were measured against each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildInfo>,
    /// Rates that the paths hold; empty unless the run searched for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knees: Vec<Knee>,
}

impl Manifest {
    /// Returns the paths of the run, followed by those of the files that are compared as builds.
    pub fn all_paths(&self) -> impl Iterator<Item = &PathInfo> {
        let of_builds = self.builds.iter().filter_map(|info| info.path.as_ref());
        self.paths.iter().chain(of_builds)
    }
}

/// One of two builds of this workspace, or one of two files of a path.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct BuildInfo {
    /// Which of the two it is.
    pub build: Build,
    /// Directory, revision or file of a path, as the user named it.
    pub asked: String,
    /// Revision that was built.
    pub git: Git,
    /// The path of the file, if two files of a path are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathInfo>,
}

/// One of two builds that are measured against each other.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Build {
    /// The baseline.
    A,
    /// The candidate.
    B,
}

/// Git revision of a directory; empty outside of a repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Git {
    /// Hash of the commit.
    pub revision: String,
    /// Whether there are uncommitted changes.
    pub dirty: bool,
}

/// The machine. Properties that are not known are empty or `None`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu_model: String,
    /// Number of cores that hopbench can use.
    pub cores: usize,
    /// Total memory, in KiB.
    pub memory_kib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of the operating system.
    pub operating_system: String,
    /// Product name of the machine, or whether it is a virtual one.
    pub virtualization: String,
    /// Frequency governor of the first core.
    pub governor: String,
    /// Clock source of the kernel.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clock_source: String,
    /// cgroup limits of hopbench, as the kernel prints them.
    pub cgroup: BTreeMap<String, String>,
    /// File system of the run directory.
    pub storage: String,
    /// Kind of its device, such as `rotating disk`, `virtual disk` or `memory`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub storage_kind: String,
    /// Network interfaces and their speed; the load itself stays on loopback.
    pub network: Vec<String>,
    /// Hard limit on open files of a process.
    pub open_files_max: u64,
    /// Whether the kernel counts time in interrupts separately (`CONFIG_IRQ_TIME_ACCOUNTING`). If
    /// not, it is part of the CPU time of the interrupted processes. `None` if this is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_time_accounted: Option<bool>,
    /// Variables that each process gets, and no others. Absent from runs of older builds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Permissions that files of the processes don't have, in octal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub umask: String,
}

/// A scenario, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct ScenarioInfo {
    /// Name of the scenario.
    pub name: String,
    /// Question that it answers.
    pub question: String,
    /// Text about it for the report.
    pub analysis: String,
    /// Text of its file. Empty in runs of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition: String,
    /// Name of the path that all others are compared with.
    pub reference: String,
    /// Endpoints in the order of the report. The length of a request body follows a colon.
    pub endpoints: Vec<String>,
    /// Number of blocks.
    pub blocks: u32,
    /// Limits beyond which a metric is a pathology.
    pub pathologies: PathologyRules,
    /// When a path counts as recovered. `None` if that is not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Requests, preparations and stages, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<String>,
}

/// A path, as far as the report needs it.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct PathInfo {
    /// Name of the path.
    pub name: String,
    /// Summary in a line.
    pub summary: String,
    /// Text about it for the report.
    pub analysis: String,
    /// Version that each process reports about itself, by process.
    pub receipts: BTreeMap<String, String>,
    /// Everything that a process's version command printed, if that is more than one line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version_outputs: BTreeMap<String, String>,
    /// Text of its file, with all configurations that it writes. Empty in runs of older builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition: String,
    /// Values of its parameters: those of the file, unless others were set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// How clients ask the path, if not by HTTP/1.1 without TLS.
    #[serde(default, skip_serializing_if = "FrontProtocol::is_plain")]
    pub front: FrontProtocol,
    /// Reason for which the path was left out, if it was.
    pub skipped: Option<String>,
    /// Counters that reports show. Absent from runs of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Vec<CounterInfo>>,
    /// Correct answers that differ from those of other paths, by the name of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<String, String>,
}

/// `plan.json`: every trial, in the order in which they are run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Plan {
    /// Estimated duration of the whole run, in milliseconds.
    pub estimate_ms: u64,
    /// Trials in the order of running.
    pub trials: Vec<PlannedTrial>,
}

/// One trial to be run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PlannedTrial {
    /// Position in the plan, from 1.
    pub trial: u32,
    /// Number of the block, from 1; 0 for a trial that searches for a knee.
    pub block: u32,
    /// Path, endpoint and load.
    #[serde(flatten)]
    pub cell: Cell,
    /// 1 for a replicate (the second trial of the reference, or of build A, in a block), else 0.
    #[serde(rename = "twin")]
    pub replicate: u8,
    /// Duration of the load, in milliseconds; for a number of requests, its limit.
    pub duration_ms: u64,
    /// Duration of the warm-up before it, in milliseconds.
    pub warm_up_ms: u64,
    /// Number of requests of the load. `None`: the duration decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Changes of the load over time; empty for a load that stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Time that a connection of a closed loop waits between an answer and its next request, in
    /// milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub think_time_ms: u64,
    /// How often the block had been measured at this load before, and was disturbed.
    #[serde(default, skip_serializing_if = "is_first")]
    pub attempt: u32,
}

/// A part of a load's duration, over which the load changes evenly.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Stage {
    /// Name, or the number of the stage, from 1.
    pub name: String,
    /// Duration, in milliseconds.
    pub duration_ms: u64,
    /// Level at the beginning: requests per second of an open loop, or connections of a closed one.
    pub from: f64,
    /// Level at the end.
    pub to: f64,
}

/// A cell: path × endpoint × load.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Cell {
    /// Name of the scenario.
    pub scenario: String,
    /// Endpoint that is requested. The length of a request body follows a colon.
    pub endpoint: String,
    /// Name of the path.
    pub path: String,
    /// Number of connections.
    pub concurrency: u32,
    /// Whether a connection carries more than one request.
    pub keep_alive: bool,
    /// Requests per second, whether or not earlier ones are answered. `None` for a closed loop, in
    /// which each connection sends its next request as soon as it has its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rps: Option<u32>,
    /// Build of the programs. `None` unless two builds are measured against each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Whether the load changes from stage to stage. Then the concurrency and the rate are the
    /// highest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub staged: bool,
    /// Cores that the client and the path may use.
    #[serde(default, skip_serializing_if = "Placement::is_free")]
    pub placement: Placement,
}

/// A line of `trials.jsonl`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Trial {
    /// The trial, as it was planned.
    #[serde(flatten)]
    pub planned: PlannedTrial,
    /// Start of the trial, in UTC and as RFC 3339.
    pub started: String,
    /// Whether the trial yielded metrics.
    pub outcome: Outcome,
    /// Durations of the trial's phases.
    pub timing: Timing,
    /// Result of the load; absent if there was no load.
    pub load: Option<Load>,
    /// Usage of each process of the path.
    pub processes: Vec<ProcessUsage>,
    /// CPU time during the load by role, in microseconds.
    pub cpu_us: BTreeMap<String, f64>,
    /// Time in which runnable threads of the path waited for a core, by role, in microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub run_queue_wait_us: BTreeMap<String, f64>,
    /// Counters by process: their change during the load; gauges as they were at its end.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// Activity of the machine during the load.
    pub disturbance: Disturbance,
    /// Validity rules that the trial broke.
    pub warnings: Vec<Warning>,
    /// Loads before the warm-up that made the path ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<Prepared>,
    /// Usage of the path's processes in each second of the load; only for a load in stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<UsageSecond>,
}

/// A load that made a path ready.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Prepared {
    /// Name of the preparation.
    pub name: String,
    /// Number of requests that were sent.
    pub requests: u64,
    /// Number of correct answers.
    pub good: u64,
    /// Time from the first request's start to the last one's end, in microseconds.
    pub elapsed_us: f64,
    /// Counters by process: their change during the preparation.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Usage of a path's processes in a second of a load. The last one may be shorter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct UsageSecond {
    /// Length, in microseconds.
    pub elapsed_us: f64,
    /// CPU time by role, in microseconds.
    pub cpu_us: BTreeMap<String, f64>,
    /// Resident memory of all processes at the end, in KiB.
    pub rss_kib: u64,
    /// Open descriptors of all processes at the end; `None` if they can't be counted.
    pub descriptors: Option<u64>,
}

/// Whether a trial yielded metrics.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The trial yielded no metrics.
    Failed(Failure),
    /// The trial yielded metrics.
    Ok,
}

/// Failure of a trial.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Failure {
    /// Who is at fault.
    pub source: Source,
    /// Kind of the failure.
    pub kind: FailureKind,
    /// Cause in words.
    pub cause: String,
    /// Last lines that the processes logged.
    pub log: Vec<String>,
}

/// Who is at fault for a failure.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// hopbench itself, or the machine.
    Harness,
    /// The load generator.
    LoadGenerator,
    /// The path under test.
    Subject,
}

/// Kind of a failure.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A process ended by itself.
    Crash,
    /// Bytes that the client received are missing in the path's counters.
    Conservation,
    /// Nothing progressed any more, and the deadline passed.
    Hang,
    /// Connections were closed or refused before there was an answer.
    NoAnswer,
    /// A process didn't start.
    Start,
    /// Some requests got no answer in time, but others did.
    TimeOut,
    /// The trial was not done, for a reason outside of the path.
    Unable,
    /// A load that should make the path ready did not do what it should.
    Preparation,
    /// An answer had the wrong status, length or digest.
    WrongAnswer,
}

/// Durations of a trial's phases, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Timing {
    /// Start of the processes.
    pub start_ms: f64,
    /// Loads that made the path ready.
    #[serde(default, skip_serializing_if = "is_no_time")]
    pub prepare_ms: f64,
    /// Checks of an answer before and after the load.
    pub verify_ms: f64,
    /// Warm-up.
    pub warm_up_ms: f64,
    /// Load.
    pub load_ms: f64,
    /// Reading of usage and counters, and the load generator's own evaluation.
    pub scrape_ms: f64,
    /// Stop of the processes.
    pub stop_ms: f64,
}

/// Usage of one process of a path during the load, with its children.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ProcessUsage {
    /// Name of the process.
    pub name: String,
    /// Role under which its CPU time is reported.
    pub role: String,
    /// CPU time, in microseconds.
    pub cpu_us: f64,
    /// Number of voluntary context switches.
    pub context_switches_voluntary: u64,
    /// Number of involuntary context switches.
    pub context_switches_involuntary: u64,
    /// Number of times that threads moved to another core; `None` if the kernel doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<u64>,
    /// Resident memory before the warm-up, in KiB.
    pub rss_before_kib: u64,
    /// Resident memory at the load's end, in KiB, without processes that began during the load.
    pub rss_after_kib: u64,
    /// Peak resident memory since the process started, in KiB.
    pub rss_peak_kib: u64,
    /// Number of threads at the load's end.
    pub threads: u64,
    /// Open descriptors before the warm-up; `None` if they can't be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors_before: Option<u64>,
    /// Open descriptors at the load's end; `None` if they can't be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors_after: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(attempt: &u32) -> bool {
    *attempt == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_no_time(duration: &f64) -> bool {
    *duration <= 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Trial {
    /// Returns the correct answers per second; `None` if the trial has no metrics.
    pub fn rps(&self) -> Option<f64> {
        let load = self.measured()?;
        Some(load.good as f64 / load.elapsed_us * 1e6)
    }

    /// Returns whether the warnings say that something outside used the machine meanwhile.
    pub fn is_disturbed(&self) -> bool {
        let mut warnings = self.warnings.iter();
        warnings.any(|it| matches!(it, Warning::OtherLoad { .. } | Warning::Steal { .. }))
    }

    /// Returns the usage of the path's processes; `None` if one of them was not watched.
    pub fn watched(&self) -> Option<&[ProcessUsage]> {
        let mut warnings = self.warnings.iter();
        let has_strays = warnings.any(|it| matches!(it, Warning::Strayed { .. }));
        (!has_strays).then_some(&self.processes)
    }

    /// Returns the CPU time that neither the path nor the load generator nor hopbench used, in
    /// microseconds: the time of all cores less idle, stolen and known CPU time. It is about zero
    /// on a quiet machine, and may be below, since the kernel counts idle time in ticks of 10 ms.
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

    /// Returns the load if the trial has metrics. Without a correct answer it has none, whatever
    /// outcome the record has.
    pub fn measured(&self) -> Option<&Load> {
        match self.outcome {
            Outcome::Ok => self.load.as_ref().filter(|load| load.has_metrics()),
            Outcome::Failed(_) => None,
        }
    }

    /// Returns the sum of a counter over the path's processes; `None` if none of them has it.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let counters = self.counters.values();
        let values = counters.filter_map(|counters| counters.get(name));
        values.copied().reduce(u64::saturating_add)
    }
}

impl Timing {
    /// Returns the time outside of any load, in milliseconds: start, verify, scrape, stop.
    pub fn overhead_ms(&self) -> f64 {
        self.start_ms + self.prepare_ms + self.verify_ms + self.scrape_ms + self.stop_ms
    }

    /// Returns the duration of the whole trial, in milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.overhead_ms() + self.warm_up_ms + self.load_ms
    }
}
