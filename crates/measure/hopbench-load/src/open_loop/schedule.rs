//! Decides which request starts when, and on which connection. There is no clock and no I/O: times
//! are passed in, in nanoseconds since the start of the load.
//!
//! Requests are due at even intervals, whatever happens: arrival k at k / rate or, with ticks, at
//! the last tick before that. Requests that find no connection free wait in the order in which they
//! were due. They are numbered in that order, so the queue is two numbers, however long it gets.

use std::{collections::VecDeque, num::NonZeroU32};

const SECOND_NS: u64 = 1_000_000_000;

/// The arrivals and the connections of one thread.
#[derive(Debug)]
pub(crate) struct Schedule {
    rate_rps: u64,
    /// Arrivals are due at multiples of this time.
    tick_ns: u64,
    duration_ns: u64,
    /// Number of arrivals of all threads.
    arrivals: u64,
    /// Number of the first arrival that has not started; it may already be waiting.
    next: u64,
    /// Difference between the numbers of this thread's arrivals: threads take turns.
    step: u64,
    /// Idle connections, longest idle first.
    idle: VecDeque<usize>,
    busy: usize,
    /// Time until which this thread has waited for the path, with every connection busy.
    waited_ns: u64,
    /// When a connection first became free after the end of the load.
    closed_ns: Option<u64>,
}

/// Numbers of requests that were due but never started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Dropped {
    /// No connection was free, because the path had not answered.
    pub(crate) by_path: u64,
    /// This program was too late.
    pub(crate) late: u64,
}

/// Interval of wake-ups while every connection is busy. This program knows how late it is to this
/// precision. A load without a free connection doesn't notice the cost.
const BEAT_NS: u64 = 10_000_000;

/// Maximum number of distinct waiting times of dropped requests; more would take long to add up.
const WAITING_TIMES_MAX: u64 = 100_000;

/// A request to start now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Start {
    pub(crate) connection: usize,
    pub(crate) due_ns: u64,
}

/// When the requests of all threads are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) rate_rps: u32,
    /// `None`: requests are due at even intervals.
    pub(crate) tick_us: Option<NonZeroU32>,
    pub(crate) duration_ms: u64,
}

/// The number of a thread, and the number of all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

/// Returns the number of arrivals of all threads: at most 3.6 billion, 1,000,000/s for an hour.
pub(crate) fn arrivals(rate_rps: u32, duration_ms: u64) -> u64 {
    u64::from(rate_rps) * duration_ms / 1_000
}

impl Schedule {
    /// Creates the schedule of a thread whose connections are all idle.
    pub(crate) fn new(timing: Timing, share: Share, connections: usize) -> Self {
        let Timing {
            rate_rps,
            tick_us,
            duration_ms,
        } = timing;
        Self {
            rate_rps: rate_rps.into(),
            tick_ns: tick_us.map_or(1, |tick_us| u64::from(tick_us.get()) * 1_000),
            duration_ns: duration_ms * 1_000_000,
            arrivals: arrivals(rate_rps, duration_ms),
            next: share.thread as u64,
            step: share.threads as u64,
            idle: (0..connections).collect(),
            busy: 0,
            waited_ns: 0,
            closed_ns: None,
        }
    }

    /// Returns the next request to start now, if there is one. Call it until there is none.
    pub(crate) fn start(&mut self, now_ns: u64) -> Option<Start> {
        let due_ns = self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let connection = self.idle.pop_front()?;
        self.next += self.step;
        self.busy += 1;
        Some(Start { connection, due_ns })
    }

    /// Takes back a connection whose request has ended. After the end of the load it gets no other:
    /// requests that still wait for a connection are never started.
    pub(crate) fn release(&mut self, connection: usize, now_ns: u64) {
        self.busy -= 1;
        if now_ns < self.duration_ns {
            self.idle.push_back(connection);
        } else {
            self.closed_ns.get_or_insert(now_ns);
        }
    }

    /// Returns when to wake up next, to start a request or to end the load. `None` if only the
    /// release of a connection can bring something to do.
    pub(crate) fn wake_ns(&self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns().filter(|_| !self.idle.is_empty());
        match due_ns {
            Some(due_ns) => Some(due_ns),
            None => (now_ns < self.duration_ns).then(|| {
                let beat_ns = (now_ns / BEAT_NS + 1) * BEAT_NS;
                match self.idle.is_empty() && self.next_due_ns().is_some() {
                    true => beat_ns.min(self.duration_ns),
                    false => self.duration_ns,
                }
            }),
        }
    }

    /// Returns whether no request is under way and none will start.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        let startable = self.next_due_ns().is_some() && !self.idle.is_empty();
        now_ns >= self.duration_ns && self.busy == 0 && !startable
    }

    /// Returns the interval between two instants at which arrivals of this thread are due.
    pub(crate) fn interval_ns(&self) -> u64 {
        (self.step * SECOND_NS / self.rate_rps).max(self.tick_ns)
    }

    /// Takes note that the thread slept because it had nothing else to do. A sleep after the end of
    /// the load says nothing about requests that were due before.
    pub(crate) fn slept(&mut self, from_ns: u64, until_ns: u64) {
        if self.idle.is_empty() && from_ns < self.duration_ns {
            self.waited_ns = self.waited_ns.max(until_ns.min(self.duration_ns));
        }
    }

    /// Returns how many arrivals were not started. They are the last ones, and waited until the
    /// end. The path is at fault for those that were due when this thread last waited for a
    /// connection.
    pub(crate) fn dropped(&self) -> Dropped {
        let left = self.left();
        // Binary search without a list: the first arrival that was due after that.
        let (mut low, mut high) = (0, left);
        while low < high {
            let middle = low.midpoint(high);
            match self.due_ns(self.next + middle * self.step) < self.waited_ns {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Dropped {
            by_path: low,
            late: left - low,
        }
    }

    /// Returns how long arrivals that were not started had waited when a connection became free,
    /// and how many waited that long.
    pub(crate) fn waiting_times_ns(&self) -> impl Iterator<Item = (u64, u64)> {
        let left = self.left();
        let closed_ns = self.closed_ns.unwrap_or(self.duration_ns);
        let at_once = left.div_ceil(WAITING_TIMES_MAX).max(1);
        (0..left)
            .step_by(at_once.try_into().unwrap_or(usize::MAX))
            .map(move |first| {
                let count = at_once.min(left - first);
                // The last of them waited least, so its time is a lower bound for each.
                let last = self.next + (first + count - 1) * self.step;
                (closed_ns.saturating_sub(self.due_ns(last)), count)
            })
    }

    fn left(&self) -> u64 {
        self.arrivals.saturating_sub(self.next).div_ceil(self.step)
    }

    fn next_due_ns(&self) -> Option<u64> {
        (self.next < self.arrivals).then(|| self.due_ns(self.next))
    }

    /// Returns the exact time: errors of a rounded interval would add up. The product is at most
    /// 3.6e18, which a `u64` holds.
    fn due_ns(&self, arrival: u64) -> u64 {
        let even_ns = arrival * SECOND_NS / self.rate_rps;
        even_ns - even_ns % self.tick_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Share = Share {
        thread: 0,
        threads: 1,
    };

    fn even(rate_rps: u32, duration_ms: u64) -> Timing {
        Timing {
            rate_rps,
            tick_us: None,
            duration_ms,
        }
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
        let mut schedule = Schedule::new(even(3, 2_000), ALONE, 8);
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
        let mut schedule = Schedule::new(timing, ALONE, 8);
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
            let mut schedule = Schedule::new(even(1_000, 10), share, 10);
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
        let mut schedule = Schedule::new(even(1_000, 10), ALONE, 2);
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
        let mut schedule = Schedule::new(even(1_000, 10), ALONE, 1);
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
            let mut schedule = Schedule::new(even(1_000, 100), ALONE, 1);
            assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
            slept
                .iter()
                .for_each(|until_ns| schedule.slept(0, *until_ns));
            schedule.slept(110_000_000, 120_000_000);
            schedule.release(0, 120_000_000);
            (
                schedule.dropped(),
                schedule.waiting_times_ns().collect::<Vec<_>>(),
            )
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
        let first_and_last = (waited[0], waited[98]);
        assert_eq!(first_and_last, ((119_000_000, 1), (21_000_000, 1)));
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
        let mut schedule = Schedule::new(even(1_000, 100), ALONE, 2);
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
        let mut schedule = Schedule::new(even(1_000, 25), ALONE, 1);
        assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
        assert_eq!(schedule.wake_ns(0), Some(BEAT_NS));
        assert_eq!(schedule.wake_ns(BEAT_NS), Some(2 * BEAT_NS));
        assert_eq!(schedule.wake_ns(2 * BEAT_NS), Some(25_000_000));
    }

    #[test]
    fn waiting_times_of_many_are_added_up_in_bounded_time() {
        let schedule = Schedule::new(even(1_000_000, 3_600_000), ALONE, 1);
        let times: Vec<(u64, u64)> = schedule.waiting_times_ns().collect();
        assert_eq!(times.len() as u64, WAITING_TIMES_MAX);
        let counted = times.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(counted, 3_600_000_000);
    }

    #[test]
    fn a_late_wake_up_at_the_end_drops_nothing() {
        let mut schedule = Schedule::new(even(1_000, 2), ALONE, 2);
        assert!(
            !schedule.is_over(3_000_000),
            "connections were free in time"
        );
        assert_eq!(starts(&mut schedule, 3_000_000), [(0, 0), (1, 1_000_000)]);
        assert_eq!(schedule.left(), 0);
    }

    #[test]
    fn the_load_lasts_until_its_end() {
        let mut schedule = Schedule::new(even(1, 1_999), ALONE, 1);
        assert_eq!(starts(&mut schedule, 0), [(0, 0)]);
        schedule.release(0, 5);
        assert_eq!(schedule.wake_ns(5), Some(1_999_000_000));
        assert!(!schedule.is_over(1_998_999_999));
        assert!(schedule.is_over(1_999_000_000));
        assert_eq!(schedule.left(), 0);
    }

    #[test]
    fn the_longest_schedule_fits() {
        let mut schedule = Schedule::new(even(1_000_000, 3_600_000), ALONE, 1);
        schedule.next = schedule.arrivals - 1;
        assert_eq!(schedule.next_due_ns(), Some(3_599_999_999_000));
    }
}
