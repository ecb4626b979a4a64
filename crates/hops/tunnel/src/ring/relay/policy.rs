//! How writing threads share their cores with other threads.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Decides whether an event loop's thread runs under `SCHED_BATCH`.
///
/// With many answers due, an event loop that preempts the programs whose bytes it passes on, or
/// that looks again before it sleeps, finds little each time and runs often. Under `SCHED_BATCH` a
/// woken loop doesn't preempt the running thread, so each wake-up finds more work. With few answers
/// due, a preempted program was waiting for the event loop anyway.
#[derive(Debug)]
pub(super) struct Policy {
    /// Most answers due that count as few.
    few: usize,
    /// Until when this thread is to run under `SCHED_BATCH`, if it does.
    in_batches_until: Option<Instant>,
    /// Whether this thread's policy is not to be changed, or could not be.
    forbidden: bool,
}

/// The lanes for which an answer is due. They count only if they have asked lately.
///
/// A client that has asked and gets no answer for long is idle: it has sent half a head, waits in a
/// long poll, or speaks a protocol without answers. It brings no work, so it doesn't count.
#[derive(Debug)]
pub(super) struct Due {
    /// The age in which each lane has last asked for what is due; `None` if nothing is due.
    asked: Vec<Option<u64>>,
    /// How many lanes have asked in this age, and how many in the one before. Others don't count.
    lately: [usize; 2],
    age: u64,
    /// When this age began; ages begin only as long as many answers are due.
    since: Option<Instant>,
}

/// Length of an age. An answer that is due counts for one to two ages.
const AGE: Duration = Duration::from_millis(100);

/// How long few answers must be due, after many were, before they count as few.
const LINGER: Duration = Duration::from_millis(100);

impl Policy {
    /// Makes a policy for which up to `few` answers due are few. It asks for `SCHED_BATCH` only if
    /// `batches`.
    pub(super) fn new(few: usize, batches: bool) -> Self {
        Self {
            few,
            in_batches_until: None,
            forbidden: !batches,
        }
    }

    /// Returns whether few answers are due, and have been for a while. If not, the thread runs
    /// under `SCHED_BATCH`.
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
            && let Err(error) = shm_ring::set_sched_batch(until.is_some())
        {
            tracing::debug!(%error, "could not schedule a relay with SCHED_BATCH");
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

    /// Returns how many answers are due that were asked for lately.
    pub(super) fn count(&self) -> usize {
        self.lately.iter().sum()
    }

    /// Records whether an answer is due for a lane, and whether it has just been asked for.
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

    /// Begins a new age if it is time, so that answers asked for too long ago no longer count.
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

/// Returns how many ages ago `asked` was.
fn since(asked: u64, age: u64) -> usize {
    usize::try_from(age - asked).unwrap_or(usize::MAX)
}

/// The bytes that this thread has written since it last yielded.
#[derive(Debug)]
pub(super) struct Burst {
    written: usize,
    /// Whether the thread yields at all.
    pauses: bool,
}

/// Bytes after which a thread yields: about what fits the cache of a core.
const BURST_BYTES: usize = 512 * 1024;

impl Burst {
    pub(super) fn new(pauses: bool) -> Self {
        Self { written: 0, pauses }
    }

    pub(super) fn add(&mut self, written: usize) {
        self.written += written;
    }

    /// Yields the core after a lot was written, so that clients can read it while it is in the
    /// cache. A client that shares this core would otherwise read it all in one go, long after it
    /// has left the cache.
    pub(super) fn pause_if_long(&mut self) {
        if self.pauses && self.written >= BURST_BYTES {
            self.written = 0;
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
        let (mut policy, start) = (Policy::new(4, true), Instant::now());
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
        let (mut policy, start) = (Policy::new(4, true), Instant::now());
        let mut due = Due::new(6);
        // They have sent half a head, and wait.
        (0..5).for_each(|lane| due.set(lane, true, true));
        let mut at_leisure = Vec::new();
        for ms in 0..1000 {
            // Another client sends a request and gets its answer.
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
