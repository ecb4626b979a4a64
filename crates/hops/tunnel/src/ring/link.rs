//! One end of a link: the memory and the doorbells that its lanes share.

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

/// The layout that the host chooses and the plugin is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Terms {
    /// Number of links, each with an event loop of its own at either end.
    pub(crate) shards: usize,
    /// Number of lanes of each link: its most connections at a time.
    pub(crate) lanes: usize,
    pub(crate) entries: usize,
    pub(crate) inbound_bytes: u32,
    pub(crate) outbound_bytes: u32,
}

/// Default number of descriptors in flight per lane and direction: more than the pieces of one
/// write.
const ENTRIES: usize = 32;

/// Default size of a lane's buffer to the plugin: mostly, a socket gives no more at once.
const INBOUND_BYTES: u32 = 64 * 1024;

/// Default size of a lane's buffer to the host. More than this at once goes through the arena.
const OUTBOUND_BYTES: u32 = 16 * 1024;

/// Most lanes of a segment.
const LANES_MAX: usize = 4096;

/// Most links of a session: their descriptors are sent at once.
pub(crate) const SHARDS_MAX: usize = 16;

/// Returns how many links a session has that may use `cores` cores, if nothing else is wished.
pub(crate) fn event_loops(cores: usize) -> usize {
    cores.div_ceil(2).clamp(1, SHARDS_MAX)
}

/// One end of a link.
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

/// The arena from which the plugin sends long data.
#[derive(Debug)]
enum Bodies {
    /// The plugin's own arena.
    Own(Arena),
    /// The host's view of it.
    Peers(ArenaView),
}

/// Reason why a session ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("a system call failed")]
    Io(#[from] io::Error),
    #[error("the relay's thread panicked")]
    Panicked,
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Terms {
    /// Returns the terms for `connections_max` connections, as far as there can be so many lanes,
    /// on at least `shards` links. `entries` and `kib` replace the default sizes.
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

    /// Returns how many connections there are lanes for.
    pub(crate) fn connections_max(self) -> usize {
        self.shards * self.lanes
    }

    /// Checks that this end can do as the host says.
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
    /// Lays out a segment. Also returns the descriptors for the plugin.
    pub(crate) fn new(terms: Terms) -> anyhow::Result<(Self, [OwnedFd; 3])> {
        let (segment, memory) = Segment::create(terms.geometry())?;
        let bells = [Bell::new()?, Bell::new()?];
        let [host, plugin] = [&bells[0], &bells[1]].map(|bell| bell.as_fd().try_clone_to_owned());
        Ok((Self { segment, bells }, [memory, host?, plugin?]))
    }

    /// Completes the host's end with the arena that the plugin sent in return.
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
    /// Makes the plugin's end from the descriptors that the host sent.
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

    /// Marks a lane that has something for the peer. The next [`Self::ring`] wakes the peer.
    pub(super) fn mark(&self, lane: usize) {
        self.notice.mark(lane);
    }

    /// Returns whether a lane was marked for which the peer may still have to be woken.
    pub(super) fn is_unrung(&self) -> bool {
        self.notice.is_unrung()
    }

    /// Wakes the peer if a lane was marked for it and it sleeps.
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

    /// Empties the peer's bell if it is full, so that no thread of a session that is over blocks in
    /// ringing it.
    pub(super) fn unblock(&self) {
        if let Err(error) = self.peer_bell.unblock() {
            tracing::debug!(%error, "could not empty the peer's bell");
        }
    }

    /// Returns this side's arena, if this is the plugin.
    pub(super) fn arena(&self) -> Option<&Arena> {
        match &self.bodies {
            Bodies::Own(arena) => Some(arena),
            Bodies::Peers(_) => None,
        }
    }

    /// Returns the memory that a descriptor of the peer's names; `None` for the end.
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
    fn two_cores_share_an_event_loop_as_far_as_there_can_be_so_many() {
        for (cores, expected) in [(1, 1), (2, 1), (3, 2), (8, 4), (32, 16), (128, 16)] {
            assert_eq!(event_loops(cores), expected, "{cores} cores");
        }
    }

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
