//! The end of a trial's processes if hopbench is killed.
//!
//! When hopbench dies, the kernel kills each child that asked for it (`PR_SET_PDEATHSIG`), but not
//! the workers of such a child, and not a child that has changed its user since. A [`Watchman`] is
//! a process of its own that outlives hopbench just long enough to kill those as well.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Child, Command, DIRECTORY, Output, as_text,
    table::{self, Process},
};

/// A process that waits for hopbench's end. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watchman(Child);

/// Subcommand with which hopbench runs a watchman.
pub(crate) const WATCH: &str = "__watch";

/// Maximum number of rounds. A process that is about to start another when it is killed makes one
/// more round necessary; more generations are hostile.
const ROUNDS_MAX: usize = 100;

impl Watchman {
    /// Starts a watch over what is started in `directory`.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let command = Command {
            // This program, even if its file has been replaced since.
            program: "/proc/self/exe".into(),
            arguments: vec![WATCH.to_owned(), as_text(directory)?],
            stops_with_stdin: true,
            ..Command::default()
        };
        Child::start("watchman", &command, Output::Keep).map(Self)
    }

    /// Extends the watch to a child and its process group.
    pub(crate) fn watch(&mut self, child: &Child) {
        self.0.tell(&child.pid().to_string());
    }
}

/// Waits for the end of stdin, which ends with hopbench. Then kills the process groups that stdin
/// has named and what they have started elsewhere, and removes their directory.
pub(crate) fn watch(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let directory = arguments.next().map(PathBuf::from);
    let directory = directory.ok_or_else(|| anyhow::anyhow!("expected a directory"))?;
    let mut groups = BTreeSet::new();
    for line in io::stdin().lines() {
        groups.insert(line?.parse()?);
    }
    kill_all(&directory, &groups)?;
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn kill_all(directory: &Path, groups: &BTreeSet<u32>) -> io::Result<()> {
    for _ in 0..ROUNDS_MAX {
        let all = table::all()?.into_iter();
        let mut found = all.filter(|it| is_ours(it, directory, groups)).peekable();
        if found.peek().is_none() {
            break;
        }
        for process in found {
            if let Ok(pid) = process.pid.try_into() {
                // Fails only if it is gone, or is another user's.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    Ok(())
}

/// Returns whether a process is in one of the groups or has inherited the trial's environment.
fn is_ours(process: &Process, directory: &Path, groups: &BTreeSet<u32>) -> bool {
    let has_inherited = || {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let name = [DIRECTORY.as_bytes(), b"="].concat();
        variables.any(|it| it.strip_prefix(&name[..]) == Some(directory.as_os_str().as_bytes()))
    };
    !process.has_ended && (groups.contains(&process.group) || has_inherited())
}
