//! Tells the peer which lanes have work.
//!
//! ```text
//! any thread of this side                one thread of this side
//!   mark a lane ready                      unrung? unrung = 0, and:
//!   unrung = 1                  E8           fence                     E5
//!                                            parked? parked = 0, ring
//! ```
//!
//! The peer is woken only for lanes that were marked since this side last checked whether it
//! sleeps. Two sides that rang each other after every turn would keep each other awake.

use crate::{
    bell::Parking,
    ready::ReadySet,
    sync::{
        AtomicBool,
        Ordering::{Relaxed, Release},
    },
    words::Words,
};

/// Marks lanes for the peer, and decides whether to ring its bell.
#[derive(Debug)]
pub struct Notice<W> {
    ready: ReadySet<W>,
    parking: Parking<W>,
    /// Whether a lane was marked for which the peer may still have to be woken. Private to this
    /// process.
    unrung: AtomicBool,
}

/// Whether the peer must be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// No: nothing was marked.
    Nothing,
    /// No: it is awake and will find what was marked.
    Awake,
    /// Yes: it sleeps.
    Must,
}

impl<W: Words> Notice<W> {
    /// Creates a notice that marks lanes in `ready` for the peer that parks at `parking`.
    pub fn new(ready: ReadySet<W>, parking: Parking<W>) -> Self {
        Self {
            ready,
            parking,
            unrung: AtomicBool::new(false),
        }
    }

    /// Marks a lane for the peer. The next call of [`Self::ring`] says whether to wake it.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn mark(&self, lane: usize) {
        self.ready.mark(lane);
        // E8: after the mark. It is a swap and not a store, so that whoever finds the flag set sees
        // the marks of all threads that have set it, not only those of the last one.
        self.unrung.swap(true, Release);
    }

    /// Returns whether a lane was marked since the last call of [`Self::ring`].
    pub fn is_unrung(&self) -> bool {
        self.unrung.load(Relaxed)
    }

    /// Returns whether the peer must be woken for the marked lanes: [`Ring::Must`] once per sleep.
    pub fn ring(&self) -> Ring {
        // The other half of E8 is the fence of E5: all marks of the threads that have set the flag
        // come before it.
        if !self.is_unrung() || !self.unrung.swap(false, Relaxed) {
            Ring::Nothing
        } else if self.parking.must_ring() {
            Ring::Must
        } else {
            Ring::Awake
        }
    }
}
