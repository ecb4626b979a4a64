//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{catalog::Target, selection::Overrides, until::Goal};

/// Measures what a hop costs: anything between an HTTP client and the program that answers it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Where this workspace's programs are [default: beside hopbench]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// How to print results
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables
    Human,
    /// One JSON document
    Json,
    /// One line of key=value per cell; only for 'run' and 'report'
    Perf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What can be run: paths, scenarios and gates
    List,
    /// Everything about a path, a scenario, a gate or an endpoint
    Describe(Describe),
    /// Whether this machine can measure, and what is missing
    Doctor,
    /// The trials that a run would do, without doing any
    Plan(Plan),
    /// Whether paths answer endpoints rightly, without timing anything
    Verify(Verify),
    /// Measure
    Run(Run),
    /// Measure two builds of this workspace against each other, in the same blocks
    Ab(Ab),
    /// Find the largest rate that each path holds
    Calibrate(Calibrate),
    /// Write the report of a run anew
    Report(Report),
    /// Tell two runs apart, cell by cell
    Compare(Compare),
    /// Judge a run by a policy of guardrails: passed, regressed or inconclusive
    Gate(Gate),
    /// Whether a gate works on this machine: false alarms, and costs that are put in and found
    SelfTest(SelfTest),
    /// Follow figures over many runs, and where they changed
    History(History),
    /// How far a run is, from another terminal
    Status(Status),
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name or file of a path, scenario or gate, or an endpoint such as '/small'
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) until: Until,
    /// Seed of the order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) until: Until,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How to measure, whatever it is.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Seed of the order [default: from the clock; it is recorded]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Below which directory to write the results
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
    /// Threads of the load generator [default: its own choice, one per physical core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) load_threads: Option<u16>,
    /// How long a request may take before it counts as timed out
    #[arg(long, value_name = "MS", default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(crate) request_timeout_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Ab {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// What is there: a revision, a checkout, or a directory with built programs
    #[arg(long, value_name = "DIR_OR_REV")]
    pub(crate) a: String,
    /// What may become of it: the same
    #[arg(long, value_name = "DIR_OR_REV")]
    pub(crate) b: String,
    /// Judge what was measured, as 'hopbench gate' would
    #[arg(long)]
    pub(crate) gate: bool,
    /// Name or file of the policy [default: the first that 'hopbench list' names]
    #[arg(long, value_name = "POLICY", requires = "gate")]
    pub(crate) policy: Option<String>,
    /// Measure again where something regressed; only what does so both times counts
    #[arg(long, requires = "gate")]
    pub(crate) confirm: bool,
    #[command(flatten)]
    pub(crate) output: GateOutput,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Calibrate {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Directory of the run [default: the latest]
    pub(crate) run: Option<PathBuf>,
    /// Where runs are looked for
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Directory of the run that was there before
    pub(crate) base: PathBuf,
    /// Directory of the run to be told from it [default: the latest]
    pub(crate) head: Option<PathBuf>,
    /// Where runs are looked for
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Add this run's figures first
    #[arg(long, value_name = "RUN")]
    pub(crate) add: Option<PathBuf>,
    /// Where the history is, a row per line
    #[arg(
        long,
        value_name = "FILE",
        default_value = "bench_results/history.jsonl"
    )]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SelfTest {
    /// Only these cases, by name or file [default: all]
    #[arg(long = "case", value_name = "CASE", value_delimiter = ',')]
    pub(crate) cases: Vec<String>,
    /// How many gates for each case
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) gates: u16,
    /// How long each gate may measure, such as '90s' or '5m' [default: what the case says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) time: Option<Duration>,
    #[command(flatten)]
    pub(crate) how: How,
}

/// Where verdicts go besides stdout.
#[derive(Debug, Args)]
pub(crate) struct GateOutput {
    /// Write the verdicts as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write them as Markdown for a comment, too
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Print them as GitHub's workflow commands, too (with JSON: to stderr)
    #[arg(long)]
    pub(crate) annotations: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gate {
    /// Directory of the run [default: the latest]
    pub(crate) run: Option<PathBuf>,
    /// Name or file of the policy [default: the first that 'hopbench list' names]
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// Directory of the run to judge it against, unless it is of two builds
    #[arg(long, value_name = "RUN")]
    pub(crate) base: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: GateOutput,
    /// Where runs are looked for
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Directory of the run [default: the latest]
    pub(crate) run: Option<PathBuf>,
    /// Where runs are looked for
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

/// When a run has enough blocks.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Until {
    /// Add blocks until the interval of every ratio of RPS reaches no farther than this to either
    /// side, such as '3%'
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) until: Option<f64>,
    /// Add no block that would not be finished by then, such as '90s', '30m' or '2h'
    #[arg(long, value_name = "TIME", default_value = "1h", requires = "until",
        value_parser = parse_duration)]
    pub(crate) max_time: Duration,
}

impl Until {
    pub(crate) fn goal(&self) -> Option<Goal> {
        Some(Goal {
            reach_percent: self.until?,
            time_max: self.max_time,
        })
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text
        .strip_suffix('%')
        .unwrap_or(text)
        .trim_end()
        .parse::<f64>();
    match number {
        Ok(percent) if (0.1..=100.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage from 0.1% to 100%, such as '3%'".to_owned()),
    }
}

/// Seconds, minutes or hours.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        Some(number * seconds)
    });
    match parsed {
        Some(seconds) if (1.0..=SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("expected seconds, minutes or hours, '1s' to '168h'".to_owned()),
    }
}

/// Scenarios, and what is changed of them.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Names or files of scenarios
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Measure these paths instead: a name, 'tag:' and a tag, '*', or a TOML file.
    /// The reference is always measured too
    #[arg(
        long = "path",
        visible_alias = "paths",
        value_name = "PATH",
        value_delimiter = ','
    )]
    paths: Vec<String>,
    /// Ask for these endpoints instead; a request body's length in bytes follows a colon
    #[arg(
        long = "endpoint",
        visible_alias = "endpoints",
        value_name = "TARGET",
        value_delimiter = ','
    )]
    endpoints: Vec<Target>,
    /// With these many connections instead
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    concurrency: Vec<u32>,
    /// Ask at these rates instead, in requests per second, however long the answers take
    #[arg(
        long = "rate",
        value_name = "RPS",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    rates: Vec<u32>,
    /// Load each cell for this long instead
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    duration_ms: Option<u64>,
    /// Warm each path up for this long instead
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    warm_up_ms: Option<u64>,
    /// Measure every cell this often instead
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    blocks: Option<u32>,
    /// Everything once and briefly: under a minute for the tunnel's matrix. Not for comparing
    #[arg(long)]
    quick: bool,
}

impl Choice {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            paths: self.paths.clone(),
            endpoints: self.endpoints.clone(),
            concurrency: self.concurrency.clone(),
            rates: self.rates.clone(),
            duration_ms: self.duration_ms,
            warm_up_ms: self.warm_up_ms,
            blocks: self.blocks,
            quick: self.quick,
        }
    }
}
