//! Requests and trials that are lost.

use super::*;
use crate::record::{Load, OpenLoop};

/// Makes a run at 900 requests per second, in which `lose` changes each trial of B on `fast`.
fn at_a_rate(lose: impl Fn(&mut Load)) -> Vec<Trial> {
    let mut trials = of_builds(&CELLS, BLOCKS, |_, _, _| USUAL);
    for trial in &mut trials {
        trial.planned.cell.rate_rps = Some(900);
        let load = trial.load.as_mut().expect("loaded");
        (load.requests, load.good, load.elapsed_us) = (900, 900, 1e6);
        load.open_loop = Some(OpenLoop {
            scheduled: 900,
            ..OpenLoop::default()
        });
        if is_b(&trial.planned.cell) && trial.planned.cell.path == "fast" {
            lose(load);
        }
    }
    trials
}

fn drop_requests(load: &mut Load, dropped: u64, late: u64) {
    let open = load.open_loop.as_mut().expect("a rate");
    (open.dropped, open.dropped_late) = (dropped, late);
    (load.requests, load.good) = (900 - dropped, 900 - dropped);
}

#[test]
fn requests_that_fail_count() {
    let mut trials = of_builds(&CELLS, BLOCKS, equal);
    let last = trials.last_mut().expect("some");
    last.load.as_mut().expect("loaded").requests += 3;
    let result = judge_builds(&usual_policy(), &trials);
    let why = "3 of 80003 requests were not answered correctly".to_owned();
    let regressed: Vec<&Finding> = result
        .findings
        .iter()
        .filter(|it| it.is_regressed())
        .collect();
    assert_eq!(regressed.len(), 1);
    assert_eq!(regressed[0].verdict, Verdict::Regressed { why });
    let lenient = policy(json!({"question": "?", "absolute": [{"metric": "errors", "max": 3}]}));
    assert_eq!(judge_builds(&lenient, &trials).overall(), Overall::Passed);
}

#[test]
fn what_is_lost_where_no_guardrail_asks_for_it_is_noted() {
    let mut trials = of_builds(&CELLS, BLOCKS, equal);
    let of_fast = trials.iter_mut().filter(|it| {
        let cell = &it.planned.cell;
        is_b(cell) && cell.path == "fast"
    });
    for trial in of_fast {
        trial.load.as_mut().expect("loaded").good -= 1;
    }
    let rps = json!([{"metric": "rps", "max-fall-percent": 15}]);
    let without = policy(json!({"question": "?", "relative": rps}));
    assert_eq!(
        judge_builds(&without, &trials).notes,
        [
            "no guardrail limits errors, but in fast /small c=1, 8 of 80000 requests were not \
             answered correctly, and 1 more cell had errors, too; add one with metric 'errors'"
        ]
    );
    let elsewhere = json!([{"metric": "errors", "max": 0, "where": {"path": "fast"}}]);
    let with = policy(json!({"question": "?", "relative": rps, "absolute": elsewhere}));
    assert!(judge_builds(&with, &trials).notes.is_empty());
}

#[test]
fn requests_that_were_never_asked_are_errors_of_the_path() {
    let trials = at_a_rate(|load| drop_requests(load, 840, 0));
    let result = judge_builds(&usual_policy(), &trials);
    let why = "6720 of 7200 requests were never sent, because no connection was free".to_owned();
    assert_eq!(
        verdict(&result, "errors", "fast"),
        Verdict::Regressed { why }
    );
    // A guardrail on goodput alone finds it, too.
    let rps = policy(json!({
        "question": "?", "relative": [{"metric": "rps", "max-fall-percent": 15}],
    }));
    let result = judge_builds(&rps, &trials);
    assert!(matches!(
        verdict(&result, "RPS", "fast"),
        Verdict::Regressed { .. }
    ));
    // A single lost request in a single trial is an error as well.
    let mut one = at_a_rate(|_| {});
    let last = one.last_mut().expect("some");
    drop_requests(last.load.as_mut().expect("loaded"), 1, 0);
    let one = judge_builds(&usual_policy(), &one);
    assert_eq!(one.count(Overall::Regressed), 1, "{one:#?}");
}

#[test]
fn requests_that_the_generator_was_late_for_say_nothing_of_the_path() {
    let trials = at_a_rate(|load| drop_requests(load, 450, 450));
    let result = judge_builds(&usual_policy(), &trials);
    assert_eq!(result.count(Overall::Regressed), 0, "{result:#?}");
    assert_inconclusive(
        &verdict(&result, "errors", "fast"),
        "the load generator was too late to send 3600 of 7200 requests",
    );
    assert_inconclusive(&verdict(&result, "RPS", "fast"), "load generator late in");
    // One late request of 5,000 is no reason to doubt.
    let one = at_a_rate(|load| {
        let open = load.open_loop.as_mut().expect("a rate");
        (open.scheduled, open.dropped, open.dropped_late) = (5_000, 1, 1);
        (load.requests, load.good) = (4_999, 4_999);
    });
    let one = judge_builds(&usual_policy(), &one);
    assert_eq!(verdict(&one, "errors", "fast"), Verdict::Passed);
}

#[test]
fn a_record_of_no_requests_has_not_passed() {
    let nothing = |load: &mut Load| {
        *load = Load {
            elapsed_us: 1e6,
            ..Load::default()
        };
    };
    for is_rate in [true, false] {
        let mut trials = at_a_rate(nothing);
        for trial in &mut trials {
            trial.planned.cell.rate_rps = is_rate.then_some(900);
        }
        let result = judge_builds(&usual_policy(), &trials);
        assert_inconclusive(
            &verdict(&result, "errors", "fast"),
            "in 8 of 8 trials no request was answered",
        );
        assert_eq!(result.overall(), Overall::Inconclusive, "{result:#?}");
    }
    // If all requests were due and none was sent, the path has lost them.
    let all = at_a_rate(|load| drop_requests(load, 900, 0));
    let all = judge_builds(&usual_policy(), &all);
    assert!(matches!(
        verdict(&all, "errors", "fast"),
        Verdict::Regressed { .. }
    ));
}

#[test]
fn more_trials_that_fail_are_a_regression_though_some_did_before() {
    let with_failures = |of_a: usize, of_b: usize| {
        let mut trials = of_builds(&CELLS[..1], 6, equal);
        for (build, count) in [(Build::A, of_a), (Build::B, of_b)] {
            let of_build = trials
                .iter_mut()
                .filter(|trial| trial.planned.cell.build == Some(build));
            of_build
                .take(count)
                .for_each(|trial| fail(trial, Source::Subject));
        }
        let result = judge_builds(&usual_policy(), &trials);
        verdict(&result, "errors", "plain")
    };
    let Verdict::Regressed { why } = with_failures(2, 5) else {
        panic!("5 of 6 after 2 of 12");
    };
    assert!(
        why.starts_with("5 of 6 trials failed (crash")
            && why.contains("against 2 of 12 in a (p 0.0"),
        "{why}"
    );
    assert_inconclusive(&with_failures(2, 1), "1 of 6 trials failed");
    assert_inconclusive(&with_failures(2, 2), "2 of 6 trials failed");
}

/// Two in a hundred of B's requests get no answer, so the measured p99 is too short.
#[test]
fn a_percentile_among_requests_without_an_answer_does_not_pass() {
    let p99 = policy(json!({
        "question": "?", "relative": [{"metric": "p99", "max-rise-percent": 20}],
    }));
    let judged = |censored: u64, share: f64| {
        let mut trials = at_a_rate(|_| {});
        for trial in &mut trials {
            let is_b = is_b(&trial.planned.cell);
            let load = trial.load.as_mut().expect("loaded");
            (load.requests, load.good) = (10_000, 10_000);
            if is_b {
                load.latency.censored = censored;
                load.latency.p99_us = load.latency.p99_us.map(|us| us * share);
            }
        }
        verdict(&judge_builds(&p99, &trials), "p99", "fast")
    };
    assert_eq!(judged(50, 1.0), Verdict::Passed);
    assert_inconclusive(
        &judged(200, 1.0),
        "falls among unanswered requests, so it is only a lower bound; as measured: ≥ +0.0 %",
    );
    // A percentile that is too long already is no better if the true one is longer still.
    assert!(matches!(judged(200, 3.0), Verdict::Regressed { .. }));
}

#[test]
fn of_a_run_that_is_not_complete_nothing_passes_and_what_regressed_has() {
    let mut head = of_builds(&CELLS[..2], BLOCKS, slower("fast", 0.5));
    head.truncate(head.len() - 1);
    let (manifest, mut planned) = (manifest(true), plan(&head));
    let judged = |planned: &[PlannedTrial]| {
        let run = Run {
            manifest: &manifest,
            trials: &head,
            planned,
        };
        judge(&usual_policy(), run, None).expect("two sides")
    };
    let is_regressed = |result: &GateResult| {
        let verdict = verdict(result, "RPS", "fast");
        assert!(matches!(verdict, Verdict::Regressed { .. }), "{verdict:?}");
    };
    let whole = judged(&planned);
    is_regressed(&whole);
    assert_eq!(verdict(&whole, "errors", "fast"), Verdict::Passed);
    // One planned trial of the slower cell was not made.
    let mut last = planned.last().expect("trials").clone();
    last.trial += 1;
    planned.push(last);
    let cut = judged(&planned);
    is_regressed(&cut);
    for guardrail in ["errors", "p95", "growth"] {
        let verdict = verdict(&cut, guardrail, "fast");
        assert_inconclusive(&verdict, "passes so far, but 1 of 24 trials is missing");
    }
    assert_eq!(verdict(&cut, "RPS", "plain"), Verdict::Passed);
}
