//! The command line.

mod choice;
mod engine;
mod exchange;

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

pub(crate) use self::choice::{Choice, Length, Parameters, Until};
use crate::{
    catalog::{CONCURRENCY_MAX, FileKind, RATE_RPS_MAX, Target, parse_duration},
    cmd::number::within,
};

pub(crate) use self::{
    engine::{Engine, Export, Import},
    exchange::Exchange,
};

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
    /// Returns the error for arguments that are valid one by one, but not together.
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
    /// List paths, scenarios, gates and self-test cases
    #[command(after_help = examples!(
        "hopbench list",
    ))]
    List,
    /// Describe a path, a scenario, a gate, a probe or an endpoint
    #[command(after_help = examples!(
        "hopbench describe http-tunnel",
        "hopbench describe my-proxy.toml",
    ))]
    Describe(Describe),
    /// Check that this machine can measure, and say what is missing
    #[command(after_help = examples!(
        "hopbench doctor",
        "hopbench doctor my-proxy.toml",
        "hopbench doctor --save-profile hardware.json",
    ))]
    Doctor(Doctor),
    /// Check that paths return correct answers; measure nothing
    #[command(after_help = examples!(
        "hopbench verify my-proxy.toml",
        "hopbench verify http-tunnel --path ring,./my-proxy.toml",
    ), mut_arg("scenarios", |arg| arg.help("Names or files of scenarios, or of paths")))]
    Verify(Verify),
    /// Measure a hop that is given as one command line, in about a minute
    #[command(after_help = examples!(
        "hopbench quick './relay.py {{port:front}} {{port:origin}}' --save my-relay.toml",
        "hopbench quick 'GOMAXPROCS=1 caddy reverse-proxy --from :{{port:front}} \
         --to :{{port:origin}}'",
    ), mut_arg("duration_ms", |arg| arg.help(
        "Load each cell for this many milliseconds [default: 250, about a minute in all]"
    )), mut_arg("warm_up_ms", |arg| arg.help(
        "Warm each path up for this many milliseconds [default: 50]"
    )))]
    Quick(super::quick::Options),
    /// Measure paths
    #[command(after_help = examples!(
        "hopbench run http-tunnel --quick",
        "hopbench run quick-look --paths direct,./my-proxy.toml",
        "hopbench run http-tunnel --path ring --endpoint /small --concurrency 1,64 --until 3%",
        "hopbench run http-tunnel --path ring --rate 5000 --format json",
        "hopbench run quick-look --path ./my-proxy.toml --sweep workers=1,2,4 --set mode=fast",
    ))]
    Run(Run),
    /// Measure as an earlier run did, by its directory alone
    #[command(after_help = examples!(
        "hopbench rerun bench_results/RUN",
    ))]
    Rerun(super::rerun::Options),
    /// Write a run's report again, from its records
    #[command(after_help = examples!(
        "hopbench report --open",
        "hopbench report bench_results/RUN --format md",
    ))]
    Report(Report),
    /// Compare two runs, cell by cell
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
    /// Measure two builds of this workspace, or two files of a path, in the same blocks
    #[command(after_help = examples!(
        "hopbench ab http-tunnel --path ring --a main --b . --blocks 20 --gate --confirm",
        "hopbench ab http-tunnel --a v1.0 --b ../other-checkout --quick",
        "hopbench ab --a my-proxy-1.toml --b my-proxy-2.toml --blocks 20 --gate",
    ), mut_arg("scenarios", |arg| arg.required(false).help(
        "Names or files of scenarios [default for two files of a path: 'quick-look']"
    )))]
    Ab(Ab),
    /// Write a commented file to start from: a path, a scenario, a gate or a probe
    #[command(after_help = examples!(
        "hopbench new path my-proxy",
    ))]
    New(New),
    /// Write a scenario's load as a project for Locust or k6, which run on several machines
    #[command(after_help = examples!(
        "hopbench export locust edge-load --target http://10.0.0.5:8080",
        "hopbench export k6 mix --concurrency 64 --rate 500 --target http://10.0.0.5:8080",
    ))]
    Export(Export),
    /// Show what another engine measured, and keep it beside a run: never a ratio, never gated
    #[command(after_help = examples!(
        "hopbench import hopbench-external.json",
        "hopbench import locust_stats.csv --run bench_results/RUN",
    ))]
    Import(Import),
    /// List the trials of a run and estimate its time; measure nothing
    #[command(after_help = examples!(
        "hopbench plan http-tunnel --path ring --until 3%",
    ))]
    Plan(Plan),
    /// Show the progress of a run, from another terminal
    #[command(after_help = examples!(
        "hopbench status",
    ))]
    Status(Status),
    /// Observe what is no load of requests: commands, starts, changes, secrets, logs, connections
    #[command(after_help = examples!(
        "hopbench probe cold-start",
        "hopbench probe convergence --size 100 --only forwarder --inject dropped-request",
    ))]
    Probe(super::probe::Options),
    /// Measure a path once, and find where its processes spend their time (perf, strace)
    #[command(after_help = examples!(
        "hopbench profile ring",
        "hopbench profile ./my-proxy.toml --endpoint /large --concurrency 8",
    ))]
    Profile(Profile),
    /// Print completions for a shell
    #[command(after_help = examples!(
        "hopbench completions bash > ~/.local/share/bash-completion/completions/hopbench",
    ))]
    Completions(Completions),
    /// Print the manual page
    #[command(after_help = examples!(
        "hopbench man > hopbench.1 && man -l hopbench.1",
    ))]
    Man,
    #[command(flatten)]
    Maintenance(Maintenance),
}

/// Subcommands for those who maintain a harness.
#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    /// Find the largest rate that each path holds
    #[command(after_help = examples!(
        "hopbench calibrate latency-vs-rate --path ring",
    ))]
    Calibrate(Calibrate),
    /// Count false alarms and detections of gates on this machine
    #[command(after_help = examples!(
        "hopbench self-test --case 2-cpu-10 --gates 20",
        "hopbench self-test --of bench_results/RUN --gates 100",
    ))]
    SelfTest(SelfTest),
    /// Follow metrics over many runs, and find where they changed
    #[command(after_help = examples!(
        "hopbench history --add bench_results/RUN",
    ))]
    History(History),
    /// Write the page of a release: its runs, environment and figures, and what changed
    #[command(after_help = examples!(
        "hopbench release-summary --release 1.2.3 --out docs/PERFORMANCE.md",
        "hopbench release-summary --release 1.2.3 bench_results/RUN --base bench_results/BEFORE",
    ))]
    ReleaseSummary(ReleaseSummary),
}

/// Returns the command line, with the subcommands for maintainers under a heading of their own.
pub(crate) fn command_line() -> clap::Command {
    let command = Cli::command();
    let subcommands: Vec<(&str, String)> = command
        .get_subcommands()
        .map(|one| {
            let about = one.get_about().map(ToString::to_string);
            (one.get_name(), about.unwrap_or_default())
        })
        .collect();
    let maintenance = Maintenance::augment_subcommands(clap::Command::default());
    let is_maintenance = |name: &str| maintenance.find_subcommand(name).is_some();
    let lines = |is_for_maintainers: bool| -> String {
        let group = subcommands
            .iter()
            .filter(|(name, _)| is_maintenance(name) == is_for_maintainers);
        group
            .map(|(name, about)| format!("  {name:<15} {about}\n"))
            .collect()
    };
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\nCommands:\n{}\n\
         Commands for maintainers of a harness:\n{}\nOptions:\n{{options}}",
        lines(false),
        lines(true)
    );
    command.help_template(template)
}

#[derive(Debug, Args)]
pub(crate) struct New {
    pub(crate) kind: Kind,
    /// Name of the file, without its ending
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// A way from the client to the origin, with a hop of your own
    Path,
    /// Requests, the paths they are sent to, and the loads
    Scenario,
    /// Guardrails for a run
    Gate,
    /// Observations of commands, starts, changes, logs or connections, and rules for them
    Probe,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Paths whose programs to look for: names, 'tag:NAME' or TOML files [default: all built-in]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Compare this machine's hardware with a profile from '--save-profile', or with the directory
    /// of a run [default: the latest run in 'bench_results/reference', if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Write this machine's hardware profile, and compare nothing
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    pub(crate) save_profile: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name or file of a path, scenario, gate or probe, or an endpoint such as '/small'
    #[arg(required_unless_present = "fields")]
    pub(crate) name: Option<String>,
    /// Describe all fields that a file of this kind may have; with --format json, as a JSON Schema
    /// for your editor
    #[arg(long, value_name = "KIND", conflicts_with = "name")]
    pub(crate) fields: Option<FileKind>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) until: Until,
    /// Seed of the random order
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
    /// Seed of the random order [default: taken from the clock, and recorded]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Directory below which to write the results
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
    /// Threads of the load generator [default: its own choice, one per physical core]
    #[arg(long, value_name = "N", value_parser = within::<u16>(1, 1024_u64))]
    pub(crate) load_threads: Option<u16>,
    /// Milliseconds after which a request counts as timed out
    #[arg(long, value_name = "MS", default_value_t = 5_000,
        value_parser = within::<u64>(1, 600_000_u64))]
    pub(crate) request_timeout_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Ab {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Base build (A): revision, checkout, or directory with built programs; or a path's TOML file
    #[arg(long, value_name = "DIR_OR_REV_OR_FILE")]
    pub(crate) a: String,
    /// Candidate build (B): revision, checkout, or directory with built programs; or another file
    #[arg(long, value_name = "DIR_OR_REV_OR_FILE")]
    pub(crate) b: String,
    /// Judge the run afterwards, as 'hopbench gate' does
    #[arg(long)]
    pub(crate) gate: bool,
    /// Name or file of the policy [default: the first that 'hopbench list' names]
    #[arg(long, value_name = "POLICY", requires = "gate")]
    pub(crate) policy: Option<String>,
    /// Measure suspect cells again; a regression counts only if the repeat shows it, too
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
    /// Endpoint to request
    #[arg(long, value_name = "TARGET", default_value = "/small")]
    pub(crate) endpoint: Target,
    /// Number of connections
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true,
        value_parser = within::<u32>(1, CONCURRENCY_MAX))]
    pub(crate) concurrency: u32,
    /// Requests per second [default: as fast as they are answered]
    #[arg(long, value_name = "RPS", allow_negative_numbers = true,
        value_parser = within::<u32>(1, RATE_RPS_MAX))]
    pub(crate) rate: Option<u32>,
    /// Duration of the load, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000,
        value_parser = within::<u64>(100, 60_000_u64))]
    pub(crate) duration_ms: u64,
    #[command(flatten)]
    pub(crate) parameters: Parameters,
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
    /// Print the figures in another tool's format instead
    #[arg(long, value_enum, value_name = "TOOL", conflicts_with = "open")]
    pub(crate) r#as: Option<Exchange>,
    /// Directory in which to look for runs
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Directory of the base run
    pub(crate) base: PathBuf,
    /// Directory of the run to compare with it [default: the latest]
    pub(crate) head: Option<PathBuf>,
    /// Allow different versions of a path's programs, in order to compare these versions
    #[arg(long)]
    pub(crate) other_versions: bool,
    /// Also write the comparison as a page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Directory in which to look for runs
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Add this run's metrics first
    #[arg(long, value_name = "RUN")]
    pub(crate) add: Option<PathBuf>,
    /// File of the history, one row per line
    #[arg(
        long,
        value_name = "FILE",
        default_value = "bench_results/history.jsonl"
    )]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseSummary {
    /// Directories of the release's runs and probes, at most one for each scenario and probe
    /// [default: those in 'bench_results/reference' and 'bench_results/probes']
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Version of the release, such as '1.2.3'
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub(crate) release: String,
    /// Directories of the last release's runs, to compare with
    #[arg(long, value_name = "RUN", num_args = 1..)]
    pub(crate) base: Vec<PathBuf>,
    /// Write the page to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn version(text: &str) -> Result<String, String> {
    let is_fine = |it: char| it.is_ascii_alphanumeric() || ".-+_".contains(it);
    match !text.is_empty() && text.chars().all(is_fine) {
        true => Ok(text.to_owned()),
        false => Err("expected a version, such as '1.2.3'".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct SelfTest {
    /// Run only these cases, by name or file [default: all]
    #[arg(long = "case", value_name = "CASE", value_delimiter = ',')]
    pub(crate) cases: Vec<String>,
    /// Measure nothing. Instead, permute the labels A and B in this run of a build against itself,
    /// again and again, and count how often the gate raises an alarm
    #[arg(long, value_name = "RUN", conflicts_with_all = ["cases", "time", "load_threads"])]
    pub(crate) of: Option<PathBuf>,
    /// Name or file of the policy [default: the first that 'hopbench list' names]
    #[arg(long, value_name = "POLICY", requires = "of")]
    pub(crate) policy: Option<String>,
    /// Number of gates for each case [default: 3; with --of: 100]
    #[arg(long, value_name = "N", value_parser = within::<u16>(1, 1000_u64))]
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
    /// Also write the verdicts as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Also write the verdicts as Markdown, for a comment
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Also print the verdicts as GitHub workflow commands (with JSON: on stderr)
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
    /// Directory of the base run; not for a run of two builds
    #[arg(long, value_name = "RUN")]
    pub(crate) base: Option<PathBuf>,
    /// Measure suspect cells again; a regression counts only if the repeat shows it, too. Works
    /// only for a run of two builds, and only in the directory where you started that run
    #[arg(long, conflicts_with = "base")]
    pub(crate) confirm: bool,
    #[command(flatten)]
    pub(crate) output: GateOutput,
    /// Directory in which to look for runs
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Directory of the run [default: the latest]
    pub(crate) run: Option<PathBuf>,
    /// Directory in which to look for runs
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    pub(crate) out: PathBuf,
}
