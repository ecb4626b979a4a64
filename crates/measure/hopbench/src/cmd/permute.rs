//! `hopbench self-test --of RUN`: counts a gate's false alarms in one run of a build against
//! itself, whose labels A and B are permuted many times.

use std::{path::Path, process::ExitCode};

use hopbench_analysis::{
    gate::{self, Overall},
    permute::permute_labels,
    record::{Manifest, PlannedTrial, Trial},
};
use serde_json::json;

use super::{
    Context,
    report::{planned, read},
    verdict::policy,
};
use crate::{
    cmd::{cli, exit},
    mistake::Mistake,
    run::{measure::seed_from_clock, run_dir::RunDir},
};

/// Default number of gates: enough for a share of a few per cent.
const GATES: u16 = 100;

/// Maximum share of false alarms, in per cent.
const FALSE_ALARMS_PERCENT_MAX: f64 = 2.5;

pub(super) fn run(
    context: &Context,
    run: &Path,
    options: &cli::SelfTest,
) -> anyhow::Result<ExitCode> {
    let policy = policy(context, options.policy.as_deref())?;
    let run_dir = RunDir::open(run)?;
    let (manifest, trials) = read(&run_dir)?;
    check(&manifest)?;
    let planned = planned(&run_dir, &trials)?;
    let seed = options.how.seed.unwrap_or_else(seed_from_clock);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut regressed, mut inconclusive, mut passed) = (0_usize, 0_usize, 0_usize);
    let gates = options.gates.unwrap_or(GATES);
    for _ in 0..gates {
        let permuted = permute_labels(&planned, |below| random.usize(..below));
        let planned: Vec<PlannedTrial> = permuted.values().cloned().collect();
        let trials: Vec<Trial> = trials
            .iter()
            .map(|trial| Trial {
                planned: permuted[&trial.planned.trial].clone(),
                ..trial.clone()
            })
            .collect();
        let judged = gate::Run {
            manifest: &manifest,
            trials: &trials,
            planned: &planned,
        };
        match gate::judge(&policy, judged, None)?.overall() {
            Overall::Regressed => regressed += 1,
            Overall::Inconclusive => inconclusive += 1,
            Overall::Passed => passed += 1,
        }
    }
    let share = 100.0 * regressed as f64 / f64::from(gates);
    let text = format!(
        "{gates} gates '{}', each on a new permutation of {} trials (seed {seed}): {regressed} \
         regressed ({share:.1} %, expected at most {FALSE_ALARMS_PERCENT_MAX} %), {inconclusive} \
         inconclusive, {passed} passed\n",
        policy.name,
        trials.len()
    );
    context.print(&text, || {
        json!({
            "run": run_dir.path(), "policy": policy.name, "seed": seed, "gates": gates,
            "regressed": regressed, "inconclusive": inconclusive, "passed": passed,
            "false_alarms_percent": share, "false_alarms_percent_max": FALSE_ALARMS_PERCENT_MAX,
        })
    })?;
    Ok(ExitCode::from(match share <= FALSE_ALARMS_PERCENT_MAX {
        true => 0,
        false => exit::FAILED,
    }))
}

/// Checks that both builds are equal: only then may their labels be permuted.
fn check(manifest: &Manifest) -> Result<(), Mistake> {
    let [a, b] = &manifest.builds[..] else {
        let message =
            "expected a run of two builds; make one with 'hopbench ab SCENARIO --a . --b .'";
        return Err(Mistake(message.to_owned()));
    };
    if (&a.asked, &a.git.revision) != (&b.asked, &b.git.revision) {
        return Err(Mistake(format!(
            "expected a run of a build against itself, but this one is '{}' against '{}'; make \
             one with 'hopbench ab SCENARIO --a . --b .'",
            a.asked, b.asked
        )));
    }
    Ok(())
}
