//! A counter that all threads of a node raise at once.

use std::{
    cell::Cell,
    num::NonZero,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crossbeam_utils::CachePadded;

use super::state::{ActorId, COUNT_MAX, Merged, State, Totals};

/// Most shards of a counter. Each takes a cache line or two.
const SHARDS_MAX: usize = 16;

/// A PN-counter. Our own counts are spread over shards, so that threads don't wait for one another;
/// those of other nodes stand beside them.
#[derive(Debug)]
pub struct PnCounter {
    actor: ActorId,
    shards: Box<[CachePadded<Shard>]>,
    foreign: Mutex<State>,
    /// The value of `foreign`, to be read without its lock.
    foreign_value: AtomicI64,
}

#[derive(Debug, Default)]
struct Shard {
    ups: AtomicU64,
    downs: AtomicU64,
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Returns the number of this thread; those of threads that count at the same time differ.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Relaxed) % (usize::MAX / 2));
        }
        shard.get()
    })
}

impl PnCounter {
    /// Returns a counter at zero, for the counts of this actor.
    pub fn new(actor: ActorId) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let shards = threads.next_power_of_two().min(SHARDS_MAX);
        Self {
            actor,
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
            foreign: Mutex::default(),
            foreign_value: AtomicI64::new(0),
        }
    }

    /// Counts up. No thread waits for another.
    #[inline]
    pub fn increment(&self, by: u32) {
        self.shard().ups.fetch_add(by.into(), Relaxed);
    }

    /// Counts down. No thread waits for another.
    #[inline]
    pub fn decrement(&self, by: u32) {
        self.shard().downs.fetch_add(by.into(), Relaxed);
    }

    #[inline]
    fn shard(&self) -> &Shard {
        &self.shards[thread_number() & (self.shards.len() - 1)]
    }

    /// Returns how far we have counted ourselves.
    pub fn own(&self) -> Totals {
        let mut own = Totals::default();
        for shard in &self.shards {
            own.ups += shard.ups.load(Relaxed);
            own.downs += shard.downs.load(Relaxed);
        }
        Totals {
            ups: own.ups.min(COUNT_MAX),
            downs: own.downs.min(COUNT_MAX),
        }
    }

    /// Returns the value: our own counts and those known of others. What other threads count
    /// meanwhile may be in it or not.
    #[inline]
    pub fn value(&self) -> i64 {
        let own = self.own().value();
        own.saturating_add(self.foreign_value.load(Relaxed))
    }

    /// Takes over the counts of other nodes, where they are higher. Counts of our own actor are
    /// known best here: those that are higher are refused.
    pub fn merge(&self, state: &State) -> Merged {
        let mut foreign = self.foreign();
        let mut merged = Merged::default();
        for (actor, totals) in state.actors() {
            if *actor != self.actor {
                merged.add(foreign.raise(*actor, *totals));
            } else if self.own().max(*totals) != self.own() {
                merged.refused += 1;
            }
        }
        if merged.change != 0 {
            self.foreign_value.store(foreign.value(), Relaxed);
        }
        merged
    }

    /// Returns all counts, ours and those known of others.
    pub fn state(&self) -> State {
        let mut state = State::default();
        let own = self.own();
        if own != Totals::default() {
            state.raise(self.actor, own);
        }
        // Ours is first in: it is never the one too many.
        state.merge(&self.foreign());
        state
    }

    fn foreign(&self) -> MutexGuard<'_, State> {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ActorId = ActorId::from_bytes([1; 16]);
    const THEIRS: ActorId = ActorId::from_bytes([2; 16]);

    #[test]
    fn threads_count_together() {
        let counter = PnCounter::new(OURS);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counter.increment(3);
                        counter.decrement(1);
                    }
                });
            }
        });
        assert_eq!(counter.value(), 160_000);
        let own = counter.own();
        assert_eq!((own.ups, own.downs), (240_000, 80_000));
    }

    #[test]
    fn a_merge_adds_others_once_and_never_us() {
        let counter = PnCounter::new(OURS);
        counter.increment(2);
        let five = Totals { ups: 5, downs: 0 };
        let state: State = [(THEIRS, five)].into_iter().collect();
        assert_eq!(counter.merge(&state).change, 5);
        assert_eq!(counter.merge(&state), Merged::default());
        assert_eq!(counter.value(), 7);
        let forged: State = [(OURS, five)].into_iter().collect();
        assert_eq!(counter.merge(&forged).refused, 1);
        assert_eq!(counter.merge(&counter.state()), Merged::default());
        assert_eq!(counter.value(), 7);
        assert_eq!(counter.state().actors().len(), 2);
    }
}
