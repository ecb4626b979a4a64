//! Measures the suspects of a gate again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use hopbench_analysis::{
    gate::{self, GateResult, Policy},
    record::Manifest,
    report::plural,
};

use super::{
    Context,
    report::{Report, planned},
    run as runs, versions,
};
use crate::{
    cmd::cli::{self, Format},
    console::say,
    mistake::Mistake,
    plan::selection::{Overrides, Selection},
    process::{Interrupt, Interrupted},
    run::{
        builds::Builds,
        measure::{Measured, Settings, measure},
        run_dir::RunDir,
    },
};

pub(super) fn settings<'a>(context: &Context, options: &'a cli::Ab) -> Settings<'a> {
    Settings {
        goal: options.until.goal(),
        repeats_percent: options.until.repeat_disturbed,
        ..runs::settings(context, &options.how)
    }
}

/// Selects what is measured with two builds, or with two files of a path, and prepares these.
/// `subject` has the names of scenarios, the overrides, and what stands for A and B.
pub(super) fn select(
    context: &Context,
    subject: (&[String], &Overrides, [&str; 2]),
    silent: bool,
    interrupt: &Interrupt,
) -> anyhow::Result<(Selection, Builds)> {
    let (scenarios, overrides, [a, b]) = subject;
    if [a, b].into_iter().any(versions::is_path_file) {
        let (selection, builds) =
            versions::select(context, scenarios, overrides, [a, b], interrupt)?;
        builds.check(&selection)?;
        return Ok((selection, builds));
    }
    let selection = runs::select(context, scenarios, overrides, interrupt)?;
    let builds = Builds::prepare(a, b, silent, interrupt)?;
    builds.check(&selection)?;
    Ok((selection, builds))
}

/// Measures the suspects of an earlier run again, as that run was asked to measure. Returns the
/// directory of the repeat, or `None` if there are no suspects.
pub(super) fn repeat(
    context: &Context,
    run_dir: &RunDir,
    manifest: &Manifest,
    policy: &Policy,
    result: &mut GateResult,
) -> anyhow::Result<Option<PathBuf>> {
    let (Some(request), [a, b]) = (&manifest.request, &manifest.builds[..]) else {
        let message = "--confirm: only a run of two builds can be repeated; make one with \
                       'hopbench ab'";
        return Err(Mistake(message.to_owned()).into());
    };
    if result.suspects().is_empty() {
        return Ok(None);
    }
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let overrides = Overrides::of_request(request).map_err(Mistake)?;
    let settings = Settings {
        out: run_dir.path().parent().unwrap_or_else(|| Path::new(".")),
        seed: None,
        load_threads: request.load_threads,
        request_timeout: Duration::from_millis(request.request_timeout_ms),
        goal: None,
        repeats_percent: 0,
        only_cells: None,
        only_knees: false,
        silent: context.format != Format::Human,
    };
    let sides = [a.asked.as_str(), b.asked.as_str()];
    let subject = (request.scenarios.as_slice(), &overrides, sides);
    let (mut selection, builds) = select(context, subject, settings.silent, &interrupt)?;
    if !builds.are(&manifest.builds) {
        let message = "--confirm: the builds have changed since they were measured; check out \
                       the revisions that they were built from, or restore the files";
        return Err(Mistake(message.to_owned()).into());
    }
    let toolbox = &context.toolbox;
    confirm(policy, result, &settings, |settings| {
        measure(toolbox, &mut selection, Some(&builds), settings, &interrupt)
    })
}

/// Measures the suspects again and keeps only what regresses again. Returns the directory of the
/// repeat, or `None` if there are no suspects.
pub(super) fn confirm(
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
        say(&format!(
            "measuring {} again",
            plural(suspects.len(), "suspect")
        ));
    }
    let measured = measure(&Settings {
        only_cells: Some(&suspects),
        // With the same seed, the remaining trials would be in the same order again.
        seed: None,
        ..*settings
    })?;
    let trials = &measured.ended.trials;
    Report::new(&measured.run_dir, &measured.manifest, trials)?.write_or_warn();
    if measured.ended.interrupted {
        return Err(Interrupted.into());
    }
    *result = gate::confirm(result, &judge(policy, &measured)?);
    Ok(Some(measured.run_dir.path().to_owned()))
}

/// Judges a run that was just made.
pub(super) fn judge(policy: &Policy, measured: &Measured) -> anyhow::Result<GateResult> {
    let planned = planned(&measured.run_dir, &measured.ended.trials)?;
    let run = gate::Run {
        manifest: &measured.manifest,
        trials: &measured.ended.trials,
        planned: &planned,
    };
    Ok(gate::judge(policy, run, None)?)
}
