//! Simulations of how often a gate gives a false alarm, and how often it finds a regression.

use super::*;
use crate::numbers::Numbers;

/// Returns a random factor around 1. One in ten is four times as far off.
fn factor(numbers: &mut Numbers, width: f64) -> f64 {
    (width * numbers.with_outliers(4.0)).exp()
}

/// Judges `runs` runs of two builds with noise of this width, in which B of one path has this share
/// of the RPS. Returns the share of slow cells found, and the share of runs with a false alarm.
fn simulate(runs: u64, blocks: u32, noise: f64, share: f64, policy: &Policy) -> (f64, f64) {
    simulate_marked(runs, blocks, (noise, 0.0), share, policy)
}

/// Does the same with this share of all trials marked, whether or not they are far off.
fn simulate_marked(
    runs: u64,
    blocks: u32,
    (noise, marked): (f64, f64),
    share: f64,
    policy: &Policy,
) -> (f64, f64) {
    let manifest = manifest(true);
    let template = of_builds(&CELLS, blocks, |_, _, _| USUAL);
    let planned = plan(&template);
    let (mut found, mut false_alarms) = (0, 0);
    for seed in 0..runs {
        let mut numbers = Numbers(seed);
        let mut trials = template.clone();
        for trial in &mut trials {
            let cell = &trial.planned.cell;
            let is_slow = is_b(cell) && cell.path == "fast";
            let slow = if is_slow { share } else { 1.0 };
            let load = trial.load.as_mut().expect("loaded");
            load.elapsed_us /= slow * factor(&mut numbers, noise);
            load.latency.p95_us = Some(USUAL.p95_us * factor(&mut numbers, noise));
            if marked > 0.0 && numbers.next() < marked {
                trial.warnings.push(Warning::Steal { share: 0.06 });
            }
        }
        let run = Run {
            manifest: &manifest,
            trials: &trials,
            planned: &planned,
        };
        let result = judge(policy, run, None).expect("two sides");
        let is_true = |finding: &&Finding| {
            let cell = finding.cell.as_ref().expect("a cell");
            cell.path == "fast" && finding.guardrail.starts_with("RPS") && share < 1.0
        };
        let regressed = result
            .findings
            .iter()
            .filter(|finding| finding.is_regressed());
        let (right, wrong): (Vec<&Finding>, Vec<&Finding>) = regressed.partition(is_true);
        found += right.len();
        false_alarms += usize::from(!wrong.is_empty());
    }
    (
        found as f64 / (2 * runs) as f64,
        false_alarms as f64 / runs as f64,
    )
}

#[test]
fn equal_builds_are_hardly_ever_told_apart() {
    // The noise of a quiet machine, and of a shared one.
    for (noise, blocks) in [(0.03, 6), (0.1, 8)] {
        let (_, alarms) = simulate(1_000, blocks, noise, 1.0, &usual_policy());
        assert!(alarms < 0.001, "{noise}: {alarms}");
    }
    // With hardly any limit, only the noise floor and p hold back false alarms.
    let strict = policy(json!({"question": "?", "relative": [
        {"metric": "rps", "max-fall-percent": 0.1}, {"metric": "p95", "max-rise-percent": 0.1},
    ]}));
    let (_, alarms) = simulate(1_000, 8, 0.05, 1.0, &strict);
    assert!(alarms < 0.01, "{alarms}");
}

#[test]
fn what_is_well_beyond_the_limit_is_found() {
    for (noise, blocks, share, least) in [(0.02, 8, 0.75, 0.99), (0.05, 10, 0.6, 0.95)] {
        let (found, alarms) = simulate(200, blocks, noise, share, &usual_policy());
        assert!(found >= least, "{noise} {blocks} {share}: {found}");
        assert!(alarms < 0.01, "{noise} {blocks} {share}: {alarms}");
    }
}

/// One in twenty trials is marked, and makes its block doubtful in that cell.
#[test]
fn doubtful_blocks_cost_no_false_alarms_and_few_detections() {
    let marked = 0.05;
    let (_, alarms) = simulate_marked(500, 10, (0.05, marked), 1.0, &usual_policy());
    assert!(alarms < 0.005, "{alarms}");
    let (found, alarms) = simulate_marked(200, 12, (0.05, marked), 0.6, &usual_policy());
    assert!(found >= 0.95 && alarms < 0.01, "{found} {alarms}");
    // With a third of all trials marked, most blocks are doubtful, on both sides alike.
    let (found, alarms) = simulate_marked(200, 12, (0.05, 0.35), 0.6, &usual_policy());
    assert!(found >= 0.8 && alarms < 0.01, "{found} {alarms}");
}
