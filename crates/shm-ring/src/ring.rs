//! A ring of descriptors with one sender and one receiver.
//!
//! Both count from zero and never wrap: 2^64 descriptors last for centuries. What the peer has
//! counted is checked against what is possible before it is used.

use crate::{
    sync::Ordering::{Acquire, Relaxed, Release, SeqCst},
    sync::fence,
    words::Words,
};

/// What is sent: where bytes are, or that none will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// In the sender's arena.
    Arena { offset: u32, length: u32 },
    /// In the lane's own buffer.
    Buffer { offset: u32, length: u32 },
    /// The end of this direction.
    End,
}

/// Which words a ring has.
#[derive(Clone, Copy, Debug)]
pub struct RingLayout {
    /// How many descriptors were sent; the sender writes it.
    pub published: usize,
    /// How many were done with; the receiver writes it.
    pub consumed: usize,
    /// Whether the sender waits for room; the sender writes it.
    pub waits: usize,
    /// First of `capacity` words.
    pub entries: usize,
    pub capacity: usize,
}

/// What the peer must not have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the peer has counted {found} descriptors done of {sent} sent")]
    Consumed { found: u64, sent: u64 },
    #[error("descriptor {0:#x} of the peer is of no known kind")]
    Kind(u64),
    #[error(
        "the peer has counted {found} descriptors sent; {consumed} are done and {capacity} fit"
    )]
    Published {
        found: u64,
        consumed: u64,
        capacity: usize,
    },
    #[error("a descriptor of the peer names bytes {offset} to {end} of {limit}")]
    Range { offset: u64, end: u64, limit: u64 },
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<W> {
    words: W,
    layout: RingLayout,
    published: u64,
    /// As last seen.
    consumed: u64,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<W> {
    words: W,
    layout: RingLayout,
    consumed: u64,
    /// As last seen.
    published: u64,
}

impl RingLayout {
    /// Makes the ring empty; nobody may be using it. A peer that is done with it may still look how
    /// far the other end was, and must not go by it.
    pub(crate) fn clear(&self, words: &impl Words) {
        for word in [self.published, self.consumed, self.waits] {
            // E7: who finds this finds the state that this side has published before.
            words.word(word).store(0, Release);
        }
    }
}

impl<W: Words> Sender<W> {
    /// Of a ring whose words are zero.
    pub fn new(words: W, layout: RingLayout) -> Self {
        Self {
            words,
            layout,
            published: 0,
            consumed: 0,
        }
    }

    /// Descriptors that can be pushed, as far as is known without looking.
    pub fn room(&self) -> usize {
        self.layout.capacity - self.in_flight()
    }

    /// Descriptors that the receiver is not known to be done with.
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
        // E1: what the descriptor names, and the descriptor, are there for whoever sees the count.
        self.words
            .word(self.layout.published)
            .store(self.published, Release);
        Ok(())
    }

    /// Looks how far the receiver is. Returns how many more descriptors it is done with.
    ///
    /// # Errors
    /// If it claims more than was sent, or takes back what it said.
    pub fn refresh(&mut self) -> Result<usize, Violation> {
        // E2: the receiver has read what it is done with; it may be overwritten. Also E7, the
        // other half.
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

    /// Asks to be marked ready when there is room, and looks once more. If that finds nothing, the
    /// receiver will see the wish.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub fn wait_for_room(&mut self) -> Result<usize, Violation> {
        self.words.word(self.layout.waits).store(1, Relaxed);
        // E3, this half: the wish is visible before the count is read. The receiver's half is in
        // `release`: the count is visible before the wish is read. One of the two sees the other.
        fence(SeqCst);
        self.refresh()
    }

    /// Takes the wish back.
    pub fn stop_waiting(&mut self) {
        self.words.word(self.layout.waits).store(0, Relaxed);
    }
}

impl<W: Words> Receiver<W> {
    /// Of a ring whose words are zero.
    pub fn new(words: W, layout: RingLayout) -> Self {
        Self {
            words,
            layout,
            consumed: 0,
            published: 0,
        }
    }

    /// Descriptors that are there.
    ///
    /// # Errors
    /// If the sender claims more than fit, or takes back what it said.
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

    /// The descriptor that is `ahead` of the first one not released; `None` if it isn't there, as
    /// far as [`Self::pending`] saw.
    ///
    /// # Errors
    /// If it is no descriptor.
    pub fn peek(&self, ahead: usize) -> Result<Option<Descriptor>, Violation> {
        let position = self.consumed + ahead as u64;
        if position >= self.published {
            return Ok(None);
        }
        let entry = self.layout.entries + slot(position, self.layout.capacity);
        let encoded = self.words.word(entry).load(Relaxed);
        Descriptor::decode(encoded).map(Some)
    }

    /// Is done with the first `count` descriptors. Returns whether the sender waits for that.
    ///
    /// # Panics
    /// If so many have not been seen.
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

/// Two bits of kind, 30 of length, 32 of offset.
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
