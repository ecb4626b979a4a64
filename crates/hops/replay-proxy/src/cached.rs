//! Answers requests by the rules of HTTP caching: from the cache, or from the upstream.

mod revalidate;

use std::{convert::Infallible, future::ready, rc::Rc, sync::Arc};

use http_proxy::{Answer, Call, ProxyBody};
use hyper::{
    Method, Response, StatusCode,
    body::Body as _,
    header::{AGE, HeaderName, HeaderValue},
};

use crate::{
    cache::{self, NAME, Selected, Variant, control::Directives, policy::Policy, vary::Vary},
    fetch::{Fetching, following},
    fields::Asked,
    flight::{Flight, Joined, Outcome},
    hop::{Hop, asked},
    received::Received,
    respond::respond,
    store::{Files, Row, reader::LoadError, reader::loaded, rows},
};

pub(crate) use self::revalidate::Fetch;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Answers a request.
pub(crate) fn answer(hop: &Rc<Hop>, call: Call) -> Answer {
    let method = call.request.method();
    if *method == Method::GET || *method == Method::HEAD {
        return look_up(hop, call);
    }
    if matches!(*method, Method::OPTIONS | Method::TRACE) {
        return hop.forward(call);
    }
    revalidate::change(hop, call)
}

fn look_up(hop: &Rc<Hop>, call: Call) -> Answer {
    let shared = &hop.shared;
    let now_ms = crate::clock::now_ms();
    let (mut key, asked) = (Vec::with_capacity(96), asked_of(&call));
    cache::key(&asked, &mut key);
    let directives = Directives::read(asked.fields);
    let selected = match directives.no_store {
        true => None,
        false => shared.cache.select(&key, asked.fields, &directives, now_ms),
    };
    if let Some(Selected { variant, is_usable }) = &selected {
        if *is_usable {
            shared.counters.cache_hits_total.add(1);
            let status = variant.hit_status(NAME, now_ms);
            return at_once(from_variant(hop, variant, &asked, &status, now_ms));
        }
        if variant.policy.may_use_meanwhile(&directives, now_ms) {
            shared.counters.cache_hits_total.add(1);
            shared.counters.stale_served.add(1);
            let status = variant.hit_status(NAME, now_ms);
            let response = from_variant(hop, variant, &asked, &status, now_ms);
            refresh(hop, call, key, Arc::clone(variant));
            return at_once(response);
        }
    }
    shared.counters.cache_misses_total.add(1);
    if directives.only_if_cached {
        let text = "nothing is stored that may be used, and only that was asked for";
        return at_once(http_proxy::answer(StatusCode::GATEWAY_TIMEOUT, text));
    }
    let why = match &selected {
        Some(_) if directives.no_cache || directives.max_age.is_some() => "request",
        Some(_) => "stale",
        None if directives.no_store => "bypass",
        None if shared.cache.has(&key) => "vary-miss",
        None => "uri-miss",
    };
    let is_plain = !directives.no_store && !directives.no_cache && is_plain(&call);
    let fetch = Fetch {
        key,
        variant: selected.map(|it| it.variant),
        why,
    };
    // A request without conditions can share an answer; so can one that only validates.
    if !is_plain {
        let can_validate = fetch.variant.is_some() && *call.request.method() == Method::GET;
        let can_store = *call.request.method() == Method::GET && !directives.no_store;
        if !can_validate && !can_store || !call.request.body().is_end_stream() {
            return revalidate::pass(hop, call, why);
        }
        let leading = shared.flights.alone();
        return lead(hop, call, leading, fetch);
    }
    match shared.flights.join(&fetch.key) {
        Joined::First(leading) => lead(hop, call, leading, fetch),
        Joined::Follows(flight) => {
            shared.counters.requests_coalesced.add(1);
            Box::pin(follow(Rc::clone(hop), flight, call, fetch))
        }
    }
}

/// Returns whether a request asks for the whole, without conditions.
fn is_plain(call: &Call) -> bool {
    let names = [
        "range",
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-unmodified-since",
    ];
    *call.request.method() == Method::GET
        && call.request.body().is_end_stream()
        && names
            .iter()
            .all(|name| !call.request.headers().contains_key(*name))
}

fn asked_of(call: &Call) -> Asked<'_, hyper::HeaderMap> {
    let request = &call.request;
    asked(request.method(), request.uri(), request.headers())
}

fn at_once(response: Response<ProxyBody>) -> Answer {
    Box::pin(ready(Ok(response)))
}

/// Begins a fetch, and answers by what comes of it.
fn lead(hop: &Rc<Hop>, call: Call, leading: crate::flight::Leading, fetch: Fetch) -> Answer {
    let hop = Rc::clone(hop);
    let flight = Arc::clone(&leading.flight);
    let (head, _) = call.request.into_parts();
    let asking = (head.method.clone(), head.uri.clone(), head.headers.clone());
    let why = fetch.why;
    let fetching = Fetching::new(head, call.client);
    let first = revalidate::start(&hop, leading, fetching, fetch);
    Box::pin(async move {
        let outcome = flight.outcome().await;
        let asked = asked(&asking.0, &asking.1, &asking.2);
        match by_outcome(
            &hop,
            &flight,
            outcome,
            &asked,
            &format!("{NAME}; fwd={why}; stored"),
        ) {
            Some(response) => Ok(response),
            None => Ok(first.await.unwrap_or_else(|_| crate::fetch::no_answer())),
        }
    })
}

/// Follows the fetch of another client, or fetches if that isn't for this one.
async fn follow(
    hop: Rc<Hop>,
    flight: Arc<Flight>,
    call: Call,
    fetch: Fetch,
) -> Result<Response<ProxyBody>, Infallible> {
    let outcome = flight.outcome().await;
    if matches!(outcome, Outcome::Failed) {
        return Ok(crate::fetch::no_answer());
    }
    let status = format!("{NAME}; fwd={}; collapsed", fetch.why);
    let asked = asked_of(&call);
    match by_outcome(&hop, &flight, outcome, &asked, &status) {
        Some(response) => Ok(response),
        // What is for one client alone must not make the others wait for one another.
        None => lead(&hop, call, hop.shared.flights.alone(), fetch).await,
    }
}

/// Answers by what came of a fetch; `None` if it has nothing for this request.
fn by_outcome(
    hop: &Rc<Hop>,
    flight: &Arc<Flight>,
    outcome: Outcome,
    asked: &Asked<'_, hyper::HeaderMap>,
    status: &str,
) -> Option<Response<ProxyBody>> {
    match outcome {
        Outcome::Answer(received, vary) if vary.matches(asked.fields) => {
            let status = (CACHE_STATUS, value(status));
            Some(following(flight, &received, &[status]))
        }
        Outcome::Stored(variant, status) if variant.vary.matches(asked.fields) => {
            let now_ms = crate::clock::now_ms();
            Some(from_variant(hop, &variant, asked, &status, now_ms))
        }
        _ => None,
    }
}

/// Fetches an answer anew in the background, unless that is happening already.
fn refresh(hop: &Rc<Hop>, call: Call, key: Vec<u8>, variant: Arc<Variant>) {
    if let Joined::First(leading) = hop.shared.flights.join(&key) {
        let (mut head, _) = call.request.into_parts();
        head.method = Method::GET;
        for name in ["range", "if-range", "cache-control"] {
            head.headers.remove(name);
        }
        let fetching = Fetching::new(head, call.client);
        let fetch = Fetch {
            key,
            variant: Some(variant),
            why: "stale",
        };
        // Nobody waits for it.
        drop(revalidate::start(hop, leading, fetching, fetch));
    }
}

/// Answers a request from a variant.
fn from_variant(
    hop: &Hop,
    variant: &Variant,
    asked: &Asked<'_, hyper::HeaderMap>,
    status: &str,
    now_ms: i64,
) -> Response<ProxyBody> {
    let age = HeaderValue::from(variant.policy.age_ms(now_ms) / 1_000);
    let extra = [(AGE, age), (CACHE_STATUS, value(status))];
    respond(&variant.stored, asked, &extra, hop.shared.timing)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(NAME))
}

/// Makes a variant of a row that was read.
///
/// # Errors
/// If its body can't be read.
pub(crate) fn variant_of(row: Row, files: &Files) -> Result<Variant, LoadError> {
    let received = Received {
        head: row.head.clone(),
        framing: row.framing,
        requested_ms: row.requested_ms,
        received_ms: row.received_ms,
    };
    let request = rows::fields(&row.request_fields);
    let vary = Vary::of(&row.head, &request);
    let policy = Policy::new(&Directives::read(&row.head), &received);
    let (id, key) = (row.id, row.key.clone());
    let stored = loaded(row, files)?.stored;
    Ok(Variant::new(id, &key, vary, policy, Arc::new(stored)))
}
