//! Answers plain requests from what is stored, as bytes, and records those that are only passed on.
//!
//! All that needs more is left to the service.

mod record;

use bytes::Bytes;
use http_proxy::{PlainAnswer, PlainRequest, PlainRoutes};

use crate::{
    cache::{self, Selected, control::Directives},
    fields::{Asked, Fields},
    hop::{Hop, Router},
    lookup,
    recordings::Found,
    respond::{self, Ready},
    state::{Freshness, Mode},
    stored::Stored,
};

impl Fields for PlainRequest<'_> {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields().map(|(name, value)| (name.as_bytes(), value))
    }
}

impl PlainRoutes for Router {
    fn route(&self, request: &PlainRequest<'_>, head: &mut Vec<u8>) -> Option<PlainAnswer> {
        let hop = &self.0;
        let mode = hop.shared.mode.get();
        if mode == Mode::Record {
            return record::record(hop, request);
        }
        if !matches!(request.method, "GET" | "HEAD") || !request.body().is_empty() {
            return None;
        }
        let asked = Asked {
            method: request.method,
            target: request.target,
            fields: request,
        };
        let body = match (mode, hop.shared.freshness) {
            (Mode::PassthroughCache, Freshness::Rfc9111) => cached(hop, &asked, head),
            _ => recorded(hop, &asked, head),
        }?;
        hop.shared.counters.cache_hits_total.add(1);
        Some(PlainAnswer::Own(body, None))
    }
}

/// Answers a request by a recording that is in memory.
fn recorded(hop: &Hop, asked: &Asked<'_, PlainRequest<'_>>, head: &mut Vec<u8>) -> Option<Bytes> {
    let shared = &hop.shared;
    // A look-up among several answers moves on to the next, and must not be made twice.
    if !shared.recordings.answers_stay() {
        return None;
    }
    match lookup::find(&shared.keeper.keys, &shared.recordings, asked, None) {
        Found::Hot(stored) => write(&stored, respond::ready(&stored, asked)?, head),
        Found::Cold(_) | Found::Nothing => None,
    }
}

/// Answers a request from the cache.
fn cached(hop: &Hop, asked: &Asked<'_, PlainRequest<'_>>, head: &mut Vec<u8>) -> Option<Bytes> {
    let now_ms = crate::clock::now_ms();
    let mut key = Vec::with_capacity(96);
    cache::key(asked, &mut key);
    let directives = Directives::read(asked.fields);
    if directives.no_store {
        return None;
    }
    let selected = hop
        .shared
        .cache
        .select(&key, asked.fields, &directives, now_ms);
    let Selected { variant, .. } = selected.filter(|selected| selected.is_usable)?;
    let ready = variant.ready(asked, cache::NAME, now_ms)?;
    write(&variant.stored, ready, head)
}

/// Writes the head of an answer; returns the body. `None` if it has no date, which hyper would add.
fn write(stored: &Stored, ready: Ready, head: &mut Vec<u8>) -> Option<Bytes> {
    if !stored.head.has("date") {
        return None;
    }
    head.extend_from_slice(ready.head.strip_suffix(b"\r\n")?);
    Some(ready.body)
}
