//! Asks an upstream and passes its answer on.

mod ask;

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING},
};
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    answer::{answer, closing},
    body::{Download, Progress, ProxyBody, RequestBody, UploadTap},
    exchange::{Exchange, Failure},
    fields::{self, Forwarding},
    pool::{Lease, Pool},
    prepare::{Asked, note_continue, prepare},
    serve::Call,
    tap::Tap,
    upgrade,
    upstream::{UpstreamLimits, Upstreams},
};

/// Forwards requests to upstreams. One per worker.
#[derive(Clone, Debug)]
pub struct Proxy(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Rc<Pool>,
    /// This hop's own entry in `Via`.
    via: HeaderValue,
}

/// A request for which a route was found.
#[derive(Debug)]
pub struct Routed {
    /// The request, and who asks.
    pub call: Call,
    /// Where it may go.
    pub upstreams: Arc<Upstreams>,
    /// Whether the client is believed.
    pub forwarding: Forwarding,
}

/// An answer on its way.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<ProxyBody>, Infallible>>>>;

impl Proxy {
    /// Makes a proxy that calls itself `name` in `Via`.
    ///
    /// # Panics
    /// If the name isn't visible ASCII.
    pub fn new(pool: Rc<Pool>, name: &str) -> Self {
        let via = HeaderValue::try_from(format!("1.1 {name}")).expect("a name in ASCII");
        Self(Rc::new(Shared { pool, via }))
    }

    /// Returns the worker's connections to upstreams.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.0.pool
    }

    /// Forwards a request. The answer is the upstream's, or one of our own that says why there is
    /// none.
    pub fn forward(
        &self,
        call: Call,
        upstreams: &Arc<Upstreams>,
        forwarding: Forwarding,
    ) -> Answer {
        self.send(call, upstreams, forwarding, None)
    }

    /// Forwards a request, and shows its body to `tap`.
    fn send(
        &self,
        call: Call,
        upstreams: &Arc<Upstreams>,
        forwarding: Forwarding,
        tap: Option<UploadTap>,
    ) -> Answer {
        let (mut head, body) = call.request.into_parts();
        let asked = prepare(&mut head, &call.client, forwarding, &self.0.via);
        let (mut body, progress) = RequestBody::new(body, asked.continued.clone());
        if let Some(tap) = tap {
            body.set_tap(tap);
        }
        let mut request = Request::from_parts(head, body);
        if let Some(continued) = &asked.continued {
            note_continue(&mut request, continued);
        }
        self.exchange(upstreams, asked, progress).start(request)
    }

    fn exchange(
        &self,
        upstreams: &Arc<Upstreams>,
        asked: Asked,
        progress: Option<Rc<Progress>>,
    ) -> Exchange {
        Exchange {
            proxy: self.clone(),
            upstreams: Arc::clone(upstreams),
            asked,
            progress,
            begin: Instant::now(),
        }
    }

    /// Passes an answer on.
    pub(crate) fn pass(
        &self,
        response: Response<Incoming>,
        mut lease: Lease,
        asked: &mut Asked,
        limits: &UpstreamLimits,
        until: Instant,
    ) -> Response<ProxyBody> {
        let (mut head, incoming) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = asked.upgrade.take() else {
                self.0.pool.counters.upstream_failed.add(1);
                return answer(
                    StatusCode::BAD_GATEWAY,
                    "the upstream changed the protocol unasked",
                );
            };
            self.0.pool.counters.upgrades.add(1);
            fields::keep_upgrade(&mut head.headers);
            upgrade::start(client, lease);
            return Response::from_parts(head, ProxyBody::own(""));
        }
        if let Some(continued) = &asked.continued {
            // A final answer takes the place of '100 Continue'. The rest of the body may follow.
            continued.store(true, Relaxed);
        }
        if let Some(raw) = lease.connection.tap.as_ref().and_then(Tap::head) {
            head.extensions.insert(raw);
        }
        fields::strip(&mut head.headers);
        if head.headers.contains_key(TRANSFER_ENCODING) {
            // RFC 9112, section 6.3: hyper has read chunks, so the length is wrong.
            head.headers.remove(CONTENT_LENGTH);
        }
        if asked.version == Version::HTTP_2 {
            head.headers.remove(TRANSFER_ENCODING);
        }
        // What the upstream speaks isn't what we speak.
        head.version = Version::HTTP_11;
        let due = until.min(Instant::now() + limits.idle);
        lease.connection.deadline.set_at(due);
        let body = ProxyBody::upstream(Download {
            incoming,
            lease: Some(lease),
            idle: limits.idle,
            until,
            counters: Arc::clone(&self.0.pool.counters),
        });
        Response::from_parts(head, body)
    }

    /// Returns this hop's own entry in `Via`.
    pub(crate) fn via(&self) -> &HeaderValue {
        &self.0.via
    }

    /// Makes the answer to a request that got none.
    pub(crate) fn failed(&self, failure: &Failure) -> Response<ProxyBody> {
        let (status, text) = self.note_failed(failure);
        let response = answer(status, text);
        match failure {
            Failure::Client => closing(response),
            _ => response,
        }
    }

    /// Counts a request that got no answer. Returns the status and the text of our own.
    pub(crate) fn note_failed(&self, failure: &Failure) -> (StatusCode, &'static str) {
        let counters = &self.0.pool.counters;
        tracing::debug!("no answer: {failure}");
        let (status, counter, text) = match failure {
            Failure::Unreachable(error) if error.kind() == std::io::ErrorKind::TimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                &counters.upstream_unreachable,
                "the upstream could not be reached in time",
            ),
            Failure::Unreachable(_) => (
                StatusCode::BAD_GATEWAY,
                &counters.upstream_unreachable,
                "the upstream could not be reached",
            ),
            Failure::Broken(_) => (
                StatusCode::BAD_GATEWAY,
                &counters.upstream_failed,
                "the upstream gave no valid answer",
            ),
            Failure::Late => (
                StatusCode::GATEWAY_TIMEOUT,
                &counters.upstream_late,
                "the upstream did not answer in time",
            ),
            Failure::Client => (
                StatusCode::BAD_REQUEST,
                &counters.requests_refused,
                "the request's body could not be read",
            ),
        };
        counter.add(1);
        (status, text)
    }
}

impl Service<Routed> for Proxy {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Answer {
        self.forward(routed.call, &routed.upstreams, routed.forwarding)
    }
}
