//! All counters of a node, in windows of time.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;

use super::{
    counter::PnCounter,
    log::Log,
    state::{ActorId, Merged, State, Totals},
};

/// Shards of the table of keys, so that threads seldom wait for one another.
const SHARDS: usize = 64;

/// Most shared counters. They are as many as the configuration has limits, in two windows.
const SHARED_MAX: usize = 4096;

/// Foreign counts that a keyed counter has room for on average: what bounds the memory that peers
/// can take.
const FOREIGN_PER_KEY: usize = 8;

/// Shortest window.
pub const LENGTH_MS_MIN: u32 = 100;

/// Longest window: a day.
pub const LENGTH_MS_MAX: u32 = 86_400_000;

/// Names a counter: what is counted, and in which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Digest of what is counted: the limit's name and the client.
    pub key: u128,
    /// Begin of the window in milliseconds since 1970, a multiple of its length.
    pub start_ms: u64,
    /// Length of the window in milliseconds.
    pub length_ms: u32,
}

/// How a counter is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of many, such as a client's: small, behind a lock.
    Keyed,
    /// One of few, which many threads raise: a [`PnCounter`].
    Shared,
}

/// The state of one counter, as nodes exchange it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The counter.
    pub slot: Slot,
    /// How it is kept.
    pub kind: Kind,
    /// Its counts.
    pub state: State,
}

/// The effect of items that came from a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Counters that grew.
    pub grew: u64,
    /// Counters of windows that are over, or too far ahead, or are none.
    pub out_of_time: u64,
    /// Counts that are impossible, of too many actors, or said to be ours.
    pub refused: u64,
}

/// How full a store is, and what happened to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Keyed counters.
    pub keyed: u64,
    /// Shared counters.
    pub shared: u64,
    /// Times that a client was counted together with others, for want of room.
    pub crowded: u64,
    /// Keyed counters of windows before the present one that were dropped early, to make room.
    pub dropped: u64,
}

/// The counters of a node.
#[derive(Debug)]
pub struct Store {
    actor: ActorId,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    shared: RwLock<HashMap<Slot, Arc<PnCounter>, RandomState>>,
    log: Mutex<Log>,
    /// Changes up to here have been collected: a later one must be logged again.
    collected: AtomicU64,
    shard_keys_max: usize,
    crowded: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Slot, Entry, RandomState>,
    /// Foreign counts in all entries.
    foreign: usize,
    /// The window in which room was made last. Once per window is enough.
    made_room_ms: u64,
}

#[derive(Debug, Default)]
struct Entry {
    own: Totals,
    foreign: State,
    /// Place in the log; 0 before the first change.
    logged: u64,
}

impl Slot {
    /// Returns the counter of a key in the window that now is.
    pub fn at(key: u128, length_ms: u32, now_ms: u64) -> Self {
        let length_ms = length_ms.clamp(LENGTH_MS_MIN, LENGTH_MS_MAX);
        Self {
            key,
            start_ms: now_ms - now_ms % u64::from(length_ms),
            length_ms,
        }
    }

    /// Returns the counter of the window before.
    pub fn before(self) -> Self {
        Self {
            start_ms: self.start_ms.saturating_sub(self.length_ms.into()),
            ..self
        }
    }

    /// Returns whether the window is this one, the one before, or the next: a peer's clock may be
    /// ahead of ours.
    pub fn is_alive(self, now_ms: u64) -> bool {
        let length = u64::from(self.length_ms);
        let is_window = (LENGTH_MS_MIN..=LENGTH_MS_MAX).contains(&self.length_ms)
            && self.start_ms.is_multiple_of(length);
        let is_over = self.start_ms.saturating_add(2 * length) <= now_ms;
        is_window && !is_over && self.start_ms <= now_ms.saturating_add(length)
    }

    fn end_ms(self) -> u64 {
        self.start_ms.saturating_add(self.length_ms.into())
    }

    fn shard(self) -> usize {
        self.key as usize % SHARDS
    }
}

impl Hash for Slot {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of a digest is enough of it"
    )]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.key as u64);
        hasher.write_u64(self.start_ms ^ u64::from(self.length_ms));
    }
}

impl Shard {
    /// Drops the entries that don't stay, and adds their places in the log to `gone`.
    fn retain(&mut self, stays: impl Fn(&Slot) -> bool, gone: &mut Vec<u64>) {
        let foreign = &mut self.foreign;
        self.entries.retain(|slot, entry| {
            let stays = stays(slot);
            if !stays {
                *foreign -= entry.foreign.actors().len();
                gone.push(entry.logged);
            }
            stays
        });
    }
}

impl Entry {
    fn value(&self) -> u64 {
        let value = self.own.value().saturating_add(self.foreign.value());
        u64::try_from(value).unwrap_or_default()
    }
}

impl Store {
    /// Returns an empty store for at most `keys_max` keyed counters.
    pub fn new(actor: ActorId, keys_max: usize) -> Self {
        Self {
            actor,
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            shared: RwLock::default(),
            log: Mutex::new(Log::new()),
            collected: AtomicU64::new(0),
            shard_keys_max: (keys_max / SHARDS).max(1),
            crowded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Returns the actor as which this node counts.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// Asks `admit` with the counts of this window and of the one before, and counts one up in
    /// this window if it says so. No other thread changes the counter meanwhile.
    ///
    /// A key for which there is no room shares one counter with the others of its shard.
    pub(crate) fn count_if<R>(&self, slot: Slot, admit: impl FnOnce(u64, u64) -> (bool, R)) -> R {
        let mut shard = self.shard(slot);
        let slot = self.with_room(&mut shard, slot, slot.start_ms);
        let before = shard.entries.get(&slot.before()).map_or(0, Entry::value);
        let Shard { entries, .. } = &mut *shard;
        if let Some(entry) = entries.get_mut(&slot) {
            let (admitted, result) = admit(entry.value(), before);
            if admitted {
                entry.own.ups += 1;
                self.log(slot, entry);
            }
            return result;
        }
        let (admitted, result) = admit(0, before);
        if admitted {
            let mut entry = Entry::default();
            entry.own.ups = 1;
            self.log(slot, &mut entry);
            entries.insert(slot, entry);
        }
        result
    }

    /// Takes back one that was counted by [`count_if`](Self::count_if).
    pub(crate) fn take_back(&self, slot: Slot) {
        let mut shard = self.shard(slot);
        let crowd = crowd(slot);
        let Shard { entries, .. } = &mut *shard;
        let slot = match entries.contains_key(&slot) {
            true => slot,
            false => crowd,
        };
        if let Some(entry) = entries.get_mut(&slot).filter(|entry| entry.own.value() > 0) {
            entry.own.downs += 1;
            self.log(slot, entry);
        }
    }

    /// Returns the count of a keyed counter.
    pub fn value(&self, slot: Slot) -> u64 {
        self.shard(slot).entries.get(&slot).map_or(0, Entry::value)
    }

    /// Returns a shared counter, which begins at zero if it is new; `None` if there are too many.
    pub fn shared(&self, slot: Slot) -> Option<Arc<PnCounter>> {
        let known = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(&slot) {
            return Some(Arc::clone(counter));
        }
        drop(known);
        let mut known = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SHARED_MAX && !known.contains_key(&slot) {
            return None;
        }
        let new = || Arc::new(PnCounter::new(self.actor));
        Some(Arc::clone(known.entry(slot).or_insert_with(new)))
    }

    /// Drops the windows that are over. To be called now and then, at least once per second.
    pub fn expire(&self, now_ms: u64) {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.retain(|slot| slot.is_alive(now_ms), &mut gone);
            drop(shard);
            self.forget(&mut gone);
        }
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|slot, _| slot.is_alive(now_ms));
    }

    /// Takes over what a peer says, where it is higher.
    pub fn apply(&self, items: &[Item], now_ms: u64) -> Applied {
        let mut applied = Applied::default();
        for item in items {
            if !item.slot.is_alive(now_ms) {
                applied.out_of_time += 1;
                continue;
            }
            let merged = match item.kind {
                Kind::Keyed => self.merge_keyed(item, now_ms),
                Kind::Shared => match self.shared(item.slot) {
                    Some(counter) => counter.merge(&item.state),
                    None => Merged {
                        refused: item.state.actors().len(),
                        ..Merged::default()
                    },
                },
            };
            applied.grew += u64::from(merged.grew);
            applied.refused += merged.refused as u64;
        }
        applied
    }

    fn merge_keyed(&self, item: &Item, now_ms: u64) -> Merged {
        let slot = item.slot;
        let mut shard = self.shard(slot);
        let mut merged = Merged::default();
        // Without room, its counts can't be added to those of others: they come again and again.
        let is_refused = self.with_room(&mut shard, slot, now_ms) != slot
            || shard.foreign >= FOREIGN_PER_KEY * self.shard_keys_max;
        if is_refused && !shard.entries.contains_key(&slot) {
            merged.refused = item.state.actors().len();
            return merged;
        }
        let Shard {
            entries, foreign, ..
        } = &mut *shard;
        let entry = entries.entry(slot).or_default();
        for (actor, totals) in item.state.actors() {
            let is_ours = *actor == self.actor;
            let is_new = !is_ours && entry.foreign.totals(*actor) == Totals::default();
            if is_ours || (is_new && *foreign >= FOREIGN_PER_KEY * self.shard_keys_max) {
                merged.refused += usize::from(!is_ours || entry.own.max(*totals) != entry.own);
                continue;
            }
            let before = entry.foreign.actors().len();
            merged.add(entry.foreign.raise(*actor, *totals));
            *foreign += entry.foreign.actors().len() - before;
        }
        if merged.grew || entry.logged == 0 {
            self.log(slot, entry);
        }
        merged
    }

    /// Returns up to `most` keyed counters that changed after `since`; up to where the log was
    /// read, and whether it goes on.
    pub(crate) fn changed(&self, since: u64, most: usize) -> (Vec<Item>, u64, bool) {
        let part = {
            let log = lock(&self.log);
            let part = log.after(since, most);
            // Before the counters are read: what is counted after that is logged again.
            self.collected.fetch_max(part.upto, Relaxed);
            part
        };
        let items = part.slots.into_iter().filter_map(|slot| {
            let shard = self.shard(slot);
            let entry = shard.entries.get(&slot)?;
            let mut state = State::default();
            if entry.own != Totals::default() {
                state.raise(self.actor, entry.own);
            }
            state.merge(&entry.foreign);
            let kind = Kind::Keyed;
            Some(Item { slot, kind, state })
        });
        (items.collect(), part.upto, part.more)
    }

    /// Returns the number of the last change.
    pub(crate) fn last_change(&self) -> u64 {
        lock(&self.log).last()
    }

    /// Returns up to `most` shared counters, from another one each `round`.
    pub(crate) fn shared_items(&self, round: usize, most: usize) -> Vec<Item> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let mut slots: Vec<Slot> = shared.keys().copied().collect();
        slots.sort_unstable();
        let start = round.wrapping_mul(most) % slots.len().max(1);
        let turned = slots.iter().cycle().skip(start).take(most.min(slots.len()));
        let items = turned.filter_map(|slot| {
            Some(Item {
                slot: *slot,
                kind: Kind::Shared,
                state: shared.get(slot)?.state(),
            })
        });
        items.collect()
    }

    /// Returns how full the store is.
    pub fn counts(&self) -> StoreCounts {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        StoreCounts {
            keyed: lock(&self.log).len() as u64,
            shared: shared.len() as u64,
            crowded: self.crowded.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }

    fn shard(&self, slot: Slot) -> MutexGuard<'_, Shard> {
        lock(&self.shards[slot.shard()])
    }

    /// Returns the counter to use: the one asked for, if there is room for it.
    #[inline]
    fn with_room(&self, shard: &mut Shard, slot: Slot, now_ms: u64) -> Slot {
        let is_full = shard.entries.len() >= self.shard_keys_max;
        if !is_full || shard.entries.contains_key(&slot) {
            return slot;
        }
        self.make_room(shard, slot, now_ms)
    }

    /// Drops the windows that are over, and if that is not enough those before this one; once per
    /// window. If that doesn't help, those without a counter share one.
    #[cold]
    fn make_room(&self, shard: &mut Shard, slot: Slot, now_ms: u64) -> Slot {
        let now_ms = now_ms.min(slot.start_ms);
        if shard.made_room_ms < now_ms {
            shard.made_room_ms = now_ms;
            let mut gone = Vec::new();
            shard.retain(|known| known.is_alive(now_ms), &mut gone);
            if shard.entries.len() >= self.shard_keys_max {
                let over = gone.len();
                shard.retain(|known| known.end_ms() > now_ms, &mut gone);
                self.dropped.fetch_add((gone.len() - over) as u64, Relaxed);
            }
            self.forget(&mut gone);
        }
        if shard.entries.len() < self.shard_keys_max {
            return slot;
        }
        self.crowded.fetch_add(1, Relaxed);
        crowd(slot)
    }

    #[inline]
    fn log(&self, slot: Slot, entry: &mut Entry) {
        if entry.logged == 0 || entry.logged <= self.collected.load(Relaxed) {
            entry.logged = lock(&self.log).append(slot, entry.logged);
        }
    }

    fn forget(&self, gone: &mut Vec<u64>) {
        // A few at a time: requests wait for this lock.
        for some in gone.chunks(256) {
            let mut log = lock(&self.log);
            some.iter().for_each(|number| log.remove(*number));
        }
        gone.clear();
    }
}

/// Returns the counter of those without one: a key that is no digest of anything.
fn crowd(slot: Slot) -> Slot {
    Slot {
        key: slot.shard() as u128,
        ..slot
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
