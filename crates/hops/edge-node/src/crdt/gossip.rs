//! Decides what is said to which peer, and takes what a peer says. No IO happens here.
//!
//! Each node tells each peer, again and again, what changed since the last change that the peer
//! has acknowledged; also what it learnt from others, so that news find a way around a broken
//! link. The answer carries the peer's own news. Messages may be lost, doubled, late or out of
//! order. Every [`SWEEP_EVERY`]th message is a piece of everything, in turn, whatever was
//! acknowledged: should the two ever disagree on that, they agree again after a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    state::ActorId,
    store::{Applied, Store},
    wire::{Codec, ITEMS_MAX, Message, WireError},
};

/// One message in so many is a piece of everything.
const SWEEP_EVERY: u64 = 8;

/// Most actors that are remembered as peers; the one that was heard least recently goes.
const PEERS_MAX: usize = 64;

/// Most shared counters of a message, which are sent without being asked whether they changed.
const SHARED_PER_MESSAGE: usize = 512;

/// Most keyed counters of a message.
const KEYED_PER_MESSAGE: usize = ITEMS_MAX - SHARED_PER_MESSAGE;

/// The exchange of a node with its peers.
#[derive(Debug)]
pub struct Exchange {
    store: Arc<Store>,
    codec: Codec,
    peers: Mutex<Peers>,
}

/// The effect of a peer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The effect on our counters.
    pub applied: Applied,
    /// Whether the peer has more to say, or we to it: the next exchange should follow at once.
    pub more: bool,
}

/// A message that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The message can't be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The message comes from this node.
    #[error("message comes from this node itself: expected the addresses of the others as peers")]
    Ourselves,
    /// No peer has this index.
    #[error("peer {0} is not configured: expected an index below {1}")]
    NoSuchPeer(usize, usize),
}

#[derive(Debug)]
struct Peers {
    /// One for each address.
    slots: Vec<PeerSlot>,
    /// One for each actor that was heard.
    actors: HashMap<ActorId, Peer>,
    /// Counts messages, to know which peer was heard last.
    clock: u64,
}

/// An address to which we send.
#[derive(Clone, Debug, Default)]
struct PeerSlot {
    /// The actor that answers there.
    actor: Option<ActorId>,
    rounds: u64,
    /// How far the sweep has come.
    swept: u64,
}

/// An actor that we know.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// Its last change that we have seen, with all before it.
    seen: u64,
    /// Our last change that it has seen.
    acked: u64,
    heard: u64,
}

impl Exchange {
    /// Exchanges the counters of `store` with so many peers.
    pub fn new(store: Arc<Store>, codec: Codec, peers: usize) -> Self {
        Self {
            store,
            codec,
            peers: Mutex::new(Peers {
                slots: vec![PeerSlot::default(); peers],
                actors: HashMap::new(),
                clock: 0,
            }),
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns the next message for a peer, by its index.
    ///
    /// # Errors
    /// If there is no such peer.
    pub fn offer(&self, peer: usize) -> Result<Vec<u8>, Refused> {
        let mut peers = self.peers();
        let count = peers.slots.len();
        let known = peers.slots.get_mut(peer);
        let slot = known.ok_or(Refused::NoSuchPeer(peer, count))?;
        slot.rounds += 1;
        let (actor, rounds, swept) = (slot.actor, slot.rounds, slot.swept);
        let known = actor.and_then(|actor| Some((actor, *peers.actors.get(&actor)?)));
        drop(peers);
        let is_sweep = rounds.is_multiple_of(SWEEP_EVERY);
        let since = match is_sweep {
            true => swept,
            false => known.map_or(0, |(_, peer)| peer.acked),
        };
        let (bytes, upto, more) = self.message(known, since, rounds);
        if is_sweep {
            self.peers().slots[peer].swept = if more { upto } else { 0 };
        }
        Ok(bytes)
    }

    /// Takes a peer's message, and returns our answer to it.
    ///
    /// # Errors
    /// If the message can't be taken.
    pub fn answer(&self, bytes: &[u8], now_ms: u64) -> Result<(Vec<u8>, Heard), Refused> {
        let (actor, heard) = self.take(bytes, now_ms)?;
        let peers = self.peers();
        let known = peers.actors.get(&actor).map(|peer| (actor, *peer));
        let clock = peers.clock;
        drop(peers);
        let since = known.map_or(0, |(_, peer)| peer.acked);
        let (answer, ..) = self.message(known, since, clock);
        Ok((answer, heard))
    }

    /// Takes a peer's answer to our offer.
    ///
    /// # Errors
    /// If the answer can't be taken.
    pub fn heard(&self, peer: usize, bytes: &[u8], now_ms: u64) -> Result<Heard, Refused> {
        let (actor, heard) = self.take(bytes, now_ms)?;
        let mut peers = self.peers();
        let count = peers.slots.len();
        let slot = peers.slots.get_mut(peer);
        let slot = slot.ok_or(Refused::NoSuchPeer(peer, count))?;
        if slot.actor != Some(actor) {
            // It started again, or is another node: it gets everything.
            slot.actor = Some(actor);
            slot.swept = 0;
        }
        Ok(heard)
    }

    fn take(&self, bytes: &[u8], now_ms: u64) -> Result<(ActorId, Heard), Refused> {
        let message = self.codec.decode(bytes)?;
        if message.from == self.store.actor() {
            return Err(Refused::Ourselves);
        }
        let applied = self.store.apply(&message.items, now_ms);
        let last = self.store.last_change();
        let mut peers = self.peers();
        let peer = peers.peer(message.from);
        // A message that begins later than we have read leaves a gap.
        if message.since <= peer.seen {
            peer.seen = peer.seen.max(message.upto);
        }
        if let Some((to, ack)) = message.ack
            && to == self.store.actor()
            && ack <= last
        {
            peer.acked = peer.acked.max(ack);
        }
        let more = message.more || last - peer.acked > KEYED_PER_MESSAGE as u64;
        Ok((message.from, Heard { applied, more }))
    }

    /// Writes a message. Returns how far it goes, and whether there is more.
    fn message(&self, to: Option<(ActorId, Peer)>, since: u64, round: u64) -> (Vec<u8>, u64, bool) {
        let round = usize::try_from(round).unwrap_or_default();
        let items = self.store.shared_items(round, SHARED_PER_MESSAGE);
        let shared = items.len();
        let mut message = Message {
            from: self.store.actor(),
            ack: to.map(|(actor, peer)| (actor, peer.seen)),
            since,
            upto: since,
            more: false,
            items,
        };
        // If not all fits, a message of fewer changes is tried: `upto` must be that of the last.
        let mut most = KEYED_PER_MESSAGE;
        loop {
            let (keyed, upto, more) = self.store.changed(since, most);
            message.items.truncate(shared);
            message.items.extend(keyed);
            (message.upto, message.more) = (upto, more);
            let (bytes, written) = self.codec.encode(&message);
            if written == message.items.len() {
                return (bytes, upto, more);
            }
            if most == 0 {
                message.items.truncate(written);
                continue;
            }
            most /= 4;
        }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Returns what is known of an actor, which was heard just now.
    fn peer(&mut self, actor: ActorId) -> &mut Peer {
        self.clock += 1;
        let heard = self.clock;
        if self.actors.len() >= PEERS_MAX && !self.actors.contains_key(&actor) {
            let oldest = self.actors.iter().min_by_key(|(_, peer)| peer.heard);
            if let Some(oldest) = oldest.map(|(actor, _)| *actor) {
                self.actors.remove(&oldest);
            }
        }
        let peer = self.actors.entry(actor).or_default();
        peer.heard = heard;
        peer
    }
}
