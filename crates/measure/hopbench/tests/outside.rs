//! Goal: every path through an outside program answers as the origin does, keeps to itself and
//! leaves nothing behind.
//! Method: `hopbench verify` of all of them. Programs that are not installed are skipped, unless
//! the environment says that they must be there.

mod support;

use serde_json::Value;
use support::{bench::Bench, text};

#[test]
fn outside_programs_answer_every_endpoint_and_leave_nothing_behind() {
    let bench = Bench::new();
    let verify = ["verify", "smoke", "--path=tag:outside", "--format=json"];
    let verified = bench.run(&verify);
    let told = text(&verified.stdout);
    assert!(
        verified.status.success(),
        "{told}{}",
        text(&verified.stderr)
    );
    let results: Vec<Value> = serde_json::from_str(&told).expect("JSON");
    let is_required = std::env::var_os("HOPBENCH_TEST_PEERS").is_some();
    let mut answered = 0;
    for result in &results {
        let skipped = &result["skipped"];
        if skipped.is_string() {
            assert!(!is_required, "{result}");
            eprintln!("SKIPPED: {}: {skipped}", result["path"]);
        } else {
            assert_eq!(result["failure"], Value::Null, "{result}");
            answered += 1;
        }
    }
    assert!(answered > 0, "the reference, at least: {results:?}");
    bench.assert_nothing_left();
}
