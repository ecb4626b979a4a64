//! Programs that an example or a test starts, and their CPU time.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde_json::Value;

/// Starts a child that ends by itself, and captures its stdout.
#[allow(dead_code, reason = "not everyone's")]
pub(crate) fn start(program: impl AsRef<Path>, arguments: &[&str]) -> Child {
    start_with(program, arguments, Stdio::null())
}

/// Like [`start`], with something on its stdin.
#[allow(dead_code, reason = "not everyone's")]
#[expect(
    clippy::disallowed_methods,
    reason = "hopbench::process is of another crate"
)]
pub(crate) fn start_with(program: impl AsRef<Path>, arguments: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).stdin(stdin).stdout(Stdio::piped());
    command.spawn().expect("it can be started")
}

/// Runs a child. Returns what it printed and its CPU time in microseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "hopbench::process is of another crate; this waits for the child, which ends by itself"
)]
#[allow(dead_code, reason = "not everyone's")]
pub(crate) fn run(program: &Path, arguments: &[String]) -> anyhow::Result<(Value, f64)> {
    let before_us = children_cpu_us()?;
    let child = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output();
    let output = child.with_context(|| format!("could not run '{}'", program.display()))?;
    let name = program.display();
    anyhow::ensure!(output.status.success(), "'{name}': {}", output.status);
    let printed = serde_json::from_slice(&output.stdout);
    let printed = printed.with_context(|| format!("'{name}' printed something else than JSON"))?;
    Ok((printed, children_cpu_us()? - before_us))
}

/// Returns the CPU time of children that have been waited for.
#[allow(dead_code, reason = "not everyone's")]
fn children_cpu_us() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    Ok(cpu.num_microseconds() as f64)
}
