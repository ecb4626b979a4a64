//! Answers the requests of one thread.

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt::Write as _,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_proxy::{
    Accepted, Answer, AnswerTap, Call, Forwarding, PlainAnswer, PlainRequest, PlainRoute,
    PlainRoutes, Pool, PoolLimits, Proxy, ProxyBody, Serve, Serving, answer,
};
use hyper::{
    Response, StatusCode,
    body::{Body as _, Incoming},
    header::{HOST, HeaderName, HeaderValue},
};
use replay_proxy::{
    cache::Variant,
    fields::{self, Fields as _},
};
use tower_service::Service;

use crate::{
    cache_key::CacheKey,
    fill::{Change, Fill, Unstorable},
    plan::{Destination, Plan},
    stages::{Fate, Refusal, View},
    state::{Shared, now_ms},
    waf::Scratch,
};

/// The work of one thread.
#[derive(Debug)]
pub(crate) struct Edge {
    proxy: Proxy,
    serving: Serving,
    shared: Arc<Shared>,
    /// The plan that was current at the last request. Counting who uses the shared one would cost
    /// more than a look whether it has changed.
    known: RefCell<Rc<Known>>,
    memory: RefCell<Memory>,
    unstorable: Rc<RefCell<Unstorable>>,
    date: RefCell<(i64, String)>,
}

/// Memory that is used again for each request.
#[derive(Debug, Default)]
struct Memory {
    waf: Scratch,
    /// The one form of a path.
    path: String,
}

/// A plan, counted by one thread alone.
#[derive(Debug)]
struct Known(Arc<Plan>);

/// Answers requests.
#[derive(Clone, Debug)]
struct Router(Rc<Edge>);

/// The name in `Via` and in `Cache-Status`.
const NAME: &str = "edge-node";

const GENERATION: HeaderName = HeaderName::from_static("x-generation");

/// Size of the buffer of a thread for requests that hyper doesn't read.
const PLAIN_BUFFER_BYTES: usize = 128 * 1024;

impl Edge {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let limits = PoolLimits::default();
        let pool = Pool::start(limits, Arc::clone(&shared.http_counters));
        let proxy = Proxy::new(pool, NAME);
        let (bytes, stop) = (limits.buffer_bytes, shared.stop.clone());
        Self {
            serving: Serving::new(&proxy, PLAIN_BUFFER_BYTES, bytes, stop),
            proxy,
            shared: Arc::clone(shared),
            known: RefCell::new(Rc::new(Known(shared.plan.load_full()))),
            memory: RefCell::default(),
            unstorable: Rc::default(),
            date: RefCell::default(),
        }
    }

    /// Returns the plan of now.
    fn plan(&self) -> Rc<Known> {
        let now = self.shared.plan.load();
        let mut known = self.known.borrow_mut();
        if !Arc::ptr_eq(&now, &known.0) {
            *known = Rc::new(Known(Arc::clone(&now)));
            // Those of upstreams that are gone would be closed after a minute.
            self.proxy.pool().close_orphans();
        }
        Rc::clone(&known)
    }

    /// Appends the time of now as a field.
    fn write_date(&self, now_ms: i64, head: &mut Vec<u8>) {
        let mut date = self.date.borrow_mut();
        if date.0 != now_ms / 1_000 {
            date.0 = now_ms / 1_000;
            date.1 = format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        }
        head.extend_from_slice(date.1.as_bytes());
    }

    /// Appends the head of an answer of our own; returns its body.
    fn refuse(&self, refusal: &Refusal, is_head: bool, now_ms: i64, head: &mut Vec<u8>) -> Bytes {
        let status = StatusCode::from_u16(refusal.status).unwrap_or_default();
        let mut text = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n",
            refusal.status,
            status.canonical_reason().unwrap_or_default(),
            refusal.text.len() + 1,
        );
        if let Some((name, value)) = &refusal.field {
            write!(text, "{name}: {value}\r\n").ok();
        }
        head.extend_from_slice(text.as_bytes());
        self.write_date(now_ms, head);
        match is_head {
            true => Bytes::new(),
            false => format!("{}\n", refusal.text).into(),
        }
    }

    /// Appends the head of a cached answer; returns its body. `None` if not all of it is asked for.
    fn hit(
        &self,
        variant: &Variant,
        asked: &fields::Asked<'_, PlainRequest<'_>>,
        now_ms: i64,
        head: &mut Vec<u8>,
    ) -> Option<Bytes> {
        let ready = variant.ready(asked, NAME, now_ms)?;
        head.extend_from_slice(ready.head.strip_suffix(b"\r\n")?);
        if !variant.stored.head.has("date") {
            self.write_date(now_ms, head);
        }
        Some(ready.body)
    }

    /// Returns what looks on while an answer passes.
    fn tap(
        &self,
        plan: &Plan,
        key: Option<CacheKey>,
        request: &PlainRequest<'_>,
        now_ms: i64,
    ) -> Option<Box<dyn AnswerTap>> {
        let (key, caching) = key.zip(plan.cache.as_ref())?;
        let cache = Arc::clone(&caching.cache);
        match request.method {
            "GET" if self.unstorable.borrow().has(key, now_ms) => None,
            "GET" => Some(Box::new(Fill {
                cache,
                counters: Arc::clone(&self.shared.counters),
                unstorable: Rc::clone(&self.unstorable),
                key,
                fields: request.to_pairs(),
                requested_ms: now_ms,
                body_bytes_max: caching.answer_bytes_max,
                head: Bytes::new(),
                body: Some(Vec::new()),
            })),
            "HEAD" | "OPTIONS" => None,
            _ => Some(Box::new(Change { cache, key })),
        }
    }

    /// Answers a request that hyper has read.
    async fn answer(self: Rc<Self>, call: Call) -> Result<Response<ProxyBody>, Infallible> {
        let known = self.plan();
        let mut response = self.answer_by(&known.0, call).await;
        if known.0.shows_generation {
            let value = HeaderValue::from(known.0.generation);
            response.headers_mut().insert(GENERATION, value);
        }
        Ok(response)
    }

    async fn answer_by(&self, plan: &Plan, mut call: Call) -> Response<ProxyBody> {
        let request = &call.request;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let destination = plan.destination(
            host(request),
            method,
            path,
            &mut self.memory.borrow_mut().path,
        );
        let waf = plan.waf.as_ref();
        let waf = waf.filter(|_| destination.is_none_or(|destination| destination.is_inspected));
        let body = match waf {
            Some(waf) if !request.body().is_end_stream() => {
                let body_bytes_max = waf.settings().limits.body_bytes;
                match read(call.request.body_mut(), body_bytes_max).await {
                    Ok(body) => Some(body),
                    Err((status, text)) => return answer(status, text),
                }
            }
            _ => None,
        };
        let now_ms = now_ms();
        let request = &call.request;
        let target = request.uri().path_and_query();
        let view = View {
            method: request.method().as_str(),
            target: target.map_or("/", |target| target.as_str()),
            host: host(request),
            client: call.client.address.ip(),
            fields: request.headers(),
            body: body.as_deref().unwrap_or_default(),
        };
        let fate = view.pass(
            plan,
            destination,
            &mut self.memory.borrow_mut().waf,
            &self.shared,
            now_ms,
        );
        match fate {
            Fate::Refused(refusal) => refused(refusal),
            Fate::Hit(variant, destination) => {
                let asked = fields::Asked {
                    method: view.method,
                    target: view.target,
                    fields: view.fields,
                };
                match cached(&variant, &asked, now_ms) {
                    Some(response) => response,
                    None => self.forward(destination, call, body).await,
                }
            }
            Fate::Passed(destination, key) => {
                let is_safe = matches!(view.method, "GET" | "HEAD" | "OPTIONS");
                let response = self.forward(destination, call, body).await;
                let status = response.status();
                if let Some(key) = key.filter(|_| !is_safe)
                    && (status.is_success() || status.is_redirection())
                    && let Some(caching) = &plan.cache
                {
                    caching.cache.remove(&key.bits().to_be_bytes());
                }
                response
            }
        }
    }

    /// Forwards a request, of which the body may have been read.
    async fn forward(
        &self,
        destination: &Destination,
        call: Call,
        body: Option<Bytes>,
    ) -> Response<ProxyBody> {
        let (upstreams, forwarding) = (&destination.upstreams, Forwarding::Replace);
        let answer = match body {
            None => self.proxy.forward(call, upstreams, forwarding),
            Some(body) => {
                let (head, _) = call.request.into_parts();
                self.proxy
                    .ask(head, body, &call.client, upstreams, forwarding)
            }
        };
        let Ok(response) = answer.await;
        response
    }
}

/// Returns the host that a request names.
fn host<B>(request: &hyper::Request<B>) -> &str {
    let authority = request.uri().authority();
    let named = || request.headers().get(HOST)?.to_str().ok();
    let host = authority.map(|authority| authority.as_str());
    host.or_else(named).unwrap_or_default()
}

/// Reads the body of a request that is to be inspected.
async fn read(incoming: &mut Incoming, most: usize) -> Result<Bytes, (StatusCode, &'static str)> {
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            return Err((
                StatusCode::BAD_REQUEST,
                "the request's body could not be read",
            ));
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if body.len() + data.len() > most {
            let text = "the request's body is too long to be inspected";
            return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        body.extend_from_slice(data);
    }
    Ok(body.freeze())
}

fn refused(refusal: Refusal) -> Response<ProxyBody> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or_default();
    let mut response = answer(status, refusal.text);
    if let Some((name, value)) = refusal.field
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Makes a cached answer. `None` if the request doesn't ask for all of it.
fn cached(
    variant: &Variant,
    asked: &fields::Asked<'_, hyper::HeaderMap>,
    now_ms: i64,
) -> Option<Response<ProxyBody>> {
    let ready = variant.ready(asked, NAME, now_ms)?;
    let mut response = Response::new(ProxyBody::own(ready.body));
    *response.status_mut() = StatusCode::from_u16(variant.stored.head.status).ok()?;
    let lines = ready.head.split(|&byte| byte == b'\n').skip(1);
    for line in lines.filter_map(|line| line.strip_suffix(b"\r")) {
        let Some(at) = memchr::memchr(b':', line) else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        response.headers_mut().append(name, value);
    }
    Some(response)
}

fn forwarded(destination: &Destination, tap: Option<Box<dyn AnswerTap>>) -> PlainAnswer {
    PlainAnswer::Forward(PlainRoute {
        upstreams: Arc::clone(&destination.upstreams),
        forwarding: Forwarding::Replace,
        entry: None,
        kept: None,
        tap,
    })
}

impl PlainRoutes for Router {
    fn route(&self, request: &PlainRequest<'_>, head: &mut Vec<u8>) -> Option<PlainAnswer> {
        let edge = &self.0;
        let known = edge.plan();
        let plan = &known.0;
        // hyper's side adds fields.
        if plan.shows_generation {
            return None;
        }
        let now_ms = now_ms();
        let view = View {
            method: request.method,
            target: request.target,
            host: request.host,
            client: request.client.address.ip(),
            fields: request,
            body: request.body(),
        };
        let (path, _) = view.target.split_once('?').unwrap_or((view.target, ""));
        let Memory {
            waf: scratch,
            path: form,
        } = &mut *edge.memory.borrow_mut();
        let destination = plan.destination(view.host, view.method, path, form);
        let fate = view.pass(plan, destination, scratch, &edge.shared, now_ms);
        match fate {
            Fate::Refused(refusal) => {
                let body = edge.refuse(&refusal, request.method == "HEAD", now_ms, head);
                Some(PlainAnswer::Own(body, None))
            }
            Fate::Hit(variant, destination) => {
                let asked = fields::Asked {
                    method: request.method,
                    target: request.target,
                    fields: request,
                };
                let hit = edge.hit(&variant, &asked, now_ms, head);
                Some(match hit {
                    Some(body) => PlainAnswer::Own(body, None),
                    // A part of it, or a condition: the upstream knows best.
                    None => forwarded(destination, None),
                })
            }
            Fate::Passed(destination, key) => {
                Some(forwarded(destination, edge.tap(plan, key, request, now_ms)))
            }
        }
    }
}

impl Service<Call> for Router {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        Box::pin(Rc::clone(&self.0).answer(call))
    }
}

impl Serve<Accepted> for Edge {
    async fn serve(self: Rc<Self>, client: Accepted) {
        let router = Router(Rc::clone(&self));
        self.serving.serve_accepted(client, router).await;
    }
}
