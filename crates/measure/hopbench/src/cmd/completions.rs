//! `hopbench completions` and `hopbench man`

use std::process::ExitCode;

use clap::CommandFactory;

use super::print;
use crate::cmd::cli::{self, Cli};

pub(super) fn run(options: &cli::Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(options.shell, &mut command, "hopbench", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page of hopbench, followed by those of its commands.
pub(super) fn man() -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        clap_mangen::Man::new(subcommand.clone()).render(&mut page)?;
    }
    print(&String::from_utf8(page)?)?;
    Ok(ExitCode::SUCCESS)
}
