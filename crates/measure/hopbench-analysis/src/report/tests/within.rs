//! Goal: what goes wrong within a load is named, and what is in order isn't. Method: made-up trials
//! of a path and its reference, with one fault each.

use super::*;

/// Rules with the limits that scenarios have by default.
fn rules() -> PathologyRules {
    PathologyRules {
        stalls: true,
        slowdown: Some(0.5),
        growth_kib_per_request: Some(1.0),
        growth_descriptors_per_request: Some(0.01),
        ..PathologyRules::default()
    }
}

/// Returns what is found in four blocks of the reference and of a path with a fault.
fn found(rules: PathologyRules, fault: impl Fn(u32, &mut Trial)) -> Vec<String> {
    found_with(rules, 8, fault).0
}

/// Returns what is found at so many connections, and what is mentioned.
fn found_with(
    rules: PathologyRules,
    concurrency: u32,
    fault: impl Fn(u32, &mut Trial),
) -> (Vec<String>, Vec<String>) {
    let mut manifest = manifest();
    manifest.scenarios[0].pathologies = rules;
    let mut trials = Vec::new();
    for block in 1..=4 {
        for path in ["plain", "fast"] {
            let mut made = trial(path, concurrency, block, 0, 20_000, 230);
            let load = made.load.as_mut().expect("loaded");
            // So many that there is a p99.
            load.latency.histogram = histogram(&[&[115; 4_000][..], &[230; 500][..]].concat());
            load.good_by_twentieth = vec![1_000; 20];
            if path == "fast" {
                fault(block, &mut made);
            }
            trials.push(made);
        }
    }
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let found = pathology::find(&summary.scenarios[0]);
    let named = found.iter().map(ToString::to_string).collect();
    (named, pathology::remarks(&summary.scenarios[0]))
}

fn assert_one(found: &[String], beginning: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(beginning), "{found:?}");
}

#[test]
fn a_path_in_good_health_has_nothing() {
    assert_eq!(found(rules(), |_, _| {}), [""; 0]);
}

#[test]
fn answers_that_wait_for_an_acknowledgement_are_named() {
    let stall = |_, trial: &mut Trial| {
        let latencies = [&[115; 4_000][..], &[44_000; 500][..]].concat();
        trial.load.as_mut().expect("loaded").latency.histogram = histogram(&latencies);
    };
    let of_p99 = found(rules(), stall);
    assert_one(&of_p99, "stall: fast /small c=8: the p95 is 44.0 ms");
    assert_eq!(found(PathologyRules::default(), stall), [""; 0]);
    // The longer a path stalls, the fewer answers there are: three in each block here.
    let (one_by_one, _) = found_with(rules(), 1, |_, trial| {
        let load = trial.load.as_mut().expect("loaded");
        (load.requests, load.good) = (3, 3);
        load.latency.histogram = histogram(&[41_000; 3]);
    });
    assert_one(&one_by_one, "stall: fast /small c=1: the p50 is 41.0 ms");
    // A third of the answers wait.
    let (now_and_then, _) = found_with(rules(), 1, |_, trial| {
        let load = trial.load.as_mut().expect("loaded");
        (load.requests, load.good) = (3, 3);
        load.latency.histogram = histogram(&[1_400, 16_700, 41_000]);
    });
    assert_one(&now_and_then, "stall: fast /small c=1: the p90 is 41.0 ms");
    // All answers wait in a queue.
    let queue = |_, trial: &mut Trial| {
        let latencies = [&[35_000; 4_000][..], &[44_000; 500][..]].concat();
        trial.load.as_mut().expect("loaded").latency.histogram = histogram(&latencies);
    };
    assert_eq!(found(rules(), queue), [""; 0]);
    // Slow, but in another way.
    let slow = |_, trial: &mut Trial| {
        let latencies = [&[115; 4_000][..], &[20_000; 500][..]].concat();
        trial.load.as_mut().expect("loaded").latency.histogram = histogram(&latencies);
    };
    assert_eq!(found(rules(), slow), [""; 0]);
}

#[test]
fn a_path_that_slows_down_in_most_blocks_is_named() {
    let slows = |blocks: u32| {
        found(rules(), move |block, trial| {
            let slices = &mut trial.load.as_mut().expect("loaded").good_by_twentieth;
            if block <= blocks {
                slices[8..].fill(50);
            }
        })
    };
    assert_one(
        &slows(3),
        "slowing down: fast /small c=8: the last quarter of the load has less",
    );
    // In half of the blocks, the machine may have been busy.
    assert_eq!(slows(2), [""; 0]);
    // Of so few answers, chance alone lets half be missing.
    let few = found(rules(), |_, trial| {
        let slices = &mut trial.load.as_mut().expect("loaded").good_by_twentieth;
        slices.fill(5);
        slices[8..].fill(1);
    });
    assert_eq!(few, [""; 0]);
    let unknown = found(rules(), |_, trial| {
        trial
            .load
            .as_mut()
            .expect("loaded")
            .good_by_twentieth
            .clear();
    });
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn memory_that_grows_with_each_answer_is_named() {
    let grows = |kib: u64| {
        found(rules(), move |_, trial| {
            let process = &mut trial.processes[0];
            process.rss_after_kib = process.rss_before_kib + kib;
        })
    };
    let leak = grows(350 * 1024);
    assert_one(
        &leak,
        "growing memory: fast /small c=8: up to 346 MiB more after the load than",
    );
    // Pools may grow, and each of eight connections may have buffers.
    assert_eq!(grows(131 * 1024), [""; 0]);
}

#[test]
fn memory_that_may_leak_is_mentioned() {
    let mentioned = |kib: u64, blocks: u32| {
        let (found, remarks) = found_with(rules(), 8, move |block, trial| {
            let process = &mut trial.processes[0];
            let grown = if block <= blocks { kib } else { 0 };
            process.rss_after_kib = process.rss_before_kib + grown;
        });
        (found.len(), remarks.concat())
    };
    let (found, remark) = mentioned(44 * 1024, 3);
    assert_eq!(found, 0);
    assert!(
        remark.starts_with("Memory grew most on fast /small c=8: by 40 MiB more than connections"),
        "{remark}"
    );
    // Twice in four blocks, less than 1 KiB for each answer, or named as a pathology.
    for (kib, blocks) in [(44 * 1024, 2), (20 * 1024, 4), (350 * 1024, 4)] {
        assert_eq!(mentioned(kib, blocks).1, "", "{kib} KiB");
    }
}

#[test]
fn a_process_that_does_nothing_for_the_answers_is_mentioned() {
    let mentioned = |cpu_us: f64, answers: u64, blocks: u32| {
        let (found, remarks) = found_with(rules(), 8, move |block, trial| {
            let load = trial.load.as_mut().expect("loaded");
            (load.requests, load.good) = (answers, answers);
            trial.processes.push(ProcessUsage {
                name: "aside".to_owned(),
                cpu_us: if block <= blocks { cpu_us } else { 1e6 },
                ..ProcessUsage::default()
            });
        });
        assert_eq!(found, [""; 0]);
        remarks.concat()
    };
    let remark = mentioned(3_000.0, 20_000, 2);
    assert!(
        remark.starts_with("Idle (under 0.2 µs of CPU time for an answer): 'aside' of fast. An"),
        "{remark}"
    );
    // It does something, there are too few answers, or it was idle only now and then.
    assert_eq!(mentioned(5_000.0, 20_000, 4), "");
    assert_eq!(mentioned(0.0, 999, 4), "");
    assert_eq!(mentioned(3_000.0, 20_000, 1), "");
}

#[test]
fn a_full_listen_queue_is_named() {
    let turned_away = |count: Option<u64>| {
        found(rules(), move |block, trial| {
            trial.disturbance.listen_overflows = if block == 2 { count } else { Some(0) };
        })
    };
    assert_one(
        &turned_away(Some(52)),
        "full listen queue: fast /small c=8: the kernel turned connections away in 1 of 4 block",
    );
    assert_eq!(turned_away(None), [""; 0]);
    assert_eq!(turned_away(Some(0)), [""; 0]);
}

#[test]
fn descriptors_that_stay_open_with_each_answer_are_named() {
    let grows = |after: Option<u64>| {
        found(rules(), move |_, trial| {
            let process = &mut trial.processes[0];
            (process.descriptors_before, process.descriptors_after) = (Some(10), after);
        })
    };
    // One in ten of 20,000 answers.
    assert_one(
        &grows(Some(2_010)),
        "leaking descriptors: fast /small c=8: up to 1744 more are open after the load than",
    );
    // Each of eight connections may have a few, and a pool, too. Not all can be counted.
    assert_eq!(grows(Some(18)), [""; 0]);
    assert_eq!(grows(Some(300)), [""; 0]);
    assert_eq!(grows(None), [""; 0]);
    // Fewer than before.
    assert_eq!(grows(Some(2)), [""; 0]);
}
