//! Usage of processes so far, as the kernel counts it.
//!
//! CPU time is read from each process's own clock, in nanoseconds; `/proc/PID/stat` counts in ticks
//! of 10 ms. A child stands for its whole process group, so that a server's workers are included.

mod machine;
mod processor;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use anyhow::{Context, bail};
use hopbench_analysis::record::ProcessUsage;
use nix::{
    sys::time::TimeValLike,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

pub(crate) use self::machine::MachineSnapshot;
use crate::{
    catalog::ProcessDefinition,
    process::table::{self, Process},
};

/// Usage of one process group so far.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    cpu_us: HashMap<u32, f64>,
    /// CPU time of children that have ended and were waited for, as counted for the process that
    /// waited.
    reaped_us: f64,
    /// CPU time of threads with their own role, by role.
    thread_cpu_us: BTreeMap<String, HashMap<u32, f64>>,
    /// Voluntary and involuntary context switches, by thread.
    switches: HashMap<u32, (u64, u64)>,
    /// Time in which threads were runnable but not running, by role and thread.
    run_queue_wait_us: BTreeMap<String, HashMap<u32, f64>>,
    /// Migrations to other cores, by thread; none if the kernel doesn't report them.
    migrations: HashMap<u32, u64>,
    held: Held,
    /// Resident memory in KiB, by process.
    rss_kib: HashMap<u32, u64>,
    threads: u64,
}

/// Memory and descriptors of a process group at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) rss_kib: u64,
    pub(crate) peak_kib: u64,
    /// Open descriptors; `None` if those of a process can't be read.
    pub(crate) descriptors: Option<u64>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            rss_kib: 0,
            peak_kib: 0,
            descriptors: Some(0),
        }
    }
}

impl Held {
    /// Reads what the process group that `leader` leads holds.
    pub(crate) fn by(leader: u32) -> anyhow::Result<Self> {
        let mut held = Self::default();
        for process in group_members(leader).context("could not read '/proc'")? {
            match held.add(process.pid) {
                Err(error) if process.pid == leader => return Err(error),
                // A worker may end meanwhile.
                Err(_) | Ok(()) => {}
            }
        }
        Ok(held)
    }

    fn add(&mut self, pid: u32) -> anyhow::Result<()> {
        let directory = Path::new("/proc").join(pid.to_string());
        let status = Status::read(&directory)?;
        let descriptors = fs::read_dir(directory.join("fd")).ok();
        let descriptors = descriptors.map(|files| files.count() as u64);
        self.descriptors = self.descriptors.zip(descriptors).map(|(sum, of)| sum + of);
        self.rss_kib += status.number("VmRSS");
        self.peak_kib += status.number("VmHWM");
        Ok(())
    }
}

impl Snapshot {
    /// Reads the usage of the process group that `leader` leads.
    pub(crate) fn take(leader: u32, definition: &ProcessDefinition) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        for process in group_members(leader).context("could not read '/proc'")? {
            snapshot.reaped_us += process.reaped_us;
            match snapshot.add(process.pid, definition) {
                Err(error) if process.pid == leader => {
                    return Err(error)
                        .with_context(|| format!("could not read the usage of process {leader}"));
                }
                // A worker may end meanwhile.
                Err(_) | Ok(()) => {}
            }
        }
        Ok(snapshot)
    }

    fn add(&mut self, pid: u32, definition: &ProcessDefinition) -> anyhow::Result<()> {
        self.cpu_us.insert(pid, process_cpu_us(pid)?);
        let others_kib = self.held.rss_kib;
        self.held.add(pid)?;
        self.rss_kib.insert(pid, self.held.rss_kib - others_kib);
        let directory = Path::new("/proc").join(pid.to_string());
        for thread in fs::read_dir(directory.join("task"))? {
            let thread = thread?.path();
            // A thread may end meanwhile.
            let _ = self.add_thread(&thread, definition);
        }
        Ok(())
    }

    fn add_thread(&mut self, thread: &Path, definition: &ProcessDefinition) -> anyhow::Result<()> {
        let id: u32 = thread
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .parse()?;
        let status = Status::read(thread)?;
        let voluntary = status.number("voluntary_ctxt_switches");
        let involuntary = status.number("nonvoluntary_ctxt_switches");
        self.switches.insert(id, (voluntary, involuntary));
        self.threads += 1;
        let name = status.text("Name").unwrap_or_default();
        let role = definition
            .thread_roles
            .iter()
            .find(|(prefix, _)| name.starts_with(*prefix));
        let migrations = table::text(&thread.join("sched")).unwrap_or_default();
        self.migrations
            .extend(nr_migrations(&migrations).map(|times| (id, times)));
        // Nanoseconds on a core, nanoseconds in its run queue, times the thread got a core.
        let schedstat = table::text(&thread.join("schedstat"))?;
        let mut ns = schedstat.split(' ').map(str::parse::<f64>);
        let (Some(ran_ns), Some(waited_ns)) = (ns.next(), ns.next()) else {
            bail!("'schedstat' has no times");
        };
        let add = |of: &mut BTreeMap<String, HashMap<u32, f64>>, role: &str, us| {
            of.entry(role.to_owned()).or_default().insert(id, us);
        };
        let own_role = role.map(|(_, role)| role);
        let waiting_role = own_role.unwrap_or(&definition.role);
        add(&mut self.run_queue_wait_us, waiting_role, waited_ns? / 1e3);
        if let Some(role) = own_role {
            add(&mut self.thread_cpu_us, role, ran_ns? / 1e3);
        }
        Ok(())
    }

    pub(crate) fn all_rss_kib(&self) -> u64 {
        self.held.rss_kib
    }

    pub(crate) fn descriptors(&self) -> Option<u64> {
        self.held.descriptors
    }

    /// Adds what the workers had used that have ended since an earlier moment, as far as it was
    /// known then. Memory and descriptors stay those of now, but for the peak.
    pub(crate) fn add_ended(&mut self, earlier: Option<&Self>) {
        let Some(earlier) = earlier else {
            return;
        };
        if earlier
            .cpu_us
            .keys()
            .all(|pid| self.cpu_us.contains_key(pid))
        {
            return;
        }
        let add = |now: &mut HashMap<u32, f64>, earlier: &HashMap<u32, f64>| {
            for (id, us) in earlier {
                now.entry(*id).or_insert(*us);
            }
        };
        // Otherwise somebody has waited for them, and has their CPU time now.
        if self.reaped_us <= earlier.reaped_us {
            add(&mut self.cpu_us, &earlier.cpu_us);
        }
        for (role, threads) in &earlier.thread_cpu_us {
            add(self.thread_cpu_us.entry(role.clone()).or_default(), threads);
        }
        for (role, threads) in &earlier.run_queue_wait_us {
            add(
                self.run_queue_wait_us.entry(role.clone()).or_default(),
                threads,
            );
        }
        for (id, counts) in &earlier.switches {
            self.switches.entry(*id).or_insert(*counts);
        }
        for (id, times) in &earlier.migrations {
            self.migrations.entry(*id).or_insert(*times);
        }
        self.held.peak_kib = self.held.peak_kib.max(earlier.held.peak_kib);
        self.threads = self.threads.max(earlier.threads);
    }

    /// Returns whether there are processes that were not there before.
    pub(crate) fn has_new_workers(&self, before: &Self) -> bool {
        let mut pids = self.cpu_us.keys();
        pids.any(|pid| !before.cpu_us.contains_key(pid))
    }

    /// Returns the resident memory of the processes that were there before, in KiB. What others
    /// have ends with them, and is no growth.
    fn rss_kib_of_those_before(&self, before: &Self) -> u64 {
        let there = self.rss_kib.iter();
        let there = there.filter(|(pid, _)| before.cpu_us.contains_key(pid));
        there.map(|(_, kib)| kib).sum()
    }

    /// Replaces the resident memory and the number of descriptors by those of an earlier moment.
    pub(crate) fn remember_held_of(&mut self, earlier: &Self) {
        self.held.rss_kib = earlier.held.rss_kib;
        self.held.descriptors = earlier.held.descriptors;
    }

    /// Returns the usage since `before`: the process's record, and CPU time by role.
    pub(crate) fn since(
        &self,
        before: &Self,
        definition: &ProcessDefinition,
    ) -> (ProcessUsage, BTreeMap<String, f64>) {
        let cpu_us = self.cpu_us_since(before);
        let mut by_role: BTreeMap<String, f64> = BTreeMap::new();
        for (role, threads) in &self.thread_cpu_us {
            let none = HashMap::new();
            let earlier = before.thread_cpu_us.get(role).unwrap_or(&none);
            by_role.insert(role.clone(), difference(threads, earlier));
        }
        let others: f64 = by_role.values().sum();
        *by_role.entry(definition.role.clone()).or_default() += (cpu_us - others).max(0.0);

        let switches = |field: fn(&(u64, u64)) -> u64| {
            let since = self.switches.iter().map(|(id, now)| {
                let earlier = before.switches.get(id).map_or(0, field);
                field(now).saturating_sub(earlier)
            });
            since.sum()
        };
        let usage = ProcessUsage {
            name: definition.name.clone(),
            role: definition.role.clone(),
            cpu_us,
            context_switches_voluntary: switches(|(voluntary, _)| *voluntary),
            context_switches_involuntary: switches(|(_, involuntary)| *involuntary),
            migrations: self.migrations_since(before),
            rss_before_kib: before.held.rss_kib,
            rss_after_kib: self.rss_kib_of_those_before(before),
            rss_peak_kib: self.held.peak_kib,
            threads: self.threads,
            descriptors_before: before.held.descriptors,
            descriptors_after: self.held.descriptors,
        };
        (usage, by_role)
    }

    /// Returns how long present threads were runnable and waited for a core, by role.
    pub(crate) fn run_queue_wait_us_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let none = HashMap::new();
        let of_role = |(role, now): (&String, &HashMap<u32, f64>)| {
            let earlier = before.run_queue_wait_us.get(role).unwrap_or(&none);
            (role.clone(), difference(now, earlier))
        };
        self.run_queue_wait_us.iter().map(of_role).collect()
    }

    fn migrations_since(&self, before: &Self) -> Option<u64> {
        let since = self.migrations.iter().map(|(id, now)| {
            let earlier = before.migrations.get(id).copied().unwrap_or_default();
            now.saturating_sub(earlier)
        });
        (!self.migrations.is_empty()).then(|| since.sum())
    }

    /// Returns the CPU time of the group. If a worker has ended since, usually another process has
    /// waited for it and has its time from then on, to a tick. If nobody in the group waited for
    /// it, its time is unknown.
    fn cpu_us_since(&self, before: &Self) -> f64 {
        let survivors = difference(&self.cpu_us, &before.cpu_us);
        let total = |snapshot: &Self| snapshot.cpu_us.values().sum::<f64>() + snapshot.reaped_us;
        if self.reaped_us > before.reaped_us {
            survivors.max(total(self) - total(before))
        } else {
            survivors
        }
    }
}

/// Returns by how much the present entries have grown in total.
fn difference(now: &HashMap<u32, f64>, before: &HashMap<u32, f64>) -> f64 {
    now.iter()
        .map(|(id, us)| us - before.get(id).copied().unwrap_or(0.0))
        .sum()
}

/// Returns the CPU time of a process so far, by its own clock, in microseconds.
pub(crate) fn process_cpu_us(pid: u32) -> anyhow::Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
    Ok(clock_gettime(clock)?.num_nanoseconds() as f64 / 1e3)
}

/// Returns how often a thread moved to another core, from its `sched` file, which only some kernels
/// have.
fn nr_migrations(sched: &str) -> Option<u64> {
    let line = sched
        .lines()
        .find(|line| line.starts_with("se.nr_migrations"))?;
    line.rsplit_once(':')?.1.trim().parse().ok()
}

/// Returns the processes of a group; only the leader if they can't be listed.
pub(crate) fn group(leader: u32) -> Vec<u32> {
    let members = group_members(leader).unwrap_or_default();
    // A process that has ended can't be profiled.
    let alive = members.into_iter().filter(|process| !process.has_ended);
    let mut pids: Vec<u32> = alive.map(|process| process.pid).collect();
    if !pids.contains(&leader) {
        pids.insert(0, leader);
    }
    pids
}

/// Returns the processes whose process group `leader` leads.
fn group_members(leader: u32) -> io::Result<Vec<Process>> {
    let mut members = table::all()?;
    members.retain(|process| process.group == leader);
    Ok(members)
}

/// A `status` file of `/proc`.
struct Status(String);

impl Status {
    fn read(directory: &Path) -> io::Result<Self> {
        Ok(Self(table::text(&directory.join("status"))?))
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim()))
    }

    /// Returns the number of a field; memory is in KiB.
    fn number(&self, field: &str) -> u64 {
        let text = self.text(field).and_then(|text| text.split(' ').next());
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(thread_roles: BTreeMap<String, String>) -> ProcessDefinition {
        ProcessDefinition {
            name: "test".to_owned(),
            role: "main".to_owned(),
            command: Vec::new(),
            version: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            admin: None,
            takes_faults: false,
            stops_with_stdin: true,
            thread_roles,
        }
    }

    #[test]
    fn a_worker_that_was_waited_for_is_counted() {
        let snapshot = |cpu_us: &[(u32, f64)], reaped_us: f64| Snapshot {
            cpu_us: cpu_us.iter().copied().collect(),
            reaped_us,
            ..Snapshot::default()
        };
        let before = snapshot(&[(1, 100.0), (2, 500.0)], 0.0);
        // Process 2 used 700 µs more and ended; process 3 came and went, with 400 µs.
        let after = snapshot(&[(1, 150.0)], 1_600.0);
        assert_eq!(after.cpu_us_since(&before), 50.0 + 700.0 + 400.0);
        // Nobody waited for process 2.
        let after = snapshot(&[(1, 150.0)], 0.0);
        assert_eq!(after.cpu_us_since(&before), 50.0);
    }

    #[test]
    fn workers_that_end_with_their_connections_are_counted() {
        let snapshot = |cpu_us: &[(u32, f64)], reaped_us: f64, peak_kib: u64| Snapshot {
            cpu_us: cpu_us.iter().copied().collect(),
            switches: cpu_us.iter().map(|(pid, _)| (*pid, (2, 1))).collect(),
            rss_kib: cpu_us.iter().map(|(pid, _)| (*pid, 50)).collect(),
            reaped_us,
            held: Held {
                peak_kib,
                ..Held::default()
            },
            ..Snapshot::default()
        };
        let definition = definition(BTreeMap::new());
        let before = snapshot(&[(1, 100.0)], 0.0, 50);
        let shortly_before_the_end = snapshot(&[(1, 130.0), (2, 500.0)], 0.0, 100);
        // Process 2 has ended, and nobody waited for it.
        let mut after = snapshot(&[(1, 150.0)], 0.0, 50);
        after.add_ended(Some(&shortly_before_the_end));
        let (usage, _) = after.since(&before, &definition);
        assert_eq!((usage.cpu_us, usage.rss_peak_kib), (550.0, 100));
        assert_eq!(
            (usage.context_switches_voluntary, usage.rss_after_kib),
            (2, 50)
        );
        // Process 1 waited for it, and has its time.
        let mut after = snapshot(&[(1, 150.0)], 510.0, 50);
        after.add_ended(Some(&shortly_before_the_end));
        assert_eq!(after.cpu_us_since(&before), 560.0);
        // It is still there: what it has is not added, and its memory is no growth.
        let mut after = snapshot(&[(1, 150.0), (2, 520.0)], 0.0, 100);
        after.add_ended(Some(&shortly_before_the_end));
        after.add_ended(None);
        assert_eq!(after.cpu_us_since(&before), 570.0);
        assert_eq!(after.since(&before, &definition).0.rss_after_kib, 50);
    }

    /// Burns CPU time on a thread with a role, and finds it under that role.
    #[test]
    fn cpu_time_of_a_named_thread_goes_to_its_role() {
        let definition = definition([("burn".to_owned(), "burner".to_owned())].into());
        let me = std::process::id();
        let mut before = Snapshot::default();
        before.add(me, &definition).expect("own process");
        let spent_us = std::thread::scope(|scope| {
            let (done, finished) = std::sync::mpsc::channel();
            let (release, released) = std::sync::mpsc::channel::<()>();
            let burn = move || {
                let mut sum = 0_u64;
                for n in 0..20_000_000_u64 {
                    sum = std::hint::black_box(sum.wrapping_add(n));
                }
                done.send(()).expect("waited for");
                let _ = released.recv();
            };
            std::thread::Builder::new()
                .name("burn-1".to_owned())
                .spawn_scoped(scope, burn)
                .expect("a thread");
            finished.recv().expect("done");
            let mut after = Snapshot::default();
            after.add(me, &definition).expect("own process");
            drop(release);
            let (usage, by_role) = after.since(&before, &definition);
            assert!(usage.rss_after_kib > 0 && usage.threads >= 2);
            assert!(by_role.contains_key("main"));
            by_role["burner"]
        });
        assert!(spent_us > 1_000.0, "{spent_us} µs");
    }

    #[test]
    fn waits_and_migrations_are_those_since_then() {
        let sched = "server (12, #threads: 1)\n-----\nse.exec_start    :   11.5\n\
                     se.nr_migrations                             :                    7\n";
        assert_eq!(nr_migrations(sched), Some(7));
        assert_eq!(nr_migrations(""), None);
        let snapshot = |waits: &[(u32, f64)], migrations: &[(u32, u64)]| Snapshot {
            run_queue_wait_us: [("hop".to_owned(), waits.iter().copied().collect())].into(),
            migrations: migrations.iter().copied().collect(),
            ..Snapshot::default()
        };
        let before = snapshot(&[(1, 10.0), (2, 20.0)], &[(1, 3), (2, 4)]);
        // Thread 2 has ended, thread 3 is new.
        let after = snapshot(&[(1, 15.0), (3, 7.0)], &[(1, 5), (3, 1)]);
        let waits = after.run_queue_wait_us_since(&before);
        assert_eq!(waits, [("hop".to_owned(), 12.0)].into());
        assert_eq!(after.migrations_since(&before), Some(3));
        let untold = snapshot(&[], &[]);
        assert_eq!(untold.migrations_since(&before), None);
    }
}
