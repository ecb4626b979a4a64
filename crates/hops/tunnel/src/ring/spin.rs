//! Looks for work again before sleeping, where it pays.
//!
//! A side that goes on looking for a moment, instead of sleeping at once, need not be woken. That
//! saves some microseconds on the way of every answer, and a system call of the peer's. It yields
//! the core between two looks, so it takes little but time in which the core would be idle. Where
//! it seldom finds anything, it stops looking for a while.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{counters::Counters, transport::SpinLimit};

#[derive(Debug)]
pub(super) struct Spin {
    limit: Duration,
    counters: Arc<Counters>,
    /// Decides whether to look; `None` to look always.
    record: Option<Record>,
}

/// Whether looking has paid lately.
#[derive(Debug, Default)]
struct Record {
    found: u32,
    tried: u32,
    /// Number of windows in a row in which it has not paid.
    failures: u32,
    resting_until: Option<Instant>,
}

/// How long to look where it pays. If a client goes on at once, its next request has come by then.
const AUTO: Duration = Duration::from_micros(200);

/// Number of attempts after which to judge whether looking pays.
const WINDOW: u32 = 32;

/// One in this many attempts must find something. That saves two wake-ups, which is about what the
/// other attempts cost.
const WORTH: u32 = 2;

/// How long not to look after a window that has not paid. Each further one doubles it.
const REST: Duration = Duration::from_millis(8);
/// Most doublings of that: up to eight seconds.
const DOUBLINGS_MAX: u32 = 10;

impl Spin {
    pub(super) fn new(limit: SpinLimit, counters: &Arc<Counters>) -> Self {
        let (limit, record) = match limit {
            SpinLimit::Fixed(limit) => (limit, None),
            SpinLimit::Auto => (AUTO, Some(Record::default())),
        };
        Self {
            limit,
            counters: counters.clone(),
            record,
        }
    }

    /// Looks for work. Returns whether there is some.
    pub(super) fn look(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let started = Instant::now();
        if let Some(record) = &self.record
            && record.rests(started)
        {
            return false;
        }
        let found = loop {
            if ready() {
                break true;
            }
            if started.elapsed() >= self.limit {
                break false;
            }
            // Other threads may have the core meanwhile, also the one that would bring work.
            thread::yield_now();
        };
        let counter = if found {
            &self.counters.spins_found
        } else {
            &self.counters.spins_in_vain
        };
        counter.add(1);
        if let Some(record) = &mut self.record {
            record.add(found, started);
        }
        found
    }
}

impl Record {
    fn rests(&self, now: Instant) -> bool {
        self.resting_until.is_some_and(|until| now < until)
    }

    fn add(&mut self, found: bool, now: Instant) {
        self.found += u32::from(found);
        self.tried += 1;
        if self.tried < WINDOW {
            return;
        }
        if self.found * WORTH >= self.tried {
            self.failures = 0;
        } else {
            self.resting_until = Some(now + REST * 2_u32.pow(self.failures));
            self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        }
        (self.found, self.tried) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_ends_and_is_counted() {
        let counters = Arc::new(Counters::default());
        let fixed = SpinLimit::Fixed(Duration::from_micros(1));
        let mut spin = Spin::new(fixed, &counters);
        assert!(!spin.look(|| false));
        assert!(spin.look(|| true));
        let mut none = Spin::new(SpinLimit::Fixed(Duration::ZERO), &counters);
        assert!(!none.look(|| true));
        let counted = (counters.spins_found.get(), counters.spins_in_vain.get());
        assert_eq!(counted, (1, 1));
    }

    /// Returns how many attempts are made in the time of `windows` windows, if one in `one_in`
    /// finds something.
    fn made(one_in: u32, windows: u32) -> u32 {
        let mut record = Record::default();
        let mut now = Instant::now();
        let mut made = 0;
        for look in 0..windows * WINDOW {
            now += Duration::from_millis(1);
            if !record.rests(now) {
                record.add(look % one_in == 0, now);
                made += 1;
            }
        }
        made
    }

    #[test]
    fn what_does_not_pay_is_done_ever_less() {
        assert_eq!(made(1, 1000), 1000 * WINDOW);
        assert_eq!(made(2, 1000), 1000 * WINDOW);
        let seldom = made(10, 1000);
        assert!(seldom < 20 * WINDOW, "{seldom} looks");
        // Looking is never given up for good.
        assert!(seldom > 5 * WINDOW, "{seldom} looks");
    }
}
