//! The segment: a memory file that both processes can write, and its layout.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use crate::{
    bell::Parking,
    io::{Readable, Space},
    mapping::{Mapping, MappingError},
    ready::ReadySet,
    ring::{Receiver, RingLayout, Sender, Violation},
    spans::Span,
    sync::Ordering::{Acquire, Relaxed, Release},
    words::{MappedWords, Words},
};

/// Layout of a segment. Both sides must state the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Number of lanes: the most connections at a time.
    pub lanes: usize,
    /// Most descriptors in flight per lane and direction.
    pub entries: usize,
    /// Size of a lane's buffer from the host to the plugin, in bytes.
    pub inbound_bytes: u32,
    /// Size of a lane's buffer from the plugin to the host, in bytes.
    pub outbound_bytes: u32,
}

/// A side of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that opens lanes.
    Host,
    /// The side that answers on them.
    Plugin,
}

/// A mapped segment: the words and buffers of both sides.
#[derive(Clone, Debug)]
pub struct Segment {
    mapping: Arc<Mapping>,
    words: MappedWords,
    layout: Layout,
}

/// A word that one side writes and the other reads.
#[derive(Clone, Debug)]
pub struct StateWord<W = MappedWords> {
    words: W,
    index: usize,
}

/// Reason why a segment can't be created, or the peer's is refused.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A word of the peer's header has another value than expected.
    #[error("word {word} of the segment is {found}, expected {expected}")]
    Header {
        /// Index of the word.
        word: usize,
        /// Value in the peer's segment.
        found: u64,
        /// Value that it must have.
        expected: u64,
    },
    /// A system call failed.
    #[error("could not map the segment")]
    Io(#[from] io::Error),
    /// The peer's memory file doesn't fit the geometry.
    #[error("{0}")]
    Refused(String),
    /// The named part of the geometry is out of bounds.
    #[error("the geometry's {0} are out of bounds")]
    Geometry(&'static str),
}

/// The letters "hopbring" as a number.
const MAGIC: u64 = u64::from_be_bytes(*b"hopbring");
/// Raised whenever the layout or the meaning of a word changes.
const VERSION: u64 = 2;

/// Words of two cache lines: a line and the one that is fetched with it. Words that one side writes
/// often are kept this far from those that the other side writes.
const LINE_WORDS: usize = 16;
const WORD_BYTES: usize = 8;
const PAGE_BYTES: usize = 4096;

/// Most lanes: a two-level ready set has one bit per lane in 64 words of 64 bits.
const LANES_MAX: usize = 4096;
const ENTRIES_MAX: usize = 1024;
const BUFFER_BYTES_MAX: u32 = 1 << 24;

/// Number of words of the header.
const HEADER_WORDS: usize = 6;

/// Offsets within a lane's words: one line for each side, then the entries.
const STATE: usize = 0;
const PUBLISHED: usize = 1;
const CONSUMED: usize = 2;
const WAITS: usize = 3;

/// Offsets and sizes in the segment. `inbound`, `outbound` and `bytes` count bytes, all others
/// words.
#[derive(Clone, Copy, Debug)]
struct Layout {
    geometry: Geometry,
    /// First of two lines with the *parked* flags: the host's, then the plugin's.
    parked: usize,
    /// The ready set that the host marks, then the one that the plugin marks.
    ready: [usize; 2],
    lanes: usize,
    lane_words: usize,
    words: usize,
    inbound: usize,
    outbound: usize,
    bytes: usize,
}

impl Geometry {
    fn check(&self) -> Result<(), SegmentError> {
        let buffers = [self.inbound_bytes, self.outbound_bytes];
        let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        let bad =
            |bytes: &u32| *bytes == 0 || *bytes > BUFFER_BYTES_MAX || !bytes.is_multiple_of(page);
        if self.lanes == 0 || self.lanes > LANES_MAX {
            Err(SegmentError::Geometry("lanes"))
        } else if self.entries < 2 || self.entries > ENTRIES_MAX {
            Err(SegmentError::Geometry("entries"))
        } else if buffers.iter().any(bad) {
            Err(SegmentError::Geometry("buffers"))
        } else {
            Ok(())
        }
    }
}

impl Layout {
    fn new(geometry: Geometry) -> Result<Self, SegmentError> {
        geometry.check()?;
        let line = |words: usize| words.next_multiple_of(LINE_WORDS);
        let parked = line(HEADER_WORDS);
        let ready_words = line(ReadySet::<MappedWords>::words_needed(geometry.lanes));
        let ready = parked + 2 * LINE_WORDS;
        let lanes = ready + 2 * ready_words;
        let lane_words = line(2 * LINE_WORDS + 2 * geometry.entries);
        let words = lanes + geometry.lanes * lane_words;
        let inbound = (words * WORD_BYTES).next_multiple_of(PAGE_BYTES);
        let outbound = inbound + geometry.lanes * geometry.inbound_bytes as usize;
        let bytes = outbound + geometry.lanes * geometry.outbound_bytes as usize;
        Ok(Self {
            geometry,
            parked,
            ready: [ready, ready + ready_words],
            lanes,
            lane_words,
            words,
            inbound,
            outbound,
            bytes,
        })
    }

    fn header(&self) -> [u64; HEADER_WORDS] {
        let Geometry {
            lanes,
            entries,
            inbound_bytes,
            outbound_bytes,
        } = self.geometry;
        [
            MAGIC,
            VERSION,
            lanes as u64,
            entries as u64,
            inbound_bytes.into(),
            outbound_bytes.into(),
        ]
    }

    /// Returns the first word of the line that `side` writes for a lane.
    fn line(&self, lane: usize, side: Side) -> usize {
        assert!(lane < self.geometry.lanes, "lane {lane}");
        self.lanes + lane * self.lane_words + side as usize * LINE_WORDS
    }

    /// Returns the layout of the ring on which `side` sends.
    fn ring(&self, lane: usize, side: Side) -> RingLayout {
        let (sender, receiver) = (self.line(lane, side), self.line(lane, side.other()));
        let entries = self.line(lane, Side::Host) + 2 * LINE_WORDS;
        RingLayout {
            published: sender + PUBLISHED,
            consumed: receiver + CONSUMED,
            waits: sender + WAITS,
            entries: entries + side as usize * self.geometry.entries,
            capacity: self.geometry.entries,
        }
    }

    /// Returns the start and length of the buffer from which `side` sends, in bytes.
    fn buffer(&self, lane: usize, side: Side) -> (usize, u32) {
        assert!(lane < self.geometry.lanes, "lane {lane}");
        let Geometry {
            inbound_bytes,
            outbound_bytes,
            ..
        } = self.geometry;
        match side {
            Side::Host => (self.inbound + lane * inbound_bytes as usize, inbound_bytes),
            Side::Plugin => (
                self.outbound + lane * outbound_bytes as usize,
                outbound_bytes,
            ),
        }
    }
}

impl Segment {
    /// Creates a segment. Also returns the file to give to the peer.
    ///
    /// # Errors
    /// If the geometry is out of bounds, or there is no memory.
    pub fn create(geometry: Geometry) -> Result<(Self, OwnedFd), SegmentError> {
        let layout = Layout::new(geometry)?;
        let (mapping, file) = Mapping::create("ring-segment", layout.bytes, false)?;
        let segment = Self::of(mapping, layout);
        for (word, value) in layout.header().into_iter().enumerate() {
            segment.words.word(word).store(value, Relaxed);
        }
        Ok((segment, file))
    }

    /// Maps the peer's segment. Its header is read only here, and only once.
    ///
    /// # Errors
    /// If it is not sealed, or not laid out as `geometry` says.
    pub fn open(file: impl AsFd, geometry: Geometry) -> Result<Self, SegmentError> {
        let layout = Layout::new(geometry)?;
        let mapping = Mapping::open(file, layout.bytes, false).map_err(|error| match error {
            MappingError::Io(error) => error.into(),
            other => SegmentError::Refused(other.to_string()),
        })?;
        let segment = Self::of(mapping, layout);
        for (word, expected) in layout.header().into_iter().enumerate() {
            let found = segment.words.word(word).load(Relaxed);
            if found != expected {
                return Err(SegmentError::Header {
                    word,
                    found,
                    expected,
                });
            }
        }
        Ok(segment)
    }

    fn of(mapping: Mapping, layout: Layout) -> Self {
        let mapping = Arc::new(mapping);
        let words = MappedWords::new(mapping.clone(), layout.words);
        Self {
            mapping,
            words,
            layout,
        }
    }

    /// Returns the segment's layout.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry
    }

    /// Returns the flag that says whether `side` sleeps.
    pub fn parking(&self, side: Side) -> Parking<MappedWords> {
        let word = self.layout.parked + side as usize * LINE_WORDS;
        Parking::new(self.words.clone(), word)
    }

    /// Returns the set of lanes that `side` marks for the other side.
    pub fn ready(&self, side: Side) -> ReadySet<MappedWords> {
        let first = self.layout.ready[side as usize];
        ReadySet::new(self.words.clone(), first, self.layout.geometry.lanes)
    }

    /// Returns the state word that `side` writes for a lane.
    pub fn state(&self, lane: usize, side: Side) -> StateWord {
        StateWord {
            words: self.words.clone(),
            index: self.layout.line(lane, side) + STATE,
        }
    }

    /// Returns the sending end of the ring on which `side` sends. The ring's words must be zero.
    pub fn sender(&self, lane: usize, side: Side) -> Sender<MappedWords> {
        Sender::new(self.words.clone(), self.layout.ring(lane, side))
    }

    /// Returns the receiving end of the ring on which `side` receives. The ring's words must be
    /// zero.
    pub fn receiver(&self, lane: usize, side: Side) -> Receiver<MappedWords> {
        Receiver::new(self.words.clone(), self.layout.ring(lane, side.other()))
    }

    /// Empties a lane's rings. Neither side may be using them.
    pub fn clear(&self, lane: usize) {
        for side in [Side::Host, Side::Plugin] {
            self.layout.ring(lane, side).clear(&self.words);
        }
    }

    /// Returns bytes of the buffer from which the peer of `side` sends.
    ///
    /// # Errors
    /// If they are not within the buffer.
    pub fn readable(
        &self,
        lane: usize,
        side: Side,
        offset: u32,
        length: u32,
    ) -> Result<Readable<'_>, Violation> {
        let (start, limit) = self.layout.buffer(lane, side.other());
        let (offset, end) = (u64::from(offset), u64::from(offset) + u64::from(length));
        let limit = u64::from(limit);
        if end > limit {
            return Err(Violation::Range { offset, end, limit });
        }
        let start = start + usize::try_from(offset).unwrap_or_default();
        // SAFETY: the bytes are within the buffer, which is within the mapping.
        Ok(unsafe { Readable::new(self.mapping.as_ptr().wrapping_add(start), length as usize) })
    }

    /// Returns a part of the buffer from which `side` sends. The sender's own bookkeeping, which
    /// takes `&mut`, keeps a part from being handed out twice. That would garble bytes, but nothing
    /// worse.
    ///
    /// # Panics
    /// If the span is not within the buffer.
    pub fn space(&self, lane: usize, side: Side, span: Span) -> Space<'_> {
        let (start, limit) = self.layout.buffer(lane, side);
        let end = u64::from(span.offset) + u64::from(span.length);
        assert!(end <= u64::from(limit), "{span:?} of {limit}");
        let start = start + span.offset as usize;
        // SAFETY: the span is within the buffer, which is within the mapping. The buffer is never
        // borrowed as a slice.
        unsafe {
            Space::new(
                self.mapping.as_ptr().wrapping_add(start),
                span.length as usize,
            )
        }
    }
}

impl<W: Words> StateWord<W> {
    #[cfg(test)]
    pub(crate) fn new(words: W, index: usize) -> Self {
        Self { words, index }
    }

    /// Writes the word (E6): whoever reads it also sees everything that was done before.
    pub fn publish(&self, value: u64) {
        self.words.word(self.index).store(value, Release);
    }

    /// Reads the word: the other half of E6.
    pub fn read(&self) -> u64 {
        self.words.word(self.index).load(Acquire)
    }
}

impl Side {
    /// Returns the opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Host => Self::Plugin,
            Self::Plugin => Self::Host,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            lanes: 100,
            entries: 8,
            inbound_bytes: 8192,
            outbound_bytes: 4096,
        }
    }

    /// Every word and byte has one use.
    #[test]
    fn nothing_overlaps() {
        let layout = Layout::new(geometry()).expect("valid");
        let mut words: Vec<usize> = (0..HEADER_WORDS).collect();
        words.extend([layout.parked, layout.parked + LINE_WORDS]);
        let ready = ReadySet::<MappedWords>::words_needed(100);
        for first in layout.ready {
            words.extend(first..first + ready);
        }
        let mut buffers = Vec::new();
        for lane in 0..100 {
            for side in [Side::Host, Side::Plugin] {
                let ring = layout.ring(lane, side);
                words.extend([layout.line(lane, side) + STATE, ring.published]);
                words.extend([ring.consumed, ring.waits]);
                words.extend(ring.entries..ring.entries + ring.capacity);
                let (start, length) = layout.buffer(lane, side);
                buffers.push((start, start + length as usize));
            }
        }
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert!(words.last() < Some(&layout.words));
        buffers.sort_unstable();
        assert!(buffers[0].0 >= layout.words * WORD_BYTES);
        assert!(buffers.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(buffers.last().expect("lanes").1, layout.bytes);
    }

    #[test]
    fn a_segment_is_opened_only_as_it_was_laid_out() {
        let (_segment, file) = Segment::create(geometry()).expect("memory");
        Segment::open(&file, geometry()).expect("as laid out");
        let more_lanes = Geometry {
            lanes: 101,
            ..geometry()
        };
        assert!(matches!(
            Segment::open(&file, more_lanes),
            Err(SegmentError::Refused(_))
        ));
        // The size is the same, but the header differs.
        rustix::io::pwrite(&file, &(VERSION + 1).to_ne_bytes(), 8).expect("shared");
        let error = Segment::open(&file, geometry()).expect_err("another version");
        assert!(
            matches!(error, SegmentError::Header { word: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn geometries_have_bounds() {
        for bad in [
            Geometry {
                lanes: 0,
                ..geometry()
            },
            Geometry {
                lanes: 4097,
                ..geometry()
            },
            Geometry {
                entries: 1,
                ..geometry()
            },
            Geometry {
                entries: usize::MAX,
                ..geometry()
            },
            Geometry {
                inbound_bytes: 0,
                ..geometry()
            },
            Geometry {
                outbound_bytes: 100,
                ..geometry()
            },
            Geometry {
                outbound_bytes: u32::MAX,
                ..geometry()
            },
        ] {
            assert!(
                matches!(Segment::create(bad), Err(SegmentError::Geometry(_))),
                "{bad:?}"
            );
        }
    }
}
