//! Goal: client and path run where the placement says, and reports keep placements apart. Method: a
//! path whose server logs the cores that it may use; the threads of the load generator, which has
//! one for each of its own.

mod support;

use std::fs;

use serde_json::Value;
use support::{
    bench::{Bench, SHORT, shell_path},
    text,
};

/// The cores that this process may use, as the kernel lists them.
fn own_cores() -> String {
    cores(&fs::read_to_string("/proc/self/status").expect("there"))
}

fn cores(log: &str) -> String {
    let line = log
        .lines()
        .find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
    line.expect("it was logged").trim().to_owned()
}

#[test]
fn client_and_path_run_where_the_placement_says() {
    let all = own_cores();
    if !all.contains([',', '-']) {
        eprintln!("SKIPPED: this machine has one core");
        return;
    }
    let bench = Bench::new();
    let path = shell_path(
        &bench,
        "placed.toml",
        "grep Cpus_allowed_list /proc/self/status; \
         exec {{bin:http_baseline}} --listen=127.0.0.1:{{port:front}}",
    );
    let mut arguments = vec!["run", "quick-look", "--endpoint=/small", "--path", &path];
    arguments.extend(["--placement=free,same-core,split,awake", "--load-threads=2"]);
    arguments.extend(SHORT);
    let ran = bench.run(&arguments);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let run = bench.run_dir();
    let of = |placement: &str| -> String {
        let trials = bench.trials().into_iter();
        let is_it = |it: &Value| {
            it["path"] == "placed" && it["placement"].as_str().unwrap_or("free") == placement
        };
        let trial = trials.into_iter().find(is_it).expect("it was measured");
        let number = trial["trial"].as_u64().expect("a number");
        let log = run.join(format!("raw/{number:04}-placed.server.log"));
        cores(&fs::read_to_string(log).expect("kept"))
    };
    assert_eq!([of("free"), of("awake")], [all.clone(), all.clone()]);
    let [same, split] = [of("same-core"), of("split")];
    assert!(!same.contains([',', '-']), "{same}");
    assert_ne!(split, all);
    let report = fs::read_to_string(run.join("REPORT.md")).expect("written");
    for heading in ["/small, all on one core", "/small, cores kept awake"] {
        assert!(report.contains(heading), "{report}");
    }
    bench.assert_nothing_left();
}

#[test]
fn the_generator_has_no_more_threads_than_cores() {
    let bench = Bench::new();
    let mut arguments = vec!["run", "quick-look", "--endpoint=/small", "--path=direct"];
    arguments.push("--placement=same-core");
    arguments.extend(SHORT);
    let ran = bench.run(&arguments);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let trials = bench.trials();
    assert!(
        trials.iter().all(|it| it["load"]["threads"] == 1),
        "{trials:#?}"
    );
}

#[test]
fn placements_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    for (arguments, message) in [
        (
            ["run", "quick-look", "--placement=everywhere"],
            "possible values: free, same-core, split, awake",
        ),
        (
            ["run", "latency-vs-rate", "--placement=awake"],
            "'--placement': expected 'free' alone with rates that are shares of a knee",
        ),
    ] {
        let ran = bench.run(&arguments);
        assert!(!ran.status.success());
        assert!(text(&ran.stderr).contains(message), "{}", text(&ran.stderr));
    }
}
