//! Goal: other load on the machine is noticed, and known load is not taken for it. Method: real
//! runs, alone and beside a process that burns CPU time.

mod support;

use serde_json::Value;
use support::{Running, bench::Bench, command, text};

/// Returns the CPU time of no known process in a trial, as a share of the machine's time. It is
/// computed from the record alone.
fn others_share(trial: &Value) -> f64 {
    let seen = &trial["disturbance"];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{trial}"));
    let roles = trial["cpu_us"].as_object().expect("a map").values();
    let known_us = roles.map(number).sum::<f64>() + number(&seen["harness_us"]);
    let machine_us = number(&seen["cores"]) * number(&seen["elapsed_us"]);
    let unused_us = number(&seen["idle_us"]) + number(&seen["steal_us"]);
    (machine_us - unused_us - known_us) / machine_us
}

fn trials(bench: &Bench) -> Vec<Value> {
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path=direct"];
    let how = [
        "--concurrency=2",
        "--duration-ms=1000",
        "--warm-up-ms=50",
        "--blocks=1",
    ];
    let result = bench.run(&[what, how].concat());
    assert!(result.status.success(), "{}", text(&result.stderr));
    let trials = bench.trials();
    assert!(!trials.is_empty());
    trials
}

/// The process takes as much of a core as it can get, for at most a minute of CPU time.
#[test]
fn a_process_that_burns_cpu_time_is_other_load() {
    let script = "ulimit -t 60; while :; do :; done";
    let mut burner = Running::start(command("sh").args(["-c", script]));
    let bench = Bench::new();
    for trial in trials(&bench) {
        let share = others_share(&trial);
        // Client, server and burner share the cores, so the burner has a good part of one.
        assert!(share > 0.1, "{share}: {trial}");
        let warnings = trial["warnings"].as_array().expect("a list");
        let other = warnings.iter().any(|it| it.get("other-load").is_some());
        assert!(other, "{share}: {trial}");
    }
    burner.kill();
}

/// Whatever else runs here, others can't have used less than no CPU time.
#[test]
fn time_in_interrupts_is_in_somebodys_cpu_time() {
    let bench = Bench::new();
    for trial in trials(&bench) {
        let share = others_share(&trial);
        assert!(share > -0.04, "{share}: {trial}");
        let waits = trial["run_queue_wait_us"].as_object().expect("a map");
        let roles: Vec<&String> = waits.keys().collect();
        assert_eq!(roles, ["origin"], "{trial}");
        assert!(trial["disturbance"]["softirq_us"].is_u64(), "{trial}");
    }
}
