//! The handlers, and the only place where their parameters are parsed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::{Path, RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::{
    endpoint::{BYTES_MAX, DELAY_MS_MAX, Endpoint, STREAM_BYTES_MAX, STREAM_CHUNKS_MAX},
    memory::{Memory, Payloads},
    payload, refusal,
};

/// Body of the smallest answers.
pub(crate) const OK: &str = "ok";

/// Returns the application that every path serves.
pub fn router() -> Router {
    router_in(Memory::default())
}

/// Returns the same application as [`router`], with its bodies in `memory`.
pub fn router_in(memory: Memory) -> Router {
    Endpoint::ALL
        .into_iter()
        .fold(Router::new(), |router, endpoint| {
            router.route(endpoint.route(), endpoint.handler())
        })
        .fallback(refusal::not_found)
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .with_state(Arc::new(Payloads::new(memory)))
}

pub(crate) async fn ok() -> &'static str {
    OK
}

pub(crate) async fn large(State(payloads): State<Arc<Payloads>>) -> Response {
    text(payloads.large())
}

pub(crate) async fn large_fresh(State(payloads): State<Arc<Payloads>>) -> Response {
    text(payloads.large_fresh())
}

pub(crate) async fn bytes(
    State(payloads): State<Arc<Payloads>>,
    Path(n): Path<String>,
) -> Result<Response, BadRequest> {
    let length_bytes = parse_bytes(&n).map_err(BadRequest)?;
    if length_bytes <= payload::PREBUILT_BYTES as u64 {
        let length_bytes = usize::try_from(length_bytes).expect("compared with a usize above");
        return Ok(octets(Body::from(payloads.prebuilt(length_bytes))));
    }
    let pieces = payload::pieces(length_bytes).map(Ok::<_, Infallible>);
    let mut response = octets(Body::from_stream(stream::iter(pieces)));
    // A stream doesn't know its length. With it the answer is framed as a prebuilt one is.
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length_bytes.into());
    Ok(response)
}

/// Passes the body on as it arrives, so that an echo of any length takes only one buffer.
pub(crate) async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !head.headers.contains_key(header::EXPECT) {
        return octets(body);
    }
    // A client that expects '100 Continue' sends nothing before it is told to. hyper tells it when
    // the body is first read, which must therefore come before the answer.
    let length_bytes = body.size_hint().exact();
    let mut pieces = body.into_data_stream();
    let first = stream::iter(pieces.next().await);
    let mut response = octets(Body::from_stream(first.chain(pieces)));
    if let Some(length_bytes) = length_bytes {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length_bytes.into());
    }
    response
}

pub(crate) async fn stream(RawQuery(query): RawQuery) -> Result<Response, BadRequest> {
    let query = StreamQuery::parse(&query.unwrap_or_default()).map_err(BadRequest)?;
    let chunks = stream::unfold(0, move |index| async move {
        if index == query.chunks {
            return None;
        }
        if index > 0 && !query.interval.is_zero() {
            tokio::time::sleep(query.interval).await;
        }
        let length = usize::try_from(query.bytes).expect("bounded by STREAM_BYTES_MAX");
        Some((
            Ok::<_, Infallible>(payload::sequence(index * query.bytes, length)),
            index + 1,
        ))
    });
    Ok(octets(Body::from_stream(chunks)))
}

pub(crate) async fn delay(Path(ms): Path<String>) -> Result<&'static str, BadRequest> {
    tokio::time::sleep(parse_delay(&ms).map_err(BadRequest)?).await;
    Ok(OK)
}

/// Parameters of `/stream`.
#[derive(Clone, Copy)]
pub(crate) struct StreamQuery {
    chunks: u64,
    bytes: u64,
    interval: Duration,
}

impl StreamQuery {
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let (mut chunks, mut bytes, mut interval_ms) = (1, 1024, 0);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "chunks" => chunks = number(key, value, STREAM_CHUNKS_MAX)?,
                "bytes" => bytes = number(key, value, STREAM_BYTES_MAX)?,
                "interval_ms" => interval_ms = number(key, value, DELAY_MS_MAX)?,
                _ => {
                    return Err(format!(
                        "unknown parameter '{key}', expected 'chunks', 'bytes' or 'interval_ms'"
                    ));
                }
            }
        }
        if chunks * bytes > STREAM_BYTES_MAX {
            return Err(format!(
                "expected chunks × bytes to be at most {STREAM_BYTES_MAX}"
            ));
        }
        Ok(Self {
            chunks,
            bytes,
            interval: Duration::from_millis(interval_ms),
        })
    }

    pub(crate) fn length_bytes(self) -> u64 {
        self.chunks * self.bytes
    }
}

pub(crate) fn parse_bytes(n: &str) -> Result<u64, String> {
    number("n", n, BYTES_MAX)
}

pub(crate) fn parse_delay(ms: &str) -> Result<Duration, String> {
    number("ms", ms, DELAY_MS_MAX).map(Duration::from_millis)
}

fn number(name: &str, text: &str, max: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(value) if value <= max => Ok(value),
        _ => Err(format!(
            "expected '{name}' to be a number of at most {max}, found '{text}'"
        )),
    }
}

/// A parameter out of its bounds. The answer is 400 and says what was expected.
pub(crate) struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.0).into_response()
    }
}

fn text(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

fn octets(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        describe,
        wire::{connect, head},
    };

    /// Asks every endpoint, and compares the answer with its description.
    #[tokio::test]
    async fn answers_are_as_described() {
        let targets = ["/bytes/0", "/bytes/1", "/bytes/1048576", "/bytes/1048577"];
        let examples = Endpoint::ALL.map(Endpoint::example);
        for target in targets.into_iter().chain(examples) {
            let expected = describe(target).expect("a valid target");
            let request = Request::builder()
                .method(expected.method)
                .uri(target)
                .body(Body::from("hello"))
                .expect("a valid request");
            let response = router()
                .oneshot(request)
                .await
                .expect("the router is infallible");
            assert_eq!(response.status().as_u16(), expected.status, "{target}");
            let body = response
                .into_body()
                .collect()
                .await
                .expect("a whole body")
                .to_bytes();
            assert_eq!(
                body.len() as u64,
                expected.length_bytes.unwrap_or(5),
                "{target}"
            );
            let digest = expected
                .sha256
                .unwrap_or_else(|| payload::sha256_hex(["hello".into()]));
            assert_eq!(payload::sha256_hex([body]), digest, "{target}");
        }
    }

    #[tokio::test]
    async fn bad_parameters_are_answered_with_400() {
        for target in [
            "/bytes/x",
            "/bytes/99999999999",
            "/delay/-1",
            "/stream?chunks=a",
        ] {
            let request = Request::get(target)
                .body(Body::empty())
                .expect("a valid request");
            let response = router()
                .oneshot(request)
                .await
                .expect("the router is infallible");
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
        }
    }

    #[tokio::test]
    async fn an_upload_that_waits_is_told_to_continue() {
        for (framing, upload, echo) in [
            ("content-length: 5", "hello", "hello"),
            ("content-length: 0", "", ""),
            (
                "transfer-encoding: chunked",
                "5\r\nhello\r\n0\r\n\r\n",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
        ] {
            let mut client = connect().await;
            let request = format!(
                "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{framing}\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.expect("written");
            if !upload.is_empty() {
                assert_eq!(head(&mut client).await, ["http/1.1 100 continue"]);
            }
            client.write_all(upload.as_bytes()).await.expect("written");
            let head = head(&mut client).await;
            assert_eq!(head[0], "http/1.1 200 ok");
            assert!(head.contains(&framing.to_owned()), "{head:?}");
            let mut body = vec![0; echo.len()];
            client.read_exact(&mut body).await.expect("a whole body");
            assert_eq!(body, echo.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_long_body_says_its_length() {
        let request = Request::get("/bytes/2000000")
            .body(Body::empty())
            .expect("a valid request");
        let response = router()
            .oneshot(request)
            .await
            .expect("the router is infallible");
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "2000000");
    }
}
