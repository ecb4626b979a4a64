//! Goal: the gate of the cache is tripped by a cache that keeps nothing, and by nothing else.
//! Method: the catalog's own paths and policy, with an origin that is slow enough for every machine
//! to see who asks it. In the broken cache, the proxy forwards every request.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{bench::Bench, bin, text};

const CATALOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/catalog");
const PATHS: [&str; 4] = [
    "replay-record",
    "replay-replay",
    "replay-cold",
    "replay-cache",
];

/// Copies the paths of the catalog. `adapt` changes the text of one.
fn paths(bench: &Bench, adapt: impl Fn(&str, String) -> String) -> String {
    let mut names = Vec::new();
    for name in PATHS {
        let file = Path::new(CATALOG).join(format!("paths/replay/{name}.toml"));
        let original = fs::read_to_string(file).expect("in the catalog");
        let text = adapt(name, original.clone());
        assert_ne!(text, original, "{name}: nothing was adapted");
        names.push(format!("'{}'", bench.write(&format!("{name}.toml"), &text)));
    }
    names.join(", ")
}

/// Makes the origin of a path hold every answer back.
fn slow(text: &str, delay_us: u32) -> String {
    let option = format!("\"--exit-with-stdin\",\n    \"--inject-delay-us={delay_us}\",");
    text.replacen("\"--exit-with-stdin\",", &option, 1)
}

/// Measures the paths; returns the run's directory.
fn measured(bench: &Bench, paths: &str) -> PathBuf {
    let scenario = bench.write(
        "short.toml",
        &format!(
            "question = 'Does the cache keep anything?'\npaths = ['tag:reference', {paths}]\n\
             concurrency = [8]\nrequests = 80\nlimit-ms = 20000\nwarm-up = 'none'\nblocks = 6\n\
             control = false\n\
             [[request]]\nname = 'page'\ntarget = '/bytes/{{n}}'\nrange = [1000, 1079]\n\
             order = 'once'\n\
             [[prepare]]\nname = 'fill'\nrequests = 80\nconcurrency = 8\n\
             paths = ['replay-replay', 'replay-cache']\n"
        ),
    );
    let run = bench.run(&["run", &scenario]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    bench.run_dir()
}

/// Returns the gate's exit code and report.
fn judged(bench: &Bench, arguments: &[&str]) -> (Option<i32>, String) {
    let gate = bench.run(&[&["gate"], arguments].concat());
    let told = format!("{}{}", text(&gate.stdout), text(&gate.stderr));
    (gate.status.code(), told)
}

#[test]
fn a_cache_that_keeps_nothing_trips_the_gate() {
    assert!(bin("replay-proxy").is_file());
    let good = Bench::new();
    let base = measured(&good, &paths(&good, |_, text| slow(&text, 20_000)));
    // The policy without what needs another run: that one would be compared with itself.
    let policy = Path::new(CATALOG).join("gates/replay.toml");
    let policy = fs::read_to_string(policy).expect("in the catalog");
    let within = policy
        .split("\n[[")
        .filter(|part| !part.starts_with("relative]]"));
    let within = good.write("within.toml", &within.collect::<Vec<_>>().join("\n[["));
    let (code, told) = judged(&good, &[&format!("--policy={within}")]);
    // On a busy machine, a gate doubts its trials, and says what they would tell.
    let has_passed = match code {
        Some(3) => told.contains("(passed)") && !told.contains("(regressed)"),
        code => code == Some(0),
    };
    assert!(has_passed, "{told}");

    let broken = Bench::new();
    let names = paths(&broken, |name, text| match name {
        "replay-cache" => slow(&text, 60_000).replace("--mode=passthrough-cache", "--mode=record"),
        _ => slow(&text, 20_000),
    });
    measured(&broken, &names);
    let base = format!("--base={}", base.display());
    let (code, told) = judged(&broken, &["--policy=replay", &base]);
    // On a busy machine, a gate says what its doubted trials would tell.
    let would_trip = code == Some(3) && told.contains("(regressed)");
    let is_looked_at = told.contains("replay-cache.rps");
    assert!(is_looked_at && (code == Some(1) || would_trip), "{told}");
    broken.assert_nothing_left();
}
