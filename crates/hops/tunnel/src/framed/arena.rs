//! Buffers into which sockets are read: a few large ones, which are cut into frames and used again.
//!
//! A read goes to the free end of the current buffer and is split off without a copy. A buffer that
//! is used up is set aside, and taken again once everything that was split off it has been sent. So
//! a small read costs its own length and no allocation, and pages stay mapped and warm.

use std::{cell::RefCell, collections::VecDeque, mem};

use bytes::{BufMut, Bytes, BytesMut, buf::Limit};

/// Length of a buffer in bytes: one of the largest reads. Several are in use under load, and
/// together they should fit a core's cache.
const BUFFER_BYTES: usize = 128 * 1024;

/// Room that a read gets at the least, in bytes, before a fresh buffer is taken.
const ROOM_BYTES_MIN: usize = 64 * 1024;

/// Most buffers that are kept for another use. All that a full outbox refers to fits in them.
const SPENT_MAX: usize = 8;

thread_local! {
    /// One per thread: no lock, and what a thread reads stays in its core's cache.
    static ARENA: RefCell<Arena> = RefCell::default();
}

/// Calls `use_it` with this thread's arena. `use_it` must not call this function.
pub(crate) fn with<R>(use_it: impl FnOnce(&mut Arena) -> R) -> R {
    ARENA.with_borrow_mut(use_it)
}

#[derive(Debug, Default)]
pub(crate) struct Arena {
    current: BytesMut,
    /// Buffers that are used up, oldest first.
    spent: VecDeque<BytesMut>,
}

impl Arena {
    /// Returns room for a read of at most `limit` bytes.
    pub(crate) fn room(&mut self, limit: usize) -> Limit<&mut BytesMut> {
        if self.current.capacity() < ROOM_BYTES_MIN && !self.current.try_reclaim(BUFFER_BYTES) {
            self.replace();
        }
        let room = self.current.capacity().min(limit);
        (&mut self.current).limit(room)
    }

    /// Splits off what was read into the room.
    pub(crate) fn split(&mut self) -> Bytes {
        self.current.split().freeze()
    }

    fn replace(&mut self) {
        let free = self
            .spent
            .iter_mut()
            .position(|spent| spent.try_reclaim(BUFFER_BYTES));
        let fresh = match free {
            Some(index) => self.spent.remove(index).expect("just found"),
            None => BytesMut::with_capacity(BUFFER_BYTES),
        };
        let used_up = mem::replace(&mut self.current, fresh);
        if self.spent.len() < SPENT_MAX {
            self.spent.push_back(used_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arena: &mut Arena, bytes: usize) -> Bytes {
        arena.room(bytes).put_bytes(7, bytes);
        arena.split()
    }

    #[test]
    fn buffers_are_used_again_once_everything_split_off_is_gone() {
        let mut arena = Arena::default();
        let mut held = VecDeque::new();
        let mut addresses = Vec::new();
        for _ in 0..200 {
            let bytes = read(&mut arena, 64 * 1024);
            assert_eq!(bytes.len(), 64 * 1024);
            addresses.push(bytes.as_ptr());
            held.push_back(bytes);
            if held.len() > 8 {
                held.pop_front();
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        assert!(
            addresses.len() < 40,
            "{} places for 9 frames at a time",
            addresses.len()
        );
    }

    #[test]
    fn what_was_read_stays_as_it_was() {
        let mut arena = Arena::default();
        let all: Vec<Bytes> = (0..100_u8)
            .map(|n| {
                arena.room(50_000).put_bytes(n, 50_000);
                arena.split()
            })
            .collect();
        for (n, bytes) in (0..100_u8).zip(all) {
            assert!(bytes.iter().all(|byte| *byte == n));
        }
    }
}
