//! Stores an answer while it passes. The client gets its end only once everything is stored.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_proxy::{BodyError, ProxyBody};
use hyper::{
    Response,
    body::{Body, Frame, SizeHint},
};

use crate::{
    keep::{self, Exchange, KeepError, Question, Upload, Uploaded},
    received::{Received, trailer_lines},
    respond::set_reason,
    spool::Spool,
    state::Shared,
    stored::Framing,
};

/// The answer that is being recorded.
pub(crate) struct Recording {
    shared: Arc<Shared>,
    /// Taken when the answer is complete.
    exchange: Option<Parts>,
    inner: ProxyBody,
    state: State,
    /// Bytes that are expected, if the answer has a length.
    left: Option<u64>,
}

/// The parts of an exchange, but for its end.
type Parts = (Question, Option<Rc<RefCell<Upload>>>, Received, Spool);

enum State {
    Passing,
    /// All of it came. The last frame waits until it is stored.
    Storing(
        Pin<Box<dyn Future<Output = Result<(), KeepError>>>>,
        Option<Frame<Bytes>>,
    ),
    Over,
}

/// Has an answer recorded while it passes.
pub(crate) async fn record(
    shared: &Arc<Shared>,
    question: Question,
    upload: Option<Rc<RefCell<Upload>>>,
    received: Received,
    mut response: Response<ProxyBody>,
) -> Response<ProxyBody> {
    // hyper drops a reason that isn't UTF-8.
    set_reason(&received.head, &mut response);
    let (head, inner) = response.into_parts();
    let mut spool = Spool::new(&shared.keeper.files);
    if received.framing == Framing::Chunked {
        spool = spool.with_timing();
    }
    let is_over = inner.is_end_stream();
    let mut recording = Recording {
        shared: Arc::clone(shared),
        left: inner.size_hint().exact(),
        exchange: Some((question, upload, received, spool)),
        inner,
        state: State::Passing,
    };
    if is_over {
        count(shared, recording.store(None).await);
        recording.state = State::Over;
        return Response::from_parts(head, ProxyBody::own(""));
    }
    Response::from_parts(head, ProxyBody::hop(Box::pin(recording)))
}

/// Stores an exchange that is complete. Returns once it is committed.
pub(crate) async fn store(
    shared: &Arc<Shared>,
    (question, upload, received, spool): (Question, Option<Uploaded>, Received, Spool),
    trailers: Option<Bytes>,
) -> Result<(), KeepError> {
    if spool.length() > shared.body_bytes_max {
        let why = "its body is longer than --body-bytes-max";
        return Err(KeepError::Store(why.into()));
    }
    let exchange = Exchange {
        question,
        upload,
        received,
        body: spool.finish()?,
        trailers,
    };
    keep::record(shared, exchange).await
}

/// Counts an answer that could not be stored.
pub(crate) fn count(shared: &Shared, stored: Result<(), KeepError>) {
    if let Err(error) = stored {
        shared.counters.answers_unstored_failed.add(1);
        tracing::warn!("an answer is not recorded: {error}");
    }
}

impl Recording {
    /// Stores the exchange, which is complete.
    fn store(
        &mut self,
        trailers: Option<Bytes>,
    ) -> impl Future<Output = Result<(), KeepError>> + use<> {
        let exchange = self.exchange.take();
        let shared = Arc::clone(&self.shared);
        async move {
            let Some((question, upload, received, spool)) = exchange else {
                return Ok(());
            };
            let upload = match upload {
                Some(upload) => Some(
                    upload
                        .borrow_mut()
                        .finish(&shared.keeper.keys)
                        .ok_or_else(|| KeepError::Store("the request is not whole".into()))?,
                ),
                None => None,
            };
            store(&shared, (question, upload, received, spool), trailers).await
        }
    }

    /// Takes a frame that came. Returns it, unless it is the last.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = None;
        if let Some(data) = frame.data_ref() {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            if let Some((_, _, _, spool)) = &mut self.exchange {
                spool.push(data);
            }
        } else if let Some(fields) = frame.trailers_ref() {
            trailers = Some(trailer_lines(fields));
        }
        if trailers.is_some() || self.left == Some(0) || self.inner.is_end_stream() {
            let storing = Box::pin(self.store(trailers));
            self.state = State::Storing(storing, Some(frame));
            return None;
        }
        Some(frame)
    }
}

impl Body for Recording {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.state {
                State::Passing => match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        if let Some(frame) = self.take(frame) {
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        let storing = Box::pin(self.store(None));
                        self.state = State::Storing(storing, None);
                    }
                },
                State::Storing(storing, last) => {
                    let stored = ready!(storing.as_mut().poll(context));
                    let last = last.take();
                    self.state = State::Over;
                    count(&self.shared, stored);
                    return Poll::Ready(last.map(Ok));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.state, self.left) {
            (State::Passing, _) => self.inner.size_hint(),
            (State::Storing(_, Some(frame)), Some(_)) => {
                SizeHint::with_exact(frame.data_ref().map_or(0, |data| data.len() as u64))
            }
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // It was cut off by the upstream, or its client went away.
        if self.exchange.is_some() {
            self.shared.counters.answers_unstored_cut.add(1);
        }
    }
}
