//! Goal: blocks that others disturb are measured again, within the bound, and the report says so.
//! Method: threads of this test keep all cores busy while a run measures.

mod support;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;
use support::{bench::Bench, text};

const RUN: [&str; 7] = [
    "run",
    "http-tunnel",
    "--path=rapace-stream",
    "--endpoint=/small",
    "--concurrency=2",
    "--duration-ms=300",
    "--warm-up-ms=50",
];

/// Runs while two threads for each core need it.
fn beside_others(run: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // The threads end even if an assertion fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        is_over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn what_others_disturb_is_measured_again_but_not_forever() {
    let bench = Bench::new();
    beside_others(|| {
        let result = bench.run(&[&RUN[..], &["--blocks=2"]].concat());
        let errors = text(&result.stderr);
        assert!(result.status.success(), "{errors}");
        assert!(
            errors.contains("others disturbed 2 blocks of a load: measuring 1 again"),
            "{errors}"
        );
    });
    let trials = bench.trials();
    let again: Vec<&Value> = trials
        .iter()
        .filter(|trial| trial["attempt"] == 1)
        .collect();
    // Half of six are the three of one block: the reference, its replicate and the path.
    assert_eq!((trials.len(), again.len()), (9, 3), "{trials:?}");
    assert!(
        again
            .iter()
            .all(|trial| trial["block"] == again[0]["block"])
    );
    // The repetition was disturbed, too, so the first attempts count, and the run is complete.
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    assert!(report.contains("6 of 6 trials run, 0 failed."), "{report}");
    assert!(report.contains("other load ×6"), "{report}");
    bench.assert_nothing_left();
}

#[test]
fn a_calm_repetition_counts_in_place_of_what_was_disturbed() {
    let bench = Bench::new();
    beside_others(|| {
        let result = bench.run(&[&RUN[..], &["--blocks=2"]].concat());
        assert!(result.status.success(), "{}", text(&result.stderr));
    });
    // Whether a machine is calm is not ours to say, so the records say that it was.
    let run_dir = bench.run_dir();
    let lines: Vec<String> = bench
        .trials()
        .into_iter()
        .map(|mut trial| {
            if trial["attempt"] == 1 {
                trial["warnings"] = Value::Array(Vec::new());
            }
            trial.to_string() + "\n"
        })
        .collect();
    fs::write(run_dir.join("trials.jsonl"), lines.concat()).expect("writable");
    let run = run_dir.display().to_string();
    let shown = bench.run(&["report", &run, "--format=md"]);
    let report = text(&shown.stdout);
    assert!(report.contains("6 of 6 trials run, 0 failed."), "{report}");
    let said = "Other programs disturbed 1 of 2 times that a load went through all paths";
    assert!(report.contains(said), "{report}");
    assert!(report.contains("other load ×3"), "{report}");
}

#[test]
fn a_bound_that_is_none_is_named() {
    let bench = Bench::new();
    for bound in ["101%", "-1%", "much", "1.5%"] {
        let result = bench.run(&["run", "smoke", &format!("--repeat-disturbed={bound}")]);
        assert_eq!(result.status.code(), Some(2), "{bound}");
        let errors = text(&result.stderr);
        assert!(errors.contains("expected a whole percentage"), "{errors}");
    }
}
