//! Where the shared words are: on the heap in tests and models, in a mapping otherwise.

use std::{fmt, sync::Arc};

use crate::{mapping::Mapping, sync::AtomicU64};

/// Words that both sides can reach.
pub trait Words: Clone {
    /// Returns the word with this index.
    ///
    /// # Panics
    /// If there is no such word.
    fn word(&self, index: usize) -> &AtomicU64;
}

/// Words on the heap, which only this process can reach.
#[derive(Clone)]
pub struct HeapWords(Arc<[AtomicU64]>);

/// The words of a mapped segment.
#[derive(Clone, Debug)]
pub struct MappedWords {
    mapping: Arc<Mapping>,
    count: usize,
}

impl HeapWords {
    /// Creates `count` words that are zero.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Words for HeapWords {
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }
}

impl MappedWords {
    /// Takes the first `count` words of `mapping`, which must be writable.
    pub(crate) fn new(mapping: Arc<Mapping>, count: usize) -> Self {
        assert!(mapping.is_writable(), "atomics are written");
        assert!(count * size_of::<AtomicU64>() <= mapping.len(), "within");
        Self { mapping, count }
    }
}

impl Words for MappedWords {
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        let first = self.mapping.as_ptr().cast::<AtomicU64>();
        // SAFETY: the index is below the count, and `new` has checked that so many words are
        // mapped.
        let word = unsafe { first.add(index) };
        // SAFETY: the word is mapped as long as `self` lives, and aligned, since a mapping begins
        // at a page. This process reaches it only as an atomic. The peer may write anything at any
        // time, and an atomic may change at any time. This needs the seal on the file's size: an
        // access to a page that is cut off would raise SIGBUS.
        unsafe { &*word }
    }
}

impl fmt::Debug for HeapWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapWords({})", self.0.len())
    }
}
