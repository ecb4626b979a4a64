//! Processes that left the group of the child that started them, as a daemon does.
//!
//! Ending a child ends its process group, but a process that started its own session is in another
//! group. While [`Strays`] lives, every process below hopbench that loses its parent becomes a
//! child of hopbench itself (`PR_SET_CHILD_SUBREAPER`), so that it can be found and killed.

use std::{
    collections::{BTreeMap, BTreeSet},
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

use super::table::{self, Process};

/// Ends processes that have strayed from the children started in a directory, or with its name in
/// their environment, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Strays {
    directory: PathBuf,
}

/// How many there are: the kernel's setting is that of the whole process.
static ADOPTING: Mutex<u32> = Mutex::new(0);

/// Children that have an owner.
static OWNED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Maximum number of rounds. Each round finds the processes that lost their parent in the one
/// before; more generations are hostile.
const GENERATIONS_MAX: usize = 100;

impl Strays {
    /// Adopts orphans from now on. Each of several ends those of its own directory.
    pub(crate) fn adopt(directory: &Path) -> io::Result<Self> {
        let mut adopting = ADOPTING.lock().unwrap_or_else(PoisonError::into_inner);
        set_child_subreaper(true)?;
        *adopting += 1;
        let directory = directory.to_owned();
        Ok(Self { directory })
    }

    /// Returns those that have ended, by their process IDs: processes with a session of their own,
    /// which were in none of the children's `groups`. Nobody has counted their CPU time.
    pub(crate) fn ended(&self, groups: &[u32]) -> BTreeMap<u32, String> {
        let me = std::process::id();
        let processes = table::all().unwrap_or_default();
        let own = processes.iter().find(|it| it.pid == me);
        // The first process of a container gets everybody's orphans.
        let own = own.filter(|own| own.parent > 0).map(|own| own.session);
        let is_stray = |it: &Process| {
            let is_own = own.is_none_or(|own| own == it.session);
            it.has_ended && !is_own && !groups.contains(&it.group)
        };
        let ended = orphans_among(processes).filter(is_stray);
        ended.map(|it| (it.pid, it.name)).collect()
    }

    /// Kills and reaps strays. Returns the names of those that were in none of the children's
    /// `groups`. Must come after the children have ended: a process that still has a parent is not
    /// found.
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
                // It may have ended by itself and be waiting to be reaped. A process of another
                // user can't be killed and is left alone.
                let is_over = kill(pid, Signal::SIGKILL).is_ok() && waitpid(pid, None).is_ok();
                if is_over && !orphan.has_ended && !groups.contains(&orphan.group) {
                    names.push(orphan.name);
                }
            }
        }
        names
    }

    /// Returns whether an orphan comes from the directory. Others don't: a shell that becomes
    /// hopbench by `exec` may have children, and in a container hopbench may be the first process,
    /// which gets all orphans.
    fn is_ours(&self, orphan: &Process) -> bool {
        let process = PathBuf::from(format!("/proc/{}", orphan.pid));
        let mentions = |file| {
            let text = fs::read(process.join(file)).unwrap_or_default();
            contains(&text, self.directory.as_os_str().as_bytes())
        };
        // A server may overwrite its environment with its title, and a daemon may change its
        // directory.
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
        let mut adopting = ADOPTING.lock().unwrap_or_else(PoisonError::into_inner);
        *adopting -= 1;
        if *adopting == 0 {
            // Undoes what `adopt` has set.
            let _ = set_child_subreaper(false);
        }
    }
}

/// Marks a child as owned: only its owner may wait for it.
pub(super) fn own(pid: u32) {
    OWNED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(pid);
}

/// Forgets a child that has been waited for: its process ID may be another's.
pub(super) fn disown(pid: u32) {
    OWNED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&pid);
}

/// Returns the children of this process that have no owner.
fn orphans() -> impl Iterator<Item = Process> {
    orphans_among(table::all().unwrap_or_default())
}

fn orphans_among(processes: Vec<Process>) -> impl Iterator<Item = Process> {
    let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let me = std::process::id();
    let processes = processes.into_iter();
    processes.filter(move |it| it.parent == me && !owned.contains(&it.pid))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
