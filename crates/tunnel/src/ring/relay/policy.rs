//! How those who write share their cores.

use std::{
    thread,
    time::{Duration, Instant},
};

/// With many answers due, an event loop that interrupts those whose bytes it passes on finds little
/// each time and runs often; it had better wait until they have had their while. With few, whoever
/// is interrupted was waiting for it anyway.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Until when this thread is to run in batches, if it does.
    in_batches_until: Option<Instant>,
    /// Not to be tried again.
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
