//! Programs that are run to their end for what they print.

use std::{
    io,
    path::Path,
    process::{self, ExitStatus},
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{Child, Command, DIRECTORY, Output, Strays, Waited, describe_exit, wait};
use crate::console::say;

/// Time after which it is said what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time that a program may take to print its version or a description.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a program to its end, and ends what it leaves behind. Returns what it prints on stdout or,
/// if that is nothing, on stderr.
pub(crate) fn capture(command: &Command) -> anyhow::Result<String> {
    capture_within(command, CAPTURE_TIMEOUT)
}

pub(crate) fn capture_within(command: &Command, at_most: Duration) -> anyhow::Result<String> {
    let name = command.program.display().to_string();
    let (command, strays) = &marked(command)?;
    let mut child = Child::start(&name, command, Output::Keep)?;
    // The program gets no input.
    drop(child.stdin.take());
    let log = child.log.clone();
    let (status, text) = child.finish(at_most, strays.as_ref())?;
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

/// Gives a program a mark by which whatever it starts is known, as a script may that starts a
/// server whatever its arguments are. What works in a directory of its own, such as git, may leave
/// something there on purpose.
fn marked(command: &Command) -> io::Result<(Command, Option<Strays>)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut command = command.clone();
    if command.directory.is_some() {
        return Ok((command, None));
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mark = format!("hopbench-{}-{number}-program", process::id());
    let strays = Strays::adopt(Path::new(&mark))?;
    command.environment.push((DIRECTORY.into(), mark.into()));
    Ok((command, Some(strays)))
}

impl Child {
    /// Waits for the end of a child whose output is kept; returns its exit status and output. Its
    /// strays are ended before the output is read to its end, since they may hold it open.
    pub(super) fn finish(
        mut self,
        at_most: Duration,
        strays: Option<&Strays>,
    ) -> anyhow::Result<(ExitStatus, String)> {
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
        // A stray is found when its parent is gone.
        self.kill_group();
        self.reap()?;
        if let Some(strays) = strays {
            strays.end(&[]);
        }
        self.take_output()
    }
}
