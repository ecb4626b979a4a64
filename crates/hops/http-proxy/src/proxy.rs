//! Asks an upstream and passes its answer on.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING},
};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use crate::{
    answer::{answer, closing},
    body::{Download, Progress, ProxyBody, RequestBody},
    fields::{self, Forwarding},
    pool::{Lease, Pool},
    prepare::{Asked, note_continue, prepare},
    serve::Call,
    upgrade,
    upstream::{Target, UpstreamLimits, Upstreams},
};

/// Forwards requests to upstreams. One per worker.
#[derive(Clone, Debug)]
pub struct Proxy {
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

/// Why a request got no answer.
#[derive(Debug)]
enum Failure {
    Unreachable(std::io::Error),
    /// The upstream closed, reset, or sent what isn't HTTP.
    Broken(hyper::Error),
    Late,
    /// The client failed to send its body.
    Client,
}

/// A failed attempt.
struct Failed {
    failure: Failure,
    /// The request, if another attempt is safe.
    again: Option<Request<RequestBody>>,
}

/// Pause before the first further attempt at the same target. It doubles for each.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Proxy {
    /// Makes a proxy that calls itself `name` in `Via`.
    ///
    /// # Panics
    /// If the name isn't visible ASCII.
    pub fn new(pool: Rc<Pool>, name: &str) -> Self {
        let via = HeaderValue::try_from(format!("1.1 {name}")).expect("a name in ASCII");
        Self { pool, via }
    }

    /// Forwards a request. Returns the upstream's answer, or one of our own that says why there is
    /// none.
    pub async fn forward(
        &self,
        call: Call,
        upstreams: &Upstreams,
        forwarding: Forwarding,
    ) -> Response<ProxyBody> {
        let (mut head, body) = call.request.into_parts();
        let mut asked = prepare(&mut head, &call.client, forwarding, &self.via);
        let (body, progress) = RequestBody::new(body, asked.continued.clone());
        let mut request = Request::from_parts(head, body);
        if let Some(continued) = &asked.continued {
            note_continue(&mut request, continued);
        }
        let begin = Instant::now();
        let until = begin + upstreams.limits.total;
        let sent = self.send(request, &asked, progress.as_deref(), upstreams, begin);
        match sent.await {
            Ok((response, lease)) => self.pass(response, lease, &mut asked, upstreams, until),
            Err(failure) => self.failed(&failure),
        }
    }

    /// Sends a request, again if it fails and that is safe.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        asked: &Asked,
        progress: Option<&Progress>,
        upstreams: &Upstreams,
        begin: Instant,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let limits = &upstreams.limits;
        let until = begin + limits.total;
        let mut tried = Vec::new();
        let mut retries = 0;
        let mut may_reuse = true;
        loop {
            let target = upstreams.pick(&tried);
            let attempt = Attempt {
                proxy: self,
                target,
                limits,
                begin: if retries == 0 { begin } else { Instant::now() },
                until,
                progress,
                may_repeat: asked.is_idempotent && progress.is_none(),
            };
            let Failed { failure, again } = match attempt.send(request, &mut may_reuse).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            let Some(again) = again.filter(|_| retries < limits.retries_max) else {
                return Err(failure);
            };
            tracing::debug!("another attempt after '{target}': {failure}");
            request = again;
            retries += 1;
            self.pool.counters.retries.add(1);
            tried.push(target.id);
            if tried.len() >= upstreams.count() {
                let pause = RETRY_PAUSE * 2_u32.saturating_pow(retries - 1);
                let pause = pause
                    .min(RETRY_PAUSE_MAX)
                    .mul_f64(0.5 + fastrand::f64() / 2.0);
                if Instant::now() + pause >= until {
                    return Err(failure);
                }
                // In a box, as rare things are: the memory of a request is written for each.
                Box::pin(sleep(pause)).await;
            }
        }
    }

    /// Passes an answer on.
    fn pass(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        asked: &mut Asked,
        upstreams: &Upstreams,
        until: Instant,
    ) -> Response<ProxyBody> {
        let (mut head, incoming) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = asked.upgrade.take() else {
                self.pool.counters.upstream_failed.add(1);
                return answer(
                    StatusCode::BAD_GATEWAY,
                    "the upstream changed the protocol unasked",
                );
            };
            self.pool.counters.upgrades.add(1);
            fields::keep_upgrade(&mut head.headers);
            upgrade::start(client, lease);
            return Response::from_parts(head, ProxyBody::own(""));
        }
        if let Some(continued) = &asked.continued {
            // A final answer takes the place of '100 Continue'. The rest of the body may follow.
            continued.store(true, Relaxed);
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
        let body = ProxyBody::upstream(Download {
            incoming,
            lease: Some(lease),
            idle: upstreams.limits.idle,
            until,
            counters: Arc::clone(&self.pool.counters),
        });
        Response::from_parts(head, body)
    }

    fn failed(&self, failure: &Failure) -> Response<ProxyBody> {
        let counters = &self.pool.counters;
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
        let response = answer(status, text);
        match failure {
            Failure::Client => closing(response),
            _ => response,
        }
    }
}

/// One attempt at one target.
struct Attempt<'a> {
    proxy: &'a Proxy,
    target: &'a Target,
    limits: &'a UpstreamLimits,
    begin: Instant,
    until: Instant,
    progress: Option<&'a Progress>,
    /// Whether the request may be sent again after it was sent.
    may_repeat: bool,
}

impl Attempt<'_> {
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        may_reuse: &mut bool,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        // An upstream may close a waiting connection at any time. A request that meets this gets a
        // second attempt beyond the limit, but on a new connection.
        if *may_reuse && let Some(lease) = self.proxy.pool.take(self.target) {
            match self.send_on(lease, request).await {
                Ok(answered) => return Ok(answered),
                Err(Failed {
                    failure: Failure::Broken(_),
                    again: Some(again),
                }) => {
                    *may_reuse = false;
                    request = again;
                }
                Err(failed) => return Err(failed),
            }
        }
        let connect_max = self.limits.connect.min(self.until - Instant::now());
        match Box::pin(self.proxy.pool.connect(self.target, connect_max)).await {
            Ok(lease) => self.send_on(lease, request).await,
            Err(error) => {
                self.target.failed();
                Err(Failed {
                    failure: Failure::Unreachable(error),
                    again: Some(request),
                })
            }
        }
    }

    async fn send_on(
        &self,
        mut lease: Lease,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let copy = self.may_repeat.then(|| copy_of(&request));
        let answering = pin!(lease.connection.send(request));
        let Some(answered) = self.answer(&mut lease, answering).await else {
            self.target.failed();
            return Err(Failed {
                failure: Failure::Late,
                again: None,
            });
        };
        let failed = match answered {
            Ok(response) => {
                self.target.succeeded();
                return Ok((response, lease));
            }
            Err(failed) => failed,
        };
        if self
            .progress
            .is_some_and(|progress| progress.has_failed.get())
        {
            return Err(Failed {
                failure: Failure::Client,
                again: None,
            });
        }
        if !lease.connection.is_reused {
            self.target.failed();
        }
        let copy = copy.filter(|_| !lease.connection.has_received());
        Err(Failed {
            failure: Failure::Broken(failed.error),
            again: failed.unsent.or(copy),
        })
    }

    /// Drives the connection until it has an answer. Returns `None` if that takes too long.
    async fn answer<T>(
        &self,
        lease: &mut Lease,
        mut answering: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let begin = self.begin;
        lease
            .connection
            .deadline
            .set_at(self.until.min(begin + self.limits.head));
        poll_fn(|context| {
            lease.connection.drive(context);
            // Only driving the connection makes the answer appear.
            let unwoken = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(answered) = answering.as_mut().poll(unwoken) {
                return Poll::Ready(Some(answered));
            }
            while lease.connection.deadline.poll_passed(context).is_ready() {
                let due = self.due(begin);
                if due <= Instant::now() {
                    return Poll::Ready(None);
                }
                lease.connection.deadline.set_at(due);
            }
            Poll::Pending
        })
        .await
    }

    /// Returns when the head of the answer is due, as far as is known.
    fn due(&self, begin: Instant) -> Instant {
        let due = match self.progress {
            None => begin + self.limits.head,
            Some(progress) if progress.is_whole.get() => progress.at.get() + self.limits.head,
            Some(progress) => progress.at.get() + self.limits.idle,
        };
        due.min(self.until)
    }
}

/// Copies a request that has no body.
fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "the upstream could not be reached: {error}"),
            Self::Broken(error) => write!(f, "the upstream gave no valid answer: {error}"),
            Self::Late => f.write_str("the upstream did not answer in time"),
            Self::Client => f.write_str("the client did not send its body"),
        }
    }
}

impl Service<Routed> for Proxy {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ProxyBody>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Self::Future {
        let proxy = self.clone();
        let Routed {
            call,
            upstreams,
            forwarding,
        } = routed;
        Box::pin(async move { Ok(proxy.forward(call, &upstreams, forwarding).await) })
    }
}
