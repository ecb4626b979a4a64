//! Single HTTP requests, for readiness, verification and counters, never for the load.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// A server's address: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A client that opens a connection for each request.
#[derive(Debug)]
pub(crate) struct Client {
    runtime: Runtime,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// Fields besides `Host`, which one of them may replace.
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) length_bytes: u64,
    /// SHA-256 of the body, in lower-case hexadecimal.
    pub(crate) sha256: String,
    /// The first part of the body, for messages and for counters.
    pub(crate) beginning: Vec<u8>,
    /// Whether more bytes followed, for which there was no request.
    pub(crate) is_followed: bool,
}

/// The whole answer had not come in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {within_ms} ms")]
pub(crate) struct TimedOut {
    within_ms: u128,
}

/// Length of the part of a body that is kept, in bytes. Counters take a kilobyte.
const BEGINNING_BYTES_MAX: usize = 256 * 1024;

/// Maximum length of a body, in bytes; the origin's longest is 64 MiB.
const BODY_BYTES_MAX: u64 = 128 << 20;

/// Time limit of one request to a server that is starting. `give_up` is called before each.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// Time that a server may take to close the connection, or to send anything else. A server that
/// doesn't close it is not at fault.
const END_TIMEOUT: Duration = Duration::from_millis(100);

/// Pause between two requests to a server that is starting.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

impl Client {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// Sends one request on its own connection.
    pub(crate) fn ask(
        &self,
        server: &Endpoint,
        question: &Question<'_>,
        at_most: Duration,
    ) -> anyhow::Result<Answer> {
        self.runtime.block_on(async {
            let within_ms = at_most.as_millis();
            timeout(at_most, ask(server, question))
                .await
                .map_err(|_| TimedOut { within_ms })?
        })
    }

    /// Repeats a request until `is_ready` accepts the answer. Returns the last error if that is not
    /// so by the deadline, at which a request may still be under way. Calls `give_up` before each
    /// request.
    pub(crate) fn wait_until_ready(
        &self,
        server: &Endpoint,
        question: &Question<'_>,
        deadline: Instant,
        is_ready: impl Fn(&Answer) -> Result<(), String>,
        mut give_up: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            give_up()?;
            let problem = match self.ask(server, question, ATTEMPT_TIMEOUT) {
                Ok(answer) => match is_ready(&answer) {
                    Ok(()) => return Ok(()),
                    Err(problem) => anyhow::anyhow!(problem),
                },
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(problem);
            }
            self.runtime.block_on(async { sleep(RETRY_INTERVAL).await });
        }
    }
}

async fn ask(server: &Endpoint, question: &Question<'_>) -> anyhow::Result<Answer> {
    match server {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            ask_on(stream, &address.to_string(), question).await
        }
        Endpoint::Unix(path) => {
            ask_on(UnixStream::connect(path).await?, "localhost", question).await
        }
    }
}

/// Maximum number of header fields of an answer. A server may send more than hyper's own 100.
const FIELDS_MAX: usize = 10_000;

async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    question: &Question<'_>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the sender or the server, whichever is first. The request has its errors too.
    let connection = tokio::spawn(connection.without_shutdown());
    let mut request = Request::builder()
        .method(question.method)
        .uri(question.target)
        .body(Full::new(question.body.clone()))?;
    let headers = request.headers_mut();
    for (name, value) in question.headers {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    if !headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::try_from(host)?);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let response = sender.send_request(request).await?;
    let (head, mut body) = response.into_parts();
    let (mut length_bytes, mut hasher, mut beginning) = (0_u64, Sha256::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the body was cut off")?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        length_bytes += data.len() as u64;
        if length_bytes > BODY_BYTES_MAX {
            bail!("the body is longer than {BODY_BYTES_MAX} bytes");
        }
        hasher.update(data);
        let room = BEGINNING_BYTES_MAX.saturating_sub(beginning.len());
        beginning.extend_from_slice(&data[..data.len().min(room)]);
    }
    let sha256 = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let rest = timeout(END_TIMEOUT, is_followed(connection));
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        length_bytes,
        sha256,
        beginning,
        is_followed: rest.await.unwrap_or(false),
    })
}

/// Reads on after the answer; returns whether more comes before the connection ends.
async fn is_followed<S: AsyncRead + Unpin>(
    connection: JoinHandle<hyper::Result<http1::Parts<TokioIo<S>>>>,
) -> bool {
    match connection.await {
        Ok(Ok(parts)) => {
            if !parts.read_buf.is_empty() {
                return true;
            }
            let mut stream = parts.io.into_inner();
            let more = stream.read(&mut [0; 1]).await;
            more.is_ok_and(|bytes| bytes > 0)
        }
        // More had come before hyper gave up the connection.
        Ok(Err(error)) => error.to_string().contains("unexpected message"),
        Err(_) => false,
    }
}

/// Returns the SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("'{text}': expected 'HOST:PORT' or 'unix:PATH'")),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
