//! What processes have used so far, as the kernel counts it.
//!
//! CPU time is read from each process's own clock, in nanoseconds; `/proc/PID/stat` counts in ticks
//! of 10 ms. A child stands for its whole process group, so that a server with workers is counted
//! with them.

mod processor;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use anyhow::Context;
use hopbench_analysis::record::{Disturbance, ProcessUsage};
use nix::{
    sys::time::TimeValLike,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::{
    catalog::ProcessDefinition,
    processes::{self, Process, TICK_US},
};

/// The state of one process group.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    cpu_us: HashMap<u32, f64>,
    /// Of children that have ended and were waited for, by the process that waited.
    reaped_us: f64,
    /// Of threads with a role of their own, by role.
    thread_cpu_us: BTreeMap<String, HashMap<u32, f64>>,
    /// Voluntary and involuntary, by thread.
    switches: HashMap<u32, (u64, u64)>,
    rss_kib: u64,
    peak_kib: u64,
    threads: u64,
}

/// The state of the machine.
#[derive(Debug)]
pub(crate) struct MachineSnapshot {
    /// Busy, idle and stolen.
    machine_us: Option<[u64; 3]>,
    cpu_pressure_us: Option<u64>,
    frequency_mhz: Option<(f64, f64)>,
    throttled: Option<u64>,
}

impl Snapshot {
    /// Of the process group that `leader` leads.
    pub(crate) fn take(leader: u32, definition: &ProcessDefinition) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        for process in group_members(leader).context("could not read '/proc'")? {
            snapshot.reaped_us += process.reaped_us;
            match snapshot.add(process.pid, definition) {
                Err(error) if process.pid == leader => {
                    return Err(error)
                        .with_context(|| format!("could not read the usage of process {leader}"));
                }
                // A worker may end while it is looked at.
                Err(_) | Ok(()) => {}
            }
        }
        Ok(snapshot)
    }

    fn add(&mut self, pid: u32, definition: &ProcessDefinition) -> anyhow::Result<()> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
        self.cpu_us
            .insert(pid, clock_gettime(clock)?.num_nanoseconds() as f64 / 1e3);
        let directory = Path::new("/proc").join(pid.to_string());
        let status = Status::read(&directory)?;
        self.rss_kib += status.number("VmRSS");
        self.peak_kib += status.number("VmHWM");
        for thread in fs::read_dir(directory.join("task"))? {
            let thread = thread?.path();
            // A thread may end while it is looked at.
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
        if let Some((_, role)) = role {
            // Nanoseconds on a processor, nanoseconds in its queue, times it was put on one.
            let schedstat = fs::read_to_string(thread.join("schedstat"))?;
            let ns: f64 = schedstat.split(' ').next().unwrap_or_default().parse()?;
            self.thread_cpu_us
                .entry(role.clone())
                .or_default()
                .insert(id, ns / 1e3);
        }
        Ok(())
    }

    /// Takes the resident memory of an earlier moment for its own.
    pub(crate) fn remember_memory_of(&mut self, earlier: &Self) {
        self.rss_kib = earlier.rss_kib;
    }

    /// What was used since `before`: the process's record, and CPU time by role.
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
            rss_before_kib: before.rss_kib,
            rss_after_kib: self.rss_kib,
            rss_peak_kib: self.peak_kib,
            threads: self.threads,
        };
        (usage, by_role)
    }
}

impl Snapshot {
    /// CPU time of the group. A worker that has ended since was waited for by another, usually,
    /// which has its time from then on, to a tick; of one that nobody in the group waited for
    /// nobody knows what it used.
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

impl MachineSnapshot {
    pub(crate) fn take() -> Self {
        Self {
            machine_us: machine_us(),
            cpu_pressure_us: cpu_pressure_us(),
            frequency_mhz: processor::frequency_mhz(Path::new(processor::CPUS)),
            throttled: processor::throttled(Path::new(processor::CPUS)),
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Disturbance {
        let pressure = |now: u64| Some(now.saturating_sub(before.cpu_pressure_us?));
        let since = |index: usize| {
            let (now, before) = (self.machine_us?[index], before.machine_us?[index]);
            Some(now.saturating_sub(before))
        };
        Disturbance {
            busy_us: since(0),
            idle_us: since(1),
            steal_us: since(2).unwrap_or_default(),
            cpu_pressure_us: self.cpu_pressure_us.and_then(pressure),
            frequency_share: self.frequency_mhz.map(|(now, most)| now / most),
            throttled: self
                .throttled
                .zip(before.throttled)
                .map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

/// What those that are there now have more than they had.
fn difference(now: &HashMap<u32, f64>, before: &HashMap<u32, f64>) -> f64 {
    now.iter()
        .map(|(id, us)| us - before.get(id).copied().unwrap_or(0.0))
        .sum()
}

/// A process and those of its group; itself alone if they can't be listed.
pub(crate) fn group(leader: u32) -> Vec<u32> {
    let members = group_members(leader).unwrap_or_default();
    // One that has ended can't be looked at.
    let alive = members.into_iter().filter(|process| !process.has_ended);
    let mut pids: Vec<u32> = alive.map(|process| process.pid).collect();
    if !pids.contains(&leader) {
        pids.insert(0, leader);
    }
    pids
}

/// The processes whose process group `leader` leads.
fn group_members(leader: u32) -> io::Result<Vec<Process>> {
    let mut members = processes::all()?;
    members.retain(|process| process.group == leader);
    Ok(members)
}

/// A `status` file of `/proc`.
struct Status(String);

impl Status {
    fn read(directory: &Path) -> io::Result<Self> {
        Ok(Self(fs::read_to_string(directory.join("status"))?))
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim()))
    }

    /// The field's number; those of memory are in KiB.
    fn number(&self, field: &str) -> u64 {
        let text = self.text(field).and_then(|text| text.split(' ').next());
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// Of the kernel's count of what all cores did: busy, idle, and given to others by the hypervisor.
fn machine_us() -> Option<[u64; 3]> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let cpu = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = cpu.split_whitespace().map(|field| field.parse::<u64>());
    let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
    // Guests are in `user` and `nice` already.
    // Time in interrupts is left out: some kernels count it for no process, and it would seem to be
    // the work of others.
    let [user, nice, system, idle, iowait, _irq, _softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system;
    Some([busy, idle + iowait, steal].map(|ticks| ticks * TICK_US))
}

fn cpu_pressure_us() -> Option<u64> {
    let pressure = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = pressure.lines().find(|line| line.starts_with("some"))?;
    some.rsplit_once("total=")?.1.parse().ok()
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
            admin: None,
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
        // 2 used 700 µs more and ended; 3 came and went, with 400.
        let after = snapshot(&[(1, 150.0)], 1_600.0);
        assert_eq!(after.cpu_us_since(&before), 50.0 + 700.0 + 400.0);
        // Nobody waited for 2.
        let after = snapshot(&[(1, 150.0)], 0.0);
        assert_eq!(after.cpu_us_since(&before), 50.0);
    }

    /// Burns CPU time on a thread with a role, and finds it there and not under the main role.
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
}
