//! Processes that left the group of the child that started them, as a daemon does.
//!
//! A child's end is its group's end, and a process that made itself a session of its own is in
//! another group. While [`Strays`] lives, whatever loses its parent below hopbench becomes a child
//! of hopbench itself (`PR_SET_CHILD_SUBREAPER`), so that it can be found and killed.

use std::{
    collections::BTreeSet,
    io,
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

/// Ends what has strayed from the children that were started since, at the latest when dropped.
#[derive(Debug)]
pub(crate) struct Strays {
    /// What a shell had started before it became hopbench by `exec`.
    inherited: BTreeSet<u32>,
}

/// Children that have an owner.
static OWNED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Each round finds what the one before has lost its parent by; more generations are hostile.
const GENERATIONS_MAX: usize = 100;

impl Strays {
    /// From here on. One at a time: it is a property of the whole process.
    pub(crate) fn adopt() -> io::Result<Self> {
        let inherited = orphans().map(|orphan| orphan.pid).collect();
        set_child_subreaper(true)?;
        Ok(Self { inherited })
    }

    /// Kills and reaps them; the names of those that were in none of the children's `groups`. After
    /// the children themselves have ended: what still has a parent is not found.
    pub(crate) fn end(&self, groups: &[u32]) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..GENERATIONS_MAX {
            let found = orphans().filter(|orphan| !self.inherited.contains(&orphan.pid));
            let found: Vec<Process> = found.collect();
            if found.is_empty() {
                break;
            }
            for orphan in found {
                let Ok(pid) = orphan.pid.try_into().map(Pid::from_raw) else {
                    continue;
                };
                // It may have ended by itself, and waits to be reaped. One of another user can't be
                // killed, and is let be.
                let is_over = kill(pid, Signal::SIGKILL).is_ok() && waitpid(pid, None).is_ok();
                if is_over && !groups.contains(&orphan.group) {
                    names.push(orphan.name);
                }
            }
        }
        names
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
