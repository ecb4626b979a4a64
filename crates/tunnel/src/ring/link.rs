//! What all lanes of a session share.

use std::{io, os::fd::OwnedFd, sync::Arc};

use serde::{Deserialize, Serialize};
use shm_ring::{
    Arena, ArenaView, Bell, Descriptor, Geometry, MappedWords, Parking, ReadySet, Segment,
    SegmentError, Side, Violation, io::Readable,
};

use super::pipes::Pipes;
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

/// Descriptors in flight per lane and direction: more than the pieces of one `writev` that is
/// worth its while.
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
    /// The plugin's own, from which it sends.
    pub(super) arena: Option<Arena>,
    /// The host's view of that.
    view: Option<ArenaView>,
    /// The plugin's own, if any.
    pub(super) pipes: Option<Pipes>,
    /// The host's ends of those.
    outlets: Arc<[OwnedFd]>,
    /// Lanes that the peer has marked.
    pub(super) ready: ReadySet<MappedWords>,
    /// Lanes that this side marks.
    peer_ready: ReadySet<MappedWords>,
    pub(super) parking: Parking<MappedWords>,
    peer_parking: Parking<MappedWords>,
    /// Wakes this side.
    pub(super) bell: Bell,
    peer_bell: Bell,
    pub(super) counters: Arc<Counters>,
}

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the relay's thread panicked")]
    Panicked,
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Terms {
    /// For so many connections, with other sizes than the usual where they are given.
    pub(crate) fn new(
        shards: usize,
        connections_max: usize,
        entries: Option<u32>,
        kib: Option<u32>,
    ) -> Self {
        let bytes = kib.map(|kib| kib * 1024);
        let shards = shards.clamp(1, SHARDS_MAX);
        Self {
            shards,
            lanes: connections_max.div_ceil(shards).clamp(1, LANES_MAX),
            entries: entries.map_or(ENTRIES, |entries| entries as usize),
            inbound_bytes: bytes.unwrap_or(INBOUND_BYTES),
            outbound_bytes: bytes.unwrap_or(OUTBOUND_BYTES),
        }
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
        use std::os::fd::AsFd;
        let (segment, memory) = Segment::create(terms.geometry())?;
        let bells = [Bell::new()?, Bell::new()?];
        let [host, plugin] = [&bells[0], &bells[1]].map(|bell| bell.as_fd().try_clone_to_owned());
        Ok((Self { segment, bells }, [memory, host?, plugin?]))
    }

    /// With the arena and the pipes that the plugin sent in return.
    pub(crate) fn accept(
        self,
        (arena, arena_bytes): (&OwnedFd, usize),
        outlets: Arc<[OwnedFd]>,
        counters: &Arc<Counters>,
    ) -> io::Result<Link> {
        let view = ArenaView::open(arena, arena_bytes)?;
        let memory = (self.segment, None, Some(view));
        let mut link = Link::new(Side::Host, memory, self.bells, counters);
        link.outlets = outlets;
        Ok(link)
    }
}

impl Link {
    /// The plugin's end, of what the host sent.
    pub(crate) fn of_offer(
        terms: Terms,
        [memory, host, plugin]: [OwnedFd; 3],
        arena: Arena,
        pipes: Option<Pipes>,
        counters: &Arc<Counters>,
    ) -> Result<Self, SegmentError> {
        let segment = Segment::open(&memory, terms.geometry())?;
        let bells = [plugin, host].map(Bell::from_peer);
        let memory = (segment, Some(arena), None);
        let mut link = Self::new(Side::Plugin, memory, bells, counters);
        link.pipes = pipes;
        Ok(link)
    }

    fn new(
        side: Side,
        (segment, arena, view): (Segment, Option<Arena>, Option<ArenaView>),
        [bell, peer_bell]: [Bell; 2],
        counters: &Arc<Counters>,
    ) -> Self {
        let peer = side.other();
        Self {
            side,
            ready: segment.ready(peer),
            peer_ready: segment.ready(side),
            parking: segment.parking(side),
            peer_parking: segment.parking(peer),
            arena,
            view,
            pipes: None,
            outlets: Arc::new([]),
            bell,
            peer_bell,
            counters: counters.clone(),
            segment,
        }
    }

    /// Tells the peer that a lane has something for it. It is woken by the next [`Self::ring`].
    pub(super) fn mark(&self, lane: usize) {
        self.peer_ready.mark(lane);
    }

    /// Wakes the peer, if it sleeps.
    pub(super) fn ring(&self) -> io::Result<()> {
        if self.peer_parking.must_ring() {
            self.counters.doorbells_sent.add(1);
            self.peer_bell.ring()
        } else {
            self.counters.doorbells_suppressed.add(1);
            Ok(())
        }
    }

    /// The host's end of a pipe.
    pub(super) fn outlet(&self, pipe: u32) -> Option<&OwnedFd> {
        self.outlets.get(usize::try_from(pipe).ok()?)
    }

    /// What memory a descriptor of the peer's names; `None` for the end.
    pub(super) fn readable(
        &self,
        lane: usize,
        descriptor: Descriptor,
    ) -> Result<Option<Readable<'_>>, Violation> {
        match (descriptor, &self.view) {
            (Descriptor::End, _) => Ok(None),
            (Descriptor::Buffer { offset, length }, _) => {
                let bytes = self.segment.readable(lane, self.side, offset, length)?;
                Ok(Some(bytes))
            }
            (Descriptor::Arena { offset, length }, Some(view)) => {
                Ok(Some(view.readable(offset, length)?))
            }
            // Pipes are not memory, and whoever expects memory has been sent none.
            (Descriptor::Pipe { pipe, length }, _) => Err(Violation::Pipe { pipe, length }),
            // The host has no arena.
            (Descriptor::Arena { offset, length }, None) => Err(Violation::Range {
                offset: offset.into(),
                end: u64::from(offset) + u64::from(length),
                limit: 0,
            }),
        }
    }
}
