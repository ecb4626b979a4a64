//! How an event loop shares its core.

use std::time::{Duration, Instant};

/// With many answers due, an event loop that interrupts those whose bytes it passes on finds little
/// each time and runs often; it had better wait until they have had their while. With few, whoever
/// is interrupted was waiting for it anyway.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Until when this thread is to run in batches, if it does.
    in_batches_until: Option<Instant>,
    /// The system would not have it; it was said.
    refused: bool,
}

/// So long after the last time that there were many, there are few.
const LINGER: Duration = Duration::from_millis(100);

impl Policy {
    pub(super) fn choose(&mut self, few: bool) {
        if self.refused || few && self.in_batches_until.is_none() {
            return;
        }
        let now = Instant::now();
        let until = match few {
            true => self.in_batches_until.filter(|until| now < *until),
            false => Some(now + LINGER),
        };
        if until.is_some() != self.in_batches_until.is_some()
            && let Err(error) = shm_ring::run_in_batches(until.is_some())
        {
            tracing::debug!(%error, "a relay can't be scheduled in batches");
            self.refused = true;
        }
        self.in_batches_until = until;
    }
}
