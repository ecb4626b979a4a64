//! The order in which counters changed: what a peer has not seen yet is the log's end.

use std::collections::BTreeMap;

use super::store::Slot;

/// Each counter stands in the log once, at its last change, so the log is as long as there are
/// counters, and the whole of it is the full state.
#[derive(Debug)]
pub(super) struct Log {
    next: u64,
    slots: BTreeMap<u64, Slot>,
}

/// A part of the log.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slots: Vec<Slot>,
    /// Everything up to here is in this part or before it.
    pub(super) upto: u64,
    /// Whether the log goes on.
    pub(super) more: bool,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            slots: BTreeMap::new(),
        }
    }

    /// Moves a counter to the end. `before` is where it stood, 0 if nowhere. Returns where it is.
    pub(super) fn append(&mut self, slot: Slot, before: u64) -> u64 {
        self.slots.remove(&before);
        let number = self.next;
        self.next += 1;
        self.slots.insert(number, slot);
        number
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.slots.remove(&number);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Returns up to `most` counters that changed after `since`.
    pub(super) fn after(&self, since: u64, most: usize) -> Part {
        let mut changed = self.slots.range(since.saturating_add(1)..);
        let mut upto = since;
        let mut slots = Vec::new();
        for (number, slot) in changed.by_ref().take(most) {
            slots.push(*slot);
            upto = *number;
        }
        let more = changed.next().is_some();
        if !more {
            upto = self.last().max(since);
        }
        Part { slots, upto, more }
    }
}
