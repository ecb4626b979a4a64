//! Memory for bodies: the heap, or memory from which the server can send them by reference.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use crate::payload;

/// A function that fills memory of the length that was asked for.
pub type Fill<'a> = dyn FnMut(&mut [u8]) + 'a;

type Build = dyn Fn(usize, &mut Fill<'_>) -> Option<Bytes> + Send + Sync;

/// Memory for bodies. The default is the heap.
#[derive(Clone, Default)]
pub struct Memory(Option<Arc<Build>>);

/// The bodies that are built once, and the memory in which all are built.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    memory: Memory,
    large: OnceLock<Bytes>,
    prebuilt: OnceLock<Bytes>,
}

impl Memory {
    /// Takes memory from `build`. If `build` returns `None`, the heap is used.
    pub fn new<F>(build: F) -> Self
    where
        F: Fn(usize, &mut Fill<'_>) -> Option<Bytes> + Send + Sync + 'static,
    {
        Self(Some(Arc::new(build)))
    }

    fn build(&self, length: usize, fill: &mut Fill<'_>) -> Option<Bytes> {
        self.0.as_ref()?(length, fill)
    }
}

impl Payloads {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            ..Self::default()
        }
    }

    /// Returns the repeated sentence, built once.
    pub(crate) fn large(&self) -> Bytes {
        self.large.get_or_init(|| self.large_fresh()).clone()
    }

    /// Returns the repeated sentence, built anew at each call.
    pub(crate) fn large_fresh(&self) -> Bytes {
        let built = self
            .memory
            .build(payload::LARGE_BYTES, &mut payload::fill_large);
        built.unwrap_or_else(payload::large)
    }

    /// Returns the first `length_bytes` of the sequence, as a slice of a buffer built once.
    ///
    /// # Panics
    /// If `length_bytes` is over [`payload::PREBUILT_BYTES`]: callers stream those.
    pub(crate) fn prebuilt(&self, length_bytes: usize) -> Bytes {
        let build = || {
            let whole = payload::sequence(0, payload::PREBUILT_BYTES);
            let mut fill = |target: &mut [u8]| target.copy_from_slice(&whole);
            let built = self.memory.build(payload::PREBUILT_BYTES, &mut fill);
            built.unwrap_or(whole)
        };
        self.prebuilt.get_or_init(build).slice(..length_bytes)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Memory(elsewhere)"
        } else {
            "Memory(heap)"
        })
    }
}
