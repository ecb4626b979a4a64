//! `hopbench run`

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use hopbench_analysis::record::Trial;

use super::{Context, report};
use crate::{
    cli::{self, Format},
    exit,
    measure::{Measured, Settings, measure},
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    selection::Selection,
};

pub(super) fn run(context: &Context, options: &cli::Run) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let mut selection = select(context, &options.choice, &interrupt)?;
    let settings = Settings {
        goal: options.until.goal(),
        ..settings(context, &options.how)
    };
    let measured = measure(
        &context.toolbox,
        &mut selection,
        None,
        &settings,
        &interrupt,
    )?;
    let Measured {
        run_dir,
        manifest,
        ended,
    } = &measured;
    report::write(run_dir, manifest, &ended.trials)?;
    report::show(context, run_dir, manifest, &ended.trials)?;
    Ok(ExitCode::from(match ended.interrupted {
        true => EXIT_INTERRUPTED,
        // Nothing is measured only if no path holds any of the rates that it was to be asked at.
        false if ended.trials.is_empty() => exit::FAILED,
        false if ended.trials.iter().all(is_clean) => 0,
        false => exit::FAILED,
    }))
}

/// What somebody chose, or that they have changed their mind.
pub(super) fn select(
    context: &Context,
    choice: &cli::Choice,
    interrupt: &Interrupt,
) -> anyhow::Result<Selection> {
    // Seen when a program that was asked something has answered, or its time is up.
    context
        .select(choice)
        .map_err(|error| match interrupt.is_requested() {
            true => Interrupted.into(),
            false => error,
        })
}

pub(super) fn settings<'a>(context: &Context, how: &'a cli::How) -> Settings<'a> {
    Settings {
        out: &how.out,
        seed: how.seed,
        load_threads: how.load_threads,
        request_timeout: Duration::from_millis(how.request_timeout_ms),
        goal: None,
        only_cells: None,
        only_knees: false,
        silent: context.format != Format::Human,
    }
}

/// Whether every request of the trial was answered rightly.
pub(super) fn is_clean(trial: &Trial) -> bool {
    trial.measured().is_some_and(|load| load.failed() == 0)
}
