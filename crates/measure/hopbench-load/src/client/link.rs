//! An open connection in two halves: one takes requests, the other does the I/O.
//!
//! hyper spawns tasks for HTTP/2. Here they are kept with the connection and polled in its task, so
//! that the arrival of an answer wakes one task once, as for HTTP/1.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
        http2,
    },
    rt::Executor,
};
use hyper_util::rt::TokioIo;

use super::{
    front::{Front, Protocol},
    stream::Stream,
};

/// Part of hyper's error for data on an idle connection.
const UNEXPECTED: &str = "unexpected message";

/// Largest head of an answer in HTTP/2, in bytes. hyper's own limit is far below that for HTTP/1.
const HEAD_BYTES_MAX: u32 = 400 << 10;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: Sender,
    pub(crate) wire: Wire,
}

/// The half that takes requests.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// The half that does the I/O.
#[derive(Debug)]
pub(crate) struct Wire {
    /// `None` once it has ended: only dropping it tells the other half, which would otherwise wait
    /// forever.
    connection: Option<Driver>,
    tasks: Tasks,
    /// Counts the connections on which data arrived without a request.
    unasked: Rc<Cell<u64>>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each connection, and the large one is the usual one"
)]
#[derive(Debug)]
enum Driver {
    Http1(http1::Connection<TokioIo<Stream>, Full<Bytes>>),
    H2(http2::Connection<TokioIo<Stream>, Full<Bytes>, Tasks>),
}

/// The tasks of an HTTP/2 connection.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<Vec<Task>>>);

type Task = Pin<Box<dyn Future<Output = ()>>>;

impl Link {
    pub(crate) async fn open(front: &Front, unasked: &Rc<Cell<u64>>) -> Result<Self, String> {
        let io = TokioIo::new(Stream::open(front).await?);
        let tasks = Tasks::default();
        let (sender, connection) = match front.protocol {
            Protocol::Http1 => {
                let (sender, connection) =
                    http1::handshake(io).await.map_err(|it| describe(&it))?;
                (Sender::Http1(sender), Driver::Http1(connection))
            }
            Protocol::H2 => {
                let mut builder = http2::Builder::new(tasks.clone());
                let handshake = builder.max_header_list_size(HEAD_BYTES_MAX).handshake(io);
                let (sender, connection) = handshake.await.map_err(|it| describe(&it))?;
                (Sender::H2(sender), Driver::H2(connection))
            }
        };
        let wire = Wire {
            connection: Some(connection),
            tasks,
            unasked: Rc::clone(unasked),
        };
        Ok(Self { sender, wire })
    }
}

impl Sender {
    /// Waits until a request can be sent.
    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::H2(sender) => sender.ready().await,
        }
    }

    pub(crate) async fn try_send_request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::H2(sender) => sender.try_send_request(request).await,
        }
    }
}

impl Wire {
    /// Drives the connection; returns whether it has ended. An answer under way may still come, by
    /// a task of the connection.
    pub(crate) fn poll_ended(&mut self, context: &mut Context<'_>) -> bool {
        let ended = match &mut self.connection {
            None => Poll::Pending,
            Some(Driver::Http1(connection)) => pin!(connection).poll(context),
            Some(Driver::H2(connection)) => pin!(connection).poll(context),
        };
        self.tasks.poll(context);
        if let Poll::Ready(ended) = ended {
            // The request under way, if there is one, reports any other error.
            if ended.is_err_and(|error| error.to_string().contains(UNEXPECTED)) {
                self.unasked.set(self.unasked.get() + 1);
            }
            self.connection = None;
        }
        self.connection.is_none()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Tasks have handles of their own list, so they would keep it alive.
        drop(self.tasks.0.take());
    }
}

impl Tasks {
    /// Polls all tasks, those included that begin meanwhile.
    fn poll(&self, context: &mut Context<'_>) {
        let mut polled = Vec::new();
        loop {
            let mut tasks = self.0.take();
            if tasks.is_empty() {
                break;
            }
            tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
            polled.append(&mut tasks);
        }
        self.0.replace(polled);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.borrow_mut().push(Box::pin(task));
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks", self.0.borrow().len())
    }
}

/// Returns hyper's description. That of a parse error always begins with `invalid HTTP`.
pub(crate) fn describe(error: &hyper::Error) -> String {
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
