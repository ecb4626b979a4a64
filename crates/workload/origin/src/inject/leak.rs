//! Memory that is taken, written to, and kept.

use std::sync::{Mutex, PoisonError};

/// Size of one allocation in bytes. Small leaks share one, so that the allocator's own bytes don't
/// add to each. The kernel provides a page of it when the page is written.
const SLAB_BYTES: usize = 1 << 20;

/// One byte is written in every piece of this size. If the kernel's pages are larger, that is more
/// than needed.
const PAGE_BYTES: usize = 4096;

/// Grows with every request, up to a limit.
pub(super) struct Leak {
    request_bytes: usize,
    total_bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    slabs: Vec<Vec<u8>>,
    bytes: usize,
}

impl Leak {
    pub(super) fn new(request_bytes: usize, total_bytes_max: usize) -> Self {
        Self {
            request_bytes,
            total_bytes_max,
            kept: Mutex::default(),
        }
    }

    /// Leaks the memory of one request. Must be called once for each.
    pub(super) fn grow(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = kept.bytes.saturating_add(self.request_bytes);
        let bytes = wanted.min(self.total_bytes_max);
        if bytes > kept.bytes {
            kept.grow_to(bytes);
            if bytes == self.total_bytes_max {
                tracing::warn!(bytes, "the injected leak has reached its limit");
            }
        }
    }
}

impl Kept {
    fn grow_to(&mut self, bytes: usize) {
        for page in self.bytes.div_ceil(PAGE_BYTES)..bytes.div_ceil(PAGE_BYTES) {
            let offset = page * PAGE_BYTES;
            if offset / SLAB_BYTES == self.slabs.len() {
                self.slabs.push(vec![0; SLAB_BYTES]);
            }
            self.slabs[offset / SLAB_BYTES][offset % SLAB_BYTES] = 1;
        }
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages_written(leak: &Leak) -> usize {
        let kept = leak.kept.lock().expect("no panic");
        let bytes = kept.slabs.iter().flatten();
        bytes.map(|byte| usize::from(*byte)).sum()
    }

    #[test]
    fn each_page_is_written_once_and_the_limit_is_kept() {
        for request_bytes in [1, 100, 4096, 10_000, 3 << 20] {
            let limit = (5 << 20) + 1;
            let leak = Leak::new(request_bytes, limit);
            leak.grow();
            assert_eq!(leak.kept.lock().expect("no panic").bytes, request_bytes);
            assert_eq!(pages_written(&leak), request_bytes.div_ceil(PAGE_BYTES));
            for _ in 0..limit / request_bytes + 1 {
                leak.grow();
            }
            assert_eq!(leak.kept.lock().expect("no panic").bytes, limit);
            assert_eq!(pages_written(&leak), limit.div_ceil(PAGE_BYTES));
        }
    }
}
