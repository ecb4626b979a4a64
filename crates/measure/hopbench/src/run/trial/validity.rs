//! Rules of validity: conditions under which a trial's metrics don't mean what they seem to.

use hopbench_analysis::record::{Load, Placement, Trial, Warning};

/// Tolerance for rate × latency. Beyond it, the generator was not always sending.
const LITTLE_TOLERANCE: f64 = 0.15;

/// Factor by which a load must take longer than asked to be an overrun: it mostly waited for single
/// requests.
const OVERRUN_FACTOR: f64 = 2.0;

/// Maximum share of the machine's time taken by the hypervisor. More than that is more than the
/// differences that are looked for.
const STEAL_SHARE_MAX: f64 = 0.05;

/// Maximum share of the machine's time used by others, beyond what may be rounding: idle and stolen
/// time are counted in ticks of 10 ms, and the processes are read one after the other.
const OTHER_SHARE_MAX: f64 = 0.1;
const OTHER_US_MAX: f64 = 30e3;

/// Share of its possible CPU time at which a generator can't send more.
const GENERATOR_SHARE_MAX: f64 = 0.95;

/// Lateness up to which the generator is not the limit; a wake-up takes some tens of microseconds.
const LATE_US_MIN: f64 = 1_000.0;

/// Connections per core with which there is always something to do, unless something other than CPU
/// time is short.
const CONNECTIONS_PER_CORE: f64 = 4.0;
const IDLE_SHARE_MAX: f64 = 0.5;

/// Minimum share of the offered rate; the rest may be lost to waiting for the last answers.
const ACHIEVED_SHARE_MIN: f64 = 0.99;

/// Maximum share of time under CPU pressure. Above it, every other request waits for a core at some
/// time.
const PRESSURE_SHARE_MAX: f64 = 0.5;

/// Minimum share of connections that are open. A server may close some, which are then reopened.
const CONNECTIONS_SHARE_MIN: f64 = 0.9;

/// Maximum share of connections that are reopened. A server that closes them after some requests
/// may be right to, but each costs as much as many requests.
const RECONNECTS_SHARE_MAX: f64 = 0.1;

/// Minimum clock, as a share of the maximum. Below it, a core is idle or is slowed down.
const CLOCK_SHARE_MIN: f64 = 0.7;

/// Minimum number of answers. With fewer, fewer than 20 lie above the 99th percentile.
const TAIL_ANSWERS_MIN: u64 = 2_000;

/// Returns a warning for each rule that the trial breaks under its load.
pub(super) fn warnings(trial: &Trial, load: &Load, irq_is_separate: bool) -> Vec<Warning> {
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    [
        errors(load),
        littles_law(trial, load),
        mean_above_p99(load),
        overrun(trial, load),
        steal(trial),
        other_load(trial, irq_is_separate),
        generator(load, cores_of_client(trial, cores)),
        idle(trial, cores),
        short_tail(load),
        dropped(load),
        dropped_late(load),
        behind(trial, load),
        cpu_pressure(trial, load),
        connections(trial, load),
        reconnects(trial, load),
        unchecked(load),
        slow_clock(trial),
        throttled(trial),
        quota_stops(trial),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn errors(load: &Load) -> Option<Warning> {
    let (failed, requests) = (load.failed(), load.requests);
    (failed > 0).then_some(Warning::Errors { failed, requests })
}

/// Checks Little's law (1961): requests in flight = rate × time that each is in flight.
fn littles_law(trial: &Trial, load: &Load) -> Option<Warning> {
    if load.open_loop.is_some() || is_uneven(trial) {
        // In an open loop, the number in flight is what is measured.
        return None;
    }
    let concurrency = trial.planned.cell.concurrency;
    let first = load.first.as_ref();
    let first_us = first.map_or(0.0, |first| first.answers as f64 * first.mean_us);
    let others = load.good - first.map_or(0, |first| first.answers).min(load.good);
    let in_flight = (others as f64 * load.latency.mean_us? + first_us) / load.elapsed_us;
    let is_off = (in_flight / f64::from(concurrency) - 1.0).abs() > LITTLE_TOLERANCE;
    (is_off && load.failed() == 0).then_some(Warning::LittlesLaw {
        concurrency,
        in_flight,
    })
}

/// Returns whether not every connection of a closed loop always has a request under way.
fn is_uneven(trial: &Trial) -> bool {
    trial.planned.cell.staged || trial.planned.think_time_ms > 0
}

fn mean_above_p99(load: &Load) -> Option<Warning> {
    let (mean_us, p99_us) = (load.latency.mean_us?, load.latency.p99_us?);
    (mean_us > p99_us).then_some(Warning::MeanAboveP99 { mean_us, p99_us })
}

fn overrun(trial: &Trial, load: &Load) -> Option<Warning> {
    let asked_ms = trial.planned.duration_ms;
    let took_ms = load.elapsed_us / 1e3;
    (took_ms > OVERRUN_FACTOR * asked_ms as f64).then_some(Warning::Overrun { asked_ms, took_ms })
}

fn steal(trial: &Trial) -> Option<Warning> {
    let share = trial.disturbance.steal_us as f64 / trial.disturbance.machine_us()?;
    (share > STEAL_SHARE_MAX).then_some(Warning::Steal { share })
}

fn other_load(trial: &Trial, irq_is_separate: bool) -> Option<Warning> {
    let other_us = trial.others_us(irq_is_separate)? - OTHER_US_MAX;
    let share = other_us / trial.disturbance.machine_us()?;
    (share > OTHER_SHARE_MAX).then_some(Warning::OtherLoad { share })
}

/// At a fixed rate the generator is busy waking up in time, so it is the limit only if it is late.
fn generator(load: &Load, cores: f64) -> Option<Warning> {
    let late_us = load.open_loop.as_ref().map(|open| open.late_us_p50);
    if late_us.is_some_and(|late_us| late_us.unwrap_or_default() < LATE_US_MIN) {
        return None;
    }
    let cores_used = load.cpu_us / load.elapsed_us;
    let cores_max = cores.min(load.threads as f64);
    let is_bound = cores_max > 0.0 && cores_used > GENERATOR_SHARE_MAX * cores_max;
    is_bound.then_some(Warning::GeneratorBound {
        cores_used,
        cores_max,
    })
}

/// Returns the number of cores that the load generator may use.
fn cores_of_client(trial: &Trial, cores: f64) -> f64 {
    match trial.planned.cell.placement {
        Placement::Free | Placement::Awake => cores,
        Placement::SameCore | Placement::Split => 1.0,
    }
}

fn idle(trial: &Trial, cores: f64) -> Option<Warning> {
    let share = trial.disturbance.idle_us? as f64 / trial.disturbance.machine_us()?;
    // On one core, the others have nothing to do.
    let is_loaded = trial.planned.cell.rate_rps.is_none()
        && trial.planned.cell.placement != Placement::SameCore
        && !is_uneven(trial)
        && f64::from(trial.planned.cell.concurrency) >= CONNECTIONS_PER_CORE * cores;
    (is_loaded && share > IDLE_SHARE_MAX).then_some(Warning::Idle { share })
}

fn short_tail(load: &Load) -> Option<Warning> {
    let good = load.latencies();
    (good < TAIL_ANSWERS_MIN).then_some(Warning::ShortTail { good })
}

fn dropped(load: &Load) -> Option<Warning> {
    let scheduled = load.open_loop.as_ref()?.scheduled;
    let dropped = load.dropped_by_path();
    (dropped > 0).then_some(Warning::Dropped { dropped, scheduled })
}

fn dropped_late(load: &Load) -> Option<Warning> {
    let open = load.open_loop.as_ref()?;
    let (dropped, scheduled) = (open.dropped_late, open.scheduled);
    (dropped > 0).then_some(Warning::DroppedLate { dropped, scheduled })
}

fn behind(trial: &Trial, load: &Load) -> Option<Warning> {
    let rate_rps = trial.planned.cell.rate_rps?;
    let offered_rps = match trial.planned.cell.staged {
        // The rate is the highest one.
        true => load.open_loop.as_ref()?.scheduled as f64 / load.elapsed_us * 1e6,
        false => f64::from(rate_rps),
    };
    let achieved_rps = load.good as f64 / load.elapsed_us * 1e6;
    let is_behind = achieved_rps < ACHIEVED_SHARE_MIN * offered_rps;
    is_behind.then_some(Warning::Behind {
        offered_rps,
        achieved_rps,
    })
}

/// In a closed loop something always waits; at a rate far below the knee nothing should.
fn cpu_pressure(trial: &Trial, load: &Load) -> Option<Warning> {
    load.open_loop.as_ref()?;
    if trial.planned.cell.placement == Placement::Awake {
        // The threads that keep the cores awake always wait.
        return None;
    }
    let share = trial.disturbance.cpu_pressure_us? as f64 / load.elapsed_us;
    (share > PRESSURE_SHARE_MAX).then_some(Warning::CpuPressure { share })
}

/// Each connection should stay open from the beginning to the end.
fn connections(trial: &Trial, load: &Load) -> Option<Warning> {
    let cell = &trial.planned.cell;
    let (open, concurrency) = (load.connections?, cell.concurrency);
    let enough = CONNECTIONS_SHARE_MIN * f64::from(concurrency);
    let is_short = cell.keep_alive && (open as f64) < enough;
    is_short.then_some(Warning::Connections { open, concurrency })
}

/// A closed loop opens its connections when it begins, a load at a fixed rate before that. Any
/// further opening means that the path closed a connection.
fn reconnects(trial: &Trial, load: &Load) -> Option<Warning> {
    let cell = &trial.planned.cell;
    let (opened, concurrency) = (load.connections_opened?, cell.concurrency);
    let own = match load.open_loop {
        None => f64::from(concurrency),
        Some(_) => 0.0,
    };
    let allowed = own + RECONNECTS_SHARE_MAX * f64::from(concurrency);
    (cell.keep_alive && opened as f64 > allowed).then_some(Warning::Reconnects {
        opened,
        concurrency,
        requests: load.requests,
    })
}

fn unchecked(load: &Load) -> Option<Warning> {
    let good = load.good;
    (load.digests_checked == 0 && good > 0).then_some(Warning::Unchecked { good })
}

fn slow_clock(trial: &Trial) -> Option<Warning> {
    let share = trial.disturbance.frequency_share?;
    (share < CLOCK_SHARE_MIN).then_some(Warning::SlowClock { share })
}

fn throttled(trial: &Trial) -> Option<Warning> {
    let times = trial.disturbance.throttled?;
    (times > 0).then_some(Warning::Throttled { times })
}

fn quota_stops(trial: &Trial) -> Option<Warning> {
    let times = trial.disturbance.quota_stops?;
    (times > 0).then_some(Warning::QuotaStops { times })
}

#[cfg(test)]
mod tests {
    use hopbench_analysis::record::{Cell, Disturbance, Latency, OpenLoop, Outcome, PlannedTrial};

    use super::*;

    /// Returns 5,000 answers in 250 ms to 8 connections, on a machine with one busy core. A third
    /// of what it did was in interrupts, which are in the processes' CPU time.
    fn trial() -> (Trial, Load) {
        let planned = PlannedTrial {
            trial: 1,
            block: 1,
            cell: Cell {
                scenario: String::new(),
                endpoint: String::new(),
                path: String::new(),
                concurrency: 8,
                keep_alive: true,
                rate_rps: None,
                build: None,
                staged: false,
                placement: Default::default(),
            },
            replicate: 0,
            duration_ms: 250,
            warm_up_ms: 0,
            requests: None,
            stages: Vec::new(),
            think_time_ms: 0,
            attempt: 0,
        };
        let trial = Trial {
            planned,
            started: String::new(),
            outcome: Outcome::Ok,
            timing: Default::default(),
            load: None,
            processes: Vec::new(),
            cpu_us: [("client", 100e3), ("origin", 100e3)]
                .map(|(role, cpu_us)| (role.to_owned(), cpu_us))
                .into(),
            run_queue_wait_us: Default::default(),
            counters: Default::default(),
            disturbance: Disturbance {
                elapsed_us: Some(270_000),
                cores: Some(1),
                busy_us: Some(140_000),
                irq_us: Some(0),
                softirq_us: Some(70_000),
                idle_us: Some(40_000),
                harness_us: Some(20e3),
                ..Disturbance::default()
            },
            warnings: Vec::new(),
            prepared: Vec::new(),
            seconds: Vec::new(),
        };
        let load = Load {
            elapsed_us: 260e3,
            requests: 5_000,
            good: 5_000,
            latency: Latency {
                mean_us: Some(400.0),
                p99_us: Some(900.0),
                ..Latency::default()
            },
            digests_checked: 64,
            cpu_us: 100e3,
            threads: 1,
            ..Load::default()
        };
        (trial, load)
    }

    fn with(change: impl FnOnce(&mut Trial, &mut Load)) -> Vec<Warning> {
        let (mut trial, mut load) = trial();
        change(&mut trial, &mut load);
        warnings(&trial, &load, false)
    }

    #[test]
    fn a_quiet_trial_breaks_no_rule() {
        assert_eq!(with(|_, _| {}), []);
        // Nor does one on a machine that reports nothing about itself.
        assert_eq!(
            with(|trial, _| trial.disturbance = Disturbance::default()),
            []
        );
    }

    #[test]
    fn each_rule_is_broken_by_what_it_is_about() {
        let (failed, requests) = (1, 5_001);
        let errors = with(|_, load| load.requests += 1);
        assert_eq!(errors, [Warning::Errors { failed, requests }]);
        let overrun = with(|trial, load| {
            load.elapsed_us = 3_016e3;
            trial.planned.cell.concurrency = 1;
            load.latency.mean_us = None;
        });
        let (asked_ms, took_ms) = (250, 3_016.0);
        assert_eq!(overrun, [Warning::Overrun { asked_ms, took_ms }]);
        let asleep = with(|_, load| load.latency.mean_us = Some(200.0));
        assert!(matches!(
            asleep[..],
            [Warning::LittlesLaw { concurrency: 8, .. }]
        ));
        let stuck = with(|_, load| load.latency.p99_us = Some(300.0));
        assert!(matches!(stuck[..], [Warning::MeanAboveP99 { .. }]));
        let few = with(|_, load| load.connections = Some(7));
        let (open, concurrency) = (7, 8);
        assert_eq!(few, [Warning::Connections { open, concurrency }]);
        assert_eq!(with(|_, load| load.connections = Some(8)), []);
        let many = |open| {
            with(|trial, load| {
                trial.planned.cell.concurrency = 100;
                load.latency.mean_us = None;
                load.connections = Some(open);
            })
        };
        assert_eq!(many(90), []);
        assert!(matches!(many(89)[..], [Warning::Connections { .. }]));
        let opened = |opened| with(|_, load| load.connections_opened = Some(opened));
        assert_eq!(opened(8), []);
        let requests = 5_000;
        let again = Warning::Reconnects {
            opened: 9,
            concurrency,
            requests,
        };
        assert_eq!(opened(9), [again]);
        let churn = with(|trial, load| {
            trial.planned.cell.keep_alive = false;
            load.connections_opened = Some(5_000);
        });
        assert_eq!(churn, []);
        let unchecked = with(|_, load| load.digests_checked = 0);
        assert_eq!(unchecked, [Warning::Unchecked { good: 5_000 }]);
        let slow = with(|trial, _| trial.disturbance.frequency_share = Some(0.5));
        assert_eq!(slow, [Warning::SlowClock { share: 0.5 }]);
        let hot = with(|trial, _| trial.disturbance.throttled = Some(3));
        assert_eq!(hot, [Warning::Throttled { times: 3 }]);
        let stopped = with(|trial, _| trial.disturbance.quota_stops = Some(55));
        assert_eq!(stopped, [Warning::QuotaStops { times: 55 }]);
        let bound = with(|_, load| load.cpu_us = 255e3);
        assert!(matches!(bound[..], [Warning::GeneratorBound { .. }]));
        let short = with(|_, load| {
            (load.good, load.requests) = (1_999, 1_999);
            load.latency.mean_us = Some(1_000.0);
            load.latency.p99_us = Some(2_000.0);
        });
        assert_eq!(short, [Warning::ShortTail { good: 1_999 }]);
    }

    #[test]
    fn a_fixed_rate_has_rules_of_its_own() {
        let open = |change: fn(&mut Trial, &mut Load)| {
            with(|trial, load| {
                trial.planned.cell.rate_rps = Some(20_000);
                load.elapsed_us = 250e3;
                // Few are in flight and the machine idles, as it should.
                load.latency.mean_us = Some(100.0);
                trial.disturbance.elapsed_us = Some(630_000);
                trial.disturbance.idle_us = Some(400_000);
                load.open_loop = Some(OpenLoop {
                    scheduled: 5_000,
                    ..OpenLoop::default()
                });
                change(trial, load);
            })
        };
        assert_eq!(open(|_, _| {}), []);
        let dropped = open(|_, load| {
            let open_loop = load.open_loop.get_or_insert_default();
            (load.good, load.requests, open_loop.dropped) = (4_900, 4_900, 100);
        });
        let (offered_rps, achieved_rps) = (20e3, 19.6e3);
        assert_eq!(
            dropped,
            [
                Warning::Dropped {
                    dropped: 100,
                    scheduled: 5_000
                },
                Warning::Behind {
                    offered_rps,
                    achieved_rps
                }
            ]
        );
        let missed = open(|_, load| {
            load.open_loop = Some(OpenLoop {
                scheduled: 5_000,
                dropped: 10,
                dropped_late: 7,
                ..OpenLoop::default()
            });
        });
        let scheduled = 5_000;
        let by_path = Warning::Dropped {
            dropped: 3,
            scheduled,
        };
        let late = Warning::DroppedLate {
            dropped: 7,
            scheduled,
        };
        assert_eq!(missed, [by_path, late]);
        // A generator that is busy keeping its schedule is not the limit; one that is late is.
        let busy = open(|_, load| load.cpu_us = 250e3);
        assert_eq!(busy, []);
        let late = open(|_, load| {
            load.cpu_us = 250e3;
            load.open_loop.get_or_insert_default().late_us_p50 = Some(20e3);
        });
        assert!(
            matches!(late[..], [Warning::GeneratorBound { .. }]),
            "{late:?}"
        );
        let pressed = open(|trial, _| trial.disturbance.cpu_pressure_us = Some(200_000));
        assert_eq!(pressed, [Warning::CpuPressure { share: 0.8 }]);
        // In a closed loop something always waits.
        let closed = with(|trial, _| trial.disturbance.cpu_pressure_us = Some(200_000));
        assert_eq!(closed, []);
    }

    #[test]
    fn at_a_fixed_rate_connections_are_open_before_the_load() {
        let reopened = |opened| {
            with(|trial, load| {
                trial.planned.cell.rate_rps = Some(19_000);
                load.open_loop = Some(OpenLoop::default());
                load.connections_opened = Some(opened);
            })
        };
        assert_eq!(reopened(0), []);
        let again = reopened(1);
        assert!(
            matches!(again[..], [Warning::Reconnects { opened: 1, .. }]),
            "{again:?}"
        );
    }

    #[test]
    fn what_others_use_is_what_is_left_of_the_machine() {
        let (quiet, load) = trial();
        assert_eq!(quiet.others_us(false), Some(10e3));
        // Others were busy for 67 ms of the idle time: more than a tenth and what may be rounding.
        let other = with(|trial, _| {
            trial.disturbance.elapsed_us = Some(327_000);
        });
        assert!(
            matches!(other[..], [Warning::OtherLoad { share }] if (0.1..0.2).contains(&share)),
            "{other:?}"
        );
        // The same on a kernel that counts interrupts in no process's time.
        let (mut apart, _) = trial();
        apart.disturbance.elapsed_us = Some(327_000);
        assert_eq!(apart.others_us(true), Some(-3e3));
        assert_eq!(warnings(&apart, &load, true), []);
        // If something is unknown, the machine is called neither quiet nor loud.
        for unknown in [
            (|seen| seen.idle_us = None) as fn(&mut Disturbance),
            |seen| seen.elapsed_us = None,
            |seen| seen.harness_us = None,
        ] {
            let (mut trial, _) = trial();
            unknown(&mut trial.disturbance);
            assert_eq!(trial.others_us(false), None);
        }
    }

    #[test]
    fn a_machine_that_idles_or_is_stolen_from_is_said() {
        let idle = with(|trial, _| {
            trial.planned.cell.concurrency = 4096;
            trial.disturbance.elapsed_us = Some(500_000);
            trial.disturbance.idle_us = Some(270_000);
        });
        assert!(idle.contains(&Warning::Idle { share: 0.54 }), "{idle:?}");
        let stolen = with(|trial, _| {
            trial.disturbance.elapsed_us = Some(1_270_000);
            trial.disturbance.steal_us = 1_000_000;
        });
        assert!(matches!(stolen[..], [Warning::Steal { .. }]), "{stolen:?}");
    }
}
