//! Goal: a verdict says what the records say, and no more. Method: records made by hand, without
//! processes and clocks; A/A and detection by simulation.

mod doubts;
mod kinds;
mod losses;
mod outputs;
mod simulation;

use serde_json::{Value, json};

use super::*;
use crate::{
    record::{Build, BuildInfo, Failure, FailureKind, Git, Outcome, Source, Warning},
    report::tests,
    text,
};

/// The metrics of one trial.
#[derive(Clone, Copy)]
struct Metrics {
    rps: f64,
    p95_us: f64,
    growth_mib: u64,
}

const USUAL: Metrics = Metrics {
    rps: 10_000.0,
    p95_us: 100.0,
    growth_mib: 10,
};

/// Number of blocks in the runs of these tests.
const BLOCKS: u32 = 8;

fn policy(file: Value) -> Policy {
    let file: PolicyFile = serde_json::from_value(file).expect("valid");
    Policy::new("test", file).expect("valid")
}

fn manifest(has_builds: bool) -> Manifest {
    let build = |build, asked: &str| BuildInfo {
        build,
        asked: asked.to_owned(),
        git: Git {
            revision: format!("{asked}0123456789abcdef"),
            dirty: asked == "head",
        },
        path: None,
    };
    Manifest {
        builds: match has_builds {
            true => vec![build(Build::A, "main"), build(Build::B, "head")],
            false => Vec::new(),
        },
        ..tests::manifest()
    }
}

fn trial(path: &str, concurrency: u32, block: u32, metrics: Metrics) -> Trial {
    let mut trial = tests::trial(path, concurrency, block, 0, 10_000, 100);
    let load = trial.load.as_mut().expect("loaded");
    load.elapsed_us = 1e6 * 10_000.0 / metrics.rps;
    load.latency.p95_us = Some(metrics.p95_us);
    trial.processes[0].rss_peak_kib = 1_000 + metrics.growth_mib * 1_024;
    trial
}

/// Returns a factor between 0.99 and 1.01 that varies over blocks and replicates.
fn spread(block: u32, replicate: u8) -> f64 {
    1.0 + 0.01 * f64::from((block + 2 * u32::from(replicate)) % 3) - 0.01
}

/// Makes a run of two builds, with each cell twice as A and once as B in every block.
fn of_builds(
    cells: &[(&str, u32)],
    blocks: u32,
    mut metrics: impl FnMut(&Cell, u32, u8) -> Metrics,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 1..=blocks {
        for (path, concurrency) in cells {
            for (build, replicate) in [(Build::A, 0), (Build::A, 1), (Build::B, 0)] {
                let mut trial = trial(path, *concurrency, block, USUAL);
                trial.planned.cell.build = Some(build);
                trial.planned.replicate = replicate;
                let metrics = metrics(&trial.planned.cell, block, replicate);
                let mut changed = self::trial(path, *concurrency, block, metrics);
                changed.planned = trial.planned;
                changed.planned.trial = u32::try_from(trials.len()).expect("few") + 1;
                trials.push(changed);
            }
        }
    }
    trials
}

fn is_b(cell: &Cell) -> bool {
    cell.build == Some(Build::B)
}

/// Returns metrics that differ by the spread alone.
fn equal(_: &Cell, block: u32, replicate: u8) -> Metrics {
    let spread = spread(block, replicate);
    Metrics {
        rps: USUAL.rps * spread,
        p95_us: USUAL.p95_us / spread,
        ..USUAL
    }
}

/// Returns metrics in which B of one path has this share of the RPS.
fn slower(path: &str, share: f64) -> impl Fn(&Cell, u32, u8) -> Metrics {
    move |cell, block, replicate| {
        let mut metrics = equal(cell, block, replicate);
        if is_b(cell) && cell.path == path {
            metrics.rps *= share;
        }
        metrics
    }
}

fn plan(trials: &[Trial]) -> Vec<PlannedTrial> {
    trials.iter().map(|trial| trial.planned.clone()).collect()
}

fn judge_builds(policy: &Policy, trials: &[Trial]) -> GateResult {
    let (manifest, planned) = (manifest(true), plan(trials));
    let run = Run {
        manifest: &manifest,
        trials,
        planned: &planned,
    };
    judge(policy, run, None).expect("two sides")
}

fn judge_runs(policy: &Policy, base: &[Trial], head: &[Trial]) -> Result<GateResult, Unjudged> {
    let manifest = manifest(false);
    let planned = [plan(base), plan(head)];
    let run = |trials, planned| Run {
        manifest: &manifest,
        trials,
        planned,
    };
    judge(policy, run(head, &planned[1]), Some(run(base, &planned[0])))
}

/// Returns the first verdict of a guardrail that begins with this text, in the cells of a path.
fn verdict(result: &GateResult, guardrail: &str, path: &str) -> Verdict {
    let mut findings = result.findings.iter();
    let found = findings.find(|finding| {
        let is_path = finding.cell.as_ref().is_none_or(|cell| cell.path == path);
        is_path && finding.guardrail.starts_with(guardrail)
    });
    found.expect("judged").verdict.clone()
}

fn assert_inconclusive(verdict: &Verdict, reason: &str) {
    let Verdict::Inconclusive { why } = verdict else {
        panic!("{verdict:?}, not inconclusive: {reason}");
    };
    assert!(why.contains(reason), "{why}");
}

fn fail(trial: &mut Trial, source: Source) {
    trial.load = None;
    trial.outcome = Outcome::Failed(Failure {
        source,
        kind: FailureKind::Crash,
        cause: "'host' killed by SIGSEGV".to_owned(),
        log: Vec::new(),
    });
}

const CELLS: [(&str, u32); 4] = [("plain", 1), ("fast", 1), ("plain", 8), ("fast", 8)];

#[test]
fn what_is_equal_passes() {
    let result = judge_builds(&usual_policy(), &of_builds(&CELLS, BLOCKS, equal));
    assert_eq!(result.overall(), Overall::Passed, "{result:#?}");
    assert_eq!(result.findings.len(), 16);
    assert!(result.suspects().is_empty() && result.notes.is_empty());
}

#[test]
fn what_is_slower_regresses_where_it_is() {
    let result = judge_builds(
        &usual_policy(),
        &of_builds(&CELLS, BLOCKS, slower("fast", 0.6)),
    );
    assert_eq!(result.overall(), Overall::Regressed);
    assert_eq!(result.count(Overall::Regressed), 2);
    let suspects: Vec<String> = result.suspects().iter().map(Cell::to_string).collect();
    assert_eq!(suspects, ["fast /small c=1", "fast /small c=8"]);
    assert_eq!(verdict(&result, "RPS", "plain"), Verdict::Passed);
    // B is a little slower, within the limit.
    let little = of_builds(&CELLS, BLOCKS, slower("fast", 0.93));
    assert_eq!(
        judge_builds(&usual_policy(), &little).overall(),
        Overall::Passed
    );
    // B is as slow as the limit allows.
    let at_limit = judge_builds(
        &usual_policy(),
        &of_builds(&CELLS, BLOCKS, slower("fast", 0.85)),
    );
    assert_inconclusive(
        &verdict(&at_limit, "RPS", "fast"),
        "limit lies within the confidence interval",
    );
}

#[test]
fn too_few_blocks_say_how_many_are_needed() {
    for blocks in [1, 5] {
        let result = judge_builds(
            &usual_policy(),
            &of_builds(&CELLS, blocks, slower("fast", 0.1)),
        );
        assert_eq!(result.overall(), Overall::Inconclusive);
        let too_few = text::too_few(blocks as usize, "block");
        let reason = format!("{too_few} for a 95 % confidence interval; it takes 6");
        assert_inconclusive(&verdict(&result, "RPS", "fast"), &reason);
        assert_inconclusive(&verdict(&result, "RPS", "plain"), &reason);
        assert_eq!(verdict(&result, "errors", "fast"), Verdict::Passed);
    }
}

#[test]
fn an_interrupted_run_says_what_it_has() {
    let all = of_builds(&CELLS, BLOCKS, slower("fast", 0.6));
    let (manifest, planned) = (manifest(true), plan(&all));
    for (trials, reason) in [
        (&all[..5 * 12], "5 blocks are too few"),
        (&all[..2], "not measured"),
        (&all[..0], "not measured"),
    ] {
        let run = Run {
            manifest: &manifest,
            trials,
            planned: &planned,
        };
        let result = judge(&usual_policy(), run, None).expect("two sides");
        assert_eq!(result.overall(), Overall::Inconclusive);
        assert_eq!(result.findings.len(), 16, "{reason}");
        assert_inconclusive(&verdict(&result, "RPS", "fast"), reason);
        // All trials that were made are right, but the missing ones may not be.
        assert_inconclusive(
            &verdict(&result, "errors", "fast"),
            match trials.len() {
                60 => "passes so far, but 9 of 24 trials are missing",
                _ => "not measured",
            },
        );
        let note = format!(
            "the run is not complete: {} of 96 trials were made",
            trials.len()
        );
        assert_eq!(result.notes, [note]);
    }
}

#[test]
fn a_cell_of_one_build_alone_is_named() {
    let mut trials = of_builds(&CELLS, BLOCKS, equal);
    trials.retain(|trial| {
        let cell = &trial.planned.cell;
        !(is_b(cell) && cell.path == "fast" || !is_b(cell) && cell.concurrency == 8)
    });
    let result = judge_builds(&usual_policy(), &trials);
    assert_eq!(result.overall(), Overall::Inconclusive);
    assert_inconclusive(&verdict(&result, "RPS", "fast"), "b was not measured");
    assert_inconclusive(&verdict(&result, "errors", "fast"), "b was not measured");
    let of_a = result.findings.iter().find(|finding| {
        let cell = finding.cell.as_ref().expect("a cell");
        (cell.path.as_str(), cell.concurrency) == ("plain", 8)
    });
    let of_a = &of_a.expect("judged").verdict;
    assert_inconclusive(of_a, "a has no metrics");
}

#[test]
fn trials_that_fail_are_regressions_unless_they_did_before() {
    let of_fast = |build: Build, count: usize, source: Source| {
        let mut trials = of_builds(&CELLS, BLOCKS, equal);
        let failing = trials.iter_mut().filter(|trial| {
            trial.planned.cell.path == "fast" && trial.planned.cell.build == Some(build)
        });
        failing.take(count).for_each(|trial| fail(trial, source));
        trials
    };
    let policy = usual_policy();
    let one = judge_builds(&policy, &of_fast(Build::B, 1, Source::Subject));
    assert_eq!(
        verdict(&one, "errors", "fast"),
        Verdict::Regressed {
            why: "1 of 8 trials failed: crash, 'host' killed by SIGSEGV".to_owned()
        }
    );
    assert_eq!(verdict(&one, "RPS", "fast"), Verdict::Passed);
    let all = judge_builds(&policy, &of_fast(Build::B, 16, Source::Subject));
    for guardrail in ["errors", "RPS", "p95", "growth"] {
        let Verdict::Regressed { why } = verdict(&all, guardrail, "fast") else {
            panic!("{guardrail}: {all:#?}");
        };
        assert!(why.contains("SIGSEGV"), "{why}");
    }
    let harness = judge_builds(&policy, &of_fast(Build::B, 16, Source::Harness));
    assert_inconclusive(&verdict(&harness, "errors", "fast"), "outside the path");
    assert_inconclusive(&verdict(&harness, "RPS", "fast"), "outside it");
    let before = judge_builds(&policy, &of_fast(Build::A, 32, Source::Subject));
    assert_inconclusive(&verdict(&before, "RPS", "fast"), "a has no metrics");
    assert_eq!(verdict(&before, "errors", "fast"), Verdict::Passed);

    let mut both = of_fast(Build::A, 32, Source::Subject);
    let of_b = both.iter_mut().filter(|trial| is_b(&trial.planned.cell));
    of_b.for_each(|trial| fail(trial, Source::Subject));
    let both = judge_builds(&policy, &both);
    assert_inconclusive(&verdict(&both, "errors", "fast"), "against 16 of 16 in a");
    assert_inconclusive(&verdict(&both, "RPS", "fast"), "a has no metrics either");
    assert!(matches!(
        verdict(&both, "RPS", "plain"),
        Verdict::Regressed { .. }
    ));
}

/// Judges a run in which B has the share `fall` of the RPS, and A differs from itself by `noise`.
fn with_noise(fall: f64, noise: f64) -> GateResult {
    let trials = of_builds(&CELLS[..1], BLOCKS, |cell, block, replicate| {
        let mut metrics = slower("plain", fall)(cell, block, 0);
        if replicate == 1 {
            // Not in two groups, which would be a reason of its own to doubt the figures.
            metrics.rps *= noise.powf([1.0, -0.4, 0.4, -1.0][block as usize % 4]);
        }
        metrics
    });
    judge_builds(&usual_policy(), &trials)
}

/// B is slower by half in every other block: that is no change of 25 %, but two states.
#[test]
fn two_states_are_not_compared() {
    let trials = of_builds(&CELLS[..1], BLOCKS, |cell, block, replicate| {
        let fall = if block.is_multiple_of(2) { 0.5 } else { 1.0 };
        slower("plain", fall)(cell, block, replicate)
    });
    let result = judge_builds(&usual_policy(), &trials);
    let verdict = verdict(&result, "RPS", "plain");
    assert_inconclusive(&verdict, "at 50 %");
    assert_inconclusive(&verdict, "the blocks fall into two groups");
}

#[test]
fn a_gate_below_the_floor_is_dead() {
    let quiet = with_noise(0.6, 1.1);
    assert!(matches!(
        verdict(&quiet, "RPS", "plain"),
        Verdict::Regressed { .. }
    ));
    assert_eq!(quiet.dead_gates().count(), 0);
    // The noise floor is 30 %, and the limit 15 %.
    let dead = with_noise(0.82, 1.3);
    assert_eq!(dead.dead_gates().count(), 1);
    assert_inconclusive(&verdict(&dead, "RPS", "plain"), "");
    let passed = with_noise(1.1, 1.3);
    assert_eq!(verdict(&passed, "RPS", "plain"), Verdict::Passed);
    assert_eq!(passed.dead_gates().count(), 1);
    // A change far beyond the noise floor is told all the same.
    let far = with_noise(0.2, 1.3);
    assert!(matches!(
        verdict(&far, "RPS", "plain"),
        Verdict::Regressed { .. }
    ));
}

#[test]
fn many_questions_need_more_blocks() {
    let paths: Vec<String> = (0..30).map(|path| format!("path-{path:02}")).collect();
    let cells: Vec<(&str, u32)> = paths.iter().map(|path| (path.as_str(), 1)).collect();
    let rps = policy(json!({
        "question": "?", "relative": [{"metric": "rps", "max-fall-percent": 15}],
    }));
    let one_slow = |blocks| judge_builds(&rps, &of_builds(&cells, blocks, slower("path-07", 0.5)));
    assert_inconclusive(
        &verdict(&one_slow(6), "RPS", "path-07"),
        "among 30 cells p must be at most 0.0017, which takes 10 blocks; the smallest p that 6 \
         blocks can reach is 0.016",
    );
    // The cell is a suspect, and the repeat has this cell only.
    let (first, suspects) = (one_slow(6), one_slow(6).suspects());
    assert_eq!(suspects.len(), 1);
    let repeat = |share| {
        let trials = of_builds(&[("path-07", 1)], 6, slower("path-07", share));
        judge_builds(&rps, &trials)
    };
    assert_eq!(confirm(&first, &repeat(0.5)).count(Overall::Regressed), 1);
    let confirmed = confirm(&first, &repeat(1.0));
    assert_eq!(confirmed.overall(), Overall::Inconclusive);
    assert_inconclusive(&verdict(&confirmed, "RPS", "path-07"), "among 30 cells");
    let enough = one_slow(10);
    assert_eq!(enough.count(Overall::Regressed), 1);
    // If all paths are slower, the p of each is small enough.
    let all = of_builds(&cells, 6, |cell, block, replicate| {
        slower(&cell.path, 0.5)(cell, block, replicate)
    });
    assert_eq!(judge_builds(&rps, &all).count(Overall::Regressed), 30);
}
