//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{catalog::Target, selection::Overrides, until::Goal};

/// Commands as they are typed, below a command's help.
macro_rules! examples {
    ($($line:literal),+ $(,)?) => {
        concat!("Examples:", $("\n  ", $line),+)
    };
}

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
    /// The page; only for 'report'
    Html,
    /// The page as Markdown; only for 'report'
    Md,
    /// One row per cell; only for 'report'
    Csv,
}

impl Cli {
    /// What each argument allows by itself, but not together.
    pub(crate) fn mistake(&self) -> Option<clap::Error> {
        let is_report = matches!(self.command, Command::Report(_));
        let (is_known, only) = match self.format {
            Format::Human | Format::Json => return None,
            Format::Perf => (
                is_report || matches!(self.command, Command::Run(_)),
                "'run' and 'report'",
            ),
            Format::Html | Format::Md | Format::Csv => (is_report, "'report'"),
        };
        let here = match self.command {
            Command::Run(_) => "'human', 'json' or 'perf'",
            _ => "'human' or 'json'",
        };
        let name = self.format.to_possible_value();
        let name = name.as_ref().map_or("", |value| value.get_name());
        (!is_known).then(|| {
            Self::command().error(
                ErrorKind::ArgumentConflict,
                format!("'--format {name}' is only for {only}; use {here} here"),
            )
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What can be run: paths, scenarios and gates
    List,
    /// Write a commented file to begin with: a path, a scenario or a gate
    #[command(after_help = examples!(
        "hopbench new path my-proxy",
    ))]
    New(New),
    /// Everything about a path, a scenario, a gate or an endpoint
    Describe(Describe),
    /// Whether this machine can measure, and what is missing
    Doctor,
    /// The trials that a run would do, without doing any
    #[command(after_help = examples!(
        "hopbench plan http-tunnel --path ring --until 3%",
    ))]
    Plan(Plan),
    /// Whether paths answer endpoints rightly, without timing anything; of a path, all endpoints
    #[command(after_help = examples!(
        "hopbench verify my-proxy.toml",
        "hopbench verify http-tunnel --path ring,./my-proxy.toml",
    ))]
    Verify(Verify),
    /// Measure
    #[command(after_help = examples!(
        "hopbench run http-tunnel --quick",
        "hopbench run quick-look --paths direct,./my-proxy.toml",
        "hopbench run http-tunnel --path ring --endpoint /small --concurrency 1,64 --until 3%",
        "hopbench run http-tunnel --path ring --rate 5000 --format json",
    ))]
    Run(Run),
    /// Measure two builds of this workspace against each other, in the same blocks
    #[command(after_help = examples!(
        "hopbench ab http-tunnel --path ring --a main --b . --blocks 20 --gate --confirm",
        "hopbench ab http-tunnel --a v1.0 --b ../other-checkout --quick",
    ))]
    Ab(Ab),
    /// Find the largest rate that each path holds
    #[command(after_help = examples!(
        "hopbench calibrate latency-vs-rate --path ring",
    ))]
    Calibrate(Calibrate),
    /// Measure a path once, and look where its processes spend their time (perf, strace)
    #[command(after_help = examples!(
        "hopbench profile ring",
        "hopbench profile ./my-proxy.toml --endpoint /large --concurrency 8",
    ))]
    Profile(Profile),
    /// Write the report of a run anew
    #[command(after_help = examples!(
        "hopbench report --open",
        "hopbench report bench_results/RUN --format md",
    ))]
    Report(Report),
    /// Tell two runs apart, cell by cell
    #[command(after_help = examples!(
        "hopbench compare bench_results/BEFORE bench_results/AFTER",
        "hopbench compare bench_results/BEFORE --html change.html",
    ))]
    Compare(Compare),
    /// Judge a run by a policy of guardrails: passed, regressed or inconclusive
    #[command(after_help = examples!(
        "hopbench gate bench_results/RUN --markdown comment.md --junit gate.xml --annotations",
        "hopbench gate bench_results/AFTER --base bench_results/BEFORE --policy ./strict.toml",
    ))]
    Gate(Gate),
    /// Whether a gate works on this machine: false alarms, and costs that are put in and found
    #[command(after_help = examples!(
        "hopbench self-test --case 2-cpu-10 --gates 20",
        "hopbench self-test --of bench_results/RUN --gates 100",
    ))]
    SelfTest(SelfTest),
    /// Follow figures over many runs, and where they changed
    #[command(after_help = examples!(
        "hopbench history --add bench_results/RUN",
    ))]
    History(History),
    /// How far a run is, from another terminal
    Status(Status),
    /// What a shell needs to complete this program's words
    #[command(after_help = examples!(
        "hopbench completions bash > ~/.local/share/bash-completion/completions/hopbench",
    ))]
    Completions(Completions),
    /// This program's manual, for 'man -l'
    #[command(after_help = examples!(
        "hopbench man > hopbench.1 && man -l hopbench.1",
    ))]
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    pub(crate) kind: Kind,
    /// Its name, which is that of the file
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// A way from the client to the origin, with a hop of your own
    Path,
    /// What is asked, of whom and how
    Scenario,
    /// Guardrails
    Gate,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: clap_complete::Shell,
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
    pub(crate) until: Until,
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
pub(crate) struct Profile {
    /// Name or file of a path
    pub(crate) path: String,
    /// What to ask for
    #[arg(long, value_name = "TARGET", default_value = "/small")]
    pub(crate) endpoint: Target,
    /// With so many connections
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) concurrency: u32,
    /// At this rate, in requests per second; as fast as they are answered if not given
    #[arg(long, value_name = "RPS")]
    pub(crate) rate: Option<u32>,
    /// For so long
    #[arg(long, value_name = "MS", default_value_t = 3_000,
        value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub(crate) duration_ms: u64,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Directory of the run [default: the latest]
    pub(crate) run: Option<PathBuf>,
    /// Show the page in a browser
    #[arg(long)]
    pub(crate) open: bool,
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
    /// Compare although a path's programs have other versions: they are what is compared
    #[arg(long)]
    pub(crate) other_versions: bool,
    /// Write the comparison as a page, too
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
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
    /// Measure nothing: deal out the trials of this run of a build against itself again and again,
    /// and count how often the gate finds something
    #[arg(long, value_name = "RUN", conflicts_with_all = ["cases", "time", "load_threads"])]
    pub(crate) of: Option<PathBuf>,
    /// Name or file of the policy [default: the first that 'hopbench list' names]
    #[arg(long, value_name = "POLICY", requires = "of")]
    pub(crate) policy: Option<String>,
    /// How many gates for each case [default: 3, with --of 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) gates: Option<u16>,
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
    /// Measure again where something regressed; only what does so both times counts. Of a run of
    /// two builds, in the directory where it was made
    #[arg(long, conflicts_with = "base")]
    pub(crate) confirm: bool,
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
    /// Names or files of scenarios ('verify' takes paths, too)
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
