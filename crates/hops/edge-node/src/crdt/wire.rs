//! Messages between nodes, as bytes.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `EDGC` |
//! | 1 | version, 1 |
//! | 1 | flags: bit 0 says that there is more to be fetched |
//! | 16, 16 | the sender's actor; the actor that `ack` is about, or zeros |
//! | 8, 8, 8 | `ack`, `since`, `upto`, big-endian |
//! | | actors: how many, then 16 bytes each |
//! | | counters: how many, then each |
//! | 16 | tag |
//!
//! A counter is its kind (1 byte), its key (16), start and length of its window, how many actors
//! it has, and for each of them its index in the message, its ups and its downs.
//!
//! Numbers without a size are LEB128. The tag is keyed BLAKE3, shortened: with a secret that the
//! nodes share it keeps strangers out, and without one it finds damage. A message that is sent
//! again does no harm, for a merge is idempotent.

use std::collections::HashMap;

use super::{
    state::{ACTORS_MAX, ActorId, State, Totals},
    store::{Item, Kind, Slot},
};

/// Longest message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Most counters of a message.
pub const ITEMS_MAX: usize = 4096;

const MAGIC: &[u8; 4] = b"EDGC";
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const FLAG_MORE: u8 = 1;

/// Smallest counter: kind, key, start, length, and no actors.
const ITEM_BYTES_MIN: usize = 1 + 16 + 1 + 1 + 1;

/// Most actors of a message.
const MESSAGE_ACTORS_MAX: usize = 4 * ACTORS_MAX;

/// Room that is kept for what follows the counters.
const RESERVE_BYTES: usize = MESSAGE_ACTORS_MAX * 16 + 128;

/// The news of one node for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: ActorId,
    /// The receiver, and the last change of it that the sender has seen.
    pub ack: Option<(ActorId, u64)>,
    /// The message has all changes of the sender after this one...
    pub since: u64,
    /// ...up to this one.
    pub upto: u64,
    /// Whether the sender has more.
    pub more: bool,
    /// The counters.
    pub items: Vec<Item>,
}

/// A message that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message is too long.
    #[error("message is longer than {MESSAGE_BYTES_MAX} bytes: expected what an edge node sends")]
    TooLong,
    /// The message does not begin as one does.
    #[error("message does not begin with 'EDGC': expected what an edge node sends")]
    NotOne,
    /// The message has another version.
    #[error("message has version {0}: expected {VERSION}; let all nodes run the same program")]
    Version(u8),
    /// The tag is not that of the content.
    #[error("message has a wrong tag: expected the same secret on all nodes; or it was damaged")]
    Tag,
    /// The content is not as it should be.
    #[error("message is malformed: expected {0}")]
    Malformed(&'static str),
}

/// Writes and reads messages under a secret.
#[derive(Clone)]
pub struct Codec {
    key: [u8; 32],
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Codec")
    }
}

impl Codec {
    /// Uses the secret that the nodes share; an empty one keeps nobody out.
    pub fn new(secret: &[u8]) -> Self {
        Self {
            key: blake3::derive_key("hopbench edge-node exchange 1", secret),
        }
    }

    /// Writes a message, with as many of its counters as there is room for. If some are left out,
    /// `upto` and `more` must be set by the caller to what is said of the rest, so the number of
    /// those written is returned.
    pub fn encode(&self, message: &Message) -> (Vec<u8>, usize) {
        let mut actors = Actors::default();
        let mut items = Vec::new();
        let mut written = 0;
        for item in message.items.iter().take(ITEMS_MAX) {
            let start = items.len();
            let known = actors.all.len();
            write_item(item, &mut actors, &mut items);
            let is_full = items.len() > MESSAGE_BYTES_MAX - RESERVE_BYTES
                || actors.all.len() > MESSAGE_ACTORS_MAX;
            if is_full {
                items.truncate(start);
                actors.all.truncate(known);
                break;
            }
            written += 1;
        }
        let mut bytes = Vec::with_capacity(items.len() + RESERVE_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        let more = message.more || written < message.items.len();
        bytes.push(if more { FLAG_MORE } else { 0 });
        bytes.extend_from_slice(&message.from.to_bytes());
        let (to, ack) = message.ack.unwrap_or((ActorId::from_bytes([0; 16]), 0));
        bytes.extend_from_slice(&to.to_bytes());
        for number in [ack, message.since, message.upto] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        write_number(actors.all.len() as u64, &mut bytes);
        for actor in &actors.all {
            bytes.extend_from_slice(&actor.to_bytes());
        }
        write_number(written as u64, &mut bytes);
        bytes.extend_from_slice(&items);
        bytes.extend_from_slice(&self.tag(&bytes));
        (bytes, written)
    }

    /// Reads a message. Takes no more memory than a small multiple of its length.
    ///
    /// # Errors
    /// If the message is not as this module's head says.
    pub fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(WireError::NotOne);
        }
        match bytes.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(other) => return Err(WireError::Version(*other)),
            None => return Err(WireError::Malformed("a version")),
        }
        let (content, tag) = bytes
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(WireError::Malformed("a tag"))?;
        // In constant time, so that a tag can't be guessed byte by byte.
        if blake3::Hash::from_bytes(widened(*tag)) != widened(self.tag(content)) {
            return Err(WireError::Tag);
        }
        let mut reader = Reader(&content[MAGIC.len() + 1..]);
        let message = reader.message()?;
        match reader.0.is_empty() {
            true => Ok(message),
            false => Err(WireError::Malformed("nothing after the counters")),
        }
    }

    /// Ends what any writer made with a good tag.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn sign(&self, bytes: &mut Vec<u8>) {
        let tag = self.tag(bytes);
        bytes.extend_from_slice(&tag);
    }

    fn tag(&self, content: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&self.key, content);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
        tag
    }
}

fn widened(tag: [u8; TAG_BYTES]) -> [u8; 32] {
    let mut wide = [0; 32];
    wide[..TAG_BYTES].copy_from_slice(&tag);
    wide
}

/// The actors of a message, by number.
#[derive(Default)]
struct Actors {
    all: Vec<ActorId>,
    known: HashMap<ActorId, usize>,
}

impl Actors {
    fn number(&mut self, actor: ActorId) -> u64 {
        let next = self.all.len();
        let number = *self.known.entry(actor).or_insert(next);
        if number >= next {
            // New, or known from a counter that was left out in the end.
            self.known.insert(actor, next);
            self.all.push(actor);
            return next as u64;
        }
        number as u64
    }
}

fn write_item(item: &Item, actors: &mut Actors, bytes: &mut Vec<u8>) {
    bytes.push(match item.kind {
        Kind::Keyed => 0,
        Kind::Shared => 1,
    });
    bytes.extend_from_slice(&item.slot.key.to_be_bytes());
    write_number(item.slot.start_ms, bytes);
    write_number(item.slot.length_ms.into(), bytes);
    write_number(item.state.actors().len() as u64, bytes);
    for (actor, totals) in item.state.actors() {
        write_number(actors.number(*actor), bytes);
        write_number(totals.ups, bytes);
        write_number(totals.downs, bytes);
    }
}

fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

/// The bytes that are left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn message(&mut self) -> Result<Message, WireError> {
        let more = match self.byte()? {
            0 => false,
            FLAG_MORE => true,
            _ => return Err(WireError::Malformed("flags of this version")),
        };
        let from = self.actor()?;
        let to = self.actor()?;
        let ack = u64::from_be_bytes(self.array()?);
        let since = u64::from_be_bytes(self.array()?);
        let upto = u64::from_be_bytes(self.array()?);
        let actors = self.count(MESSAGE_ACTORS_MAX, 16)?;
        let actors: Vec<ActorId> = (0..actors)
            .map(|_| self.actor())
            .collect::<Result<_, _>>()?;
        let items = self.count(ITEMS_MAX, ITEM_BYTES_MIN)?;
        let items = (0..items)
            .map(|_| self.item(&actors))
            .collect::<Result<_, _>>()?;
        Ok(Message {
            from,
            ack: (to != ActorId::from_bytes([0; 16])).then_some((to, ack)),
            since,
            upto,
            more,
            items,
        })
    }

    fn item(&mut self, actors: &[ActorId]) -> Result<Item, WireError> {
        let kind = match self.byte()? {
            0 => Kind::Keyed,
            1 => Kind::Shared,
            _ => return Err(WireError::Malformed("a kind of counter, 0 or 1")),
        };
        let key = u128::from_be_bytes(self.array()?);
        let start_ms = self.number()?;
        let length_ms = u32::try_from(self.number()?)
            .map_err(|_| WireError::Malformed("the length of a window"))?;
        let mut state = State::default();
        for _ in 0..self.count(ACTORS_MAX + 1, 3)? {
            let actor = usize::try_from(self.number()?).ok();
            let actor = actor.and_then(|index| actors.get(index));
            let actor = *actor.ok_or(WireError::Malformed("an actor of the message"))?;
            let totals = Totals {
                ups: self.number()?,
                downs: self.number()?,
            };
            if !totals.is_possible() {
                return Err(WireError::Malformed("counts that are possible"));
            }
            state.raise(actor, totals);
        }
        let slot = Slot {
            key,
            start_ms,
            length_ms,
        };
        Ok(Item { slot, kind, state })
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    fn actor(&mut self) -> Result<ActorId, WireError> {
        Ok(ActorId::from_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(WireError::Malformed("more bytes"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, WireError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if (bits << shift) >> shift != bits {
                break;
            }
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireError::Malformed("a number of 64 bits"))
    }

    /// Reads how many things follow, each of at least `bytes_min` bytes.
    fn count(&mut self, most: usize, bytes_min: usize) -> Result<usize, WireError> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        match count <= most && count <= self.0.len() / bytes_min {
            true => Ok(count),
            false => Err(WireError::Malformed("fewer actors or counters")),
        }
    }
}

#[cfg(test)]
mod tests;
