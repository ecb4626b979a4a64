//! Memory whose contents cross by reference.
//!
//! An arena is a memory file that only its owner can write to: a seal makes the peer's mapping
//! read-only. So `&[u8]` into it is sound in the owner, and a `Bytes` made of it is like any other.
//! The peer only ever reads it, by raw pointer, through an [`ArenaView`].
//!
//! Only the owner knows which parts are in use. Memory is held by the `Bytes` that were made of it
//! and by each [`Lease`], which stands for a descriptor that the peer has not consumed. When the
//! last of them is dropped, the memory is free again.

mod slots;

use std::{
    io,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bytes::Bytes;

use self::slots::Slots;
use crate::{
    io::{Readable, Space},
    mapping::{Mapping, MappingError},
    ring::Violation,
};

/// The owner's end of an arena. Clones share the arena.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mapping: Mapping,
    slots: Slots,
}

/// The peer's end of an arena: reads the bytes that descriptors name.
#[derive(Debug)]
pub struct ArenaView {
    mapping: Mapping,
}

/// Memory that nobody else has. It is written first, then frozen or leased.
#[derive(Debug)]
pub struct Writable {
    slot: Slot,
    length: usize,
}

/// A hold on bytes in the arena that a descriptor names.
#[derive(Debug)]
pub struct Lease {
    /// Held until this is dropped.
    _slot: Slot,
    offset: u32,
    length: u32,
}

/// One hold on one slot.
#[derive(Debug)]
struct Slot {
    inner: Arc<Inner>,
    /// Offset of its first byte in the arena.
    start: usize,
}

/// The owner of the memory behind a `Bytes`.
struct Frozen {
    slot: Slot,
    length: usize,
}

impl Arena {
    /// Creates an arena of `bytes` bytes. Also returns the file to give to the peer.
    ///
    /// # Errors
    /// If there is no memory, or a limit is reached.
    pub fn create(bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let (mapping, file) = Mapping::create("ring-arena", bytes, true)?;
        let slots = Slots::new(bytes);
        let inner = Arc::new(Inner { mapping, slots });
        Ok((Self { inner }, file))
    }

    /// Allocates memory for `length` bytes. Returns `None` if that much is not free, or if `length`
    /// is 0.
    pub fn alloc(&self, length: usize) -> Option<Writable> {
        let start = self.inner.slots.alloc(length)?;
        let inner = self.inner.clone();
        let slot = Slot { inner, start };
        Some(Writable { slot, length })
    }

    /// Returns a hold on `bytes` if they are in this arena.
    pub fn lease(&self, bytes: &[u8]) -> Option<Lease> {
        let first = self.inner.mapping.as_ptr() as usize;
        let offset = (bytes.as_ptr() as usize).checked_sub(first)?;
        if bytes.is_empty() || offset + bytes.len() > self.inner.mapping.len() {
            return None;
        }
        // The slot is in use, since the caller borrows from it.
        let start = self.inner.slots.hold(offset);
        let slot = Slot {
            inner: self.inner.clone(),
            start,
        };
        Some(Lease {
            _slot: slot,
            offset: u32::try_from(offset).ok()?,
            length: u32::try_from(bytes.len()).ok()?,
        })
    }

    /// Returns how many bytes the slots in use have.
    pub fn used_bytes(&self) -> usize {
        self.inner.slots.used_bytes()
    }
}

impl Writable {
    /// Returns the first `length` bytes. They don't change until all holds on them are gone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn freeze(self, length: usize) -> Bytes {
        assert!(length <= self.length, "{length} of {}", self.length);
        let slot = self.slot;
        Bytes::from_owner(Frozen { slot, length })
    }

    /// Returns the first `length` bytes as a lease, for a descriptor to name.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn into_lease(self, length: usize) -> Lease {
        assert!(length <= self.length, "{length} of {}", self.length);
        let narrow = |number: usize| u32::try_from(number).expect("an arena is below 4 GiB");
        Lease {
            offset: narrow(self.slot.start),
            length: narrow(length),
            _slot: self.slot,
        }
    }

    /// Returns the memory as space for a system call to fill.
    pub fn space(&mut self) -> Space<'_> {
        // SAFETY: the slot is in the mapping, which is writable here, and nobody else has the slot.
        unsafe { Space::new(self.slot.as_ptr(), self.length) }
    }
}

impl Deref for Writable {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot is in the mapping, and nobody writes there: the peer can't, and `self`
        // is borrowed.
        unsafe { std::slice::from_raw_parts(self.slot.as_ptr(), self.length) }
    }
}

impl DerefMut for Writable {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the slot is in the mapping, and nobody else has it: it was handed out once and
        // not frozen.
        unsafe { std::slice::from_raw_parts_mut(self.slot.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the slot is in the mapping, and nobody writes there: the peer can't, and in this
        // process only a `Writable` can, which has become this `Frozen`.
        unsafe { std::slice::from_raw_parts(self.slot.as_ptr(), self.length) }
    }
}

impl Lease {
    /// Returns the position of the first byte in the arena.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Slot {
    fn as_ptr(&self) -> *mut u8 {
        self.inner.mapping.as_ptr().wrapping_add(self.start)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.slots.release(self.start);
    }
}

impl ArenaView {
    /// Maps the peer's arena of `bytes` bytes.
    ///
    /// # Errors
    /// If it has another size, or its size is not sealed.
    pub fn open(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        let mapping = Mapping::open(file, bytes, true).map_err(|error| match error {
            MappingError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        })?;
        Ok(Self { mapping })
    }

    /// Returns the bytes that a descriptor names.
    ///
    /// # Errors
    /// If they are not in the arena.
    pub fn readable(&self, offset: u32, length: u32) -> Result<Readable<'_>, Violation> {
        let (offset, end) = (u64::from(offset), u64::from(offset) + u64::from(length));
        let limit = self.mapping.len() as u64;
        if end > limit {
            return Err(Violation::Range { offset, end, limit });
        }
        let start = self
            .mapping
            .as_ptr()
            .wrapping_add(usize::try_from(offset).unwrap_or_default());
        // SAFETY: the bytes are within the mapping, as just checked.
        Ok(unsafe { Readable::new(start, length as usize) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
