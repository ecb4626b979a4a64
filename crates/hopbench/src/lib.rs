//! The orchestrator: catalog → plan → run → report.
//!
//! | module | what |
//! |---|---|
//! | `cli`, `cmd` | the command line; one file per subcommand |
//! | `exit` | what the program ends with |
//! | `catalog` | paths, scenarios and gates: TOML files into checked definitions |
//! | `selection` | what a command works on: scenarios, their paths, the answers they must give |
//! | `plan` | the trials, in a seeded random order |
//! | `knee` | the largest rate that a path holds |
//! | `builds` | two builds of this workspace, to be measured against each other |
//! | `measure` | one run, from what was selected to its records |
//! | `until` | more blocks, until intervals are narrow |
//! | `runner` | goes through a plan; every record is kept before the next trial |
//! | `trial` | one trial with real processes and a real load |
//! | `profile` | where a path's processes spend their time |
//! | `process` | child processes, and nobody else's |
//! | `usage`, `machine` | what the kernel knows |
//! | `run_dir` | what is written |
//!
//! It has no Cargo edge to anything it measures: they meet through arguments, HTTP, signals and
//! exit codes, and no path or scenario is known here by name.
#![forbid(unsafe_code)]

mod builds;
mod catalog;
mod cli;
mod cmd;
mod exit;
mod http;
mod knee;
mod machine;
mod measure;
mod plan;
mod process;
mod processes;
mod profile;
mod progress;
mod run_dir;
mod runner;
mod selection;
mod toolbox;
mod trial;
mod until;
mod usage;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::{env, process::ExitCode};

use clap::Parser;

pub use crate::{catalog::CatalogError, cli::Cli};

/// The program.
pub fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == process::GUARDED)
    {
        let error = process::exec_guarded(arguments);
        progress::say(&format!("error: {error:#}"));
        return ExitCode::from(exit::ENVIRONMENT);
    }
    let cli = Cli::parse();
    if let Some(mistake) = cli.mistake() {
        mistake.exit();
    }
    match cmd::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::from(exit::code_of(&error))
        }
    }
}
