//! Which parts of an arena are in use: slots of a few sizes, cut from blocks.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

/// Sizes of slots in bytes. The steps are fours: at worst three quarters of a slot are unused, and
/// memory that is not written is never touched.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, BLOCK];

/// What is cut into slots of one size at a time. The largest slot.
const BLOCK: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Holds, by the number of the smallest slot that begins there. Whole numbers of this process
    /// alone.
    holds: Box<[AtomicU32]>,
    used_bytes: AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// Offsets of free slots, by size. The last one was in use most recently, and is likely cached.
    free: [Vec<usize>; SIZES.len()],
    /// What each block is cut into, as an index of `SIZES`.
    blocks: Box<[Option<usize>]>,
}

impl Slots {
    pub(super) fn new(bytes: usize) -> Self {
        let holds = (0..bytes / SIZES[0]).map(|_| AtomicU32::new(0)).collect();
        let state = State {
            free: [const { Vec::new() }; SIZES.len()],
            blocks: vec![None; bytes / BLOCK].into(),
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
        let start = match state.free[class].pop() {
            Some(start) => start,
            None => {
                state.cut_block(class)?;
                state.free[class].pop()?
            }
        };
        drop(state);
        self.used_bytes.fetch_add(SIZES[class], Ordering::Relaxed);
        self.holds(start).store(1, Ordering::Relaxed);
        Some(start)
    }

    /// One more hold on the slot in which `offset` is, which must be in use. Returns its start.
    pub(super) fn hold(&self, offset: usize) -> usize {
        let class = self.state().blocks[offset / BLOCK].expect("in use");
        let start = offset - offset % SIZES[class];
        self.holds(start).fetch_add(1, Ordering::Relaxed);
        start
    }

    /// One hold less; the last one frees the slot.
    pub(super) fn release(&self, start: usize) {
        // As for `Arc`: what was done by all who held it is done before it is used anew.
        if self.holds(start).fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.state();
        let class = state.blocks[start / BLOCK].expect("in use");
        state.free[class].push(start);
        self.used_bytes.fetch_sub(SIZES[class], Ordering::Relaxed);
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn holds(&self, start: usize) -> &AtomicU32 {
        &self.holds[start / SIZES[0]]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cuts a block that is free, or of which every slot is, into slots of a class.
    fn cut_block(&mut self, class: usize) -> Option<()> {
        let block = match self.blocks.iter().position(Option::is_none) {
            Some(block) => block,
            None => self.uncut_block()?,
        };
        self.blocks[block] = Some(class);
        // Descending, so that the first one taken is the first in memory.
        let starts = (0..BLOCK / SIZES[class]).rev();
        self.free[class].extend(starts.map(|slot| block * BLOCK + slot * SIZES[class]));
        Some(())
    }

    /// Finds a block whose slots are all free, and takes them out of the free lists.
    fn uncut_block(&mut self) -> Option<usize> {
        let mut free_slots = vec![0; self.blocks.len()];
        for start in self.free.iter().flatten() {
            free_slots[start / BLOCK] += 1;
        }
        let whole = |block: usize| {
            let class = self.blocks[block]?;
            (free_slots[block] == BLOCK / SIZES[class]).then_some((block, class))
        };
        let (block, class) = (0..self.blocks.len()).find_map(whole)?;
        self.free[class].retain(|start| start / BLOCK != block);
        self.blocks[block] = None;
        Some(block)
    }
}
