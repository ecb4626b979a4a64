//! What all lanes of a session share.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use shm_ring::{
    Arena, ArenaView, Bell, Descriptor, Geometry, MappedWords, Notice, Parking, ReadySet, Ring,
    Segment, Side, Violation, io::Readable,
};

use crate::counters::Counters;

/// What the host lays out and the plugin is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Terms {
    /// Links, each with an event loop of its own at either end.
    pub(crate) shards: usize,
    /// Connections at a time, of each link.
    pub(crate) lanes: usize,
    pub(crate) entries: usize,
    pub(crate) inbound_bytes: u32,
    pub(crate) outbound_bytes: u32,
}

/// Descriptors in flight per lane and direction: more than the pieces of one call that is worth
/// its while.
const ENTRIES: usize = 32;

/// Of a lane's buffer to the plugin: what a socket gives at once, mostly.
const INBOUND_BYTES: u32 = 64 * 1024;

/// Of a lane's buffer to the host. More than this at once goes through the arena.
const OUTBOUND_BYTES: u32 = 16 * 1024;

/// Lanes that a segment can have.
const LANES_MAX: usize = 4096;

/// Links of a session: their descriptors are sent at once.
pub(crate) const SHARDS_MAX: usize = 16;

/// One side of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) side: Side,
    pub(super) segment: Segment,
    bodies: Bodies,
    /// Lanes that the peer has marked.
    pub(super) ready: ReadySet<MappedWords>,
    /// Lanes that this side marks, and whether the peer must be woken for them.
    notice: Notice<MappedWords>,
    pub(super) parking: Parking<MappedWords>,
    /// Wakes this side.
    pub(super) bell: Bell,
    peer_bell: Bell,
    pub(super) counters: Arc<Counters>,
}

/// Where the plugin sends from what is long.
#[derive(Debug)]
enum Bodies {
    /// The plugin's own.
    Own(Arena),
    /// As the host has them.
    Peers(ArenaView),
}

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("a system call failed")]
    Io(#[from] io::Error),
    #[error("the relay's thread panicked")]
    Panicked,
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Terms {
    /// For so many connections, as far as there can be so many lanes, on at least so many links;
    /// with other sizes than the usual where they are given.
    pub(crate) fn new(
        shards: usize,
        connections_max: usize,
        entries: Option<u32>,
        kib: Option<u32>,
    ) -> Self {
        let bytes = kib.map(|kib| kib * 1024);
        let shards = shards.max(connections_max.div_ceil(LANES_MAX));
        let shards = shards.clamp(1, SHARDS_MAX);
        Self {
            shards,
            lanes: connections_max.div_ceil(shards).clamp(1, LANES_MAX),
            entries: entries.map_or(ENTRIES, |entries| entries as usize),
            inbound_bytes: bytes.unwrap_or(INBOUND_BYTES),
            outbound_bytes: bytes.unwrap_or(OUTBOUND_BYTES),
        }
    }

    /// Connections that there are lanes for.
    pub(crate) fn connections_max(self) -> usize {
        self.shards * self.lanes
    }

    /// Whether this end can do as the host says.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=SHARDS_MAX).contains(&self.shards),
            "the host wants {} links, expected 1 to {SHARDS_MAX}",
            self.shards
        );
        Ok(())
    }

    pub(super) fn geometry(self) -> Geometry {
        Geometry {
            lanes: self.lanes,
            entries: self.entries,
            inbound_bytes: self.inbound_bytes,
            outbound_bytes: self.outbound_bytes,
        }
    }
}

/// A host's end that lacks the plugin's arena.
#[derive(Debug)]
pub(crate) struct Offer {
    segment: Segment,
    bells: [Bell; 2],
}

impl Offer {
    /// Lays out a segment. Gives the descriptors that are for the plugin.
    pub(crate) fn new(terms: Terms) -> anyhow::Result<(Self, [OwnedFd; 3])> {
        let (segment, memory) = Segment::create(terms.geometry())?;
        let bells = [Bell::new()?, Bell::new()?];
        let [host, plugin] = [&bells[0], &bells[1]].map(|bell| bell.as_fd().try_clone_to_owned());
        Ok((Self { segment, bells }, [memory, host?, plugin?]))
    }

    /// With the arena that the plugin sent in return.
    pub(crate) fn accept(
        self,
        (arena, arena_bytes): (&OwnedFd, usize),
        counters: &Arc<Counters>,
    ) -> io::Result<Link> {
        let arena = ArenaView::open(arena, arena_bytes)?;
        let bodies = Bodies::Peers(arena);
        Ok(Link::new(self.segment, bodies, self.bells, counters))
    }
}

impl Link {
    /// The plugin's end, of what the host sent.
    pub(crate) fn of_offer(
        terms: Terms,
        [memory, host, plugin]: [OwnedFd; 3],
        arena: Arena,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let segment = Segment::open(&memory, terms.geometry())?;
        let bells = [Bell::from_peer(plugin)?, Bell::from_peer(host)?];
        let bodies = Bodies::Own(arena);
        Ok(Self::new(segment, bodies, bells, counters))
    }

    fn new(
        segment: Segment,
        bodies: Bodies,
        [bell, peer_bell]: [Bell; 2],
        counters: &Arc<Counters>,
    ) -> Self {
        let side = match bodies {
            Bodies::Own(_) => Side::Plugin,
            Bodies::Peers(_) => Side::Host,
        };
        let peer = side.other();
        Self {
            side,
            ready: segment.ready(peer),
            notice: Notice::new(segment.ready(side), segment.parking(peer)),
            parking: segment.parking(side),
            bodies,
            bell,
            peer_bell,
            counters: counters.clone(),
            segment,
        }
    }

    /// Tells the peer that a lane has something for it. It is woken by the next [`Self::ring`].
    pub(super) fn mark(&self, lane: usize) {
        self.notice.mark(lane);
    }

    /// Whether a lane was marked for which the peer may still have to be woken.
    pub(super) fn is_unrung(&self) -> bool {
        self.notice.is_unrung()
    }

    /// Wakes the peer, if a lane was marked for it and it sleeps.
    pub(super) fn ring(&self) -> io::Result<()> {
        match self.notice.ring() {
            Ring::Nothing => Ok(()),
            Ring::Awake => {
                self.counters.doorbells_suppressed.add(1);
                Ok(())
            }
            Ring::Must => {
                self.counters.doorbells_sent.add(1);
                self.peer_bell.ring()
            }
        }
    }

    /// Sees to it that ringing goes on: of a session that is over, nobody must wait.
    pub(super) fn unblock(&self) {
        if let Err(error) = self.peer_bell.unblock() {
            tracing::debug!(%error, "could not empty the peer's bell");
        }
    }

    /// This side's arena, if it is the plugin.
    pub(super) fn arena(&self) -> Option<&Arena> {
        match &self.bodies {
            Bodies::Own(arena) => Some(arena),
            Bodies::Peers(_) => None,
        }
    }

    /// What memory a descriptor of the peer's names; `None` for the end.
    pub(super) fn readable(
        &self,
        lane: usize,
        descriptor: Descriptor,
    ) -> Result<Option<Readable<'_>>, Violation> {
        match (descriptor, &self.bodies) {
            (Descriptor::End, _) => Ok(None),
            (Descriptor::Buffer { offset, length }, _) => {
                let bytes = self.segment.readable(lane, self.side, offset, length)?;
                Ok(Some(bytes))
            }
            (Descriptor::Arena { offset, length }, Bodies::Peers(arena)) => {
                Ok(Some(arena.readable(offset, length)?))
            }
            // The host has no arena.
            (Descriptor::Arena { offset, length }, Bodies::Own(_)) => Err(Violation::Range {
                offset: offset.into(),
                end: u64::from(offset) + u64::from(length),
                limit: 0,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_lane_for_each_connection_that_is_let_in() {
        for shards in [1, 2, 16] {
            for connections in [1, 2, 4096, 4097, 10_000, 65_536] {
                let terms = Terms::new(shards, connections, None, None);
                assert!(terms.connections_max() >= connections, "{terms:?}");
                assert!(terms.lanes <= LANES_MAX, "{terms:?}");
            }
            let terms = Terms::new(shards, 1_000_000, None, None);
            assert_eq!(terms.connections_max(), SHARDS_MAX * LANES_MAX);
        }
    }
}
