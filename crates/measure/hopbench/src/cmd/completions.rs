//! `hopbench completions` and `hopbench man`

use std::process::ExitCode;

use clap::{Command, CommandFactory, builder::PossibleValuesParser};
use clap_complete::Shell;

use super::{Context, print};
use crate::cmd::cli::{self, Cli};

pub(super) fn run(context: &Context, options: &cli::Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = with_names(context, Cli::command());
    clap_complete::generate(options.shell, &mut command, "hopbench", &mut script);
    print(&String::from_utf8(script)?)?;
    if options.shell == Shell::Fish {
        print(&names_for_fish(&command))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the names of the catalog the values of the arguments that take them. Only completions get
/// this command line: a file may be given in place of a name.
fn with_names(context: &Context, command: Command) -> Command {
    let catalog = &context.catalog;
    // clap takes names that live forever, and the program ends after this.
    let leaked = |name: &String| -> &'static str { name.clone().leak() };
    let paths: Vec<_> = catalog.paths.iter().map(|it| leaked(&it.name)).collect();
    let scenarios: Vec<_> = catalog
        .scenarios
        .iter()
        .map(|it| leaked(&it.name))
        .collect();
    let gates: Vec<_> = catalog.gates.iter().map(|it| leaked(&it.name)).collect();
    let probes: Vec<_> = catalog.probes.iter().map(|it| leaked(&it.name)).collect();
    let all = [&paths[..], &scenarios, &gates, &probes].concat();
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        subcommand.mut_args(|argument| {
            let names = match (name.as_str(), argument.get_id().as_str()) {
                ("describe", "name") => &all,
                ("probe", "name") => &probes,
                (_, "scenarios") => &scenarios,
                (_, "policy") => &gates,
                ("profile", "path") | (_, "paths") => &paths,
                _ => return argument,
            };
            argument.value_parser(PossibleValuesParser::new(names.iter().copied()))
        })
    })
}

/// Returns the values of arguments without an option, which clap leaves out of its completions for
/// fish. A name of a file may be given instead, so files are still completed.
fn names_for_fish(command: &Command) -> String {
    let mut lines = String::new();
    for subcommand in command.get_subcommands() {
        let names = subcommand.get_positionals().flat_map(|argument| {
            let names = argument.get_possible_values().into_iter();
            names.map(|it| it.get_name().to_owned()).collect::<Vec<_>>()
        });
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            let name = subcommand.get_name();
            let condition = format!("__fish_hopbench_using_subcommand {name}");
            let names = names.join(" ");
            lines += &format!("complete -c hopbench -n \"{condition}\" -a \"{names}\"\n");
        }
    }
    lines
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
