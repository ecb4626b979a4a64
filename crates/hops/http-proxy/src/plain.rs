//! Plain requests: those that need nothing but to be passed on, as bytes.
//!
//! hyper turns each message into an object and back. That gives a service all it may ask for, and
//! takes more time than everything else that a proxy does in user space. So each connection begins
//! here. A request that is plain is passed on without hyper: its head is checked and written anew
//! into one buffer, the answer's head likewise, and the answer's body is read into a buffer of the
//! worker and written from there. So a connection that waits has no buffers. The first request
//! that isn't plain hands the connection, with all bytes from there on, to hyper until its end.
//!
//! A request that might not be plain is left to hyper.

mod answer;
mod chunks;
mod client;
mod connection;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod request;

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::WaitForCancellationFuture;

pub(crate) use self::connection::PlainConnection;
pub use self::request::PlainRequest;
use self::{
    client::ClientSide,
    connection::poll_read,
    exchange::{End, Exchange},
    request::{Found, Sent},
};
use crate::{
    access_log::Entry,
    deadline::Deadline,
    fields::{Client, Forwarding},
    proxy::Proxy,
    serve::Serving,
    upstream::Upstreams,
};

/// Knows where plain requests go, or what answers them.
pub trait PlainRoutes {
    /// Returns where a request goes, or its answer. `None` leaves the request, and all that follow
    /// on its connection, to the service.
    ///
    /// For an answer, `head` takes the status line and the fields, each with its end of line, but
    /// not the empty line. It must say where the body ends and have a `Date`, and must not have
    /// `Connection`.
    fn route(&self, request: &PlainRequest<'_>, head: &mut Vec<u8>) -> Option<PlainAnswer>;
}

/// The fate of a plain request.
#[derive(Debug)]
pub enum PlainAnswer {
    /// It is forwarded.
    Forward(PlainRoute),
    /// It is answered with the head that was written and this body.
    Own(Bytes, Option<Box<Entry>>),
}

/// Where a plain request goes.
#[derive(Debug)]
pub struct PlainRoute {
    /// The places that may answer it.
    pub upstreams: Arc<Upstreams>,
    /// Whether the client is believed.
    pub forwarding: Forwarding,
    /// The line of the access log that it gets.
    pub entry: Option<Box<Entry>>,
    /// Kept until the request is over, such as a place within a limit.
    pub kept: Option<Box<dyn Any>>,
    /// Sees the answer pass.
    pub tap: Option<Box<dyn AnswerTap>>,
}

/// Sees the answer to a plain request pass, and has the client wait for its end. If the answer is
/// cut off, or the client goes away, it is dropped before the end.
pub trait AnswerTap: fmt::Debug {
    /// Takes the head of the final answer as it came, from the status line to the empty line.
    fn head(&mut self, head: &[u8]);

    /// Takes a piece of the body, without what frames chunks.
    fn piece(&mut self, bytes: &[u8]);

    /// Takes the end: the lines of the trailers, each with its end of line. The client gets the
    /// last bytes once the future is ready.
    fn end(self: Box<Self>, trailers: &[u8]) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// State that the plain requests of one thread share.
#[derive(Debug)]
pub struct Worker {
    proxy: Proxy,
    buffers: RefCell<Buffers>,
    date: RefCell<Date>,
}

/// Buffers that are used within one poll, and so by one connection at a time.
#[derive(Debug)]
struct Buffers {
    /// Into which sockets are read.
    input: Vec<u8>,
    /// In which messages are composed.
    output: Vec<u8>,
}

/// The time of now as a value of `Date`.
#[derive(Debug)]
struct Date {
    /// Seconds since 1970.
    at_seconds: u64,
    text: Rc<str>,
}

/// A connection whose next request isn't plain.
#[derive(Debug)]
pub(crate) struct Special {
    pub(crate) stream: TcpStream,
    /// The bytes that have come, from the start of that request on.
    pub(crate) early: Vec<u8>,
}

/// The next event on a connection.
enum Next {
    Request(PlainRoute, Sent),
    /// A request whose answer is being written.
    Answered(Option<Box<Entry>>, Sent),
    Special,
    End,
}

/// The requests of one connection.
struct Connection<'a, S> {
    serving: &'a Serving,
    routes: &'a S,
    address: &'a Client,
    client: ClientSide,
    /// Bytes that have come and weren't used yet.
    early: Vec<u8>,
    /// The current request as the upstream gets it.
    request: Vec<u8>,
    /// Whether some of a request's head has come.
    waits_for_head: bool,
}

impl Worker {
    /// Makes the state of a thread. `buffer_bytes` is the most that is read at a time.
    pub fn new(proxy: &Proxy, buffer_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            proxy: proxy.clone(),
            buffers: RefCell::new(Buffers {
                input: vec![0; buffer_bytes],
                output: Vec::new(),
            }),
            date: RefCell::new(Date {
                at_seconds: 0,
                text: "".into(),
            }),
        })
    }

    /// Returns the time of now as a value of `Date` (RFC 9110, section 5.6.7).
    fn date(&self) -> Rc<str> {
        let now = SystemTime::now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let at_seconds = since.as_ref().map_or(0, Duration::as_secs);
        let mut date = self.date.borrow_mut();
        if date.at_seconds != at_seconds {
            date.at_seconds = at_seconds;
            date.text = httpdate::fmt_http_date(now).into();
        }
        Rc::clone(&date.text)
    }
}

/// Largest buffer for a request that a connection keeps for the next.
const REQUEST_BYTES_KEPT: usize = 2 * 1024;

/// Serves a connection as long as its requests are plain. Returns it if it goes on without that.
pub(crate) async fn serve<S: PlainRoutes>(
    serving: &Serving,
    stream: TcpStream,
    address: &Client,
    routes: &S,
) -> Option<Special> {
    let mut connection = Connection {
        serving,
        routes,
        address,
        client: ClientSide {
            stream,
            unsent: Vec::new(),
            unsent_body: Bytes::new(),
            deadline: Deadline::default(),
            idle: serving.limits.idle,
        },
        early: Vec::new(),
        request: Vec::new(),
        waits_for_head: false,
    };
    let end = connection.serve().await;
    let Connection { client, early, .. } = connection;
    let mut stream = client.stream;
    match end {
        None => return Some(Special { stream, early }),
        Some(End::Cut) => drop(stream.set_zero_linger()),
        // It may have gone already.
        Some(End::Kept) => drop(stream.shutdown().await),
        Some(End::Closed) => {
            if stream.shutdown().await.is_ok() {
                let drained = Box::pin(drain(&mut stream));
                timeout(LINGER, drained).await.ok();
            }
        }
    }
    None
}

/// Longest wait for the end of a client that has its last answer. Without it, bytes that the client
/// sends meanwhile would reset the connection, and the answer might be lost (RFC 9112, section
/// 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// Reads and drops bytes until a client's end.
async fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 512];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}

impl<S: PlainRoutes> Connection<'_, S> {
    /// Serves plain requests. Returns how the connection ends, or `None` if it doesn't.
    async fn serve(&mut self) -> Option<End> {
        let serving = self.serving;
        let mut stopped = pin!(serving.stop.cancelled());
        loop {
            self.client.deadline.set(serving.limits.idle);
            self.waits_for_head = false;
            let next = poll_fn(|context| self.poll_next(context, stopped.as_mut())).await;
            self.client.deadline.clear();
            let (route, sent) = match next {
                Next::Request(route, sent) => (route, sent),
                Next::Answered(entry, sent) => match self.finish(entry, sent).await {
                    End::Kept => continue,
                    end => return Some(end),
                },
                Next::Special => return None,
                Next::End => return Some(End::Kept),
            };
            serving.counters.requests.add(1);
            let client = &mut self.client;
            let (worker, request, stop) = (&serving.plain, &self.request, &serving.stop);
            let exchange = Exchange::new(worker, client, route, request, sent, stop);
            match exchange.run().await {
                End::Kept => {}
                end => return Some(end),
            }
            if self.request.capacity() > REQUEST_BYTES_KEPT {
                self.request = Vec::new();
            }
        }
    }

    /// Reads until there is a whole request.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        stopped: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Next> {
        let worker = Rc::clone(&self.serving.plain);
        let mut buffers = worker.buffers.borrow_mut();
        let Buffers { input, output } = &mut *buffers;
        if !self.early.is_empty() && !self.waits_for_head {
            // What follows a request may be another one.
            let early = mem::take(&mut self.early);
            if let Poll::Ready(next) = self.take(context, &early, output) {
                return Poll::Ready(next);
            }
        }
        loop {
            match poll_read(&mut self.client.stream, context, input) {
                Poll::Ready(Ok(0)) if !self.early.is_empty() => return Poll::Ready(Next::Special),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(length)) => {
                    let taken = if self.early.is_empty() {
                        self.take(context, &input[..length], output)
                    } else {
                        let mut bytes = mem::take(&mut self.early);
                        bytes.extend_from_slice(&input[..length]);
                        self.take(context, &bytes, output)
                    };
                    if taken.is_ready() {
                        return taken;
                    }
                }
                Poll::Pending => break,
            }
        }
        let is_late = self.client.deadline.poll_passed(context).is_ready();
        if is_late || self.early.is_empty() && stopped.poll(context).is_ready() {
            return Poll::Ready(Next::End);
        }
        Poll::Pending
    }

    /// Takes a request from the bytes that have come, and keeps what is left of them. If it can be
    /// answered at once, the answer is begun.
    fn take(
        &mut self,
        context: &mut Context<'_>,
        mut bytes: &[u8],
        output: &mut Vec<u8>,
    ) -> Poll<Next> {
        // Empty lines before a request mean nothing (RFC 9112, section 2.2). But they begin the
        // time for its head, or a client could send them without end.
        while let [b'\r', b'\n', rest @ ..] = bytes {
            bytes = rest;
        }
        if bytes.is_empty() {
            self.expect_head();
            return Poll::Pending;
        }
        let head_bytes_max = self.serving.limits.head_bytes_max;
        output.clear();
        let found = request::read(bytes, head_bytes_max, self.address, |request| {
            let answer = self.routes.route(request, output)?;
            if let PlainAnswer::Forward(route) = &answer {
                self.request.clear();
                let via = self.serving.plain.proxy.via().as_bytes();
                request.write(&mut self.request, route.forwarding, via);
            }
            Some((answer, request.sent()))
        });
        let (used, next) = match found {
            Found::Partial => (0, Poll::Pending),
            Found::Special => (0, Poll::Ready(Next::Special)),
            Found::Plain(used, (PlainAnswer::Forward(route), sent)) => {
                (used, Poll::Ready(Next::Request(route, sent)))
            }
            Found::Plain(used, (PlainAnswer::Own(body, entry), mut sent)) => {
                sent.closes |= self.serving.stop.is_cancelled();
                let end: &[u8] = match sent.closes {
                    true => b"connection: close\r\n\r\n",
                    false => b"\r\n",
                };
                output.extend_from_slice(end);
                self.client.write_own(context, output, body);
                (used, Poll::Ready(Next::Answered(entry, sent)))
            }
        };
        if used < bytes.len() {
            self.early.extend_from_slice(&bytes[used..]);
        }
        if next.is_pending() {
            self.expect_head();
        }
        next
    }

    /// Gives the client time for the rest of a head, from its first bytes on.
    fn expect_head(&mut self) {
        if !self.waits_for_head {
            self.waits_for_head = true;
            self.client.deadline.set(self.serving.limits.head);
        }
    }

    /// Waits until the client has taken an answer of our own.
    async fn finish(&mut self, mut entry: Option<Box<Entry>>, sent: Sent) -> End {
        self.serving.counters.requests.add(1);
        let taken = poll_fn(|context| self.client.poll_flush(context)).await;
        if let Some(entry) = &mut entry {
            entry.is_whole = taken.is_ok();
        }
        if let Some(entry) = entry {
            entry.log();
        }
        match taken {
            Ok(()) if sent.closes => End::Closed,
            Ok(()) => End::Kept,
            Err(error) => {
                tracing::debug!("an answer was cut off: {error}");
                End::Cut
            }
        }
    }
}
