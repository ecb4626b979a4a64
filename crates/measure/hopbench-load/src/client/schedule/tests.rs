use super::*;

const ALONE: Share = Share {
    thread: 0,
    threads: 1,
};

fn even(rate_rps: u32, duration_ms: u64) -> Timing {
    Timing {
        pace: Pace::Even(rate_rps),
        tick_us: None,
        duration_ms,
        requests_max: None,
    }
}

fn schedule(timing: Timing, share: Share, connections: usize) -> Schedule {
    Schedule::new(timing, share, connections, Arc::default())
}

/// Returns the connection and the due time of every request that starts now.
fn starts(schedule: &mut Schedule, now_ns: u64) -> Vec<(usize, u64)> {
    std::iter::from_fn(|| schedule.start(now_ns))
        .map(|start| (start.connection, start.due_ns))
        .collect()
}

#[test]
fn arrivals_are_due_at_even_intervals() {
    // At 3/s the interval is not a whole number of nanoseconds.
    let mut schedule = schedule(even(3, 2_000), ALONE, 8);
    assert_eq!(schedule.wake_ns(0), Some(0));
    assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
    assert_eq!(schedule.wake_ns(0), Some(333_333_333));
    assert_eq!(starts(&mut schedule, 333_333_332), []);
    assert_eq!(
        starts(&mut schedule, 1_000_000_000),
        [(1, 333_333_333), (2, 666_666_666), (3, 1_000_000_000)]
    );
    assert_eq!(
        starts(&mut schedule, 5_000_000_000),
        [(4, 1_333_333_333), (5, 1_666_666_666)]
    );
    assert_eq!(schedule.left(), 0);
}

#[test]
fn arrivals_of_a_tick_are_due_together() {
    let timing = Timing {
        tick_us: NonZeroU32::new(1_000),
        ..even(2_500, 3)
    };
    let mut schedule = schedule(timing, ALONE, 8);
    assert_eq!(schedule.interval_ns(), 1_000_000);
    assert_eq!(starts(&mut schedule, 0), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(schedule.wake_ns(0), Some(1_000_000));
    // At even intervals these would be due at 1.2, 1.6, 2.0 and 2.4 ms.
    assert_eq!(
        starts(&mut schedule, 2_999_999),
        [
            (3, 1_000_000),
            (4, 1_000_000),
            (5, 2_000_000),
            (6, 2_000_000)
        ]
    );
    assert_eq!(schedule.left(), 0);
}

#[test]
fn threads_take_turns() {
    let mut due = Vec::new();
    for thread in 0..3 {
        let share = Share { thread, threads: 3 };
        let mut schedule = schedule(even(1_000, 10), share, 10);
        assert_eq!(schedule.left(), [4, 3, 3][thread]);
        due.extend(starts(&mut schedule, 10_000_000));
    }
    let mut due: Vec<u64> = due.into_iter().map(|(_, due_ns)| due_ns).collect();
    due.sort_unstable();
    let all: Vec<u64> = (0..10).map(|k| k * 1_000_000).collect();
    assert_eq!(due, all);
}

#[test]
fn arrivals_wait_in_order_and_connections_take_turns() {
    let mut schedule = schedule(even(1_000, 10), ALONE, 2);
    assert_eq!(starts(&mut schedule, 1_000_000), [(0, 0), (1, 1_000_000)]);
    // No connection is free, so the next wake-up is at the end.
    assert_eq!(starts(&mut schedule, 3_500_000), []);
    assert_eq!(schedule.wake_ns(3_500_000), Some(10_000_000), "the end");
    schedule.release(1, 3_500_000);
    assert_eq!(starts(&mut schedule, 3_500_000), [(1, 2_000_000)]);
    schedule.release(0, 3_600_000);
    schedule.release(1, 3_600_000);
    assert_eq!(starts(&mut schedule, 3_600_000), [(0, 3_000_000)]);
    assert_eq!(schedule.wake_ns(3_600_000), Some(4_000_000));
    schedule.release(0, 3_700_000);
    assert_eq!(starts(&mut schedule, 4_000_000), [(1, 4_000_000)]);
}

#[test]
fn what_has_no_connection_until_the_end_is_dropped() {
    let mut schedule = schedule(even(1_000, 10), ALONE, 1);
    assert_eq!(starts(&mut schedule, 9_000_000), [(0, 0)]);
    assert!(!schedule.is_over(10_000_000), "one is under way");
    assert_eq!(schedule.wake_ns(10_000_000), None);
    schedule.release(0, 10_000_000);
    assert_eq!(starts(&mut schedule, 10_000_001), []);
    assert!(schedule.is_over(10_000_001));
    assert_eq!(schedule.left(), 9);
}

#[test]
fn a_dropped_request_is_the_paths_if_this_thread_waited_for_it() {
    let dropped = |slept: &[u64]| {
        let mut schedule = schedule(even(1_000, 100), ALONE, 1);
        assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
        slept
            .iter()
            .for_each(|until_ns| schedule.slept(0, *until_ns));
        schedule.slept(110_000_000, 120_000_000);
        schedule.release(0, 120_000_000);
        (schedule.dropped(), schedule.waiting().collect::<Vec<_>>())
    };
    let (all, waited) = dropped(&[50_000_000, 100_000_000]);
    assert_eq!(
        all,
        Dropped {
            by_path: 99,
            late: 0
        }
    );
    // Each waited from when it was due until a connection became free.
    let times = [waited[0], waited[98]].map(|it| (it.waited_ns, it.count));
    assert_eq!(times, [(119_000_000, 1), (21_000_000, 1)]);
    // The thread never slept: the answers may have been there.
    let (none, _) = dropped(&[]);
    assert_eq!(
        none,
        Dropped {
            by_path: 0,
            late: 99
        }
    );
    // The thread slept until 50 ms: requests due before that waited for the path.
    let (some, _) = dropped(&[50_000_000]);
    assert_eq!(
        some,
        Dropped {
            by_path: 49,
            late: 50
        }
    );
}

#[test]
fn sleeping_while_a_connection_is_free_is_not_waiting_for_one() {
    let mut schedule = schedule(even(1_000, 100), ALONE, 2);
    assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
    schedule.slept(0, 50_000_000);
    assert_eq!(starts(&mut schedule, 60_000_000), [(1, 1_000_000)]);
    assert_eq!(
        schedule.dropped(),
        Dropped {
            by_path: 0,
            late: 98
        }
    );
}

#[test]
fn while_all_are_busy_it_looks_at_the_clock_now_and_then() {
    let mut schedule = schedule(even(1_000, 25), ALONE, 1);
    assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
    assert_eq!(schedule.wake_ns(0), Some(BEAT_NS));
    assert_eq!(schedule.wake_ns(BEAT_NS), Some(2 * BEAT_NS));
    assert_eq!(schedule.wake_ns(2 * BEAT_NS), Some(25_000_000));
}

#[test]
fn waiting_times_of_many_are_added_up_in_bounded_time() {
    let schedule = schedule(even(1_000_000, 3_600_000), ALONE, 1);
    let times: Vec<Waiting> = schedule.waiting().collect();
    assert_eq!(times.len() as u64, WAITING_TIMES_MAX);
    let counted = times.iter().map(|it| it.count).sum::<u64>();
    assert_eq!(counted, 3_600_000_000);
}

#[test]
fn a_late_wake_up_at_the_end_drops_nothing() {
    let mut schedule = schedule(even(1_000, 2), ALONE, 2);
    assert!(
        !schedule.is_over(3_000_000),
        "connections were free in time"
    );
    assert_eq!(starts(&mut schedule, 3_000_000), [(0, 0), (1, 1_000_000)]);
    assert_eq!(schedule.left(), 0);
}

#[test]
fn the_load_lasts_until_its_end() {
    let mut schedule = schedule(even(1, 1_999), ALONE, 1);
    assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
    schedule.release(0, 5);
    assert_eq!(schedule.wake_ns(5), Some(1_999_000_000));
    assert!(!schedule.is_over(1_998_999_999));
    assert!(schedule.is_over(1_999_000_000));
    assert_eq!(schedule.left(), 0);
}

#[test]
fn the_longest_schedule_fits() {
    let mut schedule = schedule(even(1_000_000, 3_600_000), ALONE, 1);
    schedule.next = schedule.arrivals - 1;
    assert_eq!(schedule.next_due_ns(), Some(3_599_999_999_000));
}

fn profile(stages: &[(u64, f64, f64)]) -> Profile {
    Profile::new(stages.iter().copied())
}

#[test]
fn arrivals_follow_a_rate_that_changes() {
    // One second from 0 to 8/s is 4 requests, and one second at 8/s is 8.
    let timing = Timing {
        pace: Pace::Rates(profile(&[(1_000, 0.0, 8.0), (1_000, 8.0, 8.0)])),
        ..even(1, 2_000)
    };
    assert_eq!(timing.arrivals(), 12);
    let mut schedule = schedule(timing, ALONE, 12);
    let due: Vec<u64> = starts(&mut schedule, 2_000_000_000)
        .into_iter()
        .map(|(_, due_ns)| due_ns / 1_000_000)
        .collect();
    // The integral of 8 t is 4 t²: arrival k is due at √k / 2 s.
    assert_eq!(due[..4], [0, 500, 707, 866]);
    assert_eq!(
        due[4..],
        [1_000, 1_125, 1_250, 1_375, 1_500, 1_625, 1_750, 1_875]
    );
}

#[test]
fn a_closed_loop_asks_when_a_connection_is_free() {
    let timing = Timing {
        pace: Pace::WhenFree,
        requests_max: Some(3),
        ..even(1, 1_000)
    };
    let mut schedule = schedule(timing, ALONE, 2);
    assert_eq!(starts(&mut schedule, 5), [(0, 5), (1, 5)]);
    assert_eq!(schedule.wake_ns(5), Some(1_000_000_000), "the end");
    schedule.release(1, 9);
    assert_eq!(starts(&mut schedule, 9), [(1, 9)]);
    schedule.release(0, 10);
    assert_eq!(starts(&mut schedule, 10), [], "there were three");
    assert_eq!(schedule.wake_ns(10), None);
    assert!(!schedule.is_over(10), "one is under way");
    schedule.release(1, 11);
    assert!(schedule.is_over(11));
    assert_eq!(schedule.dropped(), Dropped::default());
}

#[test]
fn the_connections_of_a_closed_loop_may_change() {
    let pace = Pace::Connections(profile(&[
        (1_000, 1.0, 1.0),
        (1_000, 3.0, 3.0),
        (1_000, 1.0, 1.0),
    ]));
    let mut schedule = schedule(
        Timing {
            pace,
            ..even(1, 3_000)
        },
        ALONE,
        3,
    );
    assert_eq!(starts(&mut schedule, 0).len(), 1);
    assert_eq!(schedule.wake_ns(0), Some(BEAT_NS));
    assert_eq!(starts(&mut schedule, 1_000_000_000).len(), 2);
    (0..3).for_each(|connection| schedule.release(connection, 2_000_000_000));
    assert_eq!(starts(&mut schedule, 2_000_000_000).len(), 1);
}
