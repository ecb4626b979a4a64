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
    /// What can be run: paths and scenarios
    List,
    /// Everything about a path, a scenario or an endpoint
    Describe(Describe),
    /// Whether this machine can measure, and what is missing
    Doctor,
    /// The trials that a run would do, without doing any
    Plan(Plan),
    /// Whether paths answer endpoints rightly, without timing anything
    Verify(Verify),
    /// Measure
    Run(Run),
    /// Write the report of a run anew
    Report(Report),
    /// Tell two runs apart, cell by cell
    Compare(Compare),
    /// How far a run is, from another terminal
    Status(Status),
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name or file of a path or scenario, or an endpoint such as '/small'
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
        value_parser = duration)]
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

fn duration(text: &str) -> Result<Duration, String> {
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
    #[arg(long, value_name = "N", value_delimiter = ',')]
    concurrency: Vec<u32>,
    /// Load each cell for this long instead
    #[arg(long, value_name = "MS")]
    duration_ms: Option<u64>,
    /// Warm each path up for this long instead
    #[arg(long, value_name = "MS")]
    warm_up_ms: Option<u64>,
    /// Measure every cell this often instead
    #[arg(long, value_name = "N")]
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
            duration_ms: self.duration_ms,
            warm_up_ms: self.warm_up_ms,
            blocks: self.blocks,
            quick: self.quick,
        }
    }
}
