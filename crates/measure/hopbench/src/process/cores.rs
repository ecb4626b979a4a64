//! The cores that processes may use, and threads that keep cores awake.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// The calling thread, for the kernel.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Confines what this thread starts to some cores, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Confined {
    before: CpuSet,
}

/// Keeps every core awake until it is dropped: on each, a thread spins that runs only where nothing
/// else wants to (SCHED_IDLE).
#[derive(Debug)]
pub(crate) struct Awake {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Returns the numbers of the cores that this thread may use.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(THIS_THREAD)?;
    let is_allowed = |core: &usize| allowed.is_set(*core).unwrap_or_default();
    Ok((0..CpuSet::count()).filter(is_allowed).collect())
}

impl Confined {
    /// Confines this thread, and the processes that it starts, to these cores.
    pub(crate) fn to(cores: &[usize]) -> io::Result<Self> {
        let before = sched_getaffinity(THIS_THREAD)?;
        sched_setaffinity(THIS_THREAD, &set(cores)?)?;
        Ok(Self { before })
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(THIS_THREAD, &self.before) {
            crate::console::say(&format!(
                "warning: hopbench itself remains confined to some cores: {error}"
            ));
        }
    }
}

impl Awake {
    /// Begins to spin on all cores that this thread may use. Returns once all threads do.
    pub(crate) fn begin() -> io::Result<Self> {
        let cores = allowed_cores()?;
        let mut awake = Self {
            is_over: Arc::default(),
            threads: Vec::new(),
        };
        let (tell, told) = mpsc::channel();
        for core in &cores {
            let (core, tell, is_over) = (*core, tell.clone(), Arc::clone(&awake.is_over));
            let spin = move || {
                let ready = be_last_on(core);
                let is_ready = ready.is_ok();
                // Nobody listens if another thread has failed.
                let _ = tell.send(ready);
                // Whoever waits for all threads waits until none can tell anything any more.
                drop(tell);
                while is_ready && !is_over.load(Relaxed) {
                    // A program that yields its core gives it to this thread, too. Without this,
                    // the thread would keep it until the scheduler's next tick.
                    thread::yield_now();
                }
            };
            let thread = thread::Builder::new().name(format!("awake-{core}"));
            awake.threads.push(thread.spawn(spin)?);
        }
        drop(tell);
        told.iter().collect::<io::Result<()>>()?;
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // It has said why it panicked.
            let _ = thread.join();
        }
    }
}

/// Confines this thread to a core, where it runs only if nothing else wants to.
fn be_last_on(core: usize) -> io::Result<()> {
    sched_setaffinity(THIS_THREAD, &set(&[core])?)?;
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Min,
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
    )
    .map_err(|error| io::Error::other(format!("no idle priority: {error}")))
}

fn set(cores: &[usize]) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::process::{Command, capture_within};

    fn cores_of_a_child() -> Vec<usize> {
        let command = Command {
            program: "grep".into(),
            arguments: vec![
                "Cpus_allowed_list".to_owned(),
                "/proc/self/status".to_owned(),
            ],
            stops_with_stdin: true,
            ..Command::default()
        };
        let text = capture_within(&command, Duration::from_secs(60)).expect("it is there");
        let (_, list) = text.trim().split_once(":\t").expect("a field");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let ranges = list.split(',').map(|range| match range.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(range)..=number(range),
        });
        ranges.flatten().collect()
    }

    #[test]
    fn what_is_started_meanwhile_is_confined_and_what_comes_later_is_not() {
        let all = allowed_cores().expect("known");
        assert_eq!(cores_of_a_child(), all);
        let last = *all.last().expect("one at least");
        let confined = Confined::to(&[last]).expect("allowed");
        assert_eq!(cores_of_a_child(), [last]);
        drop(confined);
        assert_eq!(cores_of_a_child(), all);
        assert!(Confined::to(&[usize::MAX]).is_err());
    }

    #[test]
    fn a_thread_of_idle_priority_spins_on_each_core() {
        /// The policy is the 41st field, and the third comes after the name in parentheses
        /// (proc_pid_stat(5), sched(7)).
        const POLICY: usize = 38;
        const SCHED_IDLE: &str = "5";
        let awake = Awake::begin().expect("allowed");
        let tasks = fs::read_dir("/proc/self/task").expect("listed");
        let mut idle = 0;
        for task in tasks {
            let task = task.expect("listed").path();
            // A thread of another test may have ended.
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let policy = fields.split_whitespace().nth(POLICY);
            if name.starts_with("awake-") && policy == Some(SCHED_IDLE) {
                idle += 1;
            }
        }
        assert_eq!(idle, allowed_cores().expect("known").len());
        drop(awake);
    }
}
