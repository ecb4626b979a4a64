//! Answers the requests of one thread: by what is stored, by the upstream, or by both.

use std::{
    convert::Infallible,
    future::ready,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_proxy::{Answer, Call, Forwarding, Proxy, ProxyBody, answer};
use hyper::{
    Method, Response, StatusCode,
    body::{Body as _, Incoming},
    header::UPGRADE,
    http::request::Parts,
};
use tower_service::Service;

use crate::{
    cached, fetch,
    fields::{Asked, Fields as _},
    flight::Joined,
    keep::{Question, Upload, Uploaded},
    key::BodyKey,
    lookup,
    pieces::Pieces,
    received::received,
    record::record,
    recordings::{Found, Recording},
    respond::respond,
    spool::Spooled,
    state::{Freshness, Miss, Mode, Shared},
    store::reader::LoadError,
    stored::Stored,
};

/// The work of one thread.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) proxy: Proxy,
    pub(crate) pieces: Rc<Pieces>,
    pub(crate) shared: Arc<Shared>,
}

/// Answers requests.
#[derive(Clone, Debug)]
pub(crate) struct Router(pub(crate) Rc<Hop>);

/// Longest body of a request that is read before the request is looked up.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Hop {
    fn answer(self: &Rc<Self>, call: Call) -> Answer {
        let mode = self.shared.mode.get();
        if mode != Mode::Replay && call.request.headers().contains_key(UPGRADE) {
            self.shared.counters.upgrades_unrecorded.add(1);
            return self.forward(call);
        }
        match (mode, self.shared.freshness) {
            (Mode::Record, _) => self.record(call),
            (Mode::PassthroughCache, Freshness::Rfc9111) => cached::answer(self, call),
            (Mode::Replay | Mode::PassthroughCache, _) => self.look_up(call),
        }
    }

    /// Forwards a request and stores nothing.
    pub(crate) fn forward(&self, call: Call) -> Answer {
        let Some(upstreams) = &self.shared.upstreams else {
            return no_upstream();
        };
        self.shared.counters.upstream_requests_total.add(1);
        self.proxy.forward(call, upstreams, Forwarding::Pass)
    }

    /// Forwards a request and records the answer.
    fn record(self: &Rc<Self>, call: Call) -> Answer {
        let Some(upstreams) = &self.shared.upstreams else {
            return no_upstream();
        };
        let shared = Arc::clone(&self.shared);
        shared.counters.upstream_requests_total.add(1);
        let request = &call.request;
        let question = question(request.method(), request.uri(), request.headers());
        let requested_ms = crate::clock::now_ms();
        let (upload, answer) = if call.request.body().is_end_stream() {
            (None, self.proxy.forward(call, upstreams, Forwarding::Pass))
        } else {
            let (upload, tap) = Upload::begin(&shared);
            let answer = self
                .proxy
                .forward_tapped(call, upstreams, Forwarding::Pass, tap);
            (Some(upload), answer)
        };
        Box::pin(async move {
            let response = answer.await?;
            match received(&response, requested_ms) {
                Ok(Some(received)) => {
                    Ok(record(&shared, question, upload, received, response).await)
                }
                Ok(None) => Ok(response),
                Err(why) => Ok(bad_gateway(&shared, why)),
            }
        })
    }

    /// Answers a request by a recording. What needs no waiting is done at once.
    fn look_up(self: &Rc<Self>, call: Call) -> Answer {
        let shared = &self.shared;
        let has_body = !call.request.body().is_end_stream();
        if has_body && shared.keeper.keys.needs_body() {
            return Box::pin(Rc::clone(self).look_up_with_body(call));
        }
        match self.found(&call.request, None) {
            Found::Hot(stored) => Box::pin(ready(Ok(self.hit(&stored, &call.request)))),
            Found::Cold(recording) => Box::pin(Rc::clone(self).cold(recording, call)),
            Found::Nothing if has_body => self.miss_with_body(call),
            Found::Nothing => {
                let (head, _) = call.request.into_parts();
                self.miss(head, None, &call.client)
            }
        }
    }

    fn found(&self, request: &hyper::Request<Incoming>, body: Option<&BodyKey>) -> Found {
        let asked = asked(request.method(), request.uri(), request.headers());
        lookup::find(
            &self.shared.keeper.keys,
            &self.shared.recordings,
            &asked,
            body,
        )
    }

    fn hit<B>(&self, stored: &Arc<Stored>, request: &hyper::Request<B>) -> Response<ProxyBody> {
        self.shared.counters.cache_hits_total.add(1);
        let asked = asked(request.method(), request.uri(), request.headers());
        respond(stored, &asked, &[], self.shared.timing)
    }

    /// Reads a recording that isn't in memory.
    async fn load(&self, recording: &Arc<Recording>) -> Result<Arc<Stored>, Response<ProxyBody>> {
        let mut loaded = self.shared.reader.load(recording.id).await;
        if let Err(LoadError::Gone) = loaded {
            // It may be on its way into the database.
            loaded = match self.shared.writer.flush().await {
                Ok(()) => self.shared.reader.load(recording.id).await,
                Err(error) => Err(LoadError::Unwritten(error)),
            };
        }
        match loaded {
            Ok(loaded) => {
                let memory = loaded.stored.memory(loaded.is_mapped);
                let stored = Arc::new(loaded.stored);
                self.shared
                    .recordings
                    .keep(recording, Arc::clone(&stored), memory);
                Ok(stored)
            }
            Err(error) => {
                self.shared.counters.answers_unreadable.add(1);
                let text = format!("recording {} can't be read: {error}", recording.id);
                tracing::error!("{text}");
                Err(answer(StatusCode::BAD_GATEWAY, &text))
            }
        }
    }

    async fn cold(
        self: Rc<Self>,
        recording: Arc<Recording>,
        call: Call,
    ) -> Result<Response<ProxyBody>, Infallible> {
        Ok(match self.load(&recording).await {
            Ok(stored) => self.hit(&stored, &call.request),
            Err(response) => response,
        })
    }

    async fn look_up_with_body(
        self: Rc<Self>,
        call: Call,
    ) -> Result<Response<ProxyBody>, Infallible> {
        let (head, incoming) = call.request.into_parts();
        let body = match read(incoming).await {
            Ok(body) => body,
            Err(response) => return Ok(*response),
        };
        let mut reader = self.shared.keeper.keys.read_body();
        reader.push(&body);
        let key = self.shared.keeper.keys.body_read(&reader);
        let request = hyper::Request::from_parts(head, ());
        let asked = asked(request.method(), request.uri(), request.headers());
        let found = lookup::find(
            &self.shared.keeper.keys,
            &self.shared.recordings,
            &asked,
            key.as_ref(),
        );
        let stored = match found {
            Found::Hot(stored) => stored,
            Found::Cold(recording) => match self.load(&recording).await {
                Ok(stored) => stored,
                Err(response) => return Ok(response),
            },
            Found::Nothing => {
                let (head, ()) = request.into_parts();
                return self.miss(head, Some((body, key)), &call.client).await;
            }
        };
        Ok(self.hit(&stored, &request))
    }

    /// Answers a request whose body doesn't count and that has no recording.
    fn miss_with_body(self: &Rc<Self>, call: Call) -> Answer {
        let hop = Rc::clone(self);
        Box::pin(async move {
            let (head, incoming) = call.request.into_parts();
            match read(incoming).await {
                Ok(body) => hop.miss(head, Some((body, None)), &call.client).await,
                Err(response) => Ok(*response),
            }
        })
    }

    /// Answers a request that has no recording.
    fn miss(
        self: &Rc<Self>,
        head: Parts,
        body: Option<(Bytes, Option<BodyKey>)>,
        client: &Rc<http_proxy::Client>,
    ) -> Answer {
        let shared = &self.shared;
        shared.counters.cache_misses_total.add(1);
        let (body, body_key) = body.unwrap_or_default();
        let asked = asked(&head.method, &head.uri, &head.headers);
        if shared.mode.get() == Mode::Replay && shared.miss == Miss::Error {
            let why = lookup::explain(
                &shared.keeper.keys,
                &shared.recordings,
                &asked,
                body_key.as_ref(),
            );
            return Box::pin(ready(Ok(answer(StatusCode::BAD_GATEWAY, &why))));
        }
        let Some(upstreams) = &shared.upstreams else {
            return no_upstream();
        };
        if shared.mode.get() == Mode::Replay && shared.miss == Miss::Forward {
            shared.counters.upstream_requests_total.add(1);
            return self
                .proxy
                .ask(head, body, client, upstreams, Forwarding::Pass);
        }
        let mut key = Vec::new();
        shared
            .keeper
            .keys
            .write(&asked, body_key.as_ref(), &mut key);
        // Those who ask for different parts can't share an answer.
        for status in [206, 304] {
            crate::key::Keys::set_apart(status, &head.headers, &mut key);
        }
        match shared.flights.join(&key) {
            Joined::Follows(flight) => {
                shared.counters.requests_coalesced.add(1);
                let (hop, client) = (Rc::clone(self), Rc::clone(client));
                Box::pin(fetch::follow(hop, flight, head, body, client))
            }
            Joined::First(leading) => {
                let upload = (!body.is_empty()).then(|| {
                    Spooled::whole(&shared.keeper.files, body.clone())
                        .ok()
                        .map(|body| Uploaded {
                            body,
                            key: body_key,
                        })
                });
                let fetching = fetch::Fetching {
                    upload: upload.flatten(),
                    body,
                    ..fetch::Fetching::new(head, Rc::clone(client))
                };
                fetch::forever(self, leading, fetching)
            }
        }
    }
}

/// Reads the body of a request that is to be looked up.
async fn read(mut incoming: Incoming) -> Result<Bytes, Box<Response<ProxyBody>>> {
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            let text = "the request's body could not be read";
            return Err(Box::new(answer(StatusCode::BAD_REQUEST, text)));
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if body.len() + data.len() > BODY_BYTES_MAX {
            let text = "the request's body is too long to be looked up (at most 16 MiB)";
            return Err(Box::new(answer(StatusCode::PAYLOAD_TOO_LARGE, text)));
        }
        body.extend_from_slice(data);
    }
    Ok(body.freeze())
}

/// Returns a request as it is looked up.
pub(crate) fn asked<'a>(
    method: &'a Method,
    uri: &'a hyper::Uri,
    fields: &'a hyper::HeaderMap,
) -> Asked<'a, hyper::HeaderMap> {
    Asked {
        method: method.as_str(),
        target: target(uri),
        fields,
    }
}

/// Returns a target without scheme and host.
pub(crate) fn target(uri: &hyper::Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Copies what is kept of a request.
pub(crate) fn question(method: &Method, uri: &hyper::Uri, fields: &hyper::HeaderMap) -> Question {
    Question {
        method: method.to_string(),
        target: target(uri).to_owned(),
        fields: fields.to_pairs(),
    }
}

/// Makes the answer to a request whose answer can't be passed on.
pub(crate) fn bad_gateway(shared: &Shared, why: &str) -> Response<ProxyBody> {
    shared.http_counters.upstream_failed.add(1);
    answer(StatusCode::BAD_GATEWAY, why)
}

fn no_upstream() -> Answer {
    let text = "there is no upstream: start with --upstream=HOST:PORT";
    Box::pin(ready(Ok(answer(StatusCode::BAD_GATEWAY, text))))
}

impl Service<Call> for Router {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        self.0.answer(call)
    }
}
