//! Signs of noisy neighbours: others that use the cores which a run is going to need.

use std::{fs, path::Path, time::Duration};

use hopbench_analysis::record::Disturbance;
use rustix::{
    event::{Timespec, poll},
    io::Errno,
};

use super::{quota::count, usage::MachineSnapshot};

/// How one sign looked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sign {
    pub(crate) what: &'static str,
    /// Value and meaning; or that the kernel doesn't tell.
    pub(crate) note: String,
    pub(crate) is_noisy: bool,
}

/// How long stolen time is watched. The kernel counts it in ticks of 10 ms, so that less would be
/// too coarse, and more would make whoever waits impatient.
const WATCHED: Duration = Duration::from_millis(200);

/// Largest share of the cores' time that others may use. An idle machine is below 3 %.
const BUSY_SHARE_MAX: f64 = 0.1;

/// Largest share of the cores' time that others may steal, as in a trial.
const STEAL_SHARE_MAX: f64 = 0.05;

/// Largest share of the last ten seconds in which some task may have waited for a core. An idle
/// machine is below 2 %.
const PRESSURE_PERCENT_MAX: f64 = 10.0;

/// Looks for signs. Waits for [`WATCHED`].
pub(crate) fn signs() -> [Sign; 4] {
    let seen = watch();
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let usage = cgroup_usage(&groups, Path::new("/sys/fs/cgroup"));
    [
        busy(&seen),
        steal(&seen),
        cpu_pressure(&pressure),
        cgroup_throttling(&usage.unwrap_or_default()),
    ]
}

/// Looks how busy the cores are. The load average can't tell: it is that of the last minutes, and
/// so of what has ended, such as a build. Waits for [`WATCHED`].
pub(crate) fn busy_cores() -> Sign {
    busy(&watch())
}

fn watch() -> Disturbance {
    let before = MachineSnapshot::take();
    wait();
    MachineSnapshot::take().since(&before)
}

fn wait() {
    let Ok(timeout) = Timespec::try_from(WATCHED) else {
        return;
    };
    // No descriptor can become ready. After a signal, the time watched is just shorter.
    let _: Result<usize, Errno> = poll(&mut [], Some(&timeout));
}

fn busy(seen: &Disturbance) -> Sign {
    let busy_us = seen.busy_us.map(|busy_us| {
        let own_us = seen.harness_us.unwrap_or_default();
        (busy_us as f64 - own_us).max(0.0)
    });
    let advice = "something else is running; wait until it is done";
    of_time("busy cores", seen, busy_us, (BUSY_SHARE_MAX, advice))
}

fn steal(seen: &Disturbance) -> Sign {
    let advice = "other guests use this machine's cores; measure when they don't";
    let limit = (STEAL_SHARE_MAX, advice);
    of_time("stolen time", seen, Some(seen.steal_us as f64), limit)
}

/// Judges the share of all cores' time in which something was seen; beyond its limit, there is
/// advice.
fn of_time(
    what: &'static str,
    seen: &Disturbance,
    time_us: Option<f64>,
    (share_max, advice): (f64, &str),
) -> Sign {
    let share = seen.machine_us().zip(time_us);
    let share = share.map(|(all_us, time_us)| time_us / all_us);
    let is_noisy = share.is_some_and(|share| share > share_max);
    let watched_ms = WATCHED.as_millis();
    let note = match share {
        None => "not known: '/proc/stat' can't be read".to_owned(),
        Some(share) => {
            let percent = share * 100.0;
            let found = format!("{percent:.1} % of all cores' time in {watched_ms} ms");
            match is_noisy {
                true => format!("{found}: {advice}"),
                false => found,
            }
        }
    };
    Sign {
        what,
        note,
        is_noisy,
    }
}

fn cpu_pressure(pressure: &str) -> Sign {
    let percent = pressure_percent(pressure);
    let is_noisy = percent.is_some_and(|percent| percent > PRESSURE_PERCENT_MAX);
    let note = match percent {
        None => "not known: this kernel has no '/proc/pressure/cpu'".to_owned(),
        Some(percent) => format!(
            "some task waited for a core in {percent:.1} % of the last 10 s{}",
            match is_noisy {
                true => ": something else is running; wait until it is done",
                false => "",
            }
        ),
    };
    Sign {
        what: "CPU pressure",
        note,
        is_noisy,
    }
}

/// Returns `avg10` of the line `some`.
fn pressure_percent(pressure: &str) -> Option<f64> {
    let some = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some "))?;
    let average = some
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))?;
    average.parse().ok()
}

/// Returns `cpu.stat` of this process's control group, under either hierarchy. `None` if the group
/// has none that counts periods.
fn cgroup_usage(groups: &str, root: &Path) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let is_cpu = controllers.is_empty() || controllers.split(',').any(|it| it == "cpu");
        let file = root.join(controllers).join(group).join("cpu.stat");
        let usage = fs::read_to_string(file).ok().filter(|_| is_cpu)?;
        count(&usage, "nr_throttled").map(|_| usage)
    })
}

fn cgroup_throttling(usage: &str) -> Sign {
    let counts = count(usage, "nr_throttled").zip(count(usage, "nr_periods"));
    let is_noisy = counts.is_some_and(|(throttled, _)| throttled > 0);
    let note = match counts {
        None => "not known: this control group has no 'cpu.stat' that counts it".to_owned(),
        Some((_, 0)) => "no quota so far".to_owned(),
        Some((throttled, periods)) => format!(
            "in {throttled} of {periods} periods since the group began{}",
            match is_noisy {
                true => ": its quota holds up what runs here; raise 'cpu.max'",
                false => "",
            }
        ),
    };
    Sign {
        what: "throttling",
        note,
        is_noisy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_does_not_tell_is_not_known() {
        let signs = [
            busy(&Disturbance::default()),
            steal(&Disturbance::default()),
            cpu_pressure(""),
            cgroup_throttling("usage_usec 5\n"),
        ];
        for sign in signs {
            assert!(sign.note.starts_with("not known: "), "{sign:?}");
            assert!(!sign.is_noisy, "{sign:?}");
        }
    }

    #[test]
    fn neighbours_are_noticed() {
        let seen = |steal_us| Disturbance {
            elapsed_us: Some(200_000),
            cores: Some(2),
            steal_us,
            ..Disturbance::default()
        };
        let [quiet, noisy] = [10_000, 40_000].map(|us| steal(&seen(us)));
        assert_eq!(quiet.note, "2.5 % of all cores' time in 200 ms");
        assert!(!quiet.is_noisy && noisy.is_noisy, "{noisy:?}");
        assert!(
            noisy.note.ends_with(
                " in 200 ms: other guests use this machine's cores; measure when they don't"
            ),
            "{noisy:?}"
        );

        let pressure = |percent| {
            cpu_pressure(&format!(
                "some avg10={percent} avg60=90.00 avg300=90.00 total=7\nfull avg10=0.00\n"
            ))
        };
        let [quiet, noisy] = ["1.25", "33.00"].map(pressure);
        assert!(
            !quiet.is_noisy && quiet.note.contains(" 1.2 % of the"),
            "{quiet:?}"
        );
        assert!(
            noisy.is_noisy && noisy.note.contains(" 33.0 % of the"),
            "{noisy:?}"
        );

        let usage = |throttled| format!("nr_periods 40\nnr_throttled {throttled}\n");
        let [quiet, noisy] = [0, 3].map(|throttled| cgroup_throttling(&usage(throttled)));
        assert!(!quiet.is_noisy && noisy.is_noisy);
        assert!(noisy.note.starts_with("in 3 of 40 periods"), "{noisy:?}");
        assert_eq!(
            cgroup_throttling("nr_periods 0\nnr_throttled 0\n").note,
            "no quota so far"
        );
    }

    #[test]
    fn cores_are_busy_with_what_runs_now() {
        let seen = |busy_us, harness_us| Disturbance {
            elapsed_us: Some(200_000),
            cores: Some(2),
            busy_us: Some(busy_us),
            harness_us: Some(harness_us),
            ..Disturbance::default()
        };
        let [quiet, noisy] = [20_000, 80_000].map(|us| busy(&seen(us, 0.0)));
        assert_eq!(quiet.note, "5.0 % of all cores' time in 200 ms");
        assert!(!quiet.is_noisy && noisy.is_noisy, "{noisy:?}");
        assert!(noisy.note.starts_with("20.0 % of all"), "{noisy:?}");
        assert!(noisy.note.contains(": something else is"), "{noisy:?}");
        // hopbench itself is nobody else, and what it used is known more exactly.
        assert!(!busy(&seen(80_000, 60_000.0)).is_noisy);
        assert_eq!(
            busy(&seen(0, 60_000.0)).note,
            "0.0 % of all cores' time in 200 ms"
        );
    }

    #[test]
    fn both_hierarchies_count_throttling() {
        let root = tempfile::tempdir().expect("a directory");
        let usage = |groups: &str| cgroup_usage(groups, root.path());
        for (group, text) in [
            ("cpu,cpuacct/box", "nr_throttled 1\n"),
            ("own", "user_usec 2\n"),
        ] {
            let group = root.path().join(group);
            fs::create_dir_all(&group).expect("made");
            fs::write(group.join("cpu.stat"), text).expect("written");
        }
        let old = "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n";
        assert_eq!(usage(old).as_deref(), Some("nr_throttled 1\n"));
        // The second hierarchy counts only in groups that have the controller.
        assert_eq!(usage("0::/own\n"), None);
        assert_eq!(usage(""), None);
    }

    #[test]
    fn this_machine_is_looked_at() {
        let names = signs().map(|sign| sign.what);
        let expected = ["busy cores", "stolen time", "CPU pressure", "throttling"];
        assert_eq!(names, expected);
    }
}
