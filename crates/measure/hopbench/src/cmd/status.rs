//! `hopbench status`

use std::{path::Path, process::ExitCode};

use hopbench_analysis::{
    probe::Probed,
    record::{Plan, Trial},
    report::plural,
};
use serde_json::json;

use super::Context;
use crate::{
    cmd::cli,
    console::seconds,
    probe::{ProbeDir, is_probe},
    run::{
        progress,
        run_dir::{Phase, RunDir},
    },
};

pub(super) fn run(context: &Context, options: &cli::Status) -> anyhow::Result<ExitCode> {
    let run_dir = match &options.run {
        Some(path) if is_probe(path) => return of_probe(context, path),
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let (plan, trials) = (run_dir.plan()?, run_dir.trials()?);
    let state = run_dir.state().ok();
    let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    let phase = match &state {
        None if trials.is_empty() => "not started",
        None => "in an unknown state ('state.json' can't be read)",
        Some(state) => match state.phase {
            Phase::Finished => "finished",
            Phase::Interrupted => "interrupted",
            Phase::Running if alive(state.pid) => "running",
            Phase::Running => "died",
        },
    };
    let failed = trials
        .iter()
        .filter(|trial| trial.measured().is_none())
        .count();
    let left_ms = left_ms(&plan, &trials);
    let mut text = format!(
        "{}\n{phase}: {} of {} trials, {failed} failed",
        run_dir.path().display(),
        trials.len(),
        plan.trials.len()
    );
    if phase == "running" {
        text += &format!(", about {} left", seconds(left_ms / 1e3));
    }
    let missing = plan.trials.len().saturating_sub(trials.len());
    if missing > 0 && phase != "running" {
        text += &format!(", {missing} not run");
    }
    text += "\n";
    let stage = state.as_ref().map_or(0, |state| state.stage);
    let current = state.filter(|_| phase == "running").and_then(|state| {
        plan.trials
            .iter()
            .find(|planned| planned.trial == state.trial)
            .cloned()
    });
    if let Some(current) = &current {
        let cell = &current.cell;
        let stage = progress::stage(current, stage);
        let stage = stage.map_or_else(String::new, |stage| format!(", {stage}"));
        text += &format!(
            "now: trial {}, block {}: {} {} {} c={}{stage}\n",
            current.trial,
            current.block,
            cell.scenario,
            cell.path,
            cell.endpoint,
            cell.load()
        );
    }
    context.print(&text, || {
        json!({
            "run": run_dir.path().to_string_lossy(), "state": phase, "trials_done": trials.len(),
            "trials_planned": plan.trials.len(), "trials_failed": failed,
            "left_ms": if phase == "running" { Some(left_ms) } else { None },
            "current": current, "stage": current.as_ref().and_then(|it| it.stages.get(stage)),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints how far a probe is.
fn of_probe(context: &Context, path: &Path) -> anyhow::Result<ExitCode> {
    let Probed { info, observations } = ProbeDir::read(path)?;
    let shown = path.display();
    let cycles = observations.iter().map(|it| it.cycle).max().unwrap_or(0);
    let phase = match info.is_finished {
        true => "finished",
        false => "not finished: it is running, or was interrupted, or failed",
    };
    let count = observations.len();
    let text = format!(
        "{shown}\nprobe '{}', {phase}; {count} observations in {}\n",
        info.probe,
        plural(cycles as usize, "cycle")
    );
    context.print(&text, || {
        json!({
            "run": path.to_string_lossy(), "probe": info.probe,
            "state": if info.is_finished { "finished" } else { "not finished" },
            "observations": count, "cycles": cycles,
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the time left: the plan's estimate, or the pace of the trials so far.
fn left_ms(plan: &Plan, trials: &[Trial]) -> f64 {
    let planned = plan.trials.len();
    if trials.is_empty() || planned == 0 {
        return plan.estimate_ms as f64;
    }
    let taken_ms: f64 = trials.iter().map(|trial| trial.timing.total_ms()).sum();
    let per_trial = taken_ms / trials.len() as f64;
    per_trial * planned.saturating_sub(trials.len()) as f64
}
