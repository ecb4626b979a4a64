//! Commands, from their start to their end: fresh processes, without a shell.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use hopbench_analysis::probe::Observation;

use super::{Fault, SLOW_START_MS, Session};
use crate::{
    catalog::{Catalog, PathDefinition, ProbeCommand},
    plan::toolbox::Toolbox,
    process::{Command, timed},
    run::{run_dir::RunDir, trial::TrialFill},
};

/// Time that a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// Runs every command once per cycle, in a random order that differs from cycle to cycle.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let directory = session.prepared.directory.path().to_owned();
    let mut fill = TrialFill::new(session.toolbox, &directory);
    for file in &session.definition.files {
        std::fs::write(directory.join(&file.name), file.content.fill(&mut fill)?)?;
    }
    let mut commands = Vec::new();
    for definition in session.definition.commands.clone() {
        if session.is_chosen(&definition.name) {
            let command = command(session, &definition, &directory)?;
            commands.push((definition.name, command));
        }
    }
    // The last command is the one that isn't likely to be the reference of the others.
    if session.has_fault(Fault::SlowStart)
        && let Some((_, command)) = commands.last_mut()
    {
        *command = command.clone().delayed(SLOW_START_MS)?;
    }
    let cycles = session.cycles();
    session.say(&format!("{} commands, {cycles} times each", commands.len()));
    // Files are in memory afterwards, as they are for whoever runs a command twice.
    for (name, command) in &commands {
        let status = timed(command, COMMAND_MAX)?.status;
        anyhow::ensure!(status.success(), "'{name}' failed: {command}: {status}");
    }
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut commands);
        for (name, command) in &commands {
            session.go_on()?;
            let took = timed(command, COMMAND_MAX)?;
            session.add_time(cycle, name, "wall_us", took.wall)?;
            session.add_time(cycle, name, "cpu_us", took.cpu)?;
            let failed = usize::from(!took.status.success());
            session.add_count(cycle, name, "failures", failed)?;
        }
    }
    sort(
        &mut session.probed.observations,
        &session.definition.commands,
    );
    Ok(())
}

/// Brings observations into the order of the commands, for the tables.
fn sort(observations: &mut [Observation], commands: &[ProbeCommand]) {
    observations.sort_by_key(|one| {
        let place = commands.iter().position(|it| it.name == one.subject);
        (place, one.cycle)
    });
}

fn command(
    session: &Session<'_>,
    definition: &ProbeCommand,
    directory: &Path,
) -> anyhow::Result<Command> {
    let mut fill = TrialFill::new(session.toolbox, directory);
    let words = definition.command.iter().map(|word| word.fill(&mut fill));
    let words: Vec<String> = words.collect::<anyhow::Result<_>>()?;
    let (program, arguments) = words.split_first().context("a command needs a program")?;
    Ok(Command {
        program: program.into(),
        arguments: arguments.to_vec(),
        directory: Some(directory.to_owned()),
        stops_with_stdin: true,
    })
}

/// Makes a small run in `run` of a directory, for the commands that read one.
pub(super) fn make_run(
    toolbox: &Toolbox,
    catalog: &Catalog,
    directory: &Path,
) -> anyhow::Result<()> {
    let reference = |path: &&PathDefinition| path.tags.iter().any(|tag| tag == "reference");
    let path = catalog.paths.iter().find(reference);
    let path = path.context("the catalog has no reference")?;
    let scenario = catalog.scenario_of_everything();
    let scenario = scenario.context("the catalog has no scenario of all endpoints")?;
    let made = directory.join("made");
    let arguments = [
        "run",
        &scenario.name,
        "--path",
        &path.name,
        "--endpoint",
        &path.ready,
        "--quick",
        "--out",
        &made.display().to_string(),
        "--bin-dir",
        &toolbox.bin_dir().display().to_string(),
    ];
    let command = Command {
        program: std::env::current_exe().context("could not find hopbench itself")?,
        arguments: arguments.map(str::to_owned).to_vec(),
        directory: None,
        stops_with_stdin: true,
    };
    let status = timed(&command, COMMAND_MAX)?.status;
    anyhow::ensure!(
        status.success(),
        "could not make a run: {command}: {status}"
    );
    // The commands name the run by a name that doesn't change.
    std::fs::rename(RunDir::latest(&made)?.path(), directory.join("run"))?;
    Ok(())
}
