//! Goal: every path answers every endpoint as the origin does, keeps to itself and leaves nothing
//! behind.
//! Method: `hopbench verify` of all of them. Programs that are not installed are skipped, unless
//! the environment says that those of the system must be there.

mod support;

use serde_json::Value;
use support::{bench::Bench, text};

/// Lists the names of the paths that have a tag.
fn with_tag(bench: &Bench, tag: &str) -> Vec<Value> {
    let listed = bench.run(&["list", "--format=json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let paths = listed["paths"].as_array().expect("a list").iter();
    let has = |path: &&Value| {
        let mut tags = path["tags"].as_array().expect("a list").iter();
        tags.any(|it| it == tag)
    };
    paths.filter(has).map(|path| path["name"].clone()).collect()
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
    let peers = with_tag(&bench, "peer");
    let is_required = std::env::var_os("HOPBENCH_TEST_PEERS").is_some();
    let mut answered = 0;
    for result in &results {
        let skipped = &result["skipped"];
        if skipped.is_string() {
            let may_lack = !is_required || peers.contains(&result["path"]);
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
