//! `hopbench ab`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use hopbench_analysis::{
    gate::{self, GateResult, Policy},
    record::{BuildInfo, Manifest},
};
use serde_json::json;

use super::{
    Context,
    gate::{policy, show},
    report, run as runs,
};
use crate::{
    builds::Builds,
    cli,
    exit::{self, Mistake},
    measure::{Measured, Settings, measure},
    plan::Planner,
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    progress::say,
    selection::Selection,
};

pub(super) fn run(context: &Context, options: &cli::Ab) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    // A policy that can't be read is not to be noticed after an hour.
    let policy = match options.gate {
        true => Some(policy(context, options.policy.as_deref())?),
        false => None,
    };
    let mut selection = runs::select(context, &options.choice, &interrupt)?;
    let settings = settings(context, options);
    let builds = Builds::prepare(&options.a, &options.b, settings.silent, &interrupt)?;
    builds.check(&selection)?;
    if let Some(policy) = &policy
        && !settings.silent
        && settings.goal.is_none()
    {
        announce_shortfall(policy, &selection);
    }
    let toolbox = &context.toolbox;
    let mut measure = |settings: &Settings<'_>| {
        measure(toolbox, &mut selection, Some(&builds), settings, &interrupt)
    };
    let measured = measure(&settings)?;
    let (manifest, trials) = (&measured.manifest, &measured.ended.trials);
    report::write(&measured.run_dir, manifest, trials)?;
    if measured.ended.interrupted {
        report::show(context, &measured.run_dir, manifest, trials)?;
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let Some(policy) = policy else {
        report::show(context, &measured.run_dir, manifest, trials)?;
        let clean = !trials.is_empty() && runs::is_all_clean(trials, manifest);
        return Ok(ExitCode::from(if clean { 0 } else { exit::FAILED }));
    };

    let mut result = judge(&policy, &measured)?;
    let mut repeat = None;
    if options.confirm {
        repeat = confirm(&policy, &mut result, &settings, measure)?;
    }
    let repeat = ("repeat", json!(repeat));
    show(context, &options.output, &result, &measured.run_dir, repeat)
}

/// Says beforehand if the planned blocks are too few for a verdict.
fn announce_shortfall(policy: &Policy, selection: &Selection) {
    let planned = Planner::new(selection, 0, true, None).plan().trials;
    // Of two builds, the reference is judged like any other path.
    let needed = gate::blocks_needed(policy, |_| false, &planned);
    let blocks = planned.iter().map(|trial| trial.block).max().unwrap_or(0);
    if (blocks as usize) < needed.paired {
        say(&format!(
            "warning: '{}' asks of {} cells: to tell a single regression it takes {} blocks, and \
             {blocks} are planned; use --blocks {}, or fewer cells",
            policy.name, needed.cells, needed.paired, needed.paired
        ));
    }
}

fn settings<'a>(context: &Context, options: &'a cli::Ab) -> Settings<'a> {
    Settings {
        goal: options.until.goal(),
        ..runs::settings(context, &options.how)
    }
}

/// Measures what is suspect in an earlier run again, by the command that made it. The directory of
/// the repeat, if there was need of one.
pub(super) fn repeat(
    context: &Context,
    manifest: &Manifest,
    policy: &Policy,
    result: &mut GateResult,
) -> anyhow::Result<Option<PathBuf>> {
    let cli = cli::Cli::try_parse_from(&manifest.command_line)
        .context("--confirm: the command that made the run is not understood any more")?;
    let cli::Command::Ab(options) = cli.command else {
        let message = "--confirm: only a run of two builds can be repeated; make one with \
                       'hopbench ab'";
        return Err(Mistake(message.to_owned()).into());
    };
    if result.suspects().is_empty() {
        return Ok(None);
    }
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let mut selection = runs::select(context, &options.choice, &interrupt)?;
    let settings = settings(context, &options);
    let builds = Builds::prepare(&options.a, &options.b, settings.silent, &interrupt)?;
    builds.check(&selection)?;
    let of = |infos: &[BuildInfo]| -> Vec<(String, bool)> {
        let gits = infos.iter().map(|info| &info.git);
        gits.map(|git| (git.revision.clone(), git.dirty)).collect()
    };
    if of(&builds.infos()) != of(&manifest.builds) {
        let message = "--confirm: the builds are no longer those that were measured; check out \
                       what they were made of";
        return Err(Mistake(message.to_owned()).into());
    }
    let toolbox = &context.toolbox;
    confirm(policy, result, &settings, |settings| {
        measure(toolbox, &mut selection, Some(&builds), settings, &interrupt)
    })
}

/// Lets stand only what regresses again. The directory of the repeat, if there was need of one.
fn confirm(
    policy: &Policy,
    result: &mut GateResult,
    settings: &Settings<'_>,
    mut measure: impl FnMut(&Settings<'_>) -> anyhow::Result<Measured>,
) -> anyhow::Result<Option<PathBuf>> {
    let suspects = result.suspects();
    if suspects.is_empty() {
        return Ok(None);
    }
    if !settings.silent {
        say(&format!("measuring {} suspect(s) again", suspects.len()));
    }
    let measured = measure(&Settings {
        only_cells: Some(&suspects),
        // The same order of what is left would be the same again.
        seed: None,
        ..*settings
    })?;
    let trials = &measured.ended.trials;
    report::write(&measured.run_dir, &measured.manifest, trials)?;
    if measured.ended.interrupted {
        return Err(Interrupted.into());
    }
    *result = gate::confirm(result, &judge(policy, &measured)?);
    Ok(Some(measured.run_dir.path().to_owned()))
}

/// What a policy says of a run that was just made.
pub(super) fn judge(policy: &Policy, measured: &Measured) -> anyhow::Result<GateResult> {
    let plan = measured.run_dir.plan()?;
    let run = gate::Run {
        manifest: &measured.manifest,
        trials: &measured.ended.trials,
        planned: &plan.trials,
    };
    Ok(gate::judge(policy, run, None)?)
}
