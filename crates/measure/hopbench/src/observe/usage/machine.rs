//! Activity of the machine as a whole so far.

use std::{fs, path::Path, process, time::Instant};

use hopbench_analysis::record::Disturbance;

use super::{process_cpu_us, processor};
use crate::{observe::quota, process::table::TICK_US};

/// Counters of the machine at one moment.
#[derive(Debug)]
pub(crate) struct MachineSnapshot {
    taken: Instant,
    time: Option<MachineTime>,
    /// CPU time of this process.
    own_us: Option<f64>,
    cpu_pressure_us: Option<u64>,
    frequency_mhz: Option<(f64, f64)>,
    throttled: Option<u64>,
    quota_stops: Option<u64>,
    listen_overflows: Option<u64>,
}

/// Time of all cores in microseconds, which the kernel counts in ticks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct MachineTime {
    cores: u64,
    busy_us: u64,
    idle_us: u64,
    irq_us: u64,
    softirq_us: u64,
    steal_us: u64,
}

impl MachineSnapshot {
    pub(crate) fn take() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let taken = Instant::now();
        Self {
            taken,
            time: MachineTime::parse(&stat),
            own_us: process_cpu_us(process::id()).ok(),
            cpu_pressure_us: cpu_pressure_us(),
            frequency_mhz: processor::frequency_mhz(Path::new(processor::CPUS)),
            throttled: processor::throttled(Path::new(processor::CPUS)),
            quota_stops: quota::stops(),
            listen_overflows: listen_overflows(),
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Disturbance {
        let times = self.time.zip(before.time);
        let since = |of: fn(&MachineTime) -> u64| {
            let (now, before) = times.as_ref()?;
            Some(of(now).saturating_sub(of(before)))
        };
        let pressure = self.cpu_pressure_us.zip(before.cpu_pressure_us);
        let throttled = self.throttled.zip(before.throttled);
        let quota_stops = self.quota_stops.zip(before.quota_stops);
        let listen_overflows = self.listen_overflows.zip(before.listen_overflows);
        let own_us = self.own_us.zip(before.own_us);
        let grown = |(now, before): (u64, u64)| now.saturating_sub(before);
        let elapsed_us = self.taken.duration_since(before.taken).as_micros();
        Disturbance {
            elapsed_us: elapsed_us.try_into().ok(),
            cores: self.time.map(|time| time.cores),
            busy_us: since(|time| time.busy_us),
            irq_us: since(|time| time.irq_us),
            softirq_us: since(|time| time.softirq_us),
            harness_us: own_us.map(|(now, before)| now - before),
            idle_us: since(|time| time.idle_us),
            steal_us: since(|time| time.steal_us).unwrap_or_default(),
            cpu_pressure_us: pressure.map(grown),
            frequency_share: self.frequency_mhz.map(|(now, most)| now / most),
            throttled: throttled.map(grown),
            quota_stops: quota_stops.map(grown),
            listen_overflows: listen_overflows.map(grown),
        }
    }
}

impl MachineTime {
    /// Parses `/proc/stat`.
    fn parse(stat: &str) -> Option<Self> {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks = all.split_whitespace().map(|field| field.parse::<u64>());
        let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
        // `user` and `nice` include the time of guests.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
            return None;
        };
        let is_core = |line: &&str| {
            let number = line.strip_prefix("cpu");
            number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
        };
        Some(Self {
            cores: stat.lines().filter(is_core).count().try_into().ok()?,
            busy_us: (user + nice + system) * TICK_US,
            idle_us: (idle + iowait) * TICK_US,
            irq_us: irq * TICK_US,
            softirq_us: softirq * TICK_US,
            steal_us: steal * TICK_US,
        })
    }
}

fn listen_overflows() -> Option<u64> {
    overflows(&fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// Returns how often a listen queue was full, from a `netstat` file of `/proc`: one line with the
/// names of a protocol's counters, and one with their values.
fn overflows(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut counters = names.split(' ').zip(values.split(' '));
    let (_, value) = counters.find(|(name, _)| *name == "ListenOverflows")?;
    value.parse().ok()
}

fn cpu_pressure_us() -> Option<u64> {
    let pressure = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = pressure.lines().find(|line| line.starts_with("some"))?;
    some.rsplit_once("total=")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn snapshot(taken: Instant, own_us: f64, stat: &str) -> MachineSnapshot {
        MachineSnapshot {
            taken,
            time: MachineTime::parse(stat),
            own_us: Some(own_us),
            cpu_pressure_us: None,
            frequency_mhz: None,
            throttled: None,
            quota_stops: None,
            listen_overflows: None,
        }
    }

    #[test]
    fn everything_that_cores_do_is_read() {
        let began = Instant::now();
        let before = "cpu  100 1 50 800 7 2 30 9 4 4\ncpu0 50 0 25\ncpu1 50 1 25\nintr 5\n";
        let after = "cpu  190 2 80 890 10 3 44 14 4 4\ncpu0 90 0 45\ncpu1 100 2 35\nintr 6\n";
        let later = began + Duration::from_millis(1_175);
        let since = snapshot(later, 7e3, after).since(&snapshot(began, 2e3, before));
        assert_eq!((since.cores, since.elapsed_us), (Some(2), Some(1_175_000)));
        assert_eq!(since.busy_us, Some(1_210_000));
        assert_eq!(since.idle_us, Some(930_000));
        assert_eq!(
            (since.irq_us, since.softirq_us),
            (Some(10_000), Some(140_000))
        );
        assert_eq!((since.steal_us, since.harness_us), (50_000, Some(5e3)));
        assert!(MachineTime::parse("cpu  1 2 3\n").is_none());
        assert!(MachineTime::parse("").is_none());
    }

    #[test]
    fn full_listen_queues_are_read_by_name() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 3 52 60\n\
                       IpExt: InNoRoutes\nIpExt: 1\n";
        assert_eq!(overflows(netstat), Some(52));
        assert_eq!(overflows("IpExt: InNoRoutes\nIpExt: 1\n"), None);
        assert_eq!(overflows("TcpExt: ListenOverflows\nTcpExt: many\n"), None);
        assert_eq!(overflows(""), None);
    }

    #[test]
    fn this_machine_tells() {
        let before = MachineSnapshot::take();
        let since = MachineSnapshot::take().since(&before);
        assert!(since.cores >= Some(1), "{since:?}");
        assert!(since.idle_us.is_some() && since.elapsed_us.is_some());
        assert!(since.harness_us >= Some(0.0), "{since:?}");
    }
}
