//! The subcommands, each in the file with its name.

mod ab;
mod calibrate;
pub(crate) mod cli;
mod compare;
mod completions;
mod describe;
mod doctor;
pub(crate) mod exit;
mod export;
mod gate;
mod history;
mod import;
mod list;
mod new;
mod number;
mod permute;
mod plan;
mod probe;
mod profile;
mod quick;
mod release_summary;
mod repeat;
mod report;
mod rerun;
mod run;
mod self_test;
mod status;
mod verdict;
mod verify;
mod versions;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use hopbench_analysis::report::terminal::columns;

use crate::{
    catalog::Catalog,
    cmd::cli::{Choice, Cli, Command, Format, Maintenance},
    console::visible,
    mistake::Mistake,
    plan::{selection::Selection, several, toolbox::Toolbox},
};

/// Directory of the runs whose figures the documents show.
const REFERENCE: &str = "bench_results/reference";

/// The environment of every subcommand.
struct Context {
    catalog: Catalog,
    toolbox: Toolbox,
    format: Format,
}

pub(crate) fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let context = Context {
        catalog: Catalog::built_in()?,
        toolbox: Toolbox::new(cli.bin_dir.clone())?,
        format: cli.format,
    };
    match &cli.command {
        Command::Ab(options) => ab::run(&context, options),
        Command::Compare(options) => compare::run(&context, options),
        Command::Completions(options) => completions::run(&context, options),
        Command::Describe(options) => describe::run(&context, options),
        Command::Doctor(options) => doctor::run(&context, options),
        Command::Export(options) => export::run(&context, options),
        Command::Gate(options) => gate::run(&context, options),
        Command::Import(options) => import::run(&context, options),
        Command::List => list::run(&context),
        Command::Man => completions::man(),
        Command::New(options) => new::run(&context, options),
        Command::Plan(options) => plan::run(&context, options),
        Command::Probe(options) => probe::run(&context, options),
        Command::Profile(options) => profile::run(&context, options),
        Command::Quick(options) => quick::run(&context, options),
        Command::Report(options) => report::run(&context, options),
        Command::Rerun(options) => rerun::run(&context, options),
        Command::Run(options) => run::run(&context, options),
        Command::Maintenance(Maintenance::Calibrate(options)) => calibrate::run(&context, options),
        Command::Maintenance(Maintenance::SelfTest(options)) => self_test::run(&context, options),
        Command::Maintenance(Maintenance::History(options)) => history::run(&context, options),
        Command::Maintenance(Maintenance::ReleaseSummary(options)) => {
            release_summary::run(&context, options)
        }
        Command::Status(options) => status::run(&context, options),
        Command::Verify(options) => verify::run(&context, options),
    }
}

impl Context {
    fn select(&self, choice: &Choice) -> anyhow::Result<Selection> {
        let (scenarios, overrides) =
            several::apart(&self.catalog, &choice.scenarios, &choice.overrides());
        Selection::new(&self.catalog, &self.toolbox, &scenarios, &overrides)
    }

    /// Returns the built-in scenario with every endpoint, for commands about a single path.
    fn scenario_of_everything(&self) -> Option<String> {
        let found = self.catalog.scenario_of_everything();
        found.map(|scenario| scenario.name.clone())
    }

    /// Prints a result: text for people, or JSON.
    fn print(&self, text: &str, json: impl FnOnce() -> serde_json::Value) -> anyhow::Result<()> {
        match self.format {
            Format::Json => print(&format!("{:#}\n", json())),
            // Only commands that print by themselves support the other formats.
            _ => print(text),
        }
    }
}

/// Checks that a file can be in its directory, before any work is done whose result it is to hold.
fn check_place(file: &Path) -> Result<(), Mistake> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => return Ok(()),
    };
    match directory.is_dir() {
        true => Ok(()),
        false => Err(Mistake(format!(
            "could not write '{}': there is no directory '{}'; make it first",
            file.display(),
            directory.display()
        ))),
    }
}

/// Prints to stdout. A reader that closes the pipe early (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(visible(text).as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("could not write to stdout"),
    }
}
