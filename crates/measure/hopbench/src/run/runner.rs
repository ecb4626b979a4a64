//! Runs a plan, trial by trial, and keeps each result.

use hopbench_analysis::record::{Outcome, Plan, PlannedTrial, Source, Trial, Warning};

use crate::{
    plan::planner::estimate_ms,
    process::{Interrupt, Interrupted},
    run::{
        progress::Progress,
        run_dir::{Phase, RunDir, State},
        trial::Executor,
    },
};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) trials: Vec<Trial>,
    pub(crate) interrupted: bool,
}

/// Trials that are added to a plan.
#[derive(Debug, Default)]
pub(crate) struct Added {
    pub(crate) trials: Vec<PlannedTrial>,
    /// One line per block.
    pub(crate) reasons: Vec<String>,
}

/// Runs every trial of the plan, and those that `more` adds when all are done. Each record is on
/// disk before the next trial begins, so that at most one is lost.
pub(crate) fn run(
    mut plan: Plan,
    mut more: impl FnMut(&[Trial]) -> anyhow::Result<Added>,
    executor: &mut impl Executor,
    run_dir: &RunDir,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<Ended> {
    let mut writer = run_dir.trial_writer()?;
    let mut trials = Vec::new();
    let mut interrupted = false;
    let state = |phase, trial| State {
        pid: std::process::id(),
        phase,
        trial,
        stage: 0,
    };
    loop {
        if interrupt.is_requested() {
            interrupted = true;
            break;
        }
        if trials.len() == plan.trials.len() {
            let added = more(&trials)?;
            if added.trials.is_empty() {
                break;
            }
            plan.estimate_ms += estimate_ms(&added.trials);
            plan.trials.extend(added.trials);
            run_dir.write_plan(&plan)?;
            progress.extend(&plan, &added.reasons);
        }
        let planned = &plan.trials[trials.len()];
        let begun = state(Phase::Running, planned.trial);
        run_dir.write_state(&begun)?;
        progress.begin(planned, 0);
        let mut on_stage = |stage| {
            progress.begin(planned, stage);
            // The state is only for other terminals.
            let _ = run_dir.write_state(&State {
                stage,
                ..begun.clone()
            });
        };
        match attempt(executor, planned, &mut on_stage) {
            Ok(trial) => {
                writer.append(&trial)?;
                progress.end(&trial);
                trials.push(trial);
            }
            Err(Interrupted) => {
                interrupted = true;
                break;
            }
        }
    }
    let phase = if interrupted {
        Phase::Interrupted
    } else {
        Phase::Finished
    };
    run_dir.write_state(&state(phase, 0))?;
    progress.finish();
    Ok(Ended {
        trials,
        interrupted,
    })
}

/// Runs a trial, and runs it again if something other than the path failed: a port that was taken
/// says nothing about the path. A failure of the path is a result, and is not repeated.
fn attempt(
    executor: &mut impl Executor,
    planned: &PlannedTrial,
    on_stage: &mut dyn FnMut(usize),
) -> Result<Trial, Interrupted> {
    let trial = executor.execute(planned, on_stage)?;
    match &trial.outcome {
        Outcome::Failed(failure) if failure.source != Source::Subject => {
            let cause = failure.cause.clone();
            let mut again = executor.execute(planned, on_stage)?;
            again.warnings.push(Warning::Retried { cause });
            Ok(again)
        }
        _ => Ok(trial),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whatever a trial's result, it is kept and the next trial runs. Method: a script in
    //! place of the executor.

    use std::collections::VecDeque;

    use hopbench_analysis::record::{Cell, Failure, FailureKind, Load};
    use tempfile::TempDir;

    use super::*;

    /// Returns the given outcomes in order, then an interruption.
    struct Script {
        outcomes: VecDeque<Result<Outcome, Interrupted>>,
        executed: Vec<u32>,
        run_dir: RunDir,
    }

    impl Executor for Script {
        fn execute(
            &mut self,
            planned: &PlannedTrial,
            on_stage: &mut dyn FnMut(usize),
        ) -> Result<Trial, Interrupted> {
            on_stage(1);
            assert_eq!(self.run_dir.state().expect("written").stage, 1);
            // All earlier records are on disk already.
            let kept = self.run_dir.trials().expect("readable");
            let mut executed = self.executed.clone();
            executed.dedup();
            executed.retain(|trial| *trial != planned.trial);
            assert_eq!(kept.len(), executed.len());
            let state = self.run_dir.state().expect("written");
            assert_eq!((state.phase, state.trial), (Phase::Running, planned.trial));
            let outcome = self.outcomes.pop_front().unwrap_or(Err(Interrupted))?;
            self.executed.push(planned.trial);
            Ok(Trial {
                planned: planned.clone(),
                started: String::new(),
                load: (outcome == Outcome::Ok).then(|| Load {
                    good: 1,
                    requests: 1,
                    elapsed_us: 1.0,
                    ..Load::default()
                }),
                outcome,
                timing: Default::default(),
                processes: Vec::new(),
                cpu_us: Default::default(),
                run_queue_wait_us: Default::default(),
                counters: Default::default(),
                disturbance: Default::default(),
                warnings: Vec::new(),
                prepared: Vec::new(),
                seconds: Vec::new(),
            })
        }
    }

    fn failed(kind: FailureKind) -> Result<Outcome, Interrupted> {
        failed_by(Source::Subject, kind)
    }

    fn failed_by(source: Source, kind: FailureKind) -> Result<Outcome, Interrupted> {
        let cause = "so it was written".to_owned();
        let log = Vec::new();
        Ok(Outcome::Failed(Failure {
            source,
            kind,
            cause,
            log,
        }))
    }

    fn planned(trial: u32) -> PlannedTrial {
        PlannedTrial {
            trial,
            block: 1,
            cell: Cell {
                scenario: "script".to_owned(),
                endpoint: "/small".to_owned(),
                path: "nowhere".to_owned(),
                concurrency: 1,
                keep_alive: true,
                rate_rps: None,
                build: None,
                staged: false,
                placement: Default::default(),
            },
            replicate: 0,
            duration_ms: 1,
            warm_up_ms: 0,
            requests: None,
            stages: Vec::new(),
            think_time_ms: 0,
            attempt: 0,
        }
    }

    /// Plans four trials and `added` more.
    fn execute(
        outcomes: impl IntoIterator<Item = Result<Outcome, Interrupted>>,
        added: u32,
    ) -> (Ended, Script, TempDir) {
        let root = TempDir::new().expect("a directory");
        let run_dir = RunDir::create(root.path(), "run").expect("fresh");
        let outcomes = outcomes.into_iter().collect();
        let mut script = Script {
            outcomes,
            executed: Vec::new(),
            run_dir: run_dir.clone(),
        };
        let plan = Plan {
            estimate_ms: 0,
            trials: (1..=4).map(planned).collect(),
        };
        let more = |done: &[Trial]| {
            let done = u32::try_from(done.len()).expect("a few");
            let next = (done < 4 + added).then(|| planned(done + 1));
            Ok(Added {
                trials: next.into_iter().collect(),
                ..Added::default()
            })
        };
        let interrupt = Interrupt::catch().expect("signals can be caught");
        let mut progress = Progress::new(&plan, true);
        let ended = run(plan, more, &mut script, &run_dir, &mut progress, &interrupt);
        (ended.expect("the directory is writable"), script, root)
    }

    #[test]
    fn failed_trials_are_kept_and_the_run_goes_on() {
        let outcomes = [
            Ok(Outcome::Ok),
            failed(FailureKind::Crash),
            failed(FailureKind::Hang),
            Ok(Outcome::Ok),
        ];
        let (ended, script, _root) = execute(outcomes, 0);
        assert!(!ended.interrupted);
        assert_eq!(script.executed, [1, 2, 3, 4]);
        let kept = script.run_dir.trials().expect("readable");
        assert_eq!(kept.len(), 4);
        assert_eq!(
            kept.iter()
                .filter(|trial| trial.measured().is_some())
                .count(),
            2
        );
        assert_eq!(
            script.run_dir.state().expect("written").phase,
            Phase::Finished
        );
    }

    #[test]
    fn what_was_not_the_path_s_fault_is_tried_once_more() {
        let failed = || failed_by(Source::Harness, FailureKind::Unable);
        let fine = || Ok(Outcome::Ok);
        let (ended, script, _root) =
            execute([failed(), fine(), failed(), failed(), fine(), fine()], 0);
        assert_eq!(script.executed, [1, 1, 2, 2, 3, 4]);
        let outcomes = ended.trials.iter().map(|trial| {
            let retried = matches!(trial.warnings[..], [Warning::Retried { .. }]);
            (trial.measured().is_some(), retried)
        });
        let expected = [(true, true), (false, true), (true, false), (true, false)];
        assert_eq!(outcomes.collect::<Vec<_>>(), expected);
        assert_eq!(script.run_dir.trials().expect("readable").len(), 4);
    }

    #[test]
    fn what_is_added_is_planned_and_run() {
        let (ended, script, _root) = execute((0..6).map(|_| Ok(Outcome::Ok)), 2);
        assert!(!ended.interrupted);
        assert_eq!(script.executed, [1, 2, 3, 4, 5, 6]);
        let plan = script.run_dir.plan().expect("readable");
        assert_eq!(plan.trials.len(), 6);
    }

    #[test]
    fn an_interruption_keeps_what_was_done() {
        let (ended, script, _root) = execute([Ok(Outcome::Ok), Ok(Outcome::Ok)], 0);
        assert!(ended.interrupted);
        assert_eq!(ended.trials.len(), 2);
        assert_eq!(script.run_dir.trials().expect("readable").len(), 2);
        assert_eq!(
            script.run_dir.state().expect("written").phase,
            Phase::Interrupted
        );
    }
}
