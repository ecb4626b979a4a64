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
    pub(super) fn is_at_leisure(
        &mut self,
        answers_due: usize,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let are_few = answers_due <= self.few;
        if are_few && self.in_batches_until.is_none() {
            return true;
        }
        let now = now();
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
    use super::*;

    #[test]
    fn many_answers_due_are_remembered_for_a_while() {
        let (mut policy, start) = (Policy::new(4), Instant::now());
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
            let now = || start + Duration::from_millis(at_ms);
            let is_at_leisure = policy.is_at_leisure(answers_due, now);
            assert_eq!(is_at_leisure, expected, "{answers_due} at {at_ms} ms");
        }
    }
}
