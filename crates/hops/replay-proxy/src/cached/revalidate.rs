//! Asks the upstream on behalf of the cache: fetches, validates, merges, and forgets what has
//! changed.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http_proxy::{Answer, Call, ProxyBody};
use hyper::{
    Method, Response, Uri,
    header::{
        HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
        IF_UNMODIFIED_SINCE, RANGE,
    },
};
use tokio::{sync::oneshot, task::spawn_local};

use super::{CACHE_STATUS, value};
use crate::{
    cache::{NAME, Variant, control::Directives, policy::Policy, vary::Vary},
    fetch::{Fetched, Fetching, following, no_answer, share},
    fields::Fields as _,
    flight::{Leading, Outcome},
    head::Head,
    hop::{Hop, question},
    keep::{self, Exchange, KeepError, Question},
    received::{Received, received},
    redact,
    spool::Spool,
    state::Shared,
    store::{Kind, Row, reader::loaded},
    stored::Stored,
};

/// A fetch for the cache.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) key: Vec<u8>,
    /// A stale answer, which may turn out to be good.
    pub(crate) variant: Option<Arc<Variant>>,
    /// Why the upstream is asked, in the words of `Cache-Status`.
    pub(crate) why: &'static str,
}

/// Passes a request on that can neither be answered by the cache nor be kept in it.
pub(crate) fn pass(hop: &Rc<Hop>, call: Call, why: &'static str) -> Answer {
    let answer = hop.forward(call);
    Box::pin(async move {
        let mut response = answer.await?;
        let status = format!("{NAME}; fwd={why}");
        response.headers_mut().insert(CACHE_STATUS, value(&status));
        Ok(response)
    })
}

/// Passes on a request that may change something, and forgets what it has changed (RFC 9111,
/// section 4.4).
pub(crate) fn change(hop: &Rc<Hop>, call: Call) -> Answer {
    let (mut key, shared) = (Vec::new(), Arc::clone(&hop.shared));
    crate::cache::key(&super::asked_of(&call), &mut key);
    let host = call
        .request
        .headers()
        .get("host")
        .map(|host| host.as_bytes().to_ascii_lowercase());
    let path = call.request.uri().path().to_owned();
    let asking = (call.request.method().clone(), call.request.uri().clone());
    let fields = call.request.headers().clone();
    let (hop, requested_ms) = (Rc::clone(hop), crate::clock::now_ms());
    let answer = pass(&hop, call, "method");
    Box::pin(async move {
        let response = answer.await?;
        if response.status().is_success() || response.status().is_redirection() {
            let host = host.unwrap_or_default();
            let mut over = shared.cache.remove(&key);
            for name in ["location", "content-location"] {
                let place = response.headers().get(name);
                if let Some(key) = place.and_then(|it| same_host(it.as_bytes(), &host, &path)) {
                    over.extend(shared.cache.remove(&key));
                }
            }
            shared.counters.purged.add(over.len());
            delete(&shared, over);
            let place = response.headers().get("content-location");
            let place = place.and_then(|it| same_host(it.as_bytes(), &host, &path));
            if asking.0 == Method::POST && place.as_ref() == Some(&key) {
                return Ok(
                    keep_posted(&hop, key, &asking.1, &fields, requested_ms, response).await,
                );
            }
        }
        Ok(response)
    })
}

/// Keeps the answer to a POST that says to be what a GET would get, and for how long (RFC 9110,
/// section 9.3.3).
async fn keep_posted(
    hop: &Rc<Hop>,
    key: Vec<u8>,
    uri: &Uri,
    fields: &HeaderMap,
    requested_ms: i64,
    response: Response<ProxyBody>,
) -> Response<ProxyBody> {
    let Ok(Some(received)) = received(&response, requested_ms) else {
        return response;
    };
    let directives = Directives::read(&received.head);
    let is_explicit = directives.max_age.is_some()
        || directives.s_maxage.is_some()
        || received.head.has("expires");
    if !is_explicit {
        return response;
    }
    let question = question(&Method::GET, uri, fields);
    let leading = hop.shared.flights.alone();
    let flight = Arc::clone(&leading.flight);
    let (first_in, first) = oneshot::channel();
    let fetch = Fetch {
        key,
        variant: None,
        why: "method",
    };
    let shared = Arc::clone(&hop.shared);
    spawn_local(async move {
        store(
            &shared, leading, question, fetch, received, response, first_in,
        )
        .await;
    });
    match flight.outcome().await {
        Outcome::Answer(received, _) => {
            let status = (CACHE_STATUS, value(&format!("{NAME}; fwd=method; stored")));
            following(&flight, &received, &[status])
        }
        _ => first.await.unwrap_or_else(|_| no_answer()),
    }
}

/// Returns the key of a place that an answer names, if it is at the same host.
fn same_host(place: &[u8], host: &[u8], path: &str) -> Option<Vec<u8>> {
    let place = str::from_utf8(place).ok()?.split('#').next()?;
    let rest = place
        .strip_prefix("http://")
        .or_else(|| place.strip_prefix("https://"));
    let rest = rest.or_else(|| place.strip_prefix("//"));
    let target = match rest {
        Some(rest) => {
            let at = rest.find('/').unwrap_or(rest.len());
            if !rest.as_bytes()[..at].eq_ignore_ascii_case(host) {
                return None;
            }
            if at == rest.len() {
                "/".to_owned()
            } else {
                rest[at..].to_owned()
            }
        }
        None if place.starts_with('/') => place.to_owned(),
        None if place.is_empty() => path.to_owned(),
        None => format!(
            "{}/{place}",
            path.rsplit_once('/').map_or("", |(folder, _)| folder)
        ),
    };
    Some([host, target.as_bytes()].concat())
}

fn delete(shared: &Shared, over: Vec<u64>) {
    if !over.is_empty() {
        shared.writer.delete(over, Box::new(|_| {}));
    }
}

/// Begins a fetch. What is for the first client alone comes by the channel.
pub(crate) fn start(
    hop: &Rc<Hop>,
    leading: Leading,
    mut fetching: Fetching,
    fetch: Fetch,
) -> oneshot::Receiver<Response<ProxyBody>> {
    let (first_in, first) = oneshot::channel();
    let can_validate = fetch
        .variant
        .as_ref()
        .is_some_and(|variant| set_conditions(&mut fetching.head.headers, &variant.stored.head));
    spawn_local(run(
        Rc::clone(hop),
        leading,
        fetching,
        fetch,
        can_validate,
        first_in,
    ));
    first
}

/// Makes a request conditional on what is stored. Returns whether that has anything to go by.
fn set_conditions(request: &mut HeaderMap, stored: &Head) -> bool {
    let pairs = [
        ("etag", IF_NONE_MATCH),
        ("last-modified", IF_MODIFIED_SINCE),
    ];
    let mut has_any = false;
    for (from, to) in pairs {
        let Some(validator) = stored
            .get(from)
            .and_then(|it| HeaderValue::from_bytes(it).ok())
        else {
            continue;
        };
        if !has_any {
            // The client's own conditions are checked once the answer is here.
            for name in [
                IF_NONE_MATCH,
                IF_MODIFIED_SINCE,
                IF_MATCH,
                IF_UNMODIFIED_SINCE,
                RANGE,
                IF_RANGE,
            ] {
                request.remove(name);
            }
        }
        request.insert(to, validator);
        has_any = true;
    }
    has_any
}

async fn run(
    hop: Rc<Hop>,
    leading: Leading,
    fetching: Fetching,
    fetch: Fetch,
    can_validate: bool,
    first: oneshot::Sender<Response<ProxyBody>>,
) {
    let shared = Arc::clone(&hop.shared);
    let Some(asking) = fetching.ask(&hop) else {
        return;
    };
    let Fetched {
        question,
        response,
        received: known,
        ..
    } = match asking.await {
        Ok(asked) => asked,
        Err(own) => return drop(first.send(own)),
    };
    let has_status = known.is_some();
    if let Some(variant) = &fetch.variant
        && (!has_status || matches!(response.status().as_u16(), 500 | 502..=504))
        && variant
            .policy
            .may_use_after_error(crate::clock::now_ms(), has_status)
    {
        shared.counters.stale_served.add(1);
        let status = format!("{NAME}; hit; detail=stale-if-error");
        return leading.decide(Outcome::Stored(Arc::clone(variant), status.into()));
    }
    let Some(received) = known else {
        // An answer of our own.
        return drop(first.send(response));
    };
    if let Some(variant) = fetch.variant.as_ref().filter(|_| can_validate)
        && received.head.status == 304
    {
        shared.counters.validations_confirmed.add(1);
        let fresh = freshened(&shared, &question, variant, &received);
        let status = format!("{NAME}; hit; fwd={}; fwd-status=304", fetch.why);
        return leading.decide(Outcome::Stored(fresh, status.into()));
    }
    store(&shared, leading, question, fetch, received, response, first).await;
}

/// Merges what a 304 says into what is stored (RFC 9111, section 3.2), and stores that.
fn freshened(
    shared: &Arc<Shared>,
    question: &Question,
    variant: &Arc<Variant>,
    confirmed: &Received,
) -> Arc<Variant> {
    let head = merged(&variant.stored.head, &confirmed.head);
    let received = Received {
        head: head.clone(),
        framing: variant.stored.framing,
        requested_ms: confirmed.requested_ms,
        received_ms: confirmed.received_ms,
    };
    let directives = Directives::read(&head);
    let mut stored = Stored::new(
        head.clone(),
        variant.stored.framing,
        variant.stored.body.clone(),
    );
    stored.trailers = variant.stored.trailers.clone();
    stored.timing = variant.stored.timing.clone();
    let vary = Vary::of(&head, &question.fields);
    let policy = Policy::of(&question.fields, &directives, &received);
    let Some(policy) = policy else {
        // It must not be stored any more, but this request may still have it.
        delete(
            shared,
            shared.cache.remove_one(variant).into_iter().collect(),
        );
        let policy = Policy {
            lifetime_ms: 0,
            ..Policy::new(&directives, &received)
        };
        let fresh = Variant::new(variant.id, &variant.key, vary, policy, Arc::new(stored));
        return Arc::new(fresh);
    };
    let fresh = Variant::new(variant.id, &variant.key, vary, policy, Arc::new(stored));
    let fresh = Arc::new(fresh);
    shared.cache.remove_one(variant);
    keep_variant(shared, Arc::clone(&fresh));
    let head_only = (fresh.id, head, received.requested_ms, received.received_ms);
    shared.writer.freshen(head_only);
    fresh
}

/// Fields that describe the stored bytes, so that a 304 doesn't change them.
const OF_BYTES: [&[u8]; 5] = [
    b"content-encoding",
    b"content-length",
    b"content-md5",
    b"content-range",
    b"etag",
];

fn merged(stored: &Head, confirmed: &Head) -> Head {
    let is_of_bytes = |name: &[u8]| {
        OF_BYTES
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    };
    let is_updated = |name: &[u8]| {
        let mut fields = confirmed.iter();
        !is_of_bytes(name) && fields.any(|(other, _)| name.eq_ignore_ascii_case(other))
    };
    let stays = |name: &[u8], _: &[u8]| !is_updated(name) && !name.eq_ignore_ascii_case(b"age");
    let mut head = stored.filtered(stays);
    for (name, value) in confirmed.iter().filter(|(name, _)| !is_of_bytes(name)) {
        head.push(name, value);
    }
    head.finish(stored.status)
}

/// Keeps a variant, and deletes those that it replaces.
fn keep_variant(shared: &Arc<Shared>, variant: Arc<Variant>) {
    let (over, evicted) = shared.cache.insert(variant);
    shared.counters.evictions.add(evicted);
    delete(shared, over);
}

/// Stores a new answer if it may be, while it is passed on.
async fn store(
    shared: &Arc<Shared>,
    leading: Leading,
    question: Question,
    fetch: Fetch,
    received: Received,
    mut response: Response<ProxyBody>,
    first: oneshot::Sender<Response<ProxyBody>>,
) {
    let directives = Directives::read(&received.head);
    let policy = Policy::of(&question.fields, &directives, &received);
    let length = received.head.get("content-length");
    let length = length.and_then(|length| str::from_utf8(length).ok()?.parse().ok());
    let has_room = length.is_none_or(|length: u64| {
        length <= shared.body_bytes_max && length <= shared.cache.bytes_max() / 2
    });
    let Some(policy) = policy.filter(|_| has_room && question.method == "GET") else {
        leading.decide(Outcome::Alone);
        // What was stored is from before. An error doesn't say that it has changed.
        if received.head.status < 500
            && received.head.status != 304
            && let Some(variant) = &fetch.variant
        {
            delete(
                shared,
                shared.cache.remove_one(variant).into_iter().collect(),
            );
        }
        let status = format!("{NAME}; fwd={}", fetch.why);
        response.headers_mut().insert(CACHE_STATUS, value(&status));
        return drop(first.send(response));
    };
    let vary = Vary::of(&received.head, &question.fields);
    let shown = Received {
        head: directives.without_hidden(&received.head),
        ..received.clone()
    };
    let whole = share(
        &leading,
        &shared.keeper.files,
        &received,
        vary.clone(),
        response,
    )
    .await;
    let Some((spool, trailers)) = whole else {
        return shared.counters.answers_unstored_cut.add(1);
    };
    let question = Question {
        fields: vary.pairs(),
        ..question
    };
    match new_row(shared, question, shown, spool, trailers.clone(), fetch.key) {
        Ok((row, files, bytes)) => {
            insert(shared, row, files, bytes, (vary, policy), fetch.variant);
        }
        Err(error) => {
            shared.counters.answers_unstored_failed.add(1);
            tracing::warn!("an answer is not cached: {error}");
        }
    }
    leading.finish(trailers);
}

/// A row, the files that it needs, and its body if that is in memory and as it was sent.
type NewRow = (Box<Row>, keep::NewFiles, Option<Bytes>);

fn new_row(
    shared: &Shared,
    question: Question,
    received: Received,
    spool: Spool,
    trailers: Option<Bytes>,
    key: Vec<u8>,
) -> Result<NewRow, KeepError> {
    if spool.length() > shared.cache.bytes_max() / 2 {
        return Err(KeepError::Store(
            "its body is too long for the cache".into(),
        ));
    }
    let exchange = Exchange {
        question,
        upload: None,
        body: spool.finish()?,
        received,
        trailers,
    };
    let is_redacted = redact::concerns(shared.keeper.keys.rules(), &exchange.received.head);
    let bytes = exchange.body.bytes().filter(|_| !is_redacted);
    let (row, files) = keep::row(&shared.keeper, exchange, Kind::Cached, key)?;
    Ok((row, files, bytes))
}

/// Puts a complete answer into the cache at once if its body is in memory, and else once its file
/// is there.
fn insert(
    shared: &Arc<Shared>,
    row: Box<Row>,
    files: keep::NewFiles,
    bytes: Option<Bytes>,
    (vary, policy): (Vary, Policy),
    replaced: Option<Arc<Variant>>,
) {
    if let Some(replaced) = replaced {
        delete(
            shared,
            shared.cache.remove_one(&replaced).into_iter().collect(),
        );
    }
    let later = Arc::clone(shared);
    if let Some(bytes) = bytes {
        let mut stored = Stored::new(row.head.clone(), row.framing, bytes);
        stored.trailers = row.trailers.clone();
        stored.timing = row.timing.clone();
        let variant = Variant::new(row.id, &row.key, vary, policy, Arc::new(stored));
        keep_variant(shared, Arc::new(variant));
        shared.counters.answers_stored.add(1);
        let done = move |stored: Result<(), Arc<str>>| {
            if stored.is_err() {
                later.counters.answers_unstored_failed.add(1);
            }
        };
        return shared.writer.put(row, files, Box::new(done));
    }
    let copy = (*row).clone();
    let done = move |stored: Result<(), Arc<str>>| {
        let variant = stored.map(|()| loaded(copy.clone(), &later.keeper.files));
        match variant {
            Ok(Ok(loaded)) => {
                let stored = Arc::new(loaded.stored);
                let variant = Variant::new(copy.id, &copy.key, vary, policy, stored);
                keep_variant(&later, Arc::new(variant));
                later.counters.answers_stored.add(1);
            }
            Ok(Err(_)) | Err(_) => later.counters.answers_unstored_failed.add(1),
        }
    };
    shared.writer.put(row, files, Box::new(done));
}
