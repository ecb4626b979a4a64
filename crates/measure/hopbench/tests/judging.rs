//! Goal: measurements can be judged: at fixed rates, of two builds, by a gate, and the gate by
//! itself. Method: real runs of a few short trials; verdicts are checked only where every machine
//! must give the same one.

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use support::{
    bench::{Bench, trials},
    bin, text,
};

/// Writes a scenario with one small cell of the reference.
fn scenario(bench: &Bench, name: &str, rest: &str) -> String {
    let text = format!(
        "question = 'Is it judged?'\npaths = ['tag:reference']\nendpoints = ['/small']\n\
         concurrency = [2]\nduration-ms = 60\nblocks = 6\n{rest}\n"
    );
    bench.write(name, &text)
}

fn programs() -> String {
    let directory = bin("hopbench");
    let directory = directory.parent().expect("a file");
    directory.display().to_string()
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).expect("written")).expect("JSON")
}

#[test]
fn two_builds_are_measured_in_the_same_blocks() {
    let bench = Bench::new();
    let scenario = scenario(&bench, "twice.toml", "");
    let (a, b) = (format!("--a={}", programs()), format!("--b={}", programs()));
    let policy = bench.write(
        "lenient.toml",
        "question = 'Is anything wrong?'\n[[absolute]]\nmetric = 'errors'\nmax = 0\n",
    );
    let output = bench.run(&[
        "ab",
        &scenario,
        &a,
        &b,
        "--gate",
        "--confirm",
        &format!("--policy={policy}"),
        "--junit=gate.xml",
        "--markdown=gate.md",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("passed"), "{output:?}");

    let run_dir = bench.run_dir();
    let trials = trials(&run_dir);
    for block in 1..=6 {
        // Others may have disturbed a block, which is then measured again.
        let of_block = trials
            .iter()
            .filter(|trial| trial["block"] == block && trial["attempt"].is_null());
        let mut builds: Vec<(&str, u64)> = of_block
            .map(|trial| {
                let build = trial["build"].as_str().expect("of a build");
                (build, trial["twin"].as_u64().expect("a number"))
            })
            .collect();
        builds.sort_unstable();
        assert_eq!(builds, [("a", 0), ("a", 1), ("b", 0)]);
    }
    let manifest = json(&run_dir.join("manifest.json"));
    assert_eq!(manifest["builds"][1]["build"], "b");
    let report = fs::read_to_string(run_dir.join("REPORT.md")).expect("written");
    assert!(report.contains("(a)") && report.contains("(b)"), "{report}");
    for file in ["gate.xml", "gate.md"] {
        let file = bench.directory.path().join(file);
        assert!(fs::metadata(file).expect("written").len() > 0);
    }
    // The gate gives the same verdict again, and has nothing to repeat.
    let again = bench.run(&["gate", &format!("--policy={policy}"), "--confirm"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    // The labels of a build against itself may be permuted.
    let permuted = bench.run(&[
        "self-test",
        "--gates=20",
        "--of",
        &run_dir.display().to_string(),
        &format!("--policy={policy}"),
        "--format=json",
    ]);
    assert_eq!(permuted.status.code(), Some(0), "{permuted:?}");
    let permuted: Value = serde_json::from_slice(&permuted.stdout).expect("JSON");
    assert_eq!(
        (&permuted["gates"], &permuted["passed"]),
        (&20.into(), &20.into())
    );

    // A limit that no machine can keep is also exceeded in the repeat. It is a limit of memory,
    // which other processes don't affect, so a busy machine doesn't matter.
    let policy = bench.write(
        "impossible.toml",
        "question = 'Is it small?'\n[[absolute]]\nmetric = 'rss_peak_mib'\nmax = 0.001\n",
    );
    let confirmed = bench.run(&[
        "gate",
        &format!("--policy={policy}"),
        "--confirm",
        "--format=json",
    ]);
    assert_eq!(confirmed.status.code(), Some(1), "{confirmed:?}");
    let confirmed: Value = serde_json::from_slice(&confirmed.stdout).expect("JSON");
    let repeat = confirmed["repeat"].as_str().expect("a directory");
    assert!(bench.directory.path().join(repeat).is_dir(), "{repeat}");
    assert_eq!(bench.runs().len(), 2);
    bench.assert_nothing_left();
}

#[test]
fn only_equal_builds_are_dealt_and_only_two_are_repeated() {
    let bench = Bench::new();
    let scenario = scenario(&bench, "once.toml", "control = false");
    let run = bench.run(&["run", &scenario, "--blocks=1"]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let run_dir = bench.run_dir().display().to_string();
    let permuted = bench.run(&["self-test", "--of", &run_dir]);
    assert_eq!(permuted.status.code(), Some(2), "{permuted:?}");
    assert!(
        text(&permuted.stderr).contains("a run of two builds"),
        "{permuted:?}"
    );
    let policy = bench.write(
        "lenient.toml",
        "question = '?'\n[[absolute]]\nmetric = 'errors'\nmax = 0\n",
    );
    let repeated = bench.run(&["gate", &format!("--policy={policy}"), "--confirm"]);
    assert_eq!(repeated.status.code(), Some(2), "{repeated:?}");
}

#[test]
fn blocks_of_two_builds_are_added_until_intervals_are_narrow() {
    let bench = Bench::new();
    let scenario = scenario(&bench, "twice.toml", "");
    let (a, b) = (format!("--a={}", programs()), format!("--b={}", programs()));
    let goal = ["--blocks=1", "--until=100%", "--max-time=5m"];
    let output = bench.run(&[&["ab", &scenario, &a, &b][..], &goal].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let trials = trials(&bench.run_dir());
    // With fewer than six blocks there is no interval of 95 %.
    for build in ["a", "b"] {
        let of_build = trials.iter().filter(|trial| trial["build"] == build);
        let blocks = of_build.filter_map(|trial| trial["block"].as_u64());
        assert!(blocks.max() >= Some(6), "{build}");
    }
    assert!(text(&output.stderr).contains("adding one"), "{output:?}");
}

#[test]
fn what_is_no_build_is_named() {
    let bench = Bench::new();
    let (scenario, programs) = (scenario(&bench, "twice.toml", ""), programs());
    let a = format!("--a={programs}");
    let neither = bench.run(&["ab", &scenario, &a, "--b=no-such-revision"]);
    assert!(
        text(&neither.stderr).contains("no-such-revision"),
        "{neither:?}"
    );
    let empty = bench.run(&["ab", &scenario, &a, "--b=tmp"]);
    assert_eq!(empty.status.code(), Some(4), "{empty:?}");
    assert!(text(&empty.stderr).contains("build b"), "{empty:?}");
    assert!(bench.runs().is_empty());
}

#[test]
fn rates_are_shares_of_a_knee_that_is_found_first() {
    let bench = Bench::new();
    // On a busy machine, a smaller share may be less than one request.
    let rates = "rates-percent-of-knee = [50]\nknee-p99-ms = 5000.0\ncontrol = false";
    let scenario = scenario(&bench, "rates.toml", rates);
    let output = bench.run(&["run", &scenario, "--blocks=1"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let run_dir = bench.run_dir();
    let manifest = json(&run_dir.join("manifest.json"));
    let knee = manifest["knees"][0]["rate_rps"].as_u64();
    let probes = fs::read_to_string(run_dir.join("calibration.jsonl")).expect("written");
    let count = manifest["knees"][0]["probes"].as_u64().expect("a number");
    assert_eq!(probes.lines().count() as u64, count);
    let Some(knee) = knee else {
        panic!("no rate is held: {output:?}");
    };
    let trials = trials(&run_dir);
    assert_eq!(trials.len(), 1);
    let rate = trials[0]["rate_rps"].as_u64().expect("a fixed rate");
    assert!(rate * 2 <= knee * 11 / 10 + 2 && rate >= 1, "{rate} {knee}");
    let open = &trials[0]["load"]["open_loop"];
    let count = |name: &str| open[name].as_u64().expect("a number");
    assert!((1..=1 + rate * 60 / 1_000).contains(&count("scheduled")));
    // A p99 that fewer than twenty answers exceed is not drawn.
    let good = trials[0]["load"]["good"].as_u64().expect("a number");
    let picture = run_dir.join("latency-rates.svg");
    assert_eq!(picture.is_file(), good >= 2_000, "{good}");
    let report = fs::read_to_string(run_dir.join("REPORT.md")).expect("written");
    assert!(report.contains("at fixed rates") && report.contains("### Knees"));
}

#[test]
fn a_gate_is_tested_by_what_is_put_in() {
    let bench = Bench::new();
    let scenario = scenario(&bench, "little.toml", "");
    bench.write(
        "memory.toml",
        "question = 'Does memory grow?'\n[[relative]]\nmetric = 'rss-growth'\n\
         max-rise-mib = 8\n",
    );
    let case = |name: &str, inject: &str, expect: &str| {
        let text = format!(
            "question = 'Is it found?'\nscenario = '{scenario}'\npolicy = './memory.toml'\n\
             {inject}\ntime = '15s'\nexpect = '{expect}'\nright-percent-min = 100\n"
        );
        format!("--case={}", bench.write(name, &text))
    };
    // The first few requests leak all of it.
    let leak = "inject = ['--inject-leak-bytes=16777216', '--inject-leak-total-mib=64']";
    let leaking = case("leaking.toml", leak, "alarm");
    let same = case("same.toml", "", "no-alarm");
    let output = bench.run(&["self-test", "--gates=1", &leaking, &same]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = text(&output.stdout);
    assert!(told.contains("leaking") && told.contains("same"), "{told}");
    // The alarm is about memory, not about a server that didn't start.
    assert!(text(&output.stderr).contains("growth of RSS"), "{output:?}");

    // Without an injection, the expected alarm doesn't come.
    let nothing = case("nothing.toml", "", "alarm");
    let output = bench.run(&["self-test", "--gates=1", &nothing]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let hurried = bench.run(&["self-test", "--time=1s", &nothing]);
    assert!(text(&hurried.stderr).contains("use --time"), "{hurried:?}");
}

/// A server that holds two connections for 20 ms each answers 100 of 500 requests per second. None
/// fails: the others are never sent.
#[test]
fn requests_that_are_never_asked_are_a_regression_everywhere() {
    let bench = Bench::new();
    let slow = "--inject-delay-us=20000";
    let scenario = scenario(&bench, "rate.toml", "rates = [500]\ncontrol = false");
    let policy = bench.write(
        "errors.toml",
        "question = 'Is everything answered?'\n[[absolute]]\nmetric = 'errors'\nmax = 0\n",
    );
    let case = format!(
        "question = 'Is it found?'\nscenario = '{scenario}'\npolicy = './errors.toml'\n\
         inject = ['{slow}']\ntime = '15s'\nexpect = 'alarm'\nright-percent-min = 100\n"
    );
    let case = format!("--case={}", bench.write("slow-case.toml", &case));
    let two_builds = bench.run(&["self-test", "--gates=1", &case]);
    assert_eq!(two_builds.status.code(), Some(0), "{two_builds:?}");
    let told = text(&two_builds.stderr);
    assert!(told.contains("were never sent"), "{told}");

    let path = format!(
        "summary = 'Slow.'\nfront = '127.0.0.1:{{{{port:front}}}}'\n\
         [[process]]\nname = 'origin'\nrole = 'origin'\n\
         command = ['{{{{bin:http_baseline}}}}', '--listen=127.0.0.1:{{{{port:front}}}}', \
         '{slow}', '--exit-with-stdin']\nversion = ['{{{{bin:http_baseline}}}}', '--version']\n\
         stops-with-stdin = true\n"
    );
    let path = bench.write("slow.toml", &path);
    let run = |blocks: &str| {
        let output = bench.run(&["run", &scenario, "--path", &path, blocks]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let mut runs = bench.runs();
        runs.sort();
        runs.pop().expect("a run").display().to_string()
    };
    let (base, head) = (run("--blocks=1"), run("--blocks=1"));
    let policy = format!("--policy={policy}");
    let alone = bench.run(&["gate", &head, &policy]);
    assert_eq!(alone.status.code(), Some(1), "{alone:?}");
    assert!(text(&alone.stdout).contains("were never sent"), "{alone:?}");
    let against = bench.run(&["gate", &head, &policy, &format!("--base={base}")]);
    assert_eq!(against.status.code(), Some(1), "{against:?}");
}

/// An origin that takes a while for each answer.
const DELAYED: &str = "\
summary = 'An origin that takes its time.'
front = '127.0.0.1:{{port:front}}'
[parameters]
delay = 0
[[process]]
name = 'origin'
role = 'origin'
command = ['{{bin:http_baseline}}', '--listen=127.0.0.1:{{port:front}}', '--exit-with-stdin',
           '--inject-delay-us={{parameter:delay}}']
version = ['{{bin:http_baseline}}', '--version']
stops-with-stdin = true
";

#[test]
fn two_files_of_a_path_are_measured_as_builds() {
    let bench = Bench::new();
    let scenario = scenario(&bench, "files.toml", "");
    let a = bench.write("v1.toml", DELAYED);
    let slow = DELAYED.replace("delay = 0", "delay = 3000");
    let b = bench.write("v2.toml", &slow);
    let policy = bench.write(
        "lenient.toml",
        "question = 'Is anything wrong?'\n[[absolute]]\nmetric = 'errors'\nmax = 0\n",
    );
    let sides = [format!("--a={a}"), format!("--b={b}")];
    let policy = format!("--policy={policy}");
    let output = bench.run(&[
        "ab",
        &scenario,
        &sides[0],
        &sides[1],
        "--blocks=2",
        "--repeat-disturbed=0%",
        "--gate",
        &policy,
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let run_dir = bench.run_dir();
    let trials = trials(&run_dir);
    let of_path = trials.iter().filter(|trial| trial["path"] == "v1..v2");
    let of_b: Vec<&Value> = of_path.filter(|trial| trial["build"] == "b").collect();
    assert_eq!(of_b.len(), 2, "{trials:?}");
    for trial in of_b {
        let mean_us = trial["load"]["latency"]["mean_us"].as_f64();
        assert!(mean_us.expect("a number") >= 3_000.0, "{trial}");
    }
    let manifest = json(&run_dir.join("manifest.json"));
    let [of_a, of_b] = [0, 1].map(|build| &manifest["builds"][build]["path"]);
    assert_eq!((&of_a["name"], &of_b["name"]), (&"v1".into(), &"v2".into()));
    assert_eq!(of_b["definition"], slow);
    assert!(of_b["receipts"]["origin"].as_str().is_some(), "{of_b}");
    let report = fs::read_to_string(run_dir.join("REPORT.md")).expect("written");
    assert!(
        report.contains("a is './v1.toml', b is './v2.toml'"),
        "{report}"
    );
    assert!(report.contains("- parameter delay: 3000"), "{report}");
    bench.assert_nothing_left();
}

#[test]
fn a_file_of_a_path_is_compared_only_with_another() {
    let bench = Bench::new();
    let a = format!("--a={}", bench.write("v1.toml", DELAYED));
    let b = format!("--b={}", bench.write("v2.toml", DELAYED));
    let wrong = DELAYED.replace("http_baseline}}', '--l", "http_basline}}', '--l");
    let wrong = format!("--b={}", bench.write("v3.toml", &wrong));
    for (arguments, expected) in [
        (
            &[&a[..], "--b=main"][..],
            "'main': expected the file of a path",
        ),
        (&[&a, &b, "--path=direct"], "'--path': leave it out"),
        (
            &[&a, &b, "--sweep=delay=1,2"],
            "'--sweep': expected '--set'",
        ),
        (&[&a, &b, "--set=dealy=1"], "did you mean 'delay'?"),
        (&[&a, &wrong], "path 'v3' can't be run"),
        (&[&a, "--b=none.toml"], "could not read 'none.toml'"),
    ] {
        let refused = bench.run(&[&["ab", "quick-look"], arguments].concat());
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
        // A first look is what two files are for, unless another scenario is named.
        let refused = bench.run(&[&["ab"], arguments].concat());
        assert_eq!(text(&refused.stderr), told, "{arguments:?}");
    }
}
