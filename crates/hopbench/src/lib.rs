//! The orchestrator: catalog → plan → run → report.
//!
//! | module | what |
//! |---|---|
//! | `cli`, `cmd` | the command line; one file per subcommand |
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

/// Exit codes beyond 0 (fine) and the interruption's 130.
pub(crate) mod exit {
    /// Trials failed, requests got no right answer, or a gate found a regression.
    pub(crate) const FAILED: u8 = 1;
    /// A mistake on the command line or in a file it names.
    pub(crate) const USAGE: u8 = 2;
    /// There is nothing to say: two runs are not comparable, or a gate has not enough to go by.
    pub(crate) const INCONCLUSIVE: u8 = 3;
    /// Something about the machine: a program is missing, a directory can't be written.
    pub(crate) const ENVIRONMENT: u8 = 4;
}

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
            // Mistakes in what was asked for, at whatever depth they were found.
            let usage = error.chain().any(|cause| cause.is::<CatalogError>());
            if error
                .chain()
                .any(|cause| cause.is::<process::Interrupted>())
            {
                return ExitCode::from(process::EXIT_INTERRUPTED);
            }
            ExitCode::from(if usage {
                exit::USAGE
            } else {
                exit::ENVIRONMENT
            })
        }
    }
}
