//! Programs that are run to their end for what they print.

use std::{
    process::ExitStatus,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{Child, Command, Output, Waited, describe_exit, wait};
use crate::console::say;

/// Time after which it is said what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time that a program may take to print its version or a description.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a program to its end. Returns what it prints on stdout or, if that is nothing, on stderr.
pub(crate) fn capture(command: &Command) -> anyhow::Result<String> {
    capture_within(command, CAPTURE_TIMEOUT)
}

pub(crate) fn capture_within(command: &Command, at_most: Duration) -> anyhow::Result<String> {
    let name = command.program.display().to_string();
    let mut child = Child::start(&name, command, Output::Keep)?;
    // The program gets no input.
    drop(child.stdin.take());
    let log = child.log.clone();
    let (status, text) = child.finish(at_most)?;
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if !status.success() {
        let last: Vec<&str> = log.tail().collect();
        bail!("{command}: {}: {}", describe_exit(status), last.join(" / "));
    }
    Ok(if text.trim().is_empty() {
        let first: Vec<&str> = log.head().collect();
        first.join("\n")
    } else {
        text
    })
}

impl Child {
    /// Waits for the end of a child whose output is kept; returns its exit status and output.
    pub(super) fn finish(mut self, at_most: Duration) -> anyhow::Result<(ExitStatus, String)> {
        let deadline = Instant::now() + at_most;
        let mut waited = wait(&[&self], deadline.min(Instant::now() + PATIENCE), None)?;
        if waited == Waited::TimedOut && at_most > PATIENCE {
            let (name, seconds) = (&self.name, at_most.as_secs());
            say(&format!(
                "waiting for '{name}' to finish, {seconds} s at most"
            ));
            waited = wait(&[&self], deadline, None)?;
        }
        if waited == Waited::TimedOut {
            bail!(
                "'{}' did not finish within {} s and was killed",
                self.name,
                at_most.as_secs_f64()
            );
        }
        self.take_output()
    }
}
