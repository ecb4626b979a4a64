//! Runs the load generator to its end.

use std::time::Duration;

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::Value;

/// Time limit for programs that may hang.
#[allow(dead_code, reason = "not everyone's")]
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Puts a load on a server and returns the result.
pub(crate) fn load(url: &str, arguments: &[&str]) -> Value {
    let output = cargo_bin_cmd!("hopbench-load")
        .args(["--url", url])
        .args(arguments)
        .timeout(WATCHDOG)
        .output()
        .expect("runs and ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}
