//! Real processes for tests: started, watched, and always ended.
//!
//! Tests of several crates include this file as a module. It is not a crate, so that no crate has
//! to depend on another for it.

// Each test file uses only part of this module.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::ClockId,
    unistd::Pid,
};

/// Time limit of every wait, far longer than anything here takes: a watchdog, not an assertion.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Returns the path of a program of this workspace, built in the same profile as the test.
pub(crate) fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("it runs");
    // The test is one directory below the programs.
    let directory = test.ancestors().nth(2).expect("below a directory");
    let file = directory.join(name);
    assert!(
        file.exists(),
        "'{name}' is not built: run the tests with 'cargo test --workspace'"
    );
    file
}

#[expect(clippy::disallowed_methods, reason = "tests are not the orchestrator")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// Finds an installed program. If it is missing, says loudly what is not tested.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("HOPBENCH_TEST_PEERS").is_none(),
            "'{name}' must be installed where HOPBENCH_TEST_PEERS is set"
        );
        eprintln!("SKIPPED: '{name}' is not installed, so what needs it is not tested");
    }
    found
}

/// A running program, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    /// Lines of stderr that were read and that [`Self::wait`] has yet to return.
    seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = follow(child.stdout.take().expect("piped"));
        let errors = follow(child.stderr.take().expect("piped"));
        Self {
            child,
            lines,
            errors,
            seen: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().expect("a process number")
    }

    /// Waits for a line of stdout with this beginning; returns the rest of the line.
    pub(crate) fn line(&self, beginning: &str) -> String {
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(beginning) {
                        return rest.to_owned();
                    }
                }
                Err(_) => panic!("no line '{beginning}…': {}", self.error_text()),
            }
        }
    }

    /// Waits for a line of stderr that contains `part`.
    pub(crate) fn error_line(&self, part: &str) -> String {
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.errors.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(_) => panic!("no line with '{part}' on stderr"),
            }
        }
    }

    /// Counts its open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.expect("it runs").count()
    }

    /// Returns the CPU time that it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid())).expect("it runs");
        clock.now().expect("a clock").into()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it runs");
    }

    /// Kills it with SIGKILL and reaps it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("ours");
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ours").is_some()
    }

    /// Returns whether one line of stderr so far contains all of these parts.
    pub(crate) fn has_logged(&mut self, parts: &[&str]) -> bool {
        self.seen.extend(self.errors.try_iter());
        let mut seen = self.seen.iter();
        seen.any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// Ends it in good order; returns what it logged.
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        let (status, _, logged) = self.wait();
        assert!(status.success(), "{status}: {logged}");
        logged
    }

    /// Waits for the end. Returns the status, and the rest of stdout and stderr.
    pub(crate) fn wait(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + WATCHDOG;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            pause();
        };
        // Read to the end: the last lines may still be on their way.
        let rest: Vec<String> = self.lines.iter().collect();
        let mut errors = std::mem::take(&mut self.seen);
        errors.extend(self.errors.iter());
        (status, rest.join("\n"), errors.join("\n"))
    }

    fn error_text(&self) -> String {
        let lines: Vec<String> = self.errors.try_iter().collect();
        lines.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if the child has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines: Vec<String> = self.errors.iter().collect();
            eprintln!("process {} logged:\n{}", self.pid(), lines.join("\n"));
        }
    }
}

fn follow(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Pauses between two checks of a state that nothing announces.
#[expect(
    clippy::disallowed_methods,
    reason = "the only one, and never instead of an event"
)]
fn pause() {
    thread::sleep(Duration::from_millis(5));
}

/// Waits for a state that nothing announces.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !reached() {
        assert!(Instant::now() < deadline, "not within {WATCHDOG:?}: {what}");
        pause();
    }
}

/// Waits until nothing has moved for this many checks in a row.
pub(crate) fn until_still(what: &str, looks: u32, mut has_moved: impl FnMut() -> bool) {
    let mut still_looks = 0;
    until(what, || {
        still_looks = if has_moved() { 0 } else { still_looks + 1 };
        still_looks == looks
    });
}

/// Returns a command that lets a shell do something first, such as setting a limit.
pub(crate) fn after(setting: &str, program: &Command) -> Command {
    let mut shell = command("sh");
    shell.args(["-c", &format!("{setting}; exec \"$@\""), "sh"]);
    shell.arg(program.get_program()).args(program.get_args());
    shell
}

/// Runs a program to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends one plain HTTP request; returns the answer with its head.
pub(crate) fn get(address: &str, target: &str) -> std::io::Result<String> {
    let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    match address.strip_prefix("unix:") {
        Some(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
        None => {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
    }
    Ok(text(&answer))
}
