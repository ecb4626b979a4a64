//! Each kind of guardrail, and each way to have another side.

use super::*;

#[test]
fn memory_grows_by_a_difference() {
    let grown = |mib: u64| {
        let trials = of_builds(&CELLS, BLOCKS, |cell, block, replicate| Metrics {
            growth_mib: u64::from(block) + if is_b(cell) { mib } else { 0 },
            ..equal(cell, block, replicate)
        });
        let result = judge_builds(&usual_policy(), &trials);
        let found = result
            .findings
            .iter()
            .find(|it| it.guardrail.starts_with("growth"));
        let found = found.expect("judged").clone();
        (found.verdict.kind(), found.reading.expect("read").value)
    };
    assert_eq!(grown(0), (Overall::Passed, 0.0));
    assert_eq!(grown(100), (Overall::Passed, 100.0));
    assert_eq!(grown(200), (Overall::Regressed, 200.0));
}

#[test]
fn a_fixed_rate_has_latency_and_what_was_answered_of_it() {
    let mut trials = of_builds(&CELLS, BLOCKS, |cell, block, replicate| {
        let mut metrics = slower("fast", 0.5)(cell, block, replicate);
        metrics.p95_us *= if is_b(cell) { 1.5 } else { 1.0 };
        metrics
    });
    for trial in &mut trials {
        trial.planned.cell.rate_rps = Some(500);
    }
    let result = judge_builds(&usual_policy(), &trials);
    for guardrail in ["RPS", "p95"] {
        assert!(matches!(
            verdict(&result, guardrail, "fast"),
            Verdict::Regressed { .. }
        ));
    }
    let rule = policy(json!({
        "question": "?", "invariant": [rps("fast", "min-ratio", 1.0, "plain")],
    }));
    // Both paths have the rate that was asked for, so nothing is judged and nothing has passed.
    let nothing = judge_builds(&rule, &trials);
    assert_eq!(nothing.findings.len(), 1);
    assert_inconclusive(&nothing.findings[0].verdict, "cannot compare their RPS");
    // If it applies to other cells as well, those decide.
    for trial in &mut trials {
        let cell = &mut trial.planned.cell;
        cell.rate_rps = cell.rate_rps.filter(|_| cell.concurrency == 8);
    }
    assert_eq!(judge_builds(&rule, &trials).findings.len(), 1);
}

#[test]
fn a_guardrail_is_for_the_cells_of_its_filter() {
    let trials = of_builds(&CELLS, BLOCKS, slower("fast", 0.5));
    let cells = |filter: Value| -> Vec<String> {
        let policy = policy(json!({
            "question": "?",
            "relative": [{"metric": "rps", "max-fall-percent": 15, "where": filter}],
        }));
        let result = judge_builds(&policy, &trials);
        let cells = result.findings.iter();
        cells
            .map(|it| it.cell.as_ref().map_or_else(String::new, Cell::to_string))
            .collect()
    };
    assert_eq!(cells(json!({})).len(), 4);
    assert_eq!(
        cells(json!({"path": "fast", "concurrency": [1, 8, 64]})),
        ["", "fast /small c=1", "fast /small c=8"]
    );
    assert_eq!(
        cells(json!({"path": ["fast", "plian"], "rate": []})),
        ["", "fast /small c=1", "fast /small c=8"]
    );
    assert_eq!(
        cells(json!({"endpoint": ["/small"], "keep-alive": true})).len(),
        4
    );
    let misspelt = policy(json!({
        "question": "?",
        "relative": [{"metric": "rps", "max-fall-percent": 15,
                      "where": {"path": ["plain", "fats"], "concurrency": [1, 64]}}],
    }));
    let result = judge_builds(&misspelt, &trials);
    let why: Vec<&str> = result.findings.iter().map(|it| it.verdict.why()).collect();
    assert_eq!(
        why,
        [
            "path 'fats' matches none of the guardrail's cells",
            "concurrency '64' matches none of the guardrail's cells",
            ""
        ]
    );
    assert_eq!(result.overall(), Overall::Inconclusive);
    // A guardrail that applies to no cell gives an inconclusive finding.
    for nothing in [
        json!({"path": "fats"}),
        json!({"rate": 500}),
        json!({"keep-alive": false}),
        json!({"scenario": "other"}),
    ] {
        assert_eq!(cells(nothing), [""]);
    }
}

#[test]
fn an_invariant_is_between_two_paths_of_a_block() {
    // The machine is twice as fast in every other block, for both paths.
    let twice = |cell: &Cell, block: u32, replicate: u8| {
        let mut metrics = equal(cell, block, replicate);
        metrics.rps *= if block.is_multiple_of(2) { 2.0 } else { 1.0 };
        metrics.rps *= if cell.path == "fast" { 1.5 } else { 1.0 };
        metrics
    };
    let trials = of_builds(&CELLS, BLOCKS, twice);
    let verdicts = |rule: Value, trials: &[Trial]| {
        let policy = policy(json!({"question": "?", "invariant": [rule]}));
        let result = judge_builds(&policy, trials);
        let kinds = result.findings.iter().map(|finding| finding.verdict.kind());
        (
            kinds.collect::<Vec<_>>(),
            result.findings[0].verdict.clone(),
        )
    };
    let at_eight = |mut rule: Value| {
        rule["where"] = json!({"concurrency": 8});
        rule
    };
    let kinds = |rule: Value| verdicts(rule, &trials).0;
    for within in [
        rps("fast", "min-ratio", 1.4, "plain"),
        rps("plain", "max-ratio", 0.7, "fast"),
        json!({"path": "fast", "over": "plain", "metric": "p95", "max-ratio": 1.1}),
    ] {
        assert_eq!(kinds(within), [Overall::Passed; 2]);
    }
    let beyond = rps("fast", "min-ratio", 1.7, "plain");
    assert_eq!(kinds(beyond.clone()), [Overall::Regressed; 2]);
    assert_eq!(kinds(at_eight(beyond.clone())), [Overall::Regressed]);
    // The ratio is no farther from the limit than the noise floor.
    let close = verdicts(rps("fast", "min-ratio", 1.505, "plain"), &trials);
    assert_eq!(close.0, [Overall::Inconclusive; 2]);
    let misspelt = at_eight(rps("fats", "min-ratio", 1.0, "plain"));
    assert_inconclusive(
        &verdicts(misspelt, &trials).1,
        "there is no matching cell of path 'fats' to compare with",
    );
    let nowhere = rps("fats", "min-ratio", 1.0, "slow");
    assert_inconclusive(
        &verdicts(nowhere, &trials).1,
        "the guardrail matches no cell",
    );

    // A repeat needs the other path, too.
    let policy = policy(json!({"question": "?", "invariant": [at_eight(beyond)]}));
    let first = judge_builds(&policy, &trials);
    let suspects = first.suspects();
    assert_eq!(suspects.len(), 2, "{suspects:?}");
    let is_suspect = |trial: &&Trial| suspects.contains(&trial.planned.cell.without_build());
    let repeat: Vec<Trial> = trials.iter().filter(is_suspect).cloned().collect();
    let confirmed = confirm(&first, &judge_builds(&policy, &repeat));
    assert_eq!(confirmed.count(Overall::Regressed), 1);

    let mut failed = trials.clone();
    for trial in &mut failed {
        if trial.planned.cell.path == "fast" {
            fail(trial, Source::Subject);
        }
    }
    let kinds = |rule: Value| verdicts(rule, &failed).0;
    let of_failed = rps("fast", "min-ratio", 1.0, "plain");
    assert_eq!(kinds(of_failed), [Overall::Regressed; 2]);
    let by_failed = rps("plain", "min-ratio", 1.0, "fast");
    assert_eq!(kinds(by_failed), [Overall::Inconclusive; 2]);
}

/// An invariant of RPS.
fn rps(path: &str, limit: &str, ratio: f64, over: &str) -> Value {
    json!({"path": path, "over": over, "metric": "rps", limit: ratio})
}

/// A run of one build, with the reference twice.
pub(super) fn of_one(blocks: u32, share: f64) -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 1..=blocks {
        for (path, replicate) in [("plain", 0), ("plain", 1), ("fast", 0)] {
            let mut metrics = equal(&trial(path, 1, 1, USUAL).planned.cell, block, replicate);
            metrics.rps *= if path == "fast" { share } else { 1.0 };
            let mut trial = trial(path, 1, block, metrics);
            trial.planned.replicate = replicate;
            trials.push(trial);
        }
    }
    trials
}

#[test]
fn a_run_by_itself_has_absolute_guardrails_and_invariants() {
    let trials = of_one(BLOCKS, 0.8);
    let (manifest, planned) = (manifest(false), plan(&trials));
    let run = Run {
        manifest: &manifest,
        trials: &trials,
        planned: &planned,
    };
    let result = |absolute: Value| {
        let policy = policy(json!({
            "question": "?", "absolute": [absolute],
            "invariant": [rps("fast", "min-ratio", 0.75, "plain")],
        }));
        judge(&policy, run, None).expect("no other side is needed")
    };
    for (absolute, plain, fast) in [
        (
            json!({"metric": "rps", "min": 7_500}),
            Overall::Passed,
            Overall::Passed,
        ),
        (
            json!({"metric": "rps", "min": 9_000}),
            Overall::Passed,
            Overall::Regressed,
        ),
        (
            json!({"metric": "rps", "min": 8_000}),
            Overall::Passed,
            Overall::Inconclusive,
        ),
        (
            json!({"metric": "p95_ms", "max": 0.05}),
            Overall::Regressed,
            Overall::Regressed,
        ),
        (
            json!({"metric": "p95_ms", "max": 0.2}),
            Overall::Passed,
            Overall::Passed,
        ),
        (
            json!({"metric": "rss_growth_mib", "max": 9}),
            Overall::Regressed,
            Overall::Regressed,
        ),
        (
            json!({"metric": "rss_peak_mib", "max": 11}),
            Overall::Passed,
            Overall::Passed,
        ),
        (
            json!({"metric": "cpu_us_per_request", "max": 15}),
            Overall::Passed,
            Overall::Regressed,
        ),
    ] {
        let result = result(absolute.clone());
        let key = absolute["metric"].as_str().expect("named");
        let kinds = ["plain", "fast"].map(|path| verdict(&result, key, path).kind());
        assert_eq!(kinds, [plain, fast], "{absolute}");
        assert_eq!(verdict(&result, "fast", "fast"), Verdict::Passed);
    }
    let error = judge(&usual_policy(), run, None).expect_err("one side");
    assert!(error.to_string().contains("(--base RUN)"), "{error}");
}

#[test]
fn a_run_is_judged_against_another() {
    let judged = |share| {
        let result = judge_runs(
            &usual_policy(),
            &of_one(BLOCKS, 0.8),
            &of_one(BLOCKS, share),
        );
        result.expect("comparable")
    };
    let slower = judged(0.5);
    assert!(matches!(
        verdict(&slower, "RPS", "fast"),
        Verdict::Regressed { .. }
    ));
    assert_eq!(slower.count(Overall::Regressed), 1);
    // The reference is the yardstick of both runs.
    let of_reference = slower.findings.iter().filter(|finding| {
        finding
            .cell
            .as_ref()
            .is_some_and(|cell| cell.path == "plain")
    });
    let guardrails: Vec<&str> = of_reference.map(|it| it.guardrail.as_str()).collect();
    assert_eq!(guardrails, ["errors <= 0"]);
    assert_eq!(judged(0.8).overall(), Overall::Passed);
    let few = judge_runs(&usual_policy(), &of_one(3, 0.8), &of_one(BLOCKS, 0.5));
    let few = few.expect("comparable");
    assert!(
        matches!(verdict(&few, "RPS", "fast"), Verdict::Regressed { .. }),
        "{few:#?}"
    );
    let fewer = judge_runs(&usual_policy(), &of_one(3, 0.8), &of_one(3, 0.5));
    assert_inconclusive(
        &verdict(&fewer.expect("comparable"), "RPS", "fast"),
        "3 blocks are too few for a 95 % confidence interval; it takes 4",
    );
}

#[test]
fn growth_over_a_run_before_is_held_against_how_the_reference_grows() {
    let grown = |path: &str, replicate: u8, mib: u64| {
        let mut trials = of_one(BLOCKS, 0.8);
        for trial in &mut trials {
            if trial.planned.cell.path == path && trial.planned.replicate == replicate {
                trial.processes[0].rss_peak_kib += mib * 1_024;
            }
        }
        trials
    };
    let head = grown("fast", 0, 200);
    let quiet = judge_runs(&usual_policy(), &of_one(BLOCKS, 0.8), &head).expect("comparable");
    assert!(matches!(
        verdict(&quiet, "growth", "fast"),
        Verdict::Regressed { .. }
    ));
    // The reference grows by 300 MiB more in its second trial than in its first.
    let noisy = grown("plain", 1, 300);
    let noisy = judge_runs(&usual_policy(), &noisy, &head).expect("comparable");
    assert_inconclusive(
        &verdict(&noisy, "growth", "fast"),
        "within the noise floor of this cell (300.0 MiB)",
    );
}

#[test]
fn cells_that_are_gone_are_named_and_new_ones_are_not_judged_by_others() {
    let (before, mut after) = (of_one(BLOCKS, 0.8), of_one(BLOCKS, 0.8));
    for (index, block) in (1..=BLOCKS).enumerate() {
        after.push(trial("slow", 1, block, USUAL));
        if index < 3 {
            after.push(trial("fast", 8, block, USUAL));
        }
    }
    let gone = judge_runs(&usual_policy(), &after, &before).expect("comparable");
    assert_inconclusive(&verdict(&gone, "RPS", "slow"), "head was not measured");
    assert_eq!(gone.overall(), Overall::Inconclusive);
    let new = judge_runs(&usual_policy(), &before, &after).expect("comparable");
    assert_eq!(new.overall(), Overall::Passed, "{new:#?}");
    // A guardrail with nothing to compare has not passed.
    for path in ["slow", "plain"] {
        let policy = policy(json!({
            "question": "?",
            "relative": [
                {"metric": "rps", "max-fall-percent": 15, "where": {"path": path}},
            ],
            "absolute": [{"metric": "errors", "max": 0}],
        }));
        let nothing = judge_runs(&policy, &before, &after).expect("comparable");
        assert_eq!(nothing.overall(), Overall::Inconclusive, "{nothing:#?}");
        assert_inconclusive(&nothing.findings[0].verdict, "nothing to compare");
    }
}

/// Eleven paths under eight loads, in seven blocks of each of two runs, with one cell at a tenth of
/// its RPS. Each guardrail has 88 cells, and none makes another harder to fail.
#[test]
fn the_full_matrix_can_be_decided_in_seven_blocks() {
    let run = |spread_of: u32, share: f64| -> Vec<Trial> {
        let mut trials = Vec::new();
        for (block, concurrency) in (1..=7).flat_map(|block| (1..=8).map(move |c| (block, c))) {
            let paths = ["plain", "plain"].into_iter().map(str::to_owned);
            let others = (1..=11).map(|path| format!("path-{path}"));
            for (index, path) in paths.chain(others).enumerate() {
                let is_slow = path == "path-7" && concurrency == 3;
                let mut metrics = equal(&trial("x", 1, 1, USUAL).planned.cell, block, 0);
                metrics.rps *= if is_slow { share } else { 1.0 };
                metrics.rps *= 1.0 + 1e-3 * f64::from((block * spread_of) % 7);
                let mut trial = trial(&path, concurrency, block, metrics);
                trial.planned.replicate = u8::from(index == 1);
                trials.push(trial);
            }
        }
        trials
    };
    let judged = |share| {
        let result = judge_runs(&usual_policy(), &run(1, 1.0), &run(3, share));
        result.expect("comparable")
    };
    let slow = judged(0.1);
    let regressed = slow.findings.iter().filter(|it| it.is_regressed());
    let regressed: Vec<String> = regressed
        .map(|it| format!("{} {}", it.guardrail, it.cell.as_ref().expect("a cell")))
        .collect();
    assert_eq!(
        regressed,
        ["RPS falls by at most 15 % path-7 /small c=3"],
        "{:?}",
        slow.notes
    );
    assert_eq!(judged(1.0).overall(), Overall::Passed);
}

#[test]
fn a_run_passes_against_its_own_records() {
    // These runs are too noisy, or too short, to pass against another run of the same thing.
    for blocks in [2, BLOCKS] {
        let mut trials = of_one(blocks, 0.8);
        for trial in &mut trials {
            let load = trial.load.as_mut().expect("loaded");
            load.elapsed_us *= f64::from(1 + trial.planned.block % 3);
        }
        let copy = trials.clone();
        let same = judge_runs(&usual_policy(), &copy, &trials).expect("comparable");
        assert_eq!(same.overall(), Overall::Passed, "{same:#?}");
        assert_eq!(same.notes, ["the run and its base have the same records"]);
    }
    let (one, mut other) = (of_one(BLOCKS, 0.8), of_one(BLOCKS, 0.8));
    other[0].started = "2026-01-02T03:04:06Z".to_owned();
    let others = judge_runs(&usual_policy(), &one, &other).expect("comparable");
    assert_eq!(others.notes, Vec::<String>::new());
}

#[test]
fn runs_of_other_conditions_and_of_two_builds_are_refused() {
    let (before, mut after) = (of_one(BLOCKS, 0.8), of_one(BLOCKS, 0.8));
    after[0].planned.duration_ms = 1;
    let error = judge_runs(&usual_policy(), &before, &after).expect_err("another load");
    assert!(matches!(error, Unjudged::Incomparable(_)), "{error}");

    let (one, two) = (manifest(false), manifest(true));
    let run = |manifest| Run {
        manifest,
        trials: &before,
        planned: &[],
    };
    for (manifests, base) in [((&one, &two), true), ((&two, &one), false)] {
        let error = judge(&usual_policy(), run(manifests.0), Some(run(manifests.1)));
        let error = error.expect_err("three sides");
        assert!(
            error.to_string().contains("leave --base out"),
            "{base}: {error}"
        );
    }
}

#[test]
fn a_regression_stands_if_a_repeat_says_so() {
    let policy = usual_policy();
    let judged =
        |share: f64| judge_builds(&policy, &of_builds(&CELLS, BLOCKS, slower("fast", share)));
    let first = judged(0.5);
    let again = confirm(&first, &judged(0.6));
    assert_eq!(again.count(Overall::Regressed), 2);
    let note = again
        .findings
        .iter()
        .find_map(|finding| finding.note.clone());
    let note = note.expect("of the repeat");
    assert!(note.starts_with("first run: -") && note.ends_with("the repeat confirms it"));
    assert_eq!(confirm(&first, &judged(1.0)).overall(), Overall::Passed);
    let unsure = confirm(&first, &judged(0.85));
    assert_inconclusive(
        &verdict(&unsure, "RPS", "fast"),
        "the repeat does not confirm it: the limit lies within the confidence interval",
    );
    let nothing = judge_builds(&policy, &of_builds(&CELLS[..1], BLOCKS, equal));
    let reason = "the repeat does not confirm it: it was not measured again";
    assert_inconclusive(&verdict(&confirm(&first, &nothing), "RPS", "fast"), reason);
    // Cells that did not regress are not looked at again.
    assert_eq!(confirm(&judged(1.0), &first).overall(), Overall::Passed);

    // A crash is a fact, whether or not it happens again.
    let mut crashed = of_builds(&CELLS, BLOCKS, equal);
    fail(crashed.last_mut().expect("some"), Source::Subject);
    let crashed = judge_builds(&policy, &crashed);
    let confirmed = confirm(&crashed, &judged(1.0));
    assert_eq!(confirmed.overall(), Overall::Inconclusive);
    assert_eq!(confirm(&crashed, &crashed).overall(), Overall::Regressed);
}

#[test]
fn mistakes_in_a_policy_say_what_was_expected() {
    let message = |file: Value| {
        let file = serde_json::from_value::<PolicyFile>(file).map_err(|error| error.to_string());
        file.and_then(|file| Policy::new("test", file))
            .expect_err("a mistake")
    };
    let relative = |guardrail: Value| message(json!({"question": "?", "relative": [guardrail]}));
    let absolute = |guardrail: Value| message(json!({"question": "?", "absolute": [guardrail]}));
    for (message, expected) in [
        (
            message(json!({"question": "?"})),
            "at least one [[relative]], [[absolute]] or",
        ),
        (
            message(json!({"question": "?", "limit": 1})),
            "unknown field `limit`",
        ),
        (
            relative(json!({"metric": "rsp"})),
            "metric 'rsp': expected rps, p50, p95, p99, cpu, cpu_over_client, rss or rss-growth",
        ),
        (
            relative(json!({"metric": "rps"})),
            "'rps': expected either 'max-fall-percent' or 'max-rise-percent'",
        ),
        (
            relative(json!({"metric": "rps", "max-fall-percent": 100})),
            "'max-fall-percent': expected 0.1 to 99.9, found 100",
        ),
        (
            relative(json!({"metric": "rss-growth", "max-rise-percent": 1})),
            "'rss-growth': expected 'max-rise-mib'",
        ),
        (
            relative(json!({"metric": "rps", "max-fall-percent": 1, "where": {"paht": "x"}})),
            "unknown field `paht`, expected one of `scenario`",
        ),
        (
            relative(json!({"metric": "rps", "max-fall-percent": 1, "where": {"rate": "x"}})),
            "expected a number or a list of numbers",
        ),
        (
            absolute(json!({"metric": "rps"})),
            "expected either 'max' or 'min'",
        ),
        (
            absolute(json!({"metric": "errors", "min": 1})),
            "'errors': expected 'max'",
        ),
        (
            absolute(json!({"metric": "rps", "min": 0})),
            "'min': expected 0.000001 to",
        ),
        (
            message(json!({"question": "?", "invariant": [
                {"path": "a", "over": "b", "metric": "rps"},
            ]})),
            "expected either 'min-ratio' or 'max-ratio'",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}
