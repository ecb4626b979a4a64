//! One connection: opened when needed, asked one request at a time.
//!
//! hyper's connection and the request that is under way on it are polled in one task, so that an
//! answer's arrival wakes one task once.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{own_wakes::OwnWakes, pacer::now_ns, target::Target};

/// The text with which a request is counted that took too long. oha has the same.
pub(crate) const TIMEOUT: &str = "timeout";

/// No connection on one machine, or to a neighbour, takes longer to open and still is one.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A place for a connection: there may be none at the moment.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Rc<Target>,
    keep_alive: bool,
    link: Option<Link>,
    own_wakes: OwnWakes,
    /// The longest that opening took.
    connect_ns_max: Rc<Cell<Option<u64>>>,
}

#[derive(Debug)]
struct Link {
    sender: SendRequest<Full<Bytes>>,
    wire: Wire,
}

/// The half that does the I/O. None when it has ended: only by being dropped does it tell the other
/// half, which would wait for it for ever.
#[derive(Debug)]
struct Wire(Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    /// Nothing of the request has left: it can be sent again.
    Unsent(String),
    Sent(String),
}

impl Connection {
    pub(crate) fn new(
        target: Rc<Target>,
        keep_alive: bool,
        connect_ns_max: Rc<Cell<Option<u64>>>,
    ) -> Self {
        Self {
            target,
            keep_alive,
            link: None,
            own_wakes: OwnWakes::new(),
            connect_ns_max,
        }
    }

    /// Opens it, if it is not.
    pub(crate) async fn open(&mut self) -> Result<(), String> {
        if self.link.is_some() {
            return Ok(());
        }
        let started_ns = now_ns();
        let link = timeout(CONNECT_MAX, Link::open(&self.target));
        self.link = Some(link.await.map_err(|_| TIMEOUT.to_owned())??);
        let took_ns = now_ns() - started_ns;
        let longest_ns = self.connect_ns_max.get().unwrap_or(0).max(took_ns);
        self.connect_ns_max.set(Some(longest_ns));
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.link = None;
    }

    /// Sends a request and receives the answer, to its end. To be closed if it is given up.
    pub(crate) async fn ask(&mut self) -> Result<Answer, String> {
        let answer = match self.try_to_ask().await {
            // The other side may close a connection at any time while nothing is under way.
            Err(Failure::Unsent(_)) => {
                self.close();
                self.try_to_ask().await
            }
            other => other,
        };
        if answer.is_err() || !self.keep_alive {
            self.close();
        }
        answer.map_err(|failure| match failure {
            Failure::Unsent(error) | Failure::Sent(error) => error,
        })
    }

    async fn try_to_ask(&mut self) -> Result<Answer, Failure> {
        self.open().await.map_err(Failure::Sent)?;
        let Some(link) = &mut self.link else {
            return Err(Failure::Sent("not open".to_owned()));
        };
        let mut exchange = pin!(exchange(&mut link.sender, self.target.request()));
        let wire = &mut link.wire;
        poll_fn(|context| {
            self.own_wakes.poll(context, |context| {
                wire.poll_ended(context);
                exchange.as_mut().poll(context)
            })
        })
        .await
    }

    /// Waits for something else, and meanwhile takes note of the other side's closing.
    pub(crate) async fn wait<T>(&mut self, mut poll: impl FnMut() -> Poll<T>) -> T {
        poll_fn(|context| {
            self.own_wakes.poll(context, |context| {
                if let Poll::Ready(result) = poll() {
                    return Poll::Ready(result);
                }
                self.link.take_if(|link| link.wire.poll_ended(context));
                Poll::Pending
            })
        })
        .await
    }
}

impl Link {
    async fn open(target: &Target) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let stream = TcpStream::connect(&target.addresses[..]);
        let stream = stream.await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let handshake = http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| describe(&error))?;
        let wire = Wire(Some(connection));
        Ok(Self { sender, wire })
    }
}

impl Wire {
    /// Goes on; whether the connection has ended.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> bool {
        self.0
            .take_if(|connection| pin!(connection).poll(context).is_ready());
        self.0.is_none()
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let ready = sender.ready().await;
    ready.map_err(|error| Failure::Unsent(describe(&error)))?;
    let response = sender.try_send_request(request).await.map_err(failure)?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Sent(describe(&error)))?;
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(Answer { status, length })
}

fn failure(mut error: TrySendError<Request<Full<Bytes>>>) -> Failure {
    match error.take_message() {
        Some(_) => Failure::Unsent(describe(error.error())),
        None => Failure::Sent(describe(error.error())),
    }
}

/// As hyper says it; what is not HTTP begins so whatever the detail.
fn describe(error: &hyper::Error) -> String {
    const NOT_HTTP: &str = "invalid HTTP";
    let text = error.to_string();
    if error.is_parse() && !text.starts_with(NOT_HTTP) {
        return format!("{NOT_HTTP}: {text}");
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}
