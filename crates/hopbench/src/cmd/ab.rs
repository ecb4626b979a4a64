//! `hopbench ab`

use std::process::ExitCode;

use anyhow::Context as _;
use hopbench_analysis::gate::{self, GateResult, Policy};
use serde_json::json;

use super::{
    Context,
    gate::{policy, show},
    report, run as runs,
};
use crate::{
    builds::Builds,
    cli, exit,
    measure::{Measured, Settings, measure},
    process::{EXIT_INTERRUPTED, Interrupt},
    progress::say,
};

pub(super) fn run(context: &Context, options: &cli::Ab) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    // A policy that can't be read is not to be noticed after an hour.
    let policy = match options.gate {
        true => Some(policy(context, options.policy.as_deref())?),
        false => None,
    };
    let mut selection = runs::select(context, &options.choice, &interrupt)?;
    let settings = runs::settings(context, &options.how);
    let builds = Builds::prepare(&options.a, &options.b, settings.silent, &interrupt)?;
    builds.check(&selection)?;
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
        let clean = trials.iter().all(runs::is_clean);
        return Ok(ExitCode::from(if clean { 0 } else { exit::FAILED }));
    };

    let mut result = judge(&policy, &measured)?;
    let suspects = result.suspects();
    let mut repeat = None;
    if options.confirm && !suspects.is_empty() {
        if !settings.silent {
            say(&format!("measuring {} suspect(s) again", suspects.len()));
        }
        let again = Settings {
            only_cells: Some(&suspects),
            // The same order of what is left would be the same again.
            seed: None,
            ..settings
        };
        let measured = measure(&again)?;
        report::write(
            &measured.run_dir,
            &measured.manifest,
            &measured.ended.trials,
        )?;
        if measured.ended.interrupted {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        result = gate::confirm(&result, &judge(&policy, &measured)?);
        repeat = Some(measured.run_dir.path().to_owned());
    }
    let repeat = ("repeat", json!(repeat));
    show(context, &options.output, &result, &measured.run_dir, repeat)
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
