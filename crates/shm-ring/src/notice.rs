//! Telling the peer what it has to look at.
//!
//! ```text
//! any thread of this side                one thread of this side
//!   mark a lane ready                      unrung? unrung = 0, and:
//!   unrung = 1                  E8           fence                     E5
//!                                            parked? parked = 0, ring
//! ```
//!
//! The peer is woken for what was marked since it was last looked whether it sleeps, and for
//! nothing else. Two sides that rang each other after every turn would keep each other awake.

use crate::{
    bell::Parking,
    ready::ReadySet,
    sync::{
        AtomicBool,
        Ordering::{Relaxed, Release},
    },
    words::Words,
};

/// This side's way to tell the peer.
#[derive(Debug)]
pub struct Notice<W> {
    ready: ReadySet<W>,
    parking: Parking<W>,
    /// Whether a lane was marked for which the peer may still have to be woken. Of this process
    /// alone.
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
    /// Marks lanes in `ready` for the peer that parks at `parking`.
    pub fn new(ready: ReadySet<W>, parking: Parking<W>) -> Self {
        Self {
            ready,
            parking,
            unrung: AtomicBool::new(false),
        }
    }

    /// Marks a lane for the peer. Whoever calls [`Self::ring`] next wakes it.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn mark(&self, lane: usize) {
        self.ready.mark(lane);
        // E8: after the mark. A swap and not a store: whoever finds it set finds the marks of all
        // threads that have set it, not only those of the last one.
        self.unrung.swap(true, Release);
    }

    /// Whether a lane was marked since the last call of [`Self::ring`].
    pub fn is_unrung(&self) -> bool {
        self.unrung.load(Relaxed)
    }

    /// Whether the peer must be woken for what was marked; once per sleep.
    pub fn ring(&self) -> Ring {
        // E8, the other half, is the fence of E5: whatever was marked by those who have set this
        // comes before it.
        if !self.is_unrung() || !self.unrung.swap(false, Relaxed) {
            Ring::Nothing
        } else if self.parking.must_ring() {
            Ring::Must
        } else {
            Ring::Awake
        }
    }
}
