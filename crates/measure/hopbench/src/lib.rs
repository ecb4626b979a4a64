//! The orchestrator: catalog → plan → run → report.
//!
//! | module | contents |
//! |---|---|
//! | `catalog` | paths, scenarios, gates and cases: TOML files into checked definitions |
//! | `plan` | what a command works on, and its trials in a seeded random order |
//! | `export` | a scenario's load as a project for another engine |
//! | `run` | one run, from its plan to its records: builds, trials, profiles |
//! | `probe` | what isn't a load of requests: commands, starts, changes, logs, connections |
//! | `observe` | usage of processes and the machine, and answers of servers |
//! | `process` | child processes: how they are started, watched and ended |
//! | `cmd` | the command line; one file per subcommand |
//! | `console`, `mistake` | messages to the user, and the user's mistakes |
//!
//! A module imports only modules after it in this order: `cmd`, `probe`, `run`, `export`, `plan`,
//! `observe`, `catalog`, `process`, and last `console` and `mistake`. A test enforces this.
//!
//! This crate doesn't depend on anything it measures. It uses arguments, HTTP, signals and exit
//! codes, and knows no path or scenario by name.
#![forbid(unsafe_code)]

mod catalog;
mod cmd;
mod console;
mod export;
mod mistake;
mod observe;
mod plan;
mod probe;
mod process;
mod run;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::{env, process::ExitCode};

use clap::FromArgMatches;

pub use crate::{catalog::CatalogError, cmd::cli::Cli};

/// Runs the program; returns its exit code.
pub fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let helped = match arguments.next() {
        Some(first) if first == process::GUARDED => Some(Err(process::exec_guarded(arguments))),
        Some(first) if first == process::DELAYED => Some(Err(process::exec_delayed(arguments))),
        Some(first) if first == process::WATCH => Some(process::watch(arguments)),
        _ => None,
    };
    match helped {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(error)) => {
            console::say(&format!("error: {error:#}"));
            return ExitCode::from(cmd::exit::ENVIRONMENT);
        }
        None => {}
    }
    process::settle_temporary_directory();
    let cli = match Cli::from_arg_matches(&cmd::cli::command_line().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Some(mistake) = cli.mistake() {
        mistake.exit();
    }
    match cmd::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            console::say(&format!("error: {error:#}"));
            ExitCode::from(cmd::exit::code_of(&error))
        }
    }
}
