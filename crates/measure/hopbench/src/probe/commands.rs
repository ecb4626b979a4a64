//! Commands, from their start to their end: fresh processes, without a shell.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;

use super::{Fault, SLOW_START_MS, Session, Settings};
use crate::{
    catalog::{Catalog, ProbeDefinition},
    plan::toolbox::Toolbox,
    process::{Command, capture_within, timed},
    run::{measure, run_dir::RunDir, trial::TrialFill},
};

/// Time that a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// The run that commands may read, as they name it.
const RUN: &str = "{{dir}}/run";

/// Runs every command once per cycle, in a random order that differs from cycle to cycle.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let directory = session.of.prepared.directory.path();
    let mut fill = TrialFill::new(session.toolbox(), directory);
    fill.write(&session.definition().files)?;
    let mut commands = Vec::new();
    for definition in &session.definition().commands {
        if !session.is_chosen(&definition.name) {
            continue;
        }
        if let Some(program) = session.missing(&definition.command) {
            session.note(format!("'{}' is left out: no '{program}'", definition.name))?;
        } else {
            let command = fill.command(&definition.command, true)?;
            commands.push((definition.name.clone(), command));
        }
    }
    // The last command is the one that isn't likely to be the reference of the others.
    if session.has_fault(Fault::SlowStart)
        && let Some((_, command)) = commands.last_mut()
    {
        *command = command.clone().delayed(SLOW_START_MS)?;
    }
    session.order(commands.iter().map(|(name, _)| name.clone()))?;
    let cycles = session.cycles();
    session.say(&format!("{} commands, {cycles} times each", commands.len()));
    // Files are in memory afterwards, as they are for whoever runs a command twice.
    for (_, command) in &commands {
        session.go_on()?;
        // One that fails is counted below.
        let _ = timed(command, COMMAND_MAX, Some(session.interrupt));
    }
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut commands);
        for (name, command) in &commands {
            session.attempt(cycle, name, |session| {
                let took = timed(command, COMMAND_MAX, Some(session.interrupt))?;
                anyhow::ensure!(took.status.success(), "{command}: {}", took.status);
                session.add_time(cycle, name, "wall_us", took.wall)?;
                session.add_time(cycle, name, "cpu_us", took.cpu)
            })?;
        }
    }
    Ok(())
}

/// Returns whether one of the chosen commands reads a run.
pub(super) fn need_run(definition: &ProbeDefinition, settings: &Settings) -> bool {
    let only = &settings.only;
    let commands = definition.commands.iter();
    let mut chosen = commands.filter(|it| only.is_empty() || only.contains(&it.name));
    chosen.any(|it| {
        it.command
            .iter()
            .any(|word| word.to_string().starts_with(RUN))
    })
}

/// Makes a small run in `run` of a directory, for the commands that read one.
pub(super) fn make_run(
    toolbox: &Toolbox,
    catalog: &Catalog,
    directory: &Path,
) -> anyhow::Result<()> {
    let path = catalog
        .reference()
        .context("the catalog has no reference")?;
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
        environment: measure::test_lock(),
        ..Command::default()
    };
    capture_within(&command, COMMAND_MAX).context("could not make a run for the commands")?;
    // The commands name the run by a name that doesn't change.
    fs::rename(RunDir::latest(&made)?.path(), directory.join("run"))?;
    Ok(())
}
