//! Which parts of an arena are in use: slots of a few sizes, cut from blocks.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

/// Sizes of slots in bytes. Each is four times the one before, so at worst three quarters of a slot
/// are unused. Memory that is not written is never touched.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, BLOCK];

/// Size of a block in bytes. A block is cut into slots of one size at a time. The largest slot is a
/// whole block.
const BLOCK: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Number of holds on each slot, indexed by its start in units of the smallest slot. Private to
    /// this process.
    holds: Box<[AtomicU32]>,
    used_bytes: AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// Offsets of free slots, by size. The last one was in use most recently, and is likely cached.
    free: [Vec<usize>; SIZES.len()],
    blocks: Box<[Block]>,
    /// Number of blocks that are not cut.
    uncut: usize,
    /// Number of blocks that are cut and have all their slots free.
    whole: usize,
    /// Number of blocks and free slots that were searched under the lock.
    #[cfg(test)]
    searched: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Size of its slots, as an index of `SIZES`; `None` if it is not cut.
    class: Option<usize>,
    free_slots: usize,
}

impl Slots {
    pub(super) fn new(bytes: usize) -> Self {
        let holds = (0..bytes / SIZES[0]).map(|_| AtomicU32::new(0)).collect();
        let state = State {
            free: [const { Vec::new() }; SIZES.len()],
            blocks: vec![Block::default(); bytes / BLOCK].into(),
            uncut: bytes / BLOCK,
            whole: 0,
            #[cfg(test)]
            searched: 0,
        };
        Self {
            state: Mutex::new(state),
            holds,
            used_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes a slot of at least `length` bytes, with one hold on it.
    pub(super) fn alloc(&self, length: usize) -> Option<usize> {
        let class = SIZES
            .iter()
            .position(|size| (1..=*size).contains(&length))?;
        let mut state = self.state();
        if state.free[class].is_empty() {
            state.cut_block(class)?;
        }
        let start = state.take(class)?;
        drop(state);
        self.used_bytes.fetch_add(SIZES[class], Ordering::Relaxed);
        self.holds(start).store(1, Ordering::Relaxed);
        Some(start)
    }

    /// Adds a hold on the slot that contains `offset`, which must be in use. Returns its start.
    pub(super) fn hold(&self, offset: usize) -> usize {
        let class = self.state().blocks[offset / BLOCK].class.expect("in use");
        let start = offset - offset % SIZES[class];
        self.holds(start).fetch_add(1, Ordering::Relaxed);
        start
    }

    /// Drops one hold. The last one frees the slot.
    pub(super) fn release(&self, start: usize) {
        // As for `Arc`: everything that the holders did comes before the slot is used anew.
        if self.holds(start).fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.state();
        let class = state.give_back(start);
        self.used_bytes.fetch_sub(SIZES[class], Ordering::Relaxed);
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn holds(&self, start: usize) -> &AtomicU32 {
        &self.holds[start / SIZES[0]]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, class: usize) -> Option<usize> {
        let start = self.free[class].pop()?;
        let block = &mut self.blocks[start / BLOCK];
        self.whole -= usize::from(block.is_whole());
        block.free_slots -= 1;
        Some(start)
    }

    /// Puts a slot on its free list. Returns the index of its size.
    fn give_back(&mut self, start: usize) -> usize {
        let block = &mut self.blocks[start / BLOCK];
        let class = block.class.expect("in use");
        block.free_slots += 1;
        self.whole += usize::from(block.is_whole());
        self.free[class].push(start);
        class
    }

    /// Cuts a block into slots of a class: one that is not cut, or one whose slots are all free.
    fn cut_block(&mut self, class: usize) -> Option<()> {
        // A full arena has neither, so nothing is searched.
        let index = match self.uncut {
            0 => self.uncut_block()?,
            _ => self.find(|block| block.class.is_none())?,
        };
        self.uncut -= 1;
        let slots = BLOCK / SIZES[class];
        self.blocks[index] = Block {
            class: Some(class),
            free_slots: slots,
        };
        self.whole += 1;
        // Descending, so that the first one taken is the first in memory.
        let starts = (0..slots).rev();
        self.free[class].extend(starts.map(|slot| index * BLOCK + slot * SIZES[class]));
        Some(())
    }

    /// Finds a block whose slots are all free, and takes them out of their free list.
    fn uncut_block(&mut self) -> Option<usize> {
        if self.whole == 0 {
            return None;
        }
        let index = self.find(Block::is_whole)?;
        let class = self.blocks[index].class?;
        #[cfg(test)]
        {
            self.searched += self.free[class].len();
        }
        self.free[class].retain(|start| start / BLOCK != index);
        self.blocks[index] = Block::default();
        self.whole -= 1;
        self.uncut += 1;
        Some(index)
    }

    fn find(&mut self, wanted: impl Fn(&Block) -> bool) -> Option<usize> {
        let index = self.blocks.iter().position(wanted);
        #[cfg(test)]
        {
            self.searched += index.map_or(self.blocks.len(), |index| index + 1);
        }
        index
    }
}

impl Block {
    /// Returns whether the block is cut and all its slots are free.
    fn is_whole(&self) -> bool {
        self.class
            .is_some_and(|class| self.free_slots == BLOCK / SIZES[class])
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// All blocks of 64 MiB are cut into small slots, and one slot of each block is in use. So
    /// there is no large slot. Asking for one again and again must not search all blocks each time,
    /// while everybody waits for the lock.
    #[test]
    fn a_full_arena_is_not_searched_for_each_allocation() {
        let slots = Slots::new(64 * BLOCK);
        let all: Vec<usize> = std::iter::from_fn(|| slots.alloc(SIZES[0])).collect();
        assert_eq!(all.len(), 64 * BLOCK / SIZES[0]);
        let is_kept = |start: &usize| start.is_multiple_of(BLOCK);
        for start in all.iter().filter(|start| !is_kept(start)) {
            slots.release(*start);
        }
        let before = slots.state().searched;
        for _ in 0..100 {
            assert_eq!(slots.alloc(BLOCK), None);
        }
        assert_eq!(slots.state().searched, before);
        // One block is whole again: it is found, and no other.
        slots.release(0);
        assert_eq!(slots.alloc(BLOCK), Some(0));
        assert_eq!(slots.alloc(BLOCK), None);
        // Everything that was given back can be had again.
        (1..64).for_each(|block| slots.release(block * BLOCK));
        slots.release(0);
        let whole: Vec<usize> = std::iter::from_fn(|| slots.alloc(BLOCK)).collect();
        assert_eq!(whole.len(), 64);
    }
}
