//! Verdicts that depend on doubtful trials.

use super::{kinds::of_one, *};
use crate::report::gate;

/// Judges twelve blocks of one cell. B has half of its RPS in the first `slow` blocks, and its
/// trials in the first `marked` blocks were disturbed.
fn with_slow_and_marked(slow: u32, marked: u32) -> GateResult {
    let mut trials = of_builds(&CELLS[..1], 12, |cell, block, replicate| {
        let mut metrics = equal(cell, block, replicate);
        if block <= slow && is_b(cell) {
            metrics.rps /= 2.0;
        }
        metrics
    });
    let of_b = trials.iter_mut().filter(|it| is_b(&it.planned.cell));
    for trial in of_b.filter(|it| it.planned.block <= marked) {
        trial.warnings.push(Warning::Steal { share: 0.5 });
    }
    judge_builds(&usual_policy(), &trials)
}

#[test]
fn blocks_are_not_left_out_where_that_changes_the_verdict() {
    // All slow blocks are marked, and the others would pass.
    let all_marked = with_slow_and_marked(6, 6);
    let of_all_marked = verdict(&all_marked, "RPS", "plain");
    assert_inconclusive(&of_all_marked, "");
    let note = all_marked.findings[0].note.clone().unwrap_or_default();
    let shown = format!("{} {note}", of_all_marked.why());
    assert!(
        shown.contains("6 of 36 trials are doubtful: stolen time in trials 3, 6, 9")
            && shown.contains("without them")
            && shown.contains("passed"),
        "{shown}"
    );
    // B is slow in all blocks, and half of them are marked: the other half says the same.
    let slow = with_slow_and_marked(12, 6);
    assert!(matches!(
        verdict(&slow, "RPS", "plain"),
        Verdict::Regressed { .. }
    ));
    let note = slow.findings[0].note.clone().expect("of the marked trials");
    assert!(
        note.ends_with("without these blocks the verdict is the same"),
        "{note}"
    );
    let equal = with_slow_and_marked(0, 6);
    assert_eq!(verdict(&equal, "RPS", "plain"), Verdict::Passed);
    // That is said on a terminal, too.
    let shown = gate::terminal(&equal);
    assert!(
        shown.contains("2 verdicts passed with a note, such as 'RPS falls by at most 15 %'")
            && shown.contains("6 of 36 trials are doubtful"),
        "{shown}"
    );
    // Others take time from a path, not memory.
    assert_eq!(verdict(&all_marked, "growth", "plain"), Verdict::Passed);
}

#[test]
fn where_all_blocks_of_one_side_are_marked_nothing_is_told() {
    for slow in [0, 12] {
        let result = with_slow_and_marked(slow, 12);
        assert_inconclusive(
            &verdict(&result, "RPS", "plain"),
            "12 of 36 trials are doubtful: stolen time in trials 3, 6, 9, 12, 15 and 7 more, and \
             too few blocks are left without them",
        );
        assert_eq!(verdict(&result, "errors", "plain"), Verdict::Passed);
    }
    // If both sides were disturbed alike, the machine is like that.
    let mut trials = of_builds(&CELLS[..1], 12, slower("plain", 0.5));
    for trial in &mut trials {
        trial.warnings.push(Warning::OtherLoad { share: 0.2 });
    }
    let alike = judge_builds(&usual_policy(), &trials);
    assert!(matches!(
        verdict(&alike, "RPS", "plain"),
        Verdict::Regressed { .. }
    ));
}

#[test]
fn a_run_that_others_disturbed_does_not_pass_against_a_quiet_one() {
    let (base, mut head) = (of_one(BLOCKS, 0.8), of_one(BLOCKS, 0.8));
    for trial in &mut head {
        trial.started = "2026-01-03T03:04:05Z".to_owned();
        trial.warnings.push(Warning::Steal { share: 0.4 });
        trial.warnings.push(Warning::OtherLoad { share: 0.5 });
    }
    let result = judge_runs(&usual_policy(), &base, &head).expect("comparable");
    assert_eq!(result.overall(), Overall::Inconclusive);
    assert_inconclusive(&verdict(&result, "RPS", "fast"), "other load in trial");
    assert_eq!(verdict(&result, "growth", "fast"), Verdict::Passed);
    // Numbers are those of a run.
    let mut disturbed = base.clone();
    let last = disturbed.last_mut().expect("trials");
    last.planned.trial = 7;
    last.warnings.push(Warning::Steal { share: 0.1 });
    let both = judge_runs(&usual_policy(), &disturbed, &head).expect("comparable");
    let why = verdict(&both, "RPS", "fast");
    assert_inconclusive(&why, " and trial 7 of the base");
    let quiet = judge_runs(&usual_policy(), &of_one(BLOCKS, 0.8), &base).expect("comparable");
    assert_eq!(quiet.overall(), Overall::Passed);
    // The disturbed run does not pass by itself, either.
    let (manifest, planned) = (manifest(false), plan(&head));
    let run = Run {
        manifest: &manifest,
        trials: &head,
        planned: &planned,
    };
    let absolute = policy(json!({
        "question": "?", "absolute": [{"metric": "p95_ms", "max": 5}],
    }));
    let alone = judge(&absolute, run, None).expect("one side is enough");
    assert_eq!(alone.count(Overall::Inconclusive), 2, "{alone:#?}");
}

#[test]
fn a_percentile_of_too_few_answers_decides_nothing() {
    let p99 = policy(json!({
        "question": "?", "relative": [{"metric": "p99", "max-rise-percent": 20}],
    }));
    let with_answers = |good: u64, share: f64| {
        let mut trials = of_builds(&CELLS[..1], BLOCKS, equal);
        for trial in &mut trials {
            let is_b = is_b(&trial.planned.cell);
            let load = trial.load.as_mut().expect("loaded");
            (load.good, load.requests) = (good, good);
            load.latency.p99_us = Some(if is_b { 100.0 * share } else { 100.0 });
        }
        verdict(&judge_builds(&p99, &trials), "p99", "plain")
    };
    for share in [1.0, 3.0] {
        for few in [10, 1_999] {
            assert_inconclusive(&with_answers(few, share), "too few answers for a p99");
        }
    }
    assert_eq!(with_answers(2_000, 1.0), Verdict::Passed);
    assert!(matches!(
        with_answers(2_000, 3.0),
        Verdict::Regressed { .. }
    ));
}

#[test]
fn a_path_that_is_too_slow_for_a_long_tail_regresses() {
    let p95 = policy(json!({
        "question": "?", "relative": [{"metric": "p95", "max-rise-percent": 20}],
    }));
    let with_p95 = |share: f64, is_short: fn(&Trial) -> bool| {
        let mut trials = of_builds(&CELLS[..1], BLOCKS, equal);
        for trial in &mut trials {
            let is_short = is_short(trial);
            let is_b = is_b(&trial.planned.cell);
            let load = trial.load.as_mut().expect("loaded");
            if is_short {
                (load.good, load.requests) = (300, 300);
            }
            load.latency.p95_us = Some(if is_b { 100.0 * share } else { 100.0 });
        }
        verdict(&judge_builds(&p95, &trials), "p95", "plain")
    };
    let of_b = |trial: &Trial| is_b(&trial.planned.cell);
    assert!(matches!(with_p95(3.0, of_b), Verdict::Regressed { .. }));
    assert_inconclusive(&with_p95(1.0, of_b), "too few answers for a p95");
    // A percentile of A that seems short does not prove that B's is longer.
    let of_a = |trial: &Trial| !is_b(&trial.planned.cell);
    assert_inconclusive(&with_p95(3.0, of_a), "too few answers for a p95");
}

#[test]
fn a_generator_that_is_the_limit_hides_a_slower_path() {
    let mut trials = of_builds(&CELLS[..1], BLOCKS, equal);
    for trial in &mut trials {
        let (cores_used, cores_max) = (1.0, 1.0);
        trial.warnings.push(Warning::GeneratorBound {
            cores_used,
            cores_max,
        });
    }
    let result = judge_builds(&usual_policy(), &trials);
    assert_inconclusive(&verdict(&result, "RPS", "plain"), "generator is the limit");
    let cpu = policy(json!({
        "question": "?", "relative": [{"metric": "cpu", "max-rise-percent": 20}],
    }));
    let result = judge_builds(&cpu, &trials);
    assert_eq!(verdict(&result, "server CPU", "plain"), Verdict::Passed);
}

#[test]
fn marked_trials_that_change_the_noise_floor_are_named() {
    // A's second trial is disturbed in the two middle blocks of eight, and a third slower there.
    let mut trials = of_builds(&CELLS[..1], BLOCKS, |cell, block, replicate| {
        let mut metrics = equal(cell, block, replicate);
        if replicate == 1 && [4, 5].contains(&block) {
            metrics.rps /= 1.5;
        }
        metrics
    });
    for trial in &mut trials {
        if trial.planned.replicate == 1 && [4, 5].contains(&trial.planned.block) {
            trial.warnings.push(Warning::OtherLoad { share: 0.3 });
        }
    }
    let result = judge_builds(&usual_policy(), &trials);
    let note = result.findings[0].note.clone().expect("named");
    assert!(
        note.contains("other load in trials 11, 14") && note.contains("the noise floor is "),
        "{note}"
    );
}

#[test]
fn each_doubtful_trial_counts_once() {
    let mut trials = of_one(BLOCKS, 0.8);
    for (index, trial) in trials.iter_mut().enumerate() {
        trial.planned.trial = u32::try_from(index).expect("few") + 1;
        trial.warnings.push(Warning::OtherLoad { share: 0.2 });
    }
    // The reference is judged by, and is the control of both.
    let ratio = policy(json!({
        "question": "?",
        "invariant": [{"path": "fast", "over": "plain", "metric": "rps", "min-ratio": 0.5}],
    }));
    let (manifest, planned) = (manifest(false), plan(&trials));
    let run = Run {
        manifest: &manifest,
        trials: &trials,
        planned: &planned,
    };
    let alone = judge(&ratio, run, None).expect("one side is enough");
    let finding = &alone.findings[0];
    let note = finding.note.clone().unwrap_or_default();
    let told = format!("{} {note}", finding.verdict.why());
    assert!(told.contains("24 of 24 trials are doubtful"), "{told}");
}
