//! `hopbench run`

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use hopbench_analysis::record::{Knee, Load, Manifest, Trial};

use super::{Context, report::Report};
use crate::{
    cmd::{
        cli::{self, Format},
        exit,
    },
    plan::{
        selection::{Overrides, Selection},
        several,
    },
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    run::measure::{Measured, Settings, measure},
};

pub(super) fn run(context: &Context, options: &cli::Run) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let mut selection = select_choice(context, &options.choice, &interrupt)?;
    let settings = Settings {
        goal: options.until.goal(),
        repeats_percent: options.until.repeat_disturbed,
        ..settings(context, &options.how)
    };
    let measured = measure(
        &context.toolbox,
        &mut selection,
        None,
        &settings,
        &interrupt,
    )?;
    publish(context, &measured)
}

/// Writes and prints the report of a run that has ended; returns the exit code that says how.
pub(super) fn publish(context: &Context, measured: &Measured) -> anyhow::Result<ExitCode> {
    let Measured {
        run_dir,
        manifest,
        ended,
    } = measured;
    let report = Report::new(run_dir, manifest, &ended.trials)?;
    report.publish(context)?;
    Ok(ExitCode::from(match ended.interrupted {
        true => EXIT_INTERRUPTED,
        // Nothing is measured only if no path holds any rate.
        false if ended.trials.is_empty() => exit::FAILED,
        false if is_all_clean(&ended.trials, manifest) => 0,
        false => exit::FAILED,
    }))
}

pub(super) fn is_all_clean(trials: &[Trial], manifest: &Manifest) -> bool {
    trials.iter().all(|trial| is_clean(trial, &manifest.knees))
}

/// Returns what the command line chooses.
pub(super) fn select_choice(
    context: &Context,
    choice: &cli::Choice,
    interrupt: &Interrupt,
) -> anyhow::Result<Selection> {
    select(context, &choice.scenarios, &choice.overrides(), interrupt)
}

/// Resolves what the user chose. If the user interrupts that, the error is the interruption.
pub(super) fn select(
    context: &Context,
    scenarios: &[String],
    overrides: &Overrides,
    interrupt: &Interrupt,
) -> anyhow::Result<Selection> {
    let (scenarios, overrides) = several::apart(&context.catalog, scenarios, overrides);
    let selection = Selection::new(&context.catalog, &context.toolbox, &scenarios, &overrides);
    // Noticed once a program that is running has answered or its time is up.
    selection.map_err(|error| match interrupt.is_requested() {
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
        repeats_percent: 0,
        only_cells: None,
        only_knees: false,
        silent: context.format != Format::Human,
    }
}

/// Returns whether every request of the trial was answered correctly, and none was dropped. The
/// path may drop requests at its knee and above.
fn is_clean(trial: &Trial, knees: &[Knee]) -> bool {
    let is_answered = |load: &Load| {
        load.failed() == 0 && (load.dropped_by_path() == 0 || is_overload(trial, knees))
    };
    trial.measured().is_some_and(is_answered)
}

fn is_overload(trial: &Trial, knees: &[Knee]) -> bool {
    let cell = &trial.planned.cell;
    let mut of_path = knees.iter().filter(|knee| {
        let found = (&knee.scenario, &knee.endpoint, &knee.path, knee.concurrency);
        found == (&cell.scenario, &cell.endpoint, &cell.path, cell.concurrency)
    });
    of_path.any(|knee| knee.rate_rps <= cell.rate_rps)
}

#[cfg(test)]
mod tests {
    use hopbench_analysis::record::{Disturbance, OpenLoop, Timing};

    use super::*;

    #[test]
    fn what_is_dropped_below_the_knee_is_not_clean() {
        let trial = |dropped: u64| -> Trial {
            let open_loop = OpenLoop {
                scheduled: 100,
                dropped,
                ..OpenLoop::default()
            };
            let load = Load {
                requests: 100 - dropped,
                good: 100 - dropped,
                elapsed_us: 1e6,
                open_loop: Some(open_loop),
                ..Load::default()
            };
            serde_json::from_value(serde_json::json!({
                "trial": 1, "block": 1, "twin": 0, "duration_ms": 1000, "warm_up_ms": 0,
                "scenario": "s", "endpoint": "/", "path": "p", "concurrency": 1,
                "keep_alive": true, "rate_rps": 100, "started": "", "outcome": "ok",
                "timing": Timing::default(), "load": load, "processes": [], "cpu_us": {},
                "counters": {}, "disturbance": Disturbance::default(), "warnings": [],
            }))
            .expect("a record")
        };
        let knee = |rate_rps| Knee {
            scenario: "s".to_owned(),
            endpoint: "/".to_owned(),
            path: "p".to_owned(),
            concurrency: 1,
            p99_ms_max: 10.0,
            rate_rps,
            closed_loop_rps: None,
            generator_bound: false,
            probes: 1,
        };
        assert!(is_clean(&trial(0), &[]));
        assert!(!is_clean(&trial(1), &[]));
        assert!(!is_clean(&trial(1), &[knee(Some(101))]));
        assert!(is_clean(&trial(1), &[knee(Some(100))]));
        // A path that holds no rate at all is overloaded by any.
        assert!(is_clean(&trial(1), &[knee(None)]));
    }
}
