//! Pauses between long writes.

use std::thread;

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
