//! Processes that left the group of the child that started them, as a daemon does.
//!
//! A child's end is its group's end, and a process that made itself a session of its own is in
//! another group. While [`Strays`] lives, whatever loses its parent below hopbench becomes a child
//! of hopbench itself (`PR_SET_CHILD_SUBREAPER`), so that it can be found and killed.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

use crate::processes::{self, Process};

/// Ends what has strayed from the children that are started in a directory, at the latest when
/// dropped.
#[derive(Debug)]
pub(crate) struct Strays {
    directory: PathBuf,
}

/// Children that have an owner.
static OWNED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Each round finds what the one before has lost its parent by; more generations are hostile.
const GENERATIONS_MAX: usize = 100;

impl Strays {
    /// From here on. One at a time: it is a property of the whole process.
    pub(crate) fn adopt(directory: &Path) -> io::Result<Self> {
        set_child_subreaper(true)?;
        let directory = directory.to_owned();
        Ok(Self { directory })
    }

    /// Kills and reaps them; the names of those that were in none of the children's `groups`. After
    /// the children themselves have ended: what still has a parent is not found.
    pub(crate) fn end(&self, groups: &[u32]) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..GENERATIONS_MAX {
            let mut found = orphans().filter(|orphan| self.is_ours(orphan)).peekable();
            if found.peek().is_none() {
                break;
            }
            for orphan in found {
                let Ok(pid) = orphan.pid.try_into().map(Pid::from_raw) else {
                    continue;
                };
                // It may have ended by itself, and waits to be reaped. One of another user can't be
                // killed, and is let be.
                let is_over = kill(pid, Signal::SIGKILL).is_ok() && waitpid(pid, None).is_ok();
                if is_over && !orphan.has_ended && !groups.contains(&orphan.group) {
                    names.push(orphan.name);
                }
            }
        }
        names
    }

    /// Whether an orphan comes from the directory. Others do, too: a shell that becomes hopbench by
    /// `exec` may have children, and what loses its parent in a container is its first process's.
    fn is_ours(&self, orphan: &Process) -> bool {
        let process = PathBuf::from(format!("/proc/{}", orphan.pid));
        let mentions = |file| {
            let text = fs::read(process.join(file)).unwrap_or_default();
            contains(&text, self.directory.as_os_str().as_bytes())
        };
        // A server may write its title over its environment, and a daemon go elsewhere.
        let works_there = fs::read_link(process.join("cwd"));
        orphan.has_ended
            || works_there.is_ok_and(|at| at.starts_with(&self.directory))
            || mentions("environ")
            || mentions("cmdline")
    }
}

impl Drop for Strays {
    fn drop(&mut self) {
        self.end(&[]);
        // What was possible before is so again.
        let _ = set_child_subreaper(false);
    }
}

/// Takes a child for one that has an owner, who alone may wait for it.
pub(super) fn own(pid: u32) {
    OWNED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(pid);
}

/// Once it has been waited for: its number may be another's.
pub(super) fn disown(pid: u32) {
    OWNED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&pid);
}

/// Children of this process that nobody owns.
fn orphans() -> impl Iterator<Item = Process> {
    let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let me = std::process::id();
    let processes = processes::all().unwrap_or_default().into_iter();
    processes.filter(move |it| it.parent == me && !owned.contains(&it.pid))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
