//! A ring of descriptors with one sender and one receiver.
//!
//! Both ends count descriptors from zero and never wrap: 2^64 last for centuries. A count of the
//! peer's is checked against the possible range before it is used.

use crate::{
    sync::Ordering::{Acquire, Relaxed, Release, SeqCst},
    sync::fence,
    words::Words,
};

/// A message on a ring: where bytes are, or that none will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Bytes in the sender's arena.
    Arena {
        /// Position of the first byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
    },
    /// Bytes in the lane's own buffer.
    Buffer {
        /// Position of the first byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
    },
    /// The end of this direction.
    End,
}

/// Indices of the words that a ring uses.
#[derive(Clone, Copy, Debug)]
pub struct RingLayout {
    /// Number of descriptors that were sent. The sender writes it.
    pub published: usize,
    /// Number of descriptors that were consumed. The receiver writes it.
    pub consumed: usize,
    /// Flag that says whether the sender waits for room. The sender writes it.
    pub waits: usize,
    /// First of `capacity` words that hold the descriptors.
    pub entries: usize,
    /// Most descriptors in flight. This is a number, not an index.
    pub capacity: usize,
}

/// A breach of the protocol: a value that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The receiver's count went back, or exceeds the number of descriptors that were sent.
    #[error("the peer claims to have consumed {found} descriptors; {sent} were sent")]
    Consumed {
        /// The receiver's count.
        found: u64,
        /// Number of descriptors that were sent.
        sent: u64,
    },
    /// A descriptor has no known kind.
    #[error("the peer's descriptor {0:#x} is of an unknown kind")]
    Kind(u64),
    /// The sender's count went back, or exceeds what fits in the ring.
    #[error(
        "the peer claims to have sent {found} descriptors; {consumed} were consumed and \
         {capacity} fit"
    )]
    Published {
        /// The sender's count.
        found: u64,
        /// Number of descriptors that were consumed.
        consumed: u64,
        /// Most descriptors that fit in the ring.
        capacity: usize,
    },
    /// A descriptor names bytes outside of the memory that it refers to.
    #[error("a descriptor from the peer names bytes {offset} to {end}, but there are {limit}")]
    Range {
        /// Position of the first byte.
        offset: u64,
        /// Position behind the last byte.
        end: u64,
        /// Size of the memory in bytes.
        limit: u64,
    },
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<W> {
    words: W,
    layout: RingLayout,
    published: u64,
    /// The receiver's count, as last seen.
    consumed: u64,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<W> {
    words: W,
    layout: RingLayout,
    consumed: u64,
    /// The sender's count, as last seen.
    published: u64,
}

impl RingLayout {
    /// Empties the ring; nobody may be using it. A peer that is done with it may still read the
    /// other end's count, but must not act on it.
    pub(crate) fn clear(&self, words: &impl Words) {
        for word in [self.published, self.consumed, self.waits] {
            // E7: whoever finds the cleared count also finds the state that this side has published
            // before.
            words.word(word).store(0, Release);
        }
    }
}

impl<W: Words> Sender<W> {
    /// Creates the sending end of a ring whose words are zero.
    pub fn new(words: W, layout: RingLayout) -> Self {
        Self {
            words,
            layout,
            published: 0,
            consumed: 0,
        }
    }

    /// Returns how many descriptors can be pushed, as far as is known without reading the
    /// receiver's count.
    pub fn room(&self) -> usize {
        self.layout.capacity - self.in_flight()
    }

    /// Returns how many descriptors the receiver is not known to have consumed.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.published - self.consumed).unwrap_or(usize::MAX)
    }

    /// Sends a descriptor.
    ///
    /// # Errors
    /// Gives it back if the ring is full.
    pub fn push(&mut self, descriptor: Descriptor) -> Result<(), Descriptor> {
        if self.room() == 0 {
            return Err(descriptor);
        }
        let entry = self.layout.entries + slot(self.published, self.layout.capacity);
        self.words.word(entry).store(descriptor.encode(), Relaxed);
        self.published += 1;
        // E1: whoever sees the count also sees the descriptor and the bytes that it names.
        self.words
            .word(self.layout.published)
            .store(self.published, Release);
        Ok(())
    }

    /// Reads the receiver's count. Returns how many more descriptors it has consumed.
    ///
    /// # Errors
    /// If the count exceeds the number of descriptors sent, or went back.
    pub fn refresh(&mut self) -> Result<usize, Violation> {
        // E2: the receiver has read the bytes that it has consumed, so they may be overwritten.
        // This is also the other half of E7.
        let found = self.words.word(self.layout.consumed).load(Acquire);
        if found < self.consumed || found > self.published {
            return Err(Violation::Consumed {
                found,
                sent: self.published,
            });
        }
        let more = found - self.consumed;
        self.consumed = found;
        Ok(usize::try_from(more).unwrap_or(usize::MAX))
    }

    /// Asks to be marked ready when there is room, and reads the receiver's count once more. If
    /// that finds no room, the receiver will see the request.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub fn wait_for_room(&mut self) -> Result<usize, Violation> {
        self.words.word(self.layout.waits).store(1, Relaxed);
        // E3, this half: the request is visible before the count is read. The receiver's half is in
        // `release`: the count is visible before the request is read. At least one side sees the
        // other's write.
        fence(SeqCst);
        self.refresh()
    }

    /// Takes back the request of [`Self::wait_for_room`].
    pub fn stop_waiting(&mut self) {
        self.words.word(self.layout.waits).store(0, Relaxed);
    }
}

impl<W: Words> Receiver<W> {
    /// Creates the receiving end of a ring whose words are zero.
    pub fn new(words: W, layout: RingLayout) -> Self {
        Self {
            words,
            layout,
            consumed: 0,
            published: 0,
        }
    }

    /// Reads the sender's count. Returns how many descriptors are there and not released.
    ///
    /// # Errors
    /// If the count exceeds what fits in the ring, or went back.
    pub fn pending(&mut self) -> Result<usize, Violation> {
        // E1, the other half.
        let found = self.words.word(self.layout.published).load(Acquire);
        let pending = found.checked_sub(self.consumed).map(usize::try_from);
        match pending {
            Some(Ok(pending)) if pending <= self.layout.capacity && found >= self.published => {
                self.published = found;
                Ok(pending)
            }
            _ => Err(Violation::Published {
                found,
                consumed: self.consumed,
                capacity: self.layout.capacity,
            }),
        }
    }

    /// Returns the descriptor that is `ahead` places behind the first one not released; `None` if
    /// [`Self::pending`] has not seen so many.
    ///
    /// # Errors
    /// If the entry is no valid descriptor.
    pub fn peek(&self, ahead: usize) -> Result<Option<Descriptor>, Violation> {
        let position = self.consumed + ahead as u64;
        if position >= self.published {
            return Ok(None);
        }
        let entry = self.layout.entries + slot(position, self.layout.capacity);
        let encoded = self.words.word(entry).load(Relaxed);
        Descriptor::decode(encoded).map(Some)
    }

    /// Releases the first `count` descriptors, which are then consumed. Returns whether the sender
    /// waits for room.
    ///
    /// # Panics
    /// If [`Self::pending`] has seen fewer.
    pub fn release(&mut self, count: usize) -> bool {
        self.consumed += count as u64;
        assert!(self.consumed <= self.published, "seen before done with");
        // E2, the other half.
        self.words
            .word(self.layout.consumed)
            .store(self.consumed, Release);
        // E3, the other half.
        fence(SeqCst);
        self.words.word(self.layout.waits).load(Relaxed) != 0
    }
}

fn slot(position: u64, capacity: usize) -> usize {
    usize::try_from(position % capacity as u64).unwrap_or_default()
}

/// A descriptor has 2 bits of kind, 30 of length and 32 of offset.
const LENGTH_BITS: u32 = 30;
const KIND_BUFFER: u64 = 0;
const KIND_ARENA: u64 = 1;
const KIND_END: u64 = 2;

impl Descriptor {
    /// Most bytes that one descriptor can name.
    pub const LENGTH_MAX: u32 = (1 << LENGTH_BITS) - 1;

    fn encode(self) -> u64 {
        let (kind, offset, length) = match self {
            Self::Buffer { offset, length } => (KIND_BUFFER, offset, length),
            Self::Arena { offset, length } => (KIND_ARENA, offset, length),
            Self::End => (KIND_END, 0, 0),
        };
        debug_assert!(length <= Self::LENGTH_MAX, "{length} bytes");
        kind << 62 | u64::from(length) << 32 | u64::from(offset)
    }

    fn decode(encoded: u64) -> Result<Self, Violation> {
        let offset = u32::try_from(encoded & u64::from(u32::MAX)).unwrap_or_default();
        let length = encoded >> 32 & u64::from(Self::LENGTH_MAX);
        let length = u32::try_from(length).unwrap_or_default();
        match encoded >> 62 {
            KIND_BUFFER => Ok(Self::Buffer { offset, length }),
            KIND_ARENA => Ok(Self::Arena { offset, length }),
            KIND_END if encoded == KIND_END << 62 => Ok(Self::End),
            _ => Err(Violation::Kind(encoded)),
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "ring/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "ring/models.rs"]
mod models;
