//! One request: sent, and sent again where that is safe, until there is an answer.
//!
//! The usual case, a connection that waits and an answer that comes, has a future of its own, since
//! the memory of a future is written for each request. All else is in a larger one.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{Request, Response, body::Incoming};
use tokio::time::{Instant, sleep};

use crate::{
    body::{BodyError, Progress, ProxyBody, RequestBody},
    pool::{Lease, SendFailure},
    prepare::Asked,
    proxy::{Answer, Proxy},
    upstream::{Target, Upstreams},
};

/// A request that is forwarded.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) proxy: Proxy,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) asked: Asked,
    /// Set if the request has a body.
    pub(crate) progress: Option<Rc<Progress>>,
    pub(crate) begin: Instant,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Unreachable(io::Error),
    /// The upstream closed, reset, or sent what isn't HTTP.
    Broken(BodyError),
    Late,
    /// The client failed to send its body.
    Client,
}

/// A failed attempt.
struct Failed {
    failure: Failure,
    /// The request, if another attempt is safe.
    again: Option<Box<Request<RequestBody>>>,
}

type Answered = Result<Response<Incoming>, SendFailure>;

/// Pause before the first further attempt at the same target. It doubles for each.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Returns the pause before a further attempt, of which the first has number 1. Half of it is left
/// to chance, so that many requests don't come back together.
pub(crate) fn pause_before(retry: u32) -> Duration {
    let pause = RETRY_PAUSE * 2_u32.saturating_pow(retry - 1);
    let share = 0.5 + fastrand::f64() / 2.0;
    pause.min(RETRY_PAUSE_MAX).mul_f64(share)
}

impl Exchange {
    /// Sends the request.
    pub(crate) fn start(self, request: Request<RequestBody>) -> Answer {
        let target = Arc::clone(self.upstreams.pick(&[]));
        let Some(mut lease) = self.proxy.pool().take(&target) else {
            return Box::pin(self.send(Box::new(request), target, true));
        };
        let copy = self.copy_of(&request);
        let answering = lease.connection.send(request);
        let mut exchange = self;
        Box::pin(async move {
            let answered = exchange.answer(&mut lease, pin!(answering)).await;
            let failed = match answered {
                Some(Ok(response)) => {
                    target.succeeded();
                    return Ok(exchange.pass(response, lease));
                }
                failed => exchange.failed(&target, &lease, failed.and_then(Result::err), copy),
            };
            drop(lease);
            match failed {
                // An upstream may close a waiting connection at any time. A request that meets
                // this gets a second attempt beyond the limit, but on a new connection.
                Failed {
                    failure: Failure::Broken(_),
                    again: Some(again),
                } => Box::pin(exchange.send(again, target, false)).await,
                Failed { failure, .. } => Ok(exchange.proxy.failed(&failure)),
            }
        })
    }

    /// Sends a request to a target on a new connection, or with `may_reuse` on a waiting one, too.
    /// Sends it again, perhaps to another target, if that fails and is safe.
    async fn send(
        mut self,
        mut request: Box<Request<RequestBody>>,
        mut target: Arc<Target>,
        mut may_reuse: bool,
    ) -> Result<Response<ProxyBody>, std::convert::Infallible> {
        let upstreams = Arc::clone(&self.upstreams);
        let limits = &upstreams.limits;
        let until = self.until();
        let mut tried = Vec::new();
        let mut retries = 0;
        let failure = loop {
            let attempt = self.attempt(&target, request, &mut may_reuse).await;
            let Failed { failure, again } = match attempt {
                Ok((response, lease)) => return Ok(self.pass(response, lease)),
                Err(failed) => failed,
            };
            let Some(again) = again.filter(|_| retries < limits.retries_max) else {
                break failure;
            };
            tracing::debug!("another attempt after '{target}': {failure}");
            request = again;
            retries += 1;
            self.proxy.pool().counters.retries.add(1);
            tried.push(target.id);
            target = Arc::clone(upstreams.pick(&tried));
            if tried.len() >= upstreams.count() {
                let pause = pause_before(retries);
                if Instant::now() + pause >= until {
                    break failure;
                }
                sleep(pause).await;
            }
        };
        Ok(self.proxy.failed(&failure))
    }

    /// Makes one attempt at one target.
    async fn attempt(
        &self,
        target: &Arc<Target>,
        mut request: Box<Request<RequestBody>>,
        may_reuse: &mut bool,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        if *may_reuse && let Some(lease) = self.proxy.pool().take(target) {
            match self.send_on(target, lease, request).await {
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
        let left = self.until().saturating_duration_since(Instant::now());
        let connect_max = self.upstreams.limits.connect.min(left);
        match self.proxy.pool().connect(target, connect_max).await {
            Ok(lease) => self.send_on(target, lease, request).await,
            Err(error) => {
                target.failed();
                Err(Failed {
                    failure: Failure::Unreachable(error),
                    again: Some(request),
                })
            }
        }
    }

    async fn send_on(
        &self,
        target: &Target,
        mut lease: Lease,
        request: Box<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let copy = self.copy_of(&request);
        let answering = lease.connection.send(*request);
        match self.answer(&mut lease, pin!(answering)).await {
            Some(Ok(response)) => {
                target.succeeded();
                Ok((response, lease))
            }
            failed => Err(self.failed(target, &lease, failed.and_then(Result::err), copy)),
        }
    }

    /// Judges a failed attempt; `failed` is `None` if no answer came in time.
    fn failed(
        &self,
        target: &Target,
        lease: &Lease,
        failed: Option<SendFailure>,
        copy: Option<Box<Request<RequestBody>>>,
    ) -> Failed {
        let Some(failed) = failed else {
            target.failed();
            return Failed {
                failure: Failure::Late,
                again: None,
            };
        };
        let progress = self.progress.as_ref();
        if progress.is_some_and(|progress| progress.has_failed.get()) {
            return Failed {
                failure: Failure::Client,
                again: None,
            };
        }
        if !lease.connection.is_reused {
            target.failed();
        }
        let copy = copy.filter(|_| !lease.connection.has_received());
        Failed {
            failure: Failure::Broken(failed.error.into()),
            again: failed.unsent.map(Box::new).or(copy),
        }
    }

    /// Drives the connection until it has an answer. Returns `None` if that takes too long.
    async fn answer(
        &self,
        lease: &mut Lease,
        mut answering: Pin<&mut impl Future<Output = Answered>>,
    ) -> Option<Answered> {
        let begin = if lease.connection.is_reused {
            self.begin
        } else {
            Instant::now()
        };
        let due = self.until().min(begin + self.upstreams.limits.head);
        lease.connection.deadline.set_at(due);
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
        let limits = &self.upstreams.limits;
        let due = match &self.progress {
            None => begin + limits.head,
            Some(progress) if progress.is_whole.get() => progress.at.get() + limits.head,
            Some(progress) => progress.at.get() + limits.idle,
        };
        due.min(self.until())
    }

    /// Returns when everything must be over.
    fn until(&self) -> Instant {
        self.begin + self.upstreams.limits.total
    }

    /// Copies a request that may be sent again after it was sent.
    fn copy_of(&self, request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
        if !self.asked.is_idempotent || self.progress.is_some() {
            return None;
        }
        let mut copy = Request::new(request.body().again());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Some(Box::new(copy))
    }

    fn pass(&mut self, response: Response<Incoming>, lease: Lease) -> Response<ProxyBody> {
        let until = self.until();
        let limits = &self.upstreams.limits;
        self.proxy
            .pass(response, lease, &mut self.asked, limits, until)
    }
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
