//! Commands that are timed from their start to their end.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{Command, std_command};

/// The time that a command took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) wall: Duration,
    /// CPU time of the command, in user space and in the kernel.
    pub(crate) cpu: Duration,
    pub(crate) status: ExitStatus,
}

/// Subcommand with which hopbench starts a program late, to test rules.
pub(crate) const DELAYED: &str = "__delayed";

/// Runs a command without input whose output is thrown away, and waits for its end. Nothing else
/// may end meanwhile, or its CPU time would count.
pub(crate) fn timed(command: &Command, at_most: Duration) -> anyhow::Result<Timed> {
    let mut prepared = std_command(command.program.as_os_str());
    prepared.args(&command.arguments);
    if let Some(directory) = &command.directory {
        prepared.current_dir(directory);
    }
    prepared.stdin(Stdio::null());
    prepared.stdout(Stdio::null()).stderr(Stdio::null());
    let cpu_before = children_cpu()?;
    let begin = Instant::now();
    let mut child = prepared
        .spawn()
        .with_context(|| format!("could not start {command}"))?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let is_over = pidfd.and_then(|pidfd| ends(&pidfd, begin + at_most));
    if !matches!(is_over, Ok(true)) {
        child.kill()?;
        child.wait()?;
        is_over.context("could not wait for a command")?;
        bail!("{command} did not end within {} s", at_most.as_secs_f64());
    }
    let status = child.wait()?;
    let wall = begin.elapsed();
    Ok(Timed {
        wall,
        cpu: children_cpu()?.saturating_sub(cpu_before),
        status,
    })
}

/// Waits for the end of a process; returns whether it came by the deadline.
fn ends(pidfd: &std::os::fd::OwnedFd, deadline: Instant) -> rustix::io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

/// Returns the CPU time of all children that have been waited for.
fn children_cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let of = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
        Duration::from_micros(seconds * 1_000_000 + micros)
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// Waits for some milliseconds and then becomes a program. Returns only if that fails.
pub(crate) fn exec_delayed(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Error {
    let delay = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok());
    let (Some(delay_ms), Some(program)) = (delay, arguments.next()) else {
        return anyhow::anyhow!("expected milliseconds and a program");
    };
    sleep(Duration::from_millis(delay_ms));
    let error = std_command(&program).args(arguments).exec();
    anyhow::anyhow!("could not run '{}': {error}", program.display())
}

#[expect(clippy::disallowed_methods, reason = "to be late is the purpose")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

impl Command {
    /// Returns the command with a start that is late by some milliseconds.
    pub(crate) fn delayed(self, delay_ms: u64) -> anyhow::Result<Self> {
        let program = self.program.display().to_string();
        let mut arguments = vec![DELAYED.to_owned(), delay_ms.to_string(), program];
        arguments.extend(self.arguments);
        Ok(Self {
            program: std::env::current_exe().context("could not find hopbench itself")?,
            arguments,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            directory: None,
            stops_with_stdin: true,
        }
    }

    #[test]
    fn a_command_is_timed_and_one_that_does_not_end_is_killed() {
        let timed_out = timed(&shell("sleep 1000"), Duration::from_millis(20));
        let error = timed_out.expect_err("it sleeps").to_string();
        assert!(error.ends_with("did not end within 0.02 s"), "{error}");
        let done = timed(&shell("exit 3"), Duration::from_secs(60)).expect("a shell");
        assert_eq!(done.status.code(), Some(3));
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let busy = timed(&shell(busy), Duration::from_secs(60)).expect("a shell");
        assert!(busy.cpu > Duration::ZERO && busy.wall > Duration::ZERO);
    }
}
