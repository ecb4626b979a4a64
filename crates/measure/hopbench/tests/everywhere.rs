//! Goal: every path answers every endpoint as the origin does, keeps to itself and leaves nothing
//! behind.
//! Method: `hopbench verify` of all of them, and loads on ours. Programs that are not installed are
//! skipped, unless the environment says that those of the system must be there.

mod support;

use serde_json::Value;
use support::{bench::Bench, text};

/// Lists the names of the paths that have one of some tags, or of those that have none of them.
fn names(bench: &Bench, tags: &[&str], have: bool) -> Vec<String> {
    let listed = bench.run(&["list", "--format=json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let paths = listed["paths"].as_array().expect("a list").iter();
    let has = |path: &Value| {
        let mut own = path["tags"].as_array().expect("a list").iter();
        own.any(|tag| tags.iter().any(|it| tag == it))
    };
    let found = paths.filter(|path| has(path) == have);
    found
        .map(|path| path["name"].as_str().expect("a name").to_owned())
        .collect()
}

// What the programs of others do under load is a result, and not for a test to judge.
#[test]
fn every_path_of_ours_answers_under_load() {
    let bench = Bench::new();
    let ours = names(&bench, &["outside", "peer"], false);
    let paths = format!("--path={}", ours.join(","));
    let endpoints = ["--endpoint=/small", "--endpoint=/echo:1024"];
    let result = bench.run(
        &[
            &["run", "smoke", &paths, "--duration-ms=50"],
            &endpoints[..],
        ]
        .concat(),
    );
    let (out, errors) = (text(&result.stdout), text(&result.stderr));
    assert!(result.status.success(), "{out}\n{errors}");
    let trials = bench.trials();
    for trial in &trials {
        assert_eq!(trial["outcome"], "ok", "{trial}");
    }
    // At least 20 paths, with 2 endpoints each.
    assert!(trials.len() >= 40, "{} trials: {errors}", trials.len());
    assert!(!errors.contains("\nskipped"), "{errors}");
    bench.assert_nothing_left();
}

#[test]
fn every_path_answers_every_endpoint_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let verify = ["verify", "smoke", "--format=json"];
    let verified = bench.run(&verify);
    let told = text(&verified.stdout);
    assert!(
        verified.status.success(),
        "{told}{}",
        text(&verified.stderr)
    );
    let results: Vec<Value> = serde_json::from_str(&told).expect("JSON");
    let peers = names(&bench, &["peer"], true);
    let is_required = std::env::var_os("HOPBENCH_TEST_PEERS").is_some();
    let mut answered = 0;
    for result in &results {
        let skipped = &result["skipped"];
        if skipped.is_string() {
            let may_lack = !is_required || peers.iter().any(|peer| result["path"] == *peer);
            assert!(may_lack, "{result}");
            eprintln!("SKIPPED: {}: {skipped}", result["path"]);
        } else {
            assert_eq!(result["failure"], Value::Null, "{result}");
            answered += 1;
        }
    }
    assert!(answered > 0, "the reference, at least: {results:?}");
    bench.assert_nothing_left();
}
