//! One connection: opened when needed, with one request at a time.
//!
//! hyper's connection and the request under way on it are polled in one task, so that the arrival
//! of an answer wakes one task once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::TrySendError, header::CONTENT_ENCODING};
use tokio::time::timeout;

use super::{
    front::Front,
    link::{Link, Sender, describe},
    own_wakes::OwnWakes,
    pacer::now_ns,
};
use crate::{
    digest::ExpectedBodies,
    requests::{Requests, Turn},
    tally::Answer,
};

/// Text under which timed-out requests are counted; the same as oha's.
pub(crate) const TIMEOUT: &str = "timeout";

/// Time limit for opening a connection. On one machine, or to a neighbour, no working connection
/// takes longer.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Text under which answers without a request are counted.
const UNASKED: &str = "answer without a request";

/// Longest name of an encoding that is kept.
const ENCODING_CHARS_MAX: usize = 40;

/// A slot for a connection, which may be closed at the moment.
#[derive(Debug)]
pub(crate) struct Connection {
    subject: Rc<Subject>,
    link: Option<Link>,
    own_wakes: OwnWakes,
}

/// State that the connections of a thread have in common.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) front: Front,
    pub(crate) requests: Arc<Requests>,
    pub(crate) keep_alive: bool,
    pub(crate) notes: Rc<Notes>,
    pub(crate) bodies: RefCell<ExpectedBodies>,
}

/// Observations on a thread's connections, besides answers.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Longest time to open a connection, in nanoseconds.
    pub(crate) connect_ns_max: Cell<Option<u64>>,
    /// Number of connections on which data arrived without a request.
    unasked: Rc<Cell<u64>>,
}

/// Why a request got no answer.
#[derive(Debug)]
enum Failure {
    /// The server has not processed the request, so it can be sent again.
    Unsent(String),
    Sent(String),
}

impl Connection {
    pub(crate) fn new(subject: Rc<Subject>) -> Self {
        Self {
            subject,
            link: None,
            own_wakes: OwnWakes::new(),
        }
    }

    /// Opens the connection, unless it is open.
    pub(crate) async fn open(&mut self) -> Result<(), String> {
        if self.link.is_some() {
            return Ok(());
        }
        let started_ns = now_ns();
        let link = timeout(CONNECT_MAX, {
            let Subject { front, notes, .. } = &*self.subject;
            Link::open(front, &notes.unasked)
        });
        self.link = Some(link.await.map_err(|_| TIMEOUT.to_owned())??);
        let took_ns = now_ns() - started_ns;
        let longest_ns = &self.subject.notes.connect_ns_max;
        longest_ns.set(longest_ns.get().max(Some(took_ns)));
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.link = None;
    }

    /// Sends a request and receives the whole answer. A caller that gives up must close the
    /// connection.
    pub(crate) async fn ask(&mut self, turn: Turn) -> Result<Answer, String> {
        let answer = match self.try_to_ask(turn).await {
            // The server may close an idle connection at any time.
            Err(Failure::Unsent(_)) => {
                self.close();
                self.try_to_ask(turn).await
            }
            other => other,
        };
        if answer.is_err() || !self.subject.keep_alive {
            self.close();
        }
        answer.map_err(|failure| match failure {
            Failure::Unsent(error) | Failure::Sent(error) => error,
        })
    }

    async fn try_to_ask(&mut self, turn: Turn) -> Result<Answer, Failure> {
        self.open().await.map_err(Failure::Sent)?;
        let Some(link) = &mut self.link else {
            return Err(Failure::Sent("not open".to_owned()));
        };
        let mut exchange = pin!(exchange(&mut link.sender, &self.subject, turn));
        let wire = &mut link.wire;
        poll_fn(|context| {
            self.own_wakes.poll(context, |context| {
                wire.poll_ended(context);
                exchange.as_mut().poll(context)
            })
        })
        .await
    }

    /// Waits for `poll`, and meanwhile notices if the server closes the connection.
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

impl Notes {
    /// Returns the text and the number of answers without a request, if there are any.
    pub(crate) fn unasked(&self) -> Option<(String, u64)> {
        let unasked = self.unasked.get();
        (unasked > 0).then(|| (UNASKED.to_owned(), unasked))
    }
}

async fn exchange(sender: &mut Sender, subject: &Subject, turn: Turn) -> Result<Answer, Failure> {
    let ready = sender.ready().await;
    ready.map_err(|error| Failure::Unsent(describe(&error)))?;
    let request = subject.requests.request(turn);
    let response = sender.try_send_request(request).await.map_err(failure)?;
    let expected = subject.requests.expected(turn);
    let status = response.status().as_u16();
    let wrong_header = expected.wrong_header(response.headers());
    let encoding = response.headers().get(CONTENT_ENCODING);
    let encoding = encoding.map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.chars().take(ENCODING_CHARS_MAX).collect()
    });
    let mut body = response.into_body();
    let mut length = 0;
    let sha256 = expected.sha256.as_deref();
    let mut checked = sha256.map(|sha256| subject.bodies.borrow_mut().begin(turn, sha256));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Sent(describe(&error)))?;
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            checked.iter_mut().for_each(|body| body.add(data));
        }
    }
    let is_right = checked.and_then(|body| subject.bodies.borrow_mut().end(turn, body));
    Ok(Answer {
        status,
        length,
        is_right,
        wrong_header,
        encoding,
    })
}

fn failure(mut error: TrySendError<Request<Full<Bytes>>>) -> Failure {
    match error.take_message().is_some() || is_refused(error.error()) {
        true => Failure::Unsent(describe(error.error())),
        false => Failure::Sent(describe(error.error())),
    }
}

/// Returns whether an HTTP/2 server says that it hasn't processed the request, as when it closes a
/// connection after so many of them (RFC 9113, section 8.7).
fn is_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let of_h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    of_h2.is_some_and(|error| {
        let reason = error.reason();
        let is_closing = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (is_closing || reason == Some(h2::Reason::REFUSED_STREAM))
    })
}
