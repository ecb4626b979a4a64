//! Which request starts when, and on which connection. No clock and no I/O: instants come in as
//! nanoseconds since the load's start.
//!
//! Requests are due at even intervals, come what may: arrival k at k / rate, or with ticks at the
//! last tick before that. Those that no connection is free for wait in the order in which they were
//! due, and since they are numbered in that order, the queue is two numbers however long it gets.

use std::{collections::VecDeque, num::NonZeroU32};

const SECOND_NS: u64 = 1_000_000_000;

/// The arrivals of one thread, and its connections.
#[derive(Debug)]
pub(crate) struct Schedule {
    rate_rps: u64,
    /// Arrivals are due at multiples of this.
    tick_ns: u64,
    duration_ns: u64,
    /// Arrivals of all threads.
    arrivals: u64,
    /// The first arrival that has not been started; it may be waiting already.
    next: u64,
    /// Threads take turns.
    step: u64,
    /// Connections that have nothing to do, longest idle first.
    idle: VecDeque<usize>,
    busy: usize,
}

/// One request, to be started now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Start {
    pub(crate) connection: usize,
    pub(crate) due_ns: u64,
}

/// When the requests of all threads are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) rate_rps: u32,
    /// Without ticks they are due at even intervals.
    pub(crate) tick_us: Option<NonZeroU32>,
    pub(crate) duration_ms: u64,
}

/// Which of how many threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

/// Arrivals of all threads within this time. At most 3.6 billion: 1,000,000/s for an hour.
pub(crate) fn arrivals(rate_rps: u32, duration_ms: u64) -> u64 {
    u64::from(rate_rps) * duration_ms / 1_000
}

impl Schedule {
    /// Of a thread with so many connections, all idle.
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
        }
    }

    /// The next request to start, if there is one now. To be asked again until there is none.
    pub(crate) fn start(&mut self, now_ns: u64) -> Option<Start> {
        let due_ns = self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let connection = self.idle.pop_front()?;
        self.next += self.step;
        self.busy += 1;
        Some(Start { connection, due_ns })
    }

    /// A connection has done its request. Once the duration is over it gets no other: what still
    /// waits then, for want of a connection, is never started.
    pub(crate) fn release(&mut self, connection: usize, now_ns: u64) {
        self.busy -= 1;
        if now_ns < self.duration_ns {
            self.idle.push_back(connection);
        }
    }

    /// When there is next something to do that no connection's release tells: start a request, or
    /// end. `None` once only releases are waited for.
    pub(crate) fn wake_ns(&self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due_ns().filter(|_| !self.idle.is_empty());
        match due_ns {
            Some(due_ns) => Some(due_ns),
            None => (now_ns < self.duration_ns).then_some(self.duration_ns),
        }
    }

    /// Nothing is under way, and nothing will be.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        let startable = self.next_due_ns().is_some() && !self.idle.is_empty();
        now_ns >= self.duration_ns && self.busy == 0 && !startable
    }

    /// Between two instants at which arrivals of this thread are due.
    pub(crate) fn interval_ns(&self) -> u64 {
        (self.step * SECOND_NS / self.rate_rps).max(self.tick_ns)
    }

    /// Arrivals not started.
    pub(crate) fn left(&self) -> u64 {
        self.arrivals.saturating_sub(self.next).div_ceil(self.step)
    }

    /// Exact, without an interval that is rounded and adds up: at most 3.6e18, which a u64 holds.
    fn next_due_ns(&self) -> Option<u64> {
        (self.next < self.arrivals).then(|| {
            let even_ns = self.next * SECOND_NS / self.rate_rps;
            even_ns - even_ns % self.tick_ns
        })
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

    /// Everything that starts now: connections and instants.
    fn starts(schedule: &mut Schedule, now_ns: u64) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| schedule.start(now_ns))
            .map(|start| (start.connection, start.due_ns))
            .collect()
    }

    #[test]
    fn arrivals_are_due_at_even_intervals() {
        // Three a second: a third is not a whole number of nanoseconds.
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
        // Nobody is free: only the end is waited for.
        assert_eq!(starts(&mut schedule, 3_500_000), []);
        assert_eq!(schedule.wake_ns(3_500_000), Some(10_000_000));
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
