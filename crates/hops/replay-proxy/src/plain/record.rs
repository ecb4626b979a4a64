//! Records the answers to plain requests while they pass.

use std::{pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http_proxy::{AnswerTap, Forwarding, PlainAnswer, PlainRequest, PlainRoute};

use crate::{
    fields::Fields as _,
    hop::Hop,
    keep::{KeepError, Question, Uploaded},
    pieces::Pieces,
    received::{Received, received_head},
    record::{count, store},
    spool::{Spool, Spooled},
    state::Shared,
    stored::Framing,
};

/// An exchange that is being recorded.
#[derive(Debug)]
struct Recorder {
    shared: Arc<Shared>,
    pieces: Rc<Pieces>,
    requested_ms: i64,
    /// Taken at the end.
    question: Option<(Question, Option<Uploaded>)>,
    /// Set by the head of the answer.
    answer: Option<Result<(Received, Spool), KeepError>>,
}

/// Has a request forwarded and its answer recorded. `None` if there is no upstream, or if the body
/// of the request can't be kept.
pub(super) fn record(hop: &Hop, request: &PlainRequest<'_>) -> Option<PlainAnswer> {
    let shared = &hop.shared;
    let upstreams = Arc::clone(shared.upstreams.as_ref()?);
    let upload = match request.body() {
        [] => None,
        body => {
            let mut reader = shared.keeper.keys.read_body();
            reader.push(body);
            let whole = Spooled::whole(&shared.keeper.files, Bytes::copy_from_slice(body));
            Some(Uploaded {
                body: whole.ok()?,
                key: shared.keeper.keys.body_read(&reader),
            })
        }
    };
    let question = Question {
        method: request.method.to_owned(),
        target: request.target.to_owned(),
        fields: request.to_pairs(),
    };
    shared.counters.upstream_requests_total.add(1);
    let recorder = Recorder {
        shared: Arc::clone(shared),
        pieces: Rc::clone(&hop.pieces),
        requested_ms: crate::clock::now_ms(),
        question: Some((question, upload)),
        answer: None,
    };
    Some(PlainAnswer::Forward(PlainRoute {
        upstreams,
        forwarding: Forwarding::Pass,
        entry: None,
        kept: None,
        tap: Some(Box::new(recorder)),
    }))
}

impl AnswerTap for Recorder {
    fn head(&mut self, head: &[u8]) {
        let received = received_head(Bytes::copy_from_slice(head), self.requested_ms);
        let answer = received.map(|received| {
            let spool = Spool::new(&self.shared.keeper.files);
            match received.framing {
                Framing::Chunked => (received, spool.with_timing()),
                Framing::Length | Framing::Close => (received, spool),
            }
        });
        self.answer = Some(answer.map_err(|why| KeepError::Store(why.into())));
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(Ok((_, spool))) = &mut self.answer {
            spool.push(&self.pieces.copy(bytes));
        }
    }

    fn end(mut self: Box<Self>, trailers: &[u8]) -> Pin<Box<dyn Future<Output = ()>>> {
        let trailers = (!trailers.is_empty()).then(|| Bytes::copy_from_slice(trailers));
        let exchange = self.question.take().zip(self.answer.take());
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let Some(((question, upload), answer)) = exchange else {
                return;
            };
            let stored = match answer {
                Ok((received, spool)) => {
                    store(&shared, (question, upload, received, spool), trailers).await
                }
                Err(error) => Err(error),
            };
            count(&shared, stored);
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // It was cut off by the upstream, or its client went away.
        if self.question.is_some() && self.answer.is_some() {
            self.shared.counters.answers_unstored_cut.add(1);
        }
    }
}
