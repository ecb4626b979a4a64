//! Commands that are timed from their start to their end.

use std::{
    ffi::OsString,
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{
    Command, Interrupt, Interrupted, Waited, as_text, explained, start_stated, std_command, strays,
    wait_for, wait_until,
};

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

/// Runs a command without input whose output is thrown away, and waits for its end. A
/// [`Child`](super::Child) would take longer: it has threads for the output. Nothing else may end
/// meanwhile, or its CPU time would count.
pub(crate) fn timed(
    command: &Command,
    at_most: Duration,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Timed> {
    let mut prepared = std_command(command.program.as_os_str());
    command.surround(&mut prepared);
    // In a group of its own, so that a Ctrl-C at the terminal reaches only hopbench.
    prepared.process_group(0).stdin(Stdio::null());
    prepared.stdout(Stdio::null()).stderr(Stdio::null());
    let cpu_before = children_cpu()?;
    let begin = Instant::now();
    let child = start_stated(&mut prepared);
    let mut child = child.with_context(|| format!("could not start {command}"))?;
    strays::own(child.id());
    let pidfd = pidfd_open(
        rustix::process::Pid::from_child(&child),
        PidfdFlags::empty(),
    );
    let waited = match &pidfd {
        Ok(pidfd) => wait_for([pidfd.as_fd()].into_iter(), begin + at_most, interrupt),
        Err(error) => Err((*error).into()),
    };
    // What it has started ends with it. Before it is reaped, its number is its own.
    if let Ok(group) = i32::try_from(child.id()) {
        // Fails only if nothing is left.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let status = child.wait();
    let wall = begin.elapsed();
    strays::disown(child.id());
    let status = status?;
    match waited.context("could not wait for a command")? {
        Waited::Happened(_) => {}
        Waited::Interrupted => return Err(Interrupted.into()),
        Waited::TimedOut => {
            bail!("{command} did not end within {} s", at_most.as_secs_f64())
        }
    }
    Ok(Timed {
        wall,
        cpu: children_cpu()?.saturating_sub(cpu_before),
        status,
    })
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
    wait_until(Instant::now() + Duration::from_millis(delay_ms));
    let error = explained(&program, std_command(&program).args(arguments).exec());
    anyhow::anyhow!("could not run '{}': {error}", program.display())
}

impl Command {
    /// Returns the command with a start that is late by some milliseconds.
    pub(crate) fn delayed(self, delay_ms: u64) -> anyhow::Result<Self> {
        let program = as_text(&self.program)?;
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

    /// Returns whether a process is there.
    fn is_there(pid: &str) -> bool {
        let pid: u32 = pid.parse().expect("a number");
        let all = super::super::table::all().expect("readable");
        all.iter()
            .any(|process| process.pid == pid && !process.has_ended)
    }

    fn shell(script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            stops_with_stdin: true,
            ..Command::default()
        }
    }

    #[test]
    fn a_command_is_timed_and_one_that_does_not_end_is_killed() {
        let timed_out = timed(&shell("sleep 1000"), Duration::from_millis(20), None);
        let error = timed_out.expect_err("it sleeps").to_string();
        assert!(error.ends_with("did not end within 0.02 s"), "{error}");
        let place = tempfile::TempDir::new().expect("a directory");
        let file = place.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; exit 0", file.display());
        timed(&shell(&script), Duration::from_secs(60), None).expect("a shell");
        let left = std::fs::read_to_string(&file).expect("written");
        let is_gone = || (!is_there(left.trim())).then_some(());
        let gone =
            super::super::ask_until(Duration::from_secs(60), Duration::from_millis(1), is_gone);
        assert!(gone.is_some(), "what a command has started ends with it");
        let done = timed(&shell("exit 3"), Duration::from_secs(60), None).expect("a shell");
        assert_eq!(done.status.code(), Some(3));
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let busy = timed(&shell(busy), Duration::from_secs(60), None).expect("a shell");
        assert!(busy.cpu > Duration::ZERO && busy.wall > Duration::ZERO);
    }
}
