//! Puts answers into the cache while they pass, and takes out what a change has made wrong.

use std::{cell::RefCell, future::ready, pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http_proxy::AnswerTap;
use replay_proxy::{
    cache::{Cache, Variant},
    fields::Pairs,
};

use crate::{cache_key::CacheKey, state::Counters};

/// Keys whose answers could not be stored a moment ago. Looking at each of their answers would cost
/// more than it brings.
#[derive(Debug)]
pub(crate) struct Unstorable(Vec<(u128, i64)>);

/// An answer that may be stored.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) cache: Arc<Cache>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unstorable: Rc<RefCell<Unstorable>>,
    pub(crate) key: CacheKey,
    pub(crate) fields: Pairs,
    pub(crate) requested_ms: i64,
    pub(crate) body_bytes_max: usize,
    pub(crate) head: Bytes,
    /// `None` once it is too long.
    pub(crate) body: Option<Vec<u8>>,
}

/// A request that may change what is stored under a key.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) cache: Arc<Cache>,
    pub(crate) key: CacheKey,
}

/// Keys that are remembered; a power of two. One may push out another.
const UNSTORABLE: usize = 1024;

/// How long a key is remembered.
const UNSTORABLE_MS: i64 = 10_000;

impl Default for Unstorable {
    fn default() -> Self {
        Self(vec![(0, 0); UNSTORABLE])
    }
}

impl Unstorable {
    fn slot(key: CacheKey) -> usize {
        usize::try_from(key.bits() % UNSTORABLE as u128).unwrap_or_default()
    }

    /// Returns whether the answer to a key was not storable a moment ago.
    pub(crate) fn has(&self, key: CacheKey, now_ms: i64) -> bool {
        let (bits, until_ms) = self.0[Self::slot(key)];
        bits == key.bits() && now_ms < until_ms
    }

    fn note(&mut self, key: CacheKey, now_ms: i64) {
        self.0[Self::slot(key)] = (key.bits(), now_ms + UNSTORABLE_MS);
    }
}

impl AnswerTap for Fill {
    fn head(&mut self, head: &[u8]) {
        self.head = Bytes::copy_from_slice(head);
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(body) = &mut self.body {
            match body.len() + bytes.len() <= self.body_bytes_max {
                true => body.extend_from_slice(bytes),
                false => self.body = None,
            }
        }
    }

    fn end(self: Box<Self>, trailers: &[u8]) -> Pin<Box<dyn Future<Output = ()>>> {
        let Self {
            cache,
            counters,
            unstorable,
            key,
            fields,
            requested_ms,
            head,
            body,
            ..
        } = *self;
        // Trailers would have to be stored with the body.
        let body = body.filter(|_| trailers.is_empty());
        let variant = body.and_then(|body| {
            let bits = key.bits().to_be_bytes();
            Variant::received(&bits, &fields, (head, body.into()), requested_ms)
        });
        match variant {
            Some(variant) => {
                cache.insert(Arc::new(variant));
                counters.cache_stored.add(1);
            }
            None => unstorable.borrow_mut().note(key, requested_ms),
        }
        Box::pin(ready(()))
    }
}

impl AnswerTap for Change {
    fn head(&mut self, head: &[u8]) {
        // "HTTP/1.1 2": what has failed has changed nothing.
        if matches!(head.get(9), Some(b'2' | b'3')) {
            self.cache.remove(&self.key.bits().to_be_bytes());
        }
    }

    fn piece(&mut self, _: &[u8]) {}

    fn end(self: Box<Self>, _: &[u8]) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(ready(()))
    }
}
