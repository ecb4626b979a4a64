//! The answers that are due, and whether an event loop looks for work before it sleeps.

use std::time::{Duration, Instant};

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
    /// Most answers due that count as few.
    few: usize,
    /// Until when many count as due, since they were due lately.
    many_until: Option<Instant>,
}

/// Length of an age. An answer that is due counts for one to two ages.
const AGE: Duration = Duration::from_millis(100);

/// How long few answers must be due, after many were, before they count as few.
const LINGER: Duration = Duration::from_millis(100);

impl Due {
    /// Returns a record of `lanes` lanes, for which up to `few` answers due are few.
    pub(super) fn new(lanes: usize, few: usize) -> Self {
        Self {
            asked: vec![None; lanes],
            lately: [0; 2],
            age: 0,
            since: None,
            few,
            many_until: None,
        }
    }

    /// Returns whether few answers are due, and have been for a while.
    ///
    /// With many, a loop that looks for work again and again takes its core from the clients that
    /// read, and finds little each time. If it sleeps, each wake-up finds more work.
    pub(super) fn are_few(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.count() <= self.few && self.many_until.is_none() {
            return true;
        }
        let now = now();
        if self.count() > self.few {
            self.age(now);
        }
        self.many_until = match self.count() <= self.few {
            true => self.many_until.filter(|until| now < *until),
            false => Some(now + LINGER),
        };
        self.many_until.is_none()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_answers_due_are_remembered_for_a_while() {
        let (mut due, start) = (Due::new(5, 4), Instant::now());
        // Answers due, milliseconds, and whether they are few.
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
            assert_eq!(due.are_few(now), expected, "{answers_due} at {at_ms} ms");
        }
    }

    #[test]
    fn idle_clients_that_spoke_last_are_not_many_for_good() {
        let (mut due, start) = (Due::new(6, 4), Instant::now());
        // They have sent half a head, and wait.
        (0..5).for_each(|lane| due.set(lane, true, true));
        let mut were_few = Vec::new();
        for ms in 0..1000 {
            // Another client sends a request and gets its answer.
            due.set(5, true, true);
            let now = || start + Duration::from_millis(ms);
            were_few.push(due.are_few(now));
            due.set(5, false, false);
        }
        assert!(!were_few[0], "they have just asked");
        assert!(were_few[500..].iter().all(|yes| *yes), "{were_few:?}");
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
            let (mut due, mut now) = (Due::new(8, 4), Instant::now());
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
