//! Fetches that others may follow. A task of its own reads the answer, so that the client that
//! asked first can go away.

use std::{convert::Infallible, rc::Rc, sync::Arc};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_proxy::{Answer, Forwarding, ProxyBody, answer};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::Body as _,
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
    http::request::Parts,
};
use tokio::{sync::oneshot, task::spawn_local};

use crate::{
    cache::vary::Vary,
    flight::{Flight, Leading, Outcome},
    hop::{Hop, bad_gateway, question},
    keep::{self, Exchange, Question, Uploaded},
    received::{Received, received, trailer_lines},
    respond,
    spool::Spool,
    stored::{Framing, is_bodiless},
};

/// A request that is sent for several clients.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub(crate) question: Question,
    pub(crate) upload: Option<Uploaded>,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) client: Rc<http_proxy::Client>,
}

/// A request that was sent, and its answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) question: Question,
    pub(crate) upload: Option<Uploaded>,
    pub(crate) response: Response<ProxyBody>,
    /// `None` for an answer of our own.
    pub(crate) received: Option<Received>,
}

impl Fetching {
    /// Describes a request without a body.
    pub(crate) fn new(head: Parts, client: Rc<http_proxy::Client>) -> Self {
        Self {
            question: question(&head.method, &head.uri, &head.headers),
            upload: None,
            head,
            body: Bytes::new(),
            client,
        }
    }

    /// Sends the request. Nobody's connection depends on it. Returns `None` if there is no
    /// upstream; the future fails with what the client gets if the answer can't be passed on.
    pub(crate) fn ask(
        self,
        hop: &Rc<Hop>,
    ) -> Option<impl Future<Output = Result<Fetched, Response<ProxyBody>>> + use<>> {
        let requested_ms = crate::clock::now_ms();
        let asking = ask(hop, self.head, self.body, &self.client)?;
        let shared = Arc::clone(&hop.shared);
        Some(async move {
            let Ok(response) = asking.await;
            match received(&response, requested_ms) {
                Ok(received) => Ok(Fetched {
                    question: self.question,
                    upload: self.upload,
                    response,
                    received,
                }),
                Err(why) => Err(bad_gateway(&shared, why)),
            }
        })
    }
}

/// Fetches an answer that is kept for ever.
pub(crate) fn forever(hop: &Rc<Hop>, leading: Leading, fetching: Fetching) -> Answer {
    let (first_in, first) = oneshot::channel();
    let flight = Arc::clone(&leading.flight);
    spawn_local(fetch(Rc::clone(hop), leading, fetching, first_in));
    Box::pin(async move {
        let own = async { first.await.unwrap_or_else(|_| no_answer()) };
        Ok(match flight.outcome().await {
            Outcome::Answer(received, _) => following(&flight, &received, &[]),
            Outcome::Alone | Outcome::Failed | Outcome::Stored(..) => own.await,
        })
    })
}

async fn fetch(
    hop: Rc<Hop>,
    leading: Leading,
    fetching: Fetching,
    first: oneshot::Sender<Response<ProxyBody>>,
) {
    let shared = Arc::clone(&hop.shared);
    let Some(asking) = fetching.ask(&hop) else {
        return;
    };
    let (question, upload, response, received) = match asking.await {
        Ok(Fetched {
            question,
            upload,
            response,
            received: Some(received),
        }) => (question, upload, response, received),
        Ok(Fetched { response: own, .. }) | Err(own) => return drop(first.send(own)),
    };
    if received.head.status >= 500 {
        leading.decide(Outcome::Alone);
        return drop(first.send(response));
    }
    let Some((spool, trailers)) = share(
        &leading,
        &shared.keeper.files,
        &received,
        Vary::default(),
        response,
    )
    .await
    else {
        shared.counters.answers_unstored_cut.add(1);
        return;
    };
    let stored = async {
        if spool.length() > shared.body_bytes_max {
            return Err(keep::KeepError::Store(
                "its body is longer than --body-bytes-max".into(),
            ));
        }
        let body = spool.finish()?;
        let trailers = trailers.clone();
        keep::record(
            &shared,
            Exchange {
                question,
                upload,
                received,
                body,
                trailers,
            },
        )
        .await
    };
    if let Err(error) = stored.await {
        shared.counters.answers_unstored_failed.add(1);
        tracing::warn!("an answer is not stored: {error}");
    }
    leading.finish(trailers);
}

/// Sends a request of which nobody's connection depends. Returns `None` if there is no upstream.
fn ask(hop: &Rc<Hop>, head: Parts, body: Bytes, client: &http_proxy::Client) -> Option<Answer> {
    let upstreams = hop.shared.upstreams.as_ref()?;
    hop.shared.counters.upstream_requests_total.add(1);
    Some(
        hop.proxy
            .ask(head, body, client, upstreams, Forwarding::Pass),
    )
}

/// Gives an answer to all who wait, and reads it to its end. Returns its body once it is complete.
pub(crate) async fn share(
    leading: &Leading,
    files: &crate::store::Files,
    received: &Received,
    vary: Vary,
    response: Response<ProxyBody>,
) -> Option<(Spool, Option<Bytes>)> {
    let mut spool = Spool::new(files);
    if received.framing == Framing::Chunked {
        spool = spool.with_timing();
    }
    leading.begin(spool);
    leading.decide(Outcome::Answer(Arc::new(received.clone()), Arc::new(vary)));
    let mut body = response.into_body();
    let mut trailers = None;
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    leading.push(data);
                } else if let Some(fields) = frame.trailers_ref() {
                    trailers = Some(trailer_lines(fields));
                }
            }
            Some(Err(error)) => {
                tracing::debug!("an answer was cut off: {error}");
                return None;
            }
        }
    }
    Some((leading.take()?, trailers))
}

/// Answers a request by the fetch that another one began.
pub(crate) async fn follow(
    hop: Rc<Hop>,
    flight: Arc<Flight>,
    head: Parts,
    body: Bytes,
    client: Rc<http_proxy::Client>,
) -> Result<Response<ProxyBody>, Infallible> {
    match flight.outcome().await {
        Outcome::Answer(received, _) => Ok(following(&flight, &received, &[])),
        Outcome::Failed | Outcome::Stored(..) => Ok(no_answer()),
        Outcome::Alone => match ask(&hop, head, body, &client) {
            Some(asking) => asking.await,
            None => Ok(no_answer()),
        },
    }
}

/// Makes the answer of a fetch that is under way.
pub(crate) fn following(
    flight: &Arc<Flight>,
    received: &Received,
    extra: &[(HeaderName, HeaderValue)],
) -> Response<ProxyBody> {
    let mut response = respond::empty(&received.head);
    let fields: &mut HeaderMap = response.headers_mut();
    for (name, value) in extra {
        fields.insert(name, value.clone());
    }
    if is_bodiless(received.head.status) {
        return response;
    }
    if received.framing == Framing::Chunked {
        fields.remove(CONTENT_LENGTH);
    }
    let body = flight.body(received);
    response.map(|_| ProxyBody::hop(Box::pin(body)))
}

/// Makes the answer to a request whose fetch failed.
pub(crate) fn no_answer() -> Response<ProxyBody> {
    let text = "the upstream gave no answer to the request that this one waited for";
    answer(StatusCode::BAD_GATEWAY, text)
}
