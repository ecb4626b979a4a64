//! Serves one client's connection, with HTTP/1.1 or HTTP/2.

use std::{
    convert::Infallible,
    net::Ipv6Addr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{HOST, TRANSFER_ENCODING, UPGRADE},
    server::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{
    answer::{answer, closing},
    body::ProxyBody,
    counters::ProxyCounters,
    fields::Client,
    framing::Framing,
    guard::{Activity, Busy, ClientLimits, Guard},
    plain::{self, PlainRoutes, Special},
    proxy::Proxy,
};

/// A request and who asks it.
#[derive(Debug)]
pub struct Call {
    /// The request as hyper read it.
    pub request: Request<Incoming>,
    /// Who asks.
    pub client: Rc<Client>,
}

/// How connections of clients are served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Time limits, and the limits of a head.
    pub limits: ClientLimits,
    /// Largest buffer of a connection, in bytes.
    pub buffer_bytes: usize,
    /// Makes connections end after the request that they are at.
    pub stop: CancellationToken,
    /// Where requests are counted.
    pub counters: Arc<ProxyCounters>,
    /// State of the thread for plain requests.
    pub(crate) plain: Rc<plain::Worker>,
}

/// Streams that an HTTP/2 client may have open at a time.
const STREAMS_MAX: u32 = 128;

impl Serving {
    /// Makes the usual way to serve the connections of a worker, which has `proxy`. There is one
    /// buffer of `plain_buffer_bytes`, and a connection that hyper reads has its own, of at most
    /// `buffer_bytes`.
    pub fn new(
        proxy: &Proxy,
        plain_buffer_bytes: usize,
        buffer_bytes: usize,
        stop: CancellationToken,
    ) -> Self {
        Self {
            limits: ClientLimits::default(),
            buffer_bytes,
            stop,
            counters: Arc::clone(&proxy.pool().counters),
            plain: plain::Worker::new(proxy, plain_buffer_bytes),
        }
    }

    /// Serves a connection until its end. `service` answers its requests, and must always be ready.
    pub async fn serve<S>(&self, stream: TcpStream, client: Client, service: S)
    where
        S: Service<Call, Response = Response<ProxyBody>, Error = Infallible>,
        S: PlainRoutes + Clone + 'static,
        S::Future: Unpin,
    {
        let special = plain::serve(self, stream, &client, &service).await;
        if let Some(special) = special {
            // Its future is large, and most connections don't need it.
            Box::pin(self.serve_special(special, client, service)).await;
        }
    }

    /// Serves the rest of a connection by hyper.
    async fn serve_special<S>(&self, special: Special, client: Client, service: S)
    where
        S: Service<Call, Response = Response<ProxyBody>, Error = Infallible> + Clone + 'static,
        S::Future: Unpin,
    {
        let Special { stream, early } = special;
        let is_http2 = early.starts_with(HTTP2);
        let activity = Arc::new(Activity::default());
        let framing = (!is_http2).then(Framing::default);
        let early = early.into();
        let guard = Guard::new(stream, early, framing, Arc::clone(&activity), self.limits);
        let service = Checked {
            inner: service,
            client: Rc::new(client),
            activity,
            counters: Arc::clone(&self.counters),
        };
        let io = TokioIo::new(guard);
        let served = if is_http2 {
            self.serve_http2(io, service).await
        } else {
            self.serve_http1(io, service).await
        };
        if let Err(error) = served {
            if error.is_parse() {
                self.counters.requests_refused.add(1);
            }
            tracing::debug!("a client's connection failed: {error}");
        }
    }

    async fn serve_http1<S>(&self, io: TokioIo<Guard>, service: Checked<S>) -> hyper::Result<()>
    where
        S: Service<Call, Response = Response<ProxyBody>, Error = Infallible> + Clone + 'static,
        S::Future: Unpin,
    {
        let connection = http1::Builder::new()
            // A client may end its side after its request (RFC 9112, section 9.6).
            .half_close(true)
            .max_buf_size(self.buffer_bytes)
            .max_header_size(self.limits.head_bytes_max)
            .max_headers(self.limits.fields_max)
            .serve_connection(io, service)
            .with_upgrades();
        self.until_stopped(connection, |connection| connection.graceful_shutdown())
            .await
    }

    async fn serve_http2<S>(&self, io: TokioIo<Guard>, service: Checked<S>) -> hyper::Result<()>
    where
        S: Service<Call, Response = Response<ProxyBody>, Error = Infallible> + Clone + 'static,
        S::Future: Unpin,
    {
        let head_bytes_max = u32::try_from(self.limits.head_bytes_max).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(OnThisThread)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(head_bytes_max)
            .max_send_buf_size(self.buffer_bytes)
            .serve_connection(io, service);
        self.until_stopped(connection, |connection| connection.graceful_shutdown())
            .await
    }

    /// Serves a connection. When told to stop, it ends after the requests that it is at.
    async fn until_stopped<C>(
        &self,
        connection: C,
        end: impl FnOnce(Pin<&mut C>),
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            served = &mut connection => return served,
            () = self.stop.cancelled() => end(connection.as_mut()),
        }
        connection.await
    }
}

/// How a client of HTTP/2 begins (RFC 9113, section 3.4). No method of HTTP/1.1 begins like it.
const HTTP2: &[u8] = b"PRI";

/// Runs the streams of an HTTP/2 connection on the thread of the connection.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, stream: F) {
        spawn_local(stream);
    }
}

/// Refuses the requests that no service should see, and counts the others.
#[derive(Debug)]
struct Checked<S> {
    inner: S,
    client: Rc<Client>,
    activity: Arc<Activity>,
    counters: Arc<ProxyCounters>,
}

/// The answer to a request, on its way.
enum Answering<F> {
    /// One of our own, until it is taken.
    Refused(Option<Box<Response<ProxyBody>>>),
    /// The service's.
    Serving {
        future: F,
        /// Given to the body of the answer.
        busy: Option<Busy>,
        /// Whether the request has an `Upgrade` field in HTTP/1.
        names_upgrade: bool,
    },
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<ProxyBody>, Infallible>> + Unpin,
{
    type Output = Result<Response<ProxyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(refused) => {
                let refused = refused.take().expect("polled after its end");
                Poll::Ready(Ok(*refused))
            }
            Self::Serving {
                future,
                busy,
                names_upgrade,
            } => {
                let Ok(mut response) = ready!(Pin::new(future).poll(context));
                let busy = busy.take().expect("polled after its end");
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    busy.upgraded();
                } else if *names_upgrade {
                    // The bytes behind such a request weren't checked for ambiguity.
                    response = closing(response);
                }
                Poll::Ready(Ok(response.map(|body| body.with_busy(busy))))
            }
        }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Checked<S>
where
    S: Service<Call, Response = Response<ProxyBody>, Error = Infallible> + Clone + 'static,
    S::Future: Unpin,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = Busy::begin(&self.activity);
        if let Err((status, text)) = check(&request) {
            self.counters.requests_refused.add(1);
            let refused = closing(answer(status, text));
            let refused = refused.map(|body| body.with_busy(busy));
            return Answering::Refused(Some(Box::new(refused)));
        }
        self.counters.requests.add(1);
        let names_upgrade =
            request.version() != Version::HTTP_2 && request.headers().contains_key(UPGRADE);
        let client = Rc::clone(&self.client);
        // Services of this crate are always ready.
        let future = self.inner.clone().call(Call { request, client });
        Answering::Serving {
            future,
            busy: Some(busy),
            names_upgrade,
        }
    }
}

/// Checks what hyper leaves to services.
fn check(request: &Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
    let refused = |text| Err((StatusCode::BAD_REQUEST, text));
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "this method is not forwarded",
        ));
    }
    if request.version() == Version::HTTP_2 {
        return Ok(());
    }
    let fields = request.headers();
    // RFC 9112, section 3.2: one Host, except in HTTP/1.0.
    let mut hosts = fields.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return refused("expected one Host field, found several"),
        (Some(host), None) if !is_host(host.as_bytes()) => return refused("invalid Host field"),
        (None, None) if request.version() == Version::HTTP_11 => {
            return refused("expected a Host field");
        }
        _ => {}
    }
    // Codings other than 'chunked' would have to be decoded here (RFC 9112, section 6.1).
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err((
            StatusCode::NOT_IMPLEMENTED,
            "expected the transfer coding 'chunked' alone",
        ));
    }
    let target = request.uri();
    if target.path() == "*" && *request.method() != Method::OPTIONS {
        return refused("expected '*' with OPTIONS only");
    }
    if target.scheme().is_none() && target.authority().is_some() {
        return refused("expected a path or a whole URL");
    }
    Ok(())
}

/// Returns whether a value of `Host` is a name or an address, perhaps with a port (RFC 3986,
/// section 3.2.2). It may be empty.
pub(crate) fn is_host(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte))
    };
    let is_port = |port: &str| {
        let mut digits = port.bytes();
        port.is_empty() || digits.all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let port = rest.strip_prefix(':');
        return address.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || port.is_some_and(is_port));
    }
    match host.split_once(':') {
        Some((name, port)) => is_name(name) && is_port(port),
        None => is_name(host),
    }
}
