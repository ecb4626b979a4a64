//! Limits of requests per window of time, over all nodes together.
//!
//! A [`Limiter`] admits at most `requests` in each window of `window_ms`. Windows are fixed; the
//! one before counts with the part of it that a window sliding along would still cover, so that a
//! client can't spend two windows' worth around the border. Only what is admitted counts.
//!
//! # How exact it is
//! A node decides by what it has admitted itself and by what it has heard from the others. With
//! `n` nodes that each admit at most `r` requests per second, and news that are at most `d`
//! seconds old, a window admits at most
//!
//! `requests + (n - 1) * min(requests, r * d)`
//!
//! `d` is the exchange interval and the way of one message; where news take `h` hops, `h` times
//! that. Nodes that don't hear one another admit `n * requests` at most. A limit that all clients
//! share may admit one more for each thread that decides at the same instant, less one.
//!
//! # Memory
//! It is bounded by the store's `keys_max`. If there are more clients than that in a window, those
//! beyond share counters: they may be refused because of one another, but none escapes its limit.

use std::{hash::Hasher, sync::Arc};

use arc_swap::{ArcSwapOption, Guard};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::crdt::{LENGTH_MS_MAX, LENGTH_MS_MIN, PnCounter, Slot, Store};

/// Whose requests a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of each client.
    Client,
    /// Those of all clients.
    All,
}

/// A limit as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name, which is the same on all nodes that count together.
    pub name: String,
    /// Most requests in a window.
    pub requests: u32,
    /// Length of a window in milliseconds.
    pub window_ms: u32,
    /// Whose requests are counted together.
    pub scope: Scope,
}

/// A limit that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The window is too short or too long.
    #[error(
        "limit '{0}' has a window of {1} ms: expected {LENGTH_MS_MIN} to {LENGTH_MS_MAX}; the \
         longest is a day"
    )]
    Window(String, u32),
}

/// The verdict on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request may pass.
    Allowed {
        /// How many more may pass now.
        remaining: u32,
    },
    /// The request may not pass.
    Refused {
        /// Milliseconds until one may pass, if nobody else asks. At least 1.
        retry_after_ms: u64,
    },
}

/// Decides by one limit.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    store: Arc<Store>,
    /// Has read the secret and the limit, and no client yet.
    begun: SipHasher13,
    /// The counters of a limit that all clients share.
    shared: ArcSwapOption<Windows>,
}

/// The counters of a window and of the one before.
#[derive(Debug)]
struct Windows {
    slot: Slot,
    current: Arc<PnCounter>,
    before: Arc<PnCounter>,
}

impl Limit {
    /// Checks that it can be kept.
    ///
    /// # Errors
    /// If the window has no length that a counter can have.
    pub fn check(&self) -> Result<(), LimitError> {
        match (LENGTH_MS_MIN..=LENGTH_MS_MAX).contains(&self.window_ms) {
            true => Ok(()),
            false => Err(LimitError::Window(self.name.clone(), self.window_ms)),
        }
    }
}

impl Limiter {
    /// Decides by a limit. `secret` is what the nodes share; without it a client could choose
    /// whose count it shares.
    ///
    /// # Errors
    /// If the window has no length that a counter can have.
    pub fn new(limit: Limit, store: Arc<Store>, secret: &[u8]) -> Result<Self, LimitError> {
        limit.check()?;
        let key = blake3::derive_key("hopbench edge-node limits 1", secret);
        let (key, _) = key.split_at(16);
        let mut begun = SipHasher13::new_with_key(key.first_chunk().unwrap_or(&[0; 16]));
        begun.write(limit.name.as_bytes());
        begun.write_u8(0xff);
        begun.write_u32(limit.window_ms);
        Ok(Self {
            limit,
            store,
            begun,
            shared: ArcSwapOption::empty(),
        })
    }

    /// Returns the limit.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Decides on a request, and counts it if it may pass. `client` is what clients are told apart
    /// by, such as the bytes of their address.
    pub fn decide(&self, client: &[u8], now_ms: u64) -> Decision {
        let slot = self.slot(client, now_ms);
        if self.limit.scope == Scope::All
            && let Some(decision) = self.decide_shared(slot, now_ms)
        {
            return decision;
        }
        self.store.count_if(slot, |current, before| {
            let decision = self.judge(current, before, slot, now_ms);
            (matches!(decision, Decision::Allowed { .. }), decision)
        })
    }

    /// Takes back an admission, for a request that another limit refused. `now_ms` is the same as
    /// when it was admitted.
    pub fn take_back(&self, client: &[u8], now_ms: u64) {
        let slot = self.slot(client, now_ms);
        if self.limit.scope == Scope::All
            && let Some(windows) = self.windows(slot).as_ref()
        {
            return windows.current.decrement(1);
        }
        self.store.take_back(slot);
    }

    fn slot(&self, client: &[u8], now_ms: u64) -> Slot {
        let mut hasher = self.begun;
        if self.limit.scope == Scope::Client {
            hasher.write(client);
        }
        Slot::at(hasher.finish128().as_u128(), self.limit.window_ms, now_ms)
    }

    /// Counts first and judges then, so that threads that decide at once see one another.
    fn decide_shared(&self, slot: Slot, now_ms: u64) -> Option<Decision> {
        let windows = self.windows(slot);
        let windows = windows.as_ref()?;
        let count = |counter: &PnCounter| u64::try_from(counter.value()).unwrap_or_default();
        windows.current.increment(1);
        let current = count(&windows.current).saturating_sub(1);
        let decision = self.judge(current, count(&windows.before), slot, now_ms);
        if matches!(decision, Decision::Refused { .. }) {
            windows.current.decrement(1);
        }
        Some(decision)
    }

    /// Returns the shared counters of a window; `None` if the store has no room for them.
    fn windows(&self, slot: Slot) -> Guard<Option<Arc<Windows>>> {
        let known = self.shared.load();
        if known.as_ref().is_some_and(|known| known.slot == slot) {
            return known;
        }
        let current = self.store.shared(slot);
        let windows = current.zip(self.store.shared(slot.before()));
        let windows = windows.map(|(current, before)| {
            Arc::new(Windows {
                slot,
                current,
                before,
            })
        });
        self.shared.store(windows.clone());
        Guard::from_inner(windows)
    }

    /// Judges by the counts of this window, without the request itself, and of the one before.
    fn judge(&self, current: u64, before: u64, slot: Slot, now_ms: u64) -> Decision {
        let limit = u64::from(self.limit.requests);
        let length = u64::from(slot.length_ms);
        // Counts above the limit come from nodes that didn't hear one another.
        let before = before.min(u32::MAX.into());
        let left = length - now_ms.saturating_sub(slot.start_ms).min(length);
        let estimate = current.saturating_add(before * left / length);
        if let Some(free) = limit.checked_sub(estimate).filter(|free| *free > 0) {
            let remaining = u32::try_from(free - 1).unwrap_or(u32::MAX);
            return Decision::Allowed { remaining };
        }
        // Milliseconds left of a window of which `count` counts as less than `limit - fixed`.
        let left_when_free = |count: u64, fixed: u64| match limit.checked_sub(fixed) {
            Some(free) if free > 0 => Some((length * free).div_ceil(count.max(1)) - 1),
            _ => None,
        };
        let retry_after_ms = match left_when_free(before, current) {
            Some(then) => left.saturating_sub(then),
            // In the window after this one, at the soonest.
            None => {
                let current = current.min(u32::MAX.into());
                let then = left_when_free(current, 0).unwrap_or(0);
                left + length.saturating_sub(then)
            }
        };
        Decision::Refused {
            retry_after_ms: retry_after_ms.max(1),
        }
    }
}

#[cfg(test)]
mod tests;
