//! Goes through a plan, trial by trial, and keeps what each yields.

use hopbench_analysis::record::{Plan, Trial};

use crate::{
    process::Interrupt,
    progress::Progress,
    run_dir::{Phase, RunDir, State},
    trial::{Executor, Interrupted},
};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) trials: Vec<Trial>,
    pub(crate) interrupted: bool,
}

/// Runs every trial of the plan. Each record is on disk before the next trial begins, so that
/// whatever happens costs at most one.
pub(crate) fn run(
    plan: &Plan,
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
    };
    for planned in &plan.trials {
        if interrupt.is_requested() {
            interrupted = true;
            break;
        }
        run_dir.write_state(&state(Phase::Running, planned.trial))?;
        progress.begin(planned);
        match executor.execute(planned) {
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
