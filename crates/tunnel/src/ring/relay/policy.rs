//! How those who write share their cores.

use std::{
    thread,
    time::{Duration, Instant},
};

/// With many answers due, an event loop that interrupts those whose bytes it passes on, or looks
/// again before it sleeps, finds little each time and runs often; it had better wait until they
/// have had their while. With few, whoever is interrupted was waiting for it anyway.
#[derive(Debug)]
pub(super) struct Policy {
    /// So many answers that are due are few.
    few: usize,
    /// Until when this thread is to run in batches, if it does.
    in_batches_until: Option<Instant>,
    /// This thread may not be scheduled so.
    forbidden: bool,
}

/// For which lanes an answer is due, counted as long as it was asked for lately.
///
/// Who has asked and gets no answer for long is idle: it has sent half a head, waits for an event,
/// or speaks a protocol in which nothing is answered. It brings no work, so it is not one of many.
#[derive(Debug)]
pub(super) struct Due {
    /// Of each lane, the age in which it has last asked for what is due.
    asked: Vec<Option<u64>>,
    /// How many have asked in this age, and how many in the one before. Others don't count.
    lately: [usize; 2],
    age: u64,
    /// When this age began; ages begin only as long as many answers are due.
    since: Option<Instant>,
}

/// How long an age is. An answer is counted for one to two.
const AGE: Duration = Duration::from_millis(100);

/// So long after the last time that there were many, there are few.
const LINGER: Duration = Duration::from_millis(100);

impl Policy {
    pub(super) fn new(few: usize) -> Self {
        Self {
            few,
            in_batches_until: None,
            forbidden: false,
        }
    }

    /// Whether few answers are due, and have been for a while; with others the thread runs in
    /// batches.
    pub(super) fn is_at_leisure(&mut self, due: &mut Due, now: impl FnOnce() -> Instant) -> bool {
        if due.count() <= self.few && self.in_batches_until.is_none() {
            return true;
        }
        let now = now();
        if due.count() > self.few {
            due.age(now);
        }
        let are_few = due.count() <= self.few;
        let until = match are_few {
            true => self.in_batches_until.filter(|until| now < *until),
            false => Some(now + LINGER),
        };
        if until.is_some() != self.in_batches_until.is_some()
            && !self.forbidden
            && let Err(error) = shm_ring::run_in_batches(until.is_some())
        {
            tracing::debug!(%error, "a relay can't be scheduled in batches");
            self.forbidden = true;
        }
        self.in_batches_until = until;
        until.is_none()
    }
}

impl Due {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            asked: vec![None; lanes],
            lately: [0; 2],
            age: 0,
            since: None,
        }
    }

    /// How many answers are due that were asked for lately.
    pub(super) fn count(&self) -> usize {
        self.lately.iter().sum()
    }

    /// Says whether an answer is due for a lane, and whether it has just been asked for.
    pub(super) fn set(&mut self, lane: usize, is_due: bool, has_asked: bool) {
        let before = self.asked[lane];
        let after = match before {
            _ if !is_due => None,
            Some(age) if !has_asked => Some(age),
            _ => Some(self.age),
        };
        if before != after {
            self.asked[lane] = after;
            for (asked, is_new) in [(before, false), (after, true)] {
                let count = asked.and_then(|age| self.lately.get_mut(since(age, self.age)));
                match count {
                    Some(count) if is_new => *count += 1,
                    Some(count) => *count -= 1,
                    None => {}
                }
            }
        }
    }

    /// Lets those go that were asked for too long ago.
    fn age(&mut self, now: Instant) {
        match self.since {
            Some(since) if now < since + AGE => {}
            _ => {
                self.since = Some(now);
                self.age += 1;
                self.lately = [0, self.lately[0]];
            }
        }
    }
}

/// How many ages ago.
fn since(asked: u64, age: u64) -> usize {
    usize::try_from(age - asked).unwrap_or(usize::MAX)
}

/// Bytes written since others were last let run.
#[derive(Debug, Default)]
pub(super) struct Burst(usize);

/// About what fits the cache of a core.
const BURST_BYTES: usize = 512 * 1024;

impl Burst {
    pub(super) fn add(&mut self, written: usize) {
        self.0 += written;
    }

    /// Lets others run after a lot was written. Those for whom it was written then read it while it
    /// is in the cache: a client that shares this core would otherwise find all that is written in
    /// one go, long after it has gone to memory.
    pub(super) fn pause_if_long(&mut self) {
        if self.0 >= BURST_BYTES {
            self.0 = 0;
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_answers_due_are_remembered_for_a_while() {
        let (mut policy, start) = (Policy::new(4), Instant::now());
        let mut due = Due::new(5);
        // Answers due, milliseconds, and whether it is at leisure.
        for (answers_due, at_ms, expected) in [
            (4, 0, true),
            (5, 10, false),
            (0, 20, false),
            (5, 100, false),
            (4, 199, false),
            (4, 200, true),
            (4, 201, true),
        ] {
            (0..5).for_each(|lane| due.set(lane, lane < answers_due, true));
            let now = || start + Duration::from_millis(at_ms);
            let is_at_leisure = policy.is_at_leisure(&mut due, now);
            assert_eq!(is_at_leisure, expected, "{answers_due} at {at_ms} ms");
        }
    }

    #[test]
    fn idle_clients_that_spoke_last_are_not_many_for_good() {
        let (mut policy, start) = (Policy::new(4), Instant::now());
        let mut due = Due::new(6);
        // They have sent half a head, and wait.
        (0..5).for_each(|lane| due.set(lane, true, true));
        let mut at_leisure = Vec::new();
        for ms in 0..1000 {
            // Of another client, a request and its answer.
            due.set(5, true, true);
            let now = || start + Duration::from_millis(ms);
            at_leisure.push(policy.is_at_leisure(&mut due, now));
            due.set(5, false, false);
        }
        assert!(!at_leisure[0], "they have just asked");
        assert!(at_leisure[500..].iter().all(|yes| *yes), "{at_leisure:?}");
        // Those that go on asking are many.
        (0..5).for_each(|lane| due.set(lane, true, true));
        assert_eq!(due.count(), 5);
        // What they wait for comes after all.
        (0..5).for_each(|lane| due.set(lane, false, false));
        assert_eq!(due.count(), 0);
    }

    proptest! {
        /// The oracle goes through all lanes.
        #[test]
        fn what_is_due_is_counted(steps in prop::collection::vec((0..8_usize, 0..4_u64), 1..200)) {
            let (mut due, mut now) = (Due::new(8), Instant::now());
            for (lane, what) in steps {
                match what {
                    0 => due.set(lane, false, false),
                    1 => due.set(lane, true, true),
                    2 => due.set(lane, true, false),
                    _ => {
                        now += AGE;
                        due.age(now);
                    }
                }
                let lately = |asked: &&Option<u64>| asked.is_some_and(|age| age + 1 >= due.age);
                prop_assert_eq!(due.count(), due.asked.iter().filter(lately).count());
            }
        }
    }
}
