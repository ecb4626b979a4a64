//! Decides which request starts when, and on which connection. There is no clock and no I/O: times
//! are passed in, in nanoseconds since the start of the load.
//!
//! In an open loop, requests are due at even intervals, whatever happens: arrival k at k / rate or,
//! with ticks, at the last tick before that. If the rate changes, arrival k is due when the rate's
//! integral reaches k. Requests that find no connection free wait in the order in which they were
//! due. They are numbered in that order, so the queue is two numbers, however long it gets.
//!
//! In a closed loop, a request is due when a connection is free.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::profile::Profile;

const SECOND_NS: u64 = 1_000_000_000;

/// The arrivals and the connections of one thread.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    share: Share,
    /// Arrivals are due at multiples of this time.
    tick_ns: u64,
    duration_ns: u64,
    /// Number of arrivals of all threads; in a closed loop, their maximum.
    arrivals: u64,
    /// Number of the first arrival that has not started; it may already be waiting.
    next: u64,
    /// In a closed loop, the number of the next request of any thread.
    numbers: Arc<AtomicU64>,
    /// Whether a closed loop has sent all its requests.
    is_exhausted: bool,
    /// Idle connections, longest idle first.
    idle: VecDeque<usize>,
    /// Connections that the closed loop doesn't use at its present level.
    parked: Vec<usize>,
    busy: usize,
    /// Time until which this thread has waited for the path, with every connection busy.
    waited_ns: u64,
    /// When a connection first became free after the end of the load.
    closed_ns: Option<u64>,
}

/// When requests are due.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// At even intervals, at this rate per second.
    Even(u32),
    /// At a rate per second that changes.
    Rates(Profile),
    /// As soon as a connection is free.
    WhenFree,
    /// As soon as a connection is free, with a number of connections that changes.
    Connections(Profile),
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
    /// Number of the request among those of all threads.
    pub(crate) number: u64,
}

/// When the requests of all threads are due.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    pub(crate) pace: Pace,
    /// `None`: requests are due at even intervals.
    pub(crate) tick_us: Option<NonZeroU32>,
    pub(crate) duration_ms: u64,
    /// Maximum number of requests of a closed loop.
    pub(crate) requests_max: Option<u64>,
}

/// The number of a thread, and the number of all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

impl Share {
    /// Returns this thread's share of a number of things that are dealt out in turn.
    pub(crate) fn of(self, all: usize) -> usize {
        all / self.threads + usize::from(self.thread < all % self.threads)
    }
}

impl Timing {
    /// Returns the number of arrivals of all threads: at most 3.6 billion, 1,000,000/s for an hour.
    pub(crate) fn arrivals(&self) -> u64 {
        match &self.pace {
            Pace::Even(rate_rps) => u64::from(*rate_rps) * self.duration_ms / 1_000,
            Pace::Rates(profile) => profile.total(),
            Pace::WhenFree | Pace::Connections(_) => self.requests_max.unwrap_or(u64::MAX),
        }
    }
}

impl Schedule {
    /// Creates the schedule of a thread whose connections are all idle. `numbers` is shared by the
    /// threads of a closed loop.
    pub(crate) fn new(
        timing: Timing,
        share: Share,
        connections: usize,
        numbers: Arc<AtomicU64>,
    ) -> Self {
        let arrivals = timing.arrivals();
        Self {
            pace: timing.pace,
            share,
            tick_ns: timing
                .tick_us
                .map_or(1, |tick_us| u64::from(tick_us.get()) * 1_000),
            duration_ns: timing.duration_ms * 1_000_000,
            arrivals,
            next: share.thread as u64,
            numbers,
            is_exhausted: false,
            idle: (0..connections).collect(),
            parked: Vec::new(),
            busy: 0,
            waited_ns: 0,
            closed_ns: None,
        }
    }

    /// Returns whether requests are due when connections are free.
    pub(crate) fn is_closed_loop(&self) -> bool {
        matches!(self.pace, Pace::WhenFree | Pace::Connections(_))
    }

    /// Returns the next request to start now, if there is one. Call it until there is none.
    pub(crate) fn start(&mut self, now_ns: u64) -> Option<Start> {
        if self.is_closed_loop() {
            return self.start_when_free(now_ns);
        }
        let due_ns = self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let connection = self.idle.pop_front()?;
        let number = self.next;
        self.next += self.step();
        self.busy += 1;
        Some(Start {
            connection,
            due_ns,
            number,
        })
    }

    fn start_when_free(&mut self, now_ns: u64) -> Option<Start> {
        self.use_connections(now_ns);
        if now_ns >= self.duration_ns || self.is_exhausted || self.idle.is_empty() {
            return None;
        }
        let number = self.numbers.fetch_add(1, Relaxed);
        if number >= self.arrivals {
            self.is_exhausted = true;
            return None;
        }
        let connection = self.idle.pop_front()?;
        self.busy += 1;
        Some(Start {
            connection,
            due_ns: now_ns,
            number,
        })
    }

    /// Takes as many connections into use as the load has now. Those that are too many are parked
    /// when they are released.
    fn use_connections(&mut self, now_ns: u64) {
        let Some(used) = self.connections_now(now_ns) else {
            return;
        };
        while self.busy + self.idle.len() < used {
            let Some(connection) = self.parked.pop() else {
                break;
            };
            self.idle.push_back(connection);
        }
        while self.busy + self.idle.len() > used {
            let Some(connection) = self.idle.pop_back() else {
                break;
            };
            self.parked.push(connection);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a level is from 0 to a million"
    )]
    fn connections_now(&self, now_ns: u64) -> Option<usize> {
        match &self.pace {
            Pace::Connections(profile) => {
                Some(self.share.of(profile.level(now_ns).round() as usize))
            }
            _ => None,
        }
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
        let beat_ns = (now_ns / BEAT_NS + 1) * BEAT_NS;
        if self.is_closed_loop() {
            let changes = matches!(self.pace, Pace::Connections(_));
            let next_ns = if changes { beat_ns } else { self.duration_ns };
            let goes_on = now_ns < self.duration_ns && !self.is_exhausted;
            return goes_on.then(|| next_ns.min(self.duration_ns));
        }
        let due_ns = self.next_due_ns().filter(|_| !self.idle.is_empty());
        match due_ns {
            Some(due_ns) => Some(due_ns),
            None => (now_ns < self.duration_ns).then(|| {
                match self.idle.is_empty() && self.next_due_ns().is_some() {
                    true => beat_ns.min(self.duration_ns),
                    false => self.duration_ns,
                }
            }),
        }
    }

    /// Returns whether no request is under way and none will start.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        let is_past = now_ns >= self.duration_ns;
        if self.is_closed_loop() {
            return (is_past || self.is_exhausted) && self.busy == 0;
        }
        let startable = self.next_due_ns().is_some() && !self.idle.is_empty();
        is_past && self.busy == 0 && !startable
    }

    /// Returns the shortest interval between two instants at which arrivals of this thread are due.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is from 0 to a million, so an interval is at most the load's duration"
    )]
    pub(crate) fn interval_ns(&self) -> u64 {
        let interval_ns = match &self.pace {
            Pace::Even(rate_rps) => self.step() * SECOND_NS / u64::from(*rate_rps),
            Pace::Rates(profile) => {
                let least_ns = SECOND_NS as f64 / profile.level_max().max(1.0);
                (self.step() as f64 * least_ns) as u64
            }
            Pace::WhenFree | Pace::Connections(_) => self.duration_ns,
        };
        interval_ns.max(self.tick_ns)
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
            match self.due_ns(self.next + middle * self.step()) < self.waited_ns {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Dropped {
            by_path: low,
            late: left - low,
        }
    }

    /// Returns the arrivals that were not started, in groups: how long they had waited when a
    /// connection became free.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waiting> {
        let left = self.left();
        let closed_ns = self.closed_ns.unwrap_or(self.duration_ns);
        let at_once = left.div_ceil(WAITING_TIMES_MAX).max(1);
        (0..left)
            .step_by(at_once.try_into().unwrap_or(usize::MAX))
            .map(move |first| {
                let count = at_once.min(left - first);
                // The last of them waited least, so its time is a lower bound for each.
                let last = self.next + (first + count - 1) * self.step();
                let due_ns = self.due_ns(last);
                Waiting {
                    number: last,
                    due_ns,
                    waited_ns: closed_ns.saturating_sub(due_ns),
                    count,
                }
            })
    }

    /// Returns the difference between the numbers of this thread's arrivals: threads take turns.
    fn step(&self) -> u64 {
        self.share.threads as u64
    }

    fn left(&self) -> u64 {
        match self.is_closed_loop() {
            true => 0,
            false => self
                .arrivals
                .saturating_sub(self.next)
                .div_ceil(self.step()),
        }
    }

    fn next_due_ns(&self) -> Option<u64> {
        (self.next < self.arrivals).then(|| self.due_ns(self.next))
    }

    /// Returns the exact time: errors of a rounded interval would add up. The product is at most
    /// 3.6e18, which a `u64` holds.
    fn due_ns(&self, arrival: u64) -> u64 {
        let even_ns = match &self.pace {
            Pace::Even(rate_rps) => arrival * SECOND_NS / u64::from(*rate_rps),
            Pace::Rates(profile) => profile.reached_ns(arrival),
            Pace::WhenFree | Pace::Connections(_) => 0,
        };
        even_ns - even_ns % self.tick_ns
    }
}

/// Arrivals that were not started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Waiting {
    /// Number of the last of them.
    pub(crate) number: u64,
    pub(crate) due_ns: u64,
    pub(crate) waited_ns: u64,
    pub(crate) count: u64,
}

#[cfg(test)]
mod tests;
