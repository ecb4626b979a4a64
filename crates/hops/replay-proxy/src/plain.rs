//! Answers plain requests from what is stored, as bytes, and records those that are only passed on.
//!
//! All that needs more is left to the service.

mod record;

use std::sync::Arc;

use bytes::Bytes;
use http_proxy::{PlainAnswer, PlainRequest, PlainRoutes};

use crate::{
    cache::{self, Selected, control::Directives},
    fields::{Asked, Fields},
    hop::{Hop, Router},
    lookup,
    recordings::Found,
    respond,
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
        if hop.shared.mode.get() == Mode::Record {
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
        let body = match (hop.shared.mode.get(), hop.shared.freshness) {
            (Mode::Record, _) => None,
            (Mode::PassthroughCache, Freshness::Rfc9111) => cached(hop, &asked, head),
            (Mode::Replay | Mode::PassthroughCache, _) => recorded(hop, &asked, head),
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
        Found::Hot(stored) => write(&stored, asked, &[], head),
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
    let age_seconds = variant.policy.age_ms(now_ms) / 1_000;
    let status = variant.hit_status(cache::NAME, now_ms);
    let extra = [("age", age_seconds.to_string()), ("cache-status", status)];
    write(&variant.stored, asked, &extra, head)
}

/// Writes the head of a stored answer, with `extra` in place of fields of the same name. Returns
/// the body. `None` if the request doesn't ask for all of it.
fn write(
    stored: &Arc<Stored>,
    asked: &Asked<'_, PlainRequest<'_>>,
    extra: &[(&str, String)],
    head: &mut Vec<u8>,
) -> Option<Bytes> {
    // hyper would add the date.
    if !stored.head.has("date") {
        return None;
    }
    let ready = respond::ready(stored, asked)?;
    let lines = ready.head.strip_suffix(b"\r\n")?;
    if extra.is_empty() {
        head.extend_from_slice(lines);
        return Some(ready.body);
    }
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let mut replaced = extra.iter();
        if !replaced.any(|(other, _)| name.eq_ignore_ascii_case(other.as_bytes())) {
            head.extend_from_slice(line);
        }
    }
    for (name, value) in extra {
        for part in [name, ": ", value, "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
    }
    Some(ready.body)
}
