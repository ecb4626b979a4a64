//! Child processes. They are started, watched and ended only here.
//!
//! Every child has an owner, which is a [`Child`] or [`timed`], and every wait has a deadline.
//! Dropping a `Child` kills its process group and reaps the child. [`Strays`] ends processes that
//! have left the group. If hopbench itself is killed, children see the end of their stdin; the
//! kernel kills those that don't watch it (`PR_SET_PDEATHSIG`), and a [`Watchman`] kills what these
//! had started.
//!
//! Nothing is polled: while a load runs, hopbench sleeps until a child ends or prints something, or
//! a signal arrives.

mod capture;
mod cores;
mod environment;
mod interrupt;
mod log;
mod name;
mod pause;
mod strays;
pub(crate) mod table;
mod timed;
mod unrunnable;
mod watch;

use std::{
    ffi::OsString,
    fmt,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    iter,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{self, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
};

pub(crate) use self::{
    capture::{capture, capture_within},
    cores::{Awake, Confined, allowed_cores},
    environment::{
        StatedUmask, describe as describe_environment, of_cargo, settle_temporary_directory,
        temporary_directory,
    },
    interrupt::{EXIT_INTERRUPTED, Interrupt},
    name::as_text,
    pause::{ask_until, wait_until},
    strays::Strays,
    timed::{DELAYED, exec_delayed, timed},
    watch::{WATCH, Watchman, watch},
};
use self::{log::Log, unrunnable::explained};
use crate::console::say;

/// The operation was ended by Ctrl-C or another signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// A command to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Working directory; hopbench's own if `None`. Whatever the command starts is known by it.
    pub(crate) directory: Option<PathBuf>,
    /// Directory in which it works instead.
    pub(crate) works_in: Option<PathBuf>,
    /// Whether the program stops at the end of its stdin.
    pub(crate) stops_with_stdin: bool,
    /// Variables besides those that every child gets.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// A running child process, and its whole process group.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
    pidfd: OwnedFd,
    /// Its end tells the child that hopbench is gone.
    stdin: Option<ChildStdin>,
    log: Arc<Mutex<Log>>,
    /// Disconnected when the child's log has been read to its end.
    log_read: Receiver<()>,
    output: Option<KeptOutput>,
    exit: Option<ExitStatus>,
    /// It can't be killed, and is no longer waited for.
    abandoned: bool,
}

/// The output of a child, while it is being read.
#[derive(Debug)]
struct KeptOutput {
    /// Hangs up when the first output has arrived.
    beginning: PipeReader,
    text: Receiver<io::Result<String>>,
}

/// The outcome of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The event that was awaited of the child at this index.
    Happened(usize),
    Interrupted,
    TimedOut,
}

/// Where a child's output goes.
#[derive(Debug)]
pub(crate) enum Output {
    /// stdout is kept and returned by [`Child::finish`]; stderr is logged.
    Keep,
    /// Both are logged, and copied to this file.
    Log(PathBuf),
    /// stdout goes to this descriptor; stderr is logged, and copied to this file.
    Into(OwnedFd, PathBuf),
}

/// Subcommand with which hopbench runs a program that doesn't watch its stdin.
pub(crate) const GUARDED: &str = "__guarded";

/// Environment variable with the directory that a child was started in; its own children inherit
/// it.
const DIRECTORY: &str = "HOPBENCH_DIRECTORY";

/// Maximum length of kept output, in bytes: more than any program here prints. A longer result is
/// cut off and can't be parsed.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// Time to wait for the log of a child that has ended.
const LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// Time that the output of a child that has ended may take to end too.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that a child may take to be gone after it was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

impl Child {
    /// Starts a child in its own process group, so that a Ctrl-C at the terminal reaches only
    /// hopbench. Must be called on the main thread: a guarded child dies with the thread that
    /// started it.
    pub(crate) fn start(name: &str, command: &Command, output: Output) -> anyhow::Result<Self> {
        let file = match &output {
            Output::Keep => None,
            Output::Log(file) | Output::Into(_, file) => Some(file.as_path()),
        };
        // Before the start, because it may fail: a started child must have an owner.
        let log = Arc::new(Mutex::new(Log::new(file)?));
        let beginning = match output {
            Output::Keep => Some(io::pipe()?),
            Output::Log(_) | Output::Into(..) => None,
        };
        let (keeps, stdout) = match output {
            Output::Into(stdout, _) => (false, Stdio::from(stdout)),
            Output::Keep => (true, Stdio::piped()),
            Output::Log(_) => (false, Stdio::piped()),
        };
        let mut prepared = command.to_std();
        prepared.process_group(0).stdin(Stdio::piped());
        prepared.stdout(stdout).stderr(Stdio::piped());
        let mut process = start_stated(&mut prepared)
            .with_context(|| format!("could not start '{name}': {command}"))?;
        let pid = rustix::process::Pid::from_child(&process);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                process.kill()?;
                process.wait()?;
                return Err(error).with_context(|| format!("could not watch '{name}'"));
            }
        };
        strays::own(process.id());
        let stdin = process.stdin.take();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let (kept, logged) = match keeps {
            true => (stdout, None),
            false => (None, stdout),
        };
        let (reading, log_read) = mpsc::channel();
        // From here on it has an owner, which ends it if its output can't be read.
        let mut child = Self {
            name: name.to_owned(),
            process,
            pidfd,
            stdin,
            log,
            log_read,
            output: None,
            exit: None,
            abandoned: false,
        };
        child
            .read((stderr, logged), reading, kept.zip(beginning))
            .with_context(|| format!("could not read what '{name}' prints"))?;
        Ok(child)
    }

    /// Starts the threads that read what it prints, of which two log it, and one keeps it.
    fn read(
        &mut self,
        (stderr, stdout): (Option<ChildStderr>, Option<ChildStdout>),
        reading: Sender<()>,
        kept: Option<(ChildStdout, (PipeReader, PipeWriter))>,
    ) -> io::Result<()> {
        if let Some(stderr) = stderr {
            log::drain(stderr, self.log.clone(), reading.clone())?;
        }
        if let Some(stdout) = stdout {
            log::drain(stdout, self.log.clone(), reading)?;
        }
        let kept = kept.map(|(stdout, beginning)| KeptOutput::read(stdout, beginning));
        self.output = kept.transpose()?;
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns how the child ended, if it has.
    pub(crate) fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exit.is_none() && self.has_ended()? {
            // The rest of the group is killed while the process ID is still the child's.
            self.kill_group();
            self.reap()?;
            self.finish_log();
        }
        Ok(self.exit)
    }

    /// Returns whether the child has ended and can be reaped.
    fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Err(rustix::io::Errno::INTR) => Ok(false),
            polled => Ok(polled? > 0),
        }
    }

    /// Returns the last lines that the child has logged.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let lines = self.own_last_lines().into_iter();
        lines.map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// Returns these lines without the child's name before them.
    pub(crate) fn own_last_lines(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.tail().map(str::to_owned).collect()
    }

    /// Returns the exit status and the output of a child that has ended.
    pub(crate) fn take_output(&mut self) -> anyhow::Result<(ExitStatus, String)> {
        // After that, no other process of the group holds its output open.
        self.kill_group();
        let status = self.reap()?;
        let output = self.output.take().context("the output was not kept")?;
        let text = output.text.recv_timeout(OUTPUT_TIMEOUT).with_context(|| {
            let name = &self.name;
            format!("'{name}' has ended, but a process it started still holds its output open")
        })??;
        self.finish_log();
        Ok((status, text))
    }

    /// Waits for the end of the child, and kills it at the deadline. Returns whether that was
    /// necessary.
    fn end(&mut self, deadline: Instant) -> bool {
        let is_over = |deadline| matches!(wait(&[&*self], deadline, None), Ok(Waited::Happened(_)));
        let obeyed = is_over(deadline);
        self.kill_group();
        // A process of another user, as behind 'sudo', can't be killed.
        if obeyed || is_over(Instant::now() + KILL_TIMEOUT) {
            // Fails only if there is nothing to reap.
            let _ = self.reap();
            self.finish_log();
        } else {
            self.abandoned = true;
            let (name, pid) = (&self.name, self.pid());
            say(&format!(
                "warning: '{name}' (process {pid}) can't be killed and is still running"
            ));
        }
        !obeyed
    }

    /// Writes a line to the child's stdin. A child that has ended, or doesn't read, is noticed by
    /// its output.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// Kills the child with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.end(Instant::now());
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait()?;
        strays::disown(self.pid());
        self.exit = Some(status);
        Ok(status)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The process ID may be another's by now.
        if self.exit.is_some() {
            return;
        }
        if let Ok(pid) = i32::try_from(self.pid()) {
            // Fails only if the group is gone.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    /// Signals the child, and nothing that it has started.
    pub(crate) fn signal_alone(&self, signal: Signal) {
        if let (None, Ok(pid)) = (self.exit, i32::try_from(self.pid())) {
            // Fails only if it is gone.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills the child and what it has started. Must come before the child is reaped, while the
    /// process ID is still its own.
    fn kill_group(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Waits for the last lines, but not for long: a process that has left the group may hold the
    /// pipe open.
    fn finish_log(&self) {
        let _ = self.log_read.recv_timeout(LOG_TIMEOUT);
    }
}

impl KeptOutput {
    fn read(
        stdout: ChildStdout,
        (beginning, begins): (PipeReader, PipeWriter),
    ) -> io::Result<Self> {
        let (read, text) = mpsc::channel();
        thread::Builder::new().spawn(move || {
            let mut bytes = Vec::new();
            let mut stdout = BufReader::new(stdout.take(OUTPUT_BYTES_MAX));
            // If this fails, so does the read below.
            let _ = stdout.fill_buf();
            drop(begins);
            // Fails only if nobody waits for it any more.
            let text = stdout.read_to_end(&mut bytes);
            // A program may print whatever it wants, such as a version in Latin-1.
            let text = text.map(|_| String::from_utf8_lossy(&bytes).into_owned());
            let _ = read.send(text);
        })?;
        Ok(Self { beginning, text })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() && !self.abandoned {
            self.end(Instant::now());
        }
    }
}

/// Asks all to stop, kills those that don't within `grace`, and reaps all. Returns the names of
/// those that had to be killed.
pub(crate) fn stop_all(mut children: Vec<Child>, grace: Duration) -> Vec<String> {
    for child in &mut children {
        child.signal(Signal::SIGTERM);
        drop(child.stdin.take());
    }
    let deadline = Instant::now() + grace;
    children
        .into_iter()
        .filter_map(|mut child| child.end(deadline).then(|| child.name.clone()))
        .collect()
}

/// Waits until one of the children ends, a signal comes, or the deadline passes.
pub(crate) fn wait(
    children: &[&Child],
    deadline: Instant,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Waited> {
    let ends = children.iter().map(|child| child.pidfd.as_fd());
    wait_for(ends, deadline, interrupt)
}

/// Waits until a child whose output is kept has printed something or ended, or until one of the
/// `others` ends. The indices of the `others` begin at 1.
pub(crate) fn wait_for_output<'a>(
    child: &'a Child,
    others: impl Iterator<Item = &'a Child>,
    deadline: Instant,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Waited> {
    let output = child.output.as_ref().context("the output was not kept")?;
    let ends = others.map(|other| other.pidfd.as_fd());
    let all = iter::once(output.beginning.as_fd()).chain(ends);
    wait_for(all, deadline, interrupt)
}

fn wait_for<'a>(
    happenings: impl Iterator<Item = BorrowedFd<'a>>,
    deadline: Instant,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Waited> {
    let mut fds: Vec<PollFd<'_>> = happenings
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let happenings = fds.len();
    fds.extend(interrupt.map(|interrupt| PollFd::new(interrupt, PollFlags::IN)));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the deadline is too far ahead")?;
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("could not wait for child processes"),
            Ok(0) => return Ok(Waited::TimedOut),
            Ok(_) => {}
        }
        let ready = fds.iter().position(|fd| !fd.revents().is_empty());
        return Ok(match ready {
            Some(index) if index < happenings => Waited::Happened(index),
            _ => Waited::Interrupted,
        });
    }
}

/// Replaces this process by a program that dies when its parent does. Returns only if that fails.
pub(crate) fn exec_guarded(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Error {
    let (Some(parent), Some(program)) = (arguments.next(), arguments.next()) else {
        return anyhow::anyhow!("expected a parent and a program");
    };
    let signal = Some(rustix::process::Signal::KILL);
    if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
        return error.into();
    }
    // The parent may have died before the signal was set.
    let now = std::os::unix::process::parent_id();
    if parent.to_str() != Some(now.to_string().as_str()) {
        return anyhow::anyhow!("the parent is gone");
    }
    let error = explained(&program, std_command(&program).args(arguments).exec());
    anyhow::anyhow!("could not run '{}': {error}", program.display())
}

/// Describes how a process ended, for a message.
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

impl Command {
    fn to_std(&self) -> process::Command {
        let mut command = if self.stops_with_stdin {
            std_command(self.program.as_os_str())
        } else {
            // This program, even if its file has been replaced since.
            let mut guard = std_command("/proc/self/exe".as_ref());
            guard.arg(GUARDED);
            guard.arg(process::id().to_string()).arg(&self.program);
            guard
        };
        self.surround(&mut command);
        command
    }

    /// Gives a process its arguments, its directory and its environment.
    fn surround(&self, process: &mut process::Command) {
        process.args(&self.arguments).env_clear();
        process.envs(environment::variables());
        process.envs(self.environment.iter().cloned());
        if let Some(directory) = &self.directory {
            process.current_dir(directory).env(DIRECTORY, directory);
        }
        if let Some(directory) = &self.works_in {
            process.current_dir(directory);
        }
    }
}

impl fmt::Display for Command {
    /// Formats the command as it would be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        for argument in &self.arguments {
            match argument.contains([' ', '"', '$', '\'']) {
                true => write!(f, " '{}'", argument.replace('\'', "'\\''"))?,
                false => write!(f, " {argument}")?,
            }
        }
        Ok(())
    }
}

fn start_stated(command: &mut process::Command) -> io::Result<process::Child> {
    let _umask = StatedUmask::set();
    let started = command.spawn();
    started.map_err(|error| explained(command.get_program(), error))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the place that the others are sent to"
)]
fn std_command(program: &std::ffi::OsStr) -> process::Command {
    process::Command::new(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_prints_no_version_is_given_up_at_its_limit() {
        let command = Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), "sleep 1000".to_owned()],
            stops_with_stdin: true,
            ..Command::default()
        };
        let given_up = capture_within(&command, Duration::from_millis(10)).expect_err("it sleeps");
        let expected = "'/bin/sh' did not finish within 0.01 s and was killed";
        assert_eq!(given_up.to_string(), expected);
    }

    #[test]
    fn a_child_that_goes_on_is_heard_when_it_begins_to_speak_or_has_ended() {
        let start = |script: &str| {
            let command = Command {
                program: "/bin/sh".into(),
                arguments: vec!["-c".to_owned(), script.to_owned()],
                stops_with_stdin: true,
                ..Command::default()
            };
            Child::start("sh", &command, Output::Keep).expect("a shell")
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let hear = |child: &Child, others: &[&Child]| {
            wait_for_output(child, others.iter().copied(), deadline, None).expect("waited")
        };
        // It prints a line, then waits for the end of its stdin.
        let mut speaker = start("echo; read line; echo end");
        assert_eq!(hear(&speaker, &[]), Waited::Happened(0));
        assert!(!speaker.has_ended().expect("looked at"));
        let silent = start("read line");
        assert_eq!(hear(&silent, &[&start("exit 3")]), Waited::Happened(1));
        assert_eq!(hear(&start("exit 3"), &[&silent]), Waited::Happened(0));
        drop(speaker.stdin.take());
        let (status, text) = speaker
            .finish(Duration::from_secs(60), None)
            .expect("its end");
        assert!(status.success());
        assert_eq!(text, "\nend\n");
    }
}
