//! `hopbench profile`

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::{Context, report::Report, run as runs};
use crate::{
    cmd::{cli, exit},
    console::say,
    plan::selection::{Overrides, Selection},
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    run::{
        measure::{INTERRUPTED, Measured, lock, measure},
        trial::Live,
    },
};

/// Duration of the warm-up, in milliseconds.
const WARM_UP_MS: u64 = 200;

/// Measures the path and its reference once, for the metrics, and then profiles each.
pub(super) fn run(context: &Context, options: &cli::Profile) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let mut selection = select(context, options)?;
    let settings = runs::settings(context, &options.how);
    if !settings.silent {
        say(
            "measuring the path and its reference once, then profiling each with perf and strace \
             (two more loads and some seconds each)",
        );
    }
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
    if ended.interrupted {
        Report::new(run_dir, manifest, &ended.trials)?.write()?;
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let _lock = lock(&options.how.out)?;
    let mut live = Live::new(
        &context.toolbox,
        None,
        &selection,
        &interrupt,
        run_dir.raw(),
    )?;
    live.load_threads = settings.load_threads.map(usize::from);
    live.request_timeout = settings.request_timeout;
    let mut profiles = Vec::new();
    let mut is_interrupted = false;
    for trial in &ended.trials {
        if !settings.silent {
            say(&format!("profiling {}", trial.planned.cell));
        }
        match live.profile(&trial.planned) {
            Ok(profile) => profiles.push(profile),
            Err(Interrupted) => {
                is_interrupted = true;
                break;
            }
        }
        run_dir.write_profiles(&profiles)?;
    }
    if is_interrupted {
        say(INTERRUPTED);
    }
    let report = Report::new(run_dir, manifest, &ended.trials)?;
    report.publish(context)?;
    let has_seen = profiles.iter().any(|profile| !profile.roles.is_empty());
    Ok(ExitCode::from(match has_seen {
        _ if is_interrupted => EXIT_INTERRUPTED,
        true if runs::is_all_clean(&ended.trials, manifest) => 0,
        true => exit::FAILED,
        false => exit::ENVIRONMENT,
    }))
}

/// Name of the scenario that a profile stands for.
const PROFILE: &str = "profile";

/// Selects one load on one path, and on its reference.
fn select(context: &Context, options: &cli::Profile) -> anyhow::Result<Selection> {
    let overrides = Overrides {
        paths: vec![options.path.clone()],
        endpoints: vec![options.endpoint.clone()],
        concurrency: vec![options.concurrency],
        rates: options.rate.into_iter().collect(),
        duration_ms: Some(options.duration_ms),
        warm_up_ms: Some(WARM_UP_MS),
        blocks: Some(1),
        parameters: options.parameters.values(),
        ..Overrides::default()
    };
    let Some(scenario) = context.scenario_of_everything() else {
        bail!("no built-in scenario has every endpoint");
    };
    let (catalog, toolbox) = (&context.catalog, &context.toolbox);
    let mut selection = Selection::new(catalog, toolbox, &[scenario], &overrides)?;
    let work = std::mem::take(&mut selection.work).into_iter();
    let renamed = work.map(|((_, endpoint), work)| ((PROFILE.to_owned(), endpoint), work));
    selection.work = renamed.collect();
    for scenario in &mut selection.scenarios {
        // It answers another question than the scenario it is made from.
        let definition = &mut scenario.definition;
        PROFILE.clone_into(&mut definition.name);
        "Where does the time go?".clone_into(&mut definition.question);
        definition.analysis.clear();
    }
    Ok(selection)
}
