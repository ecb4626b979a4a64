//! Single HTTP requests, for readiness, verification and counters, never for the load.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hopbench_analysis::record::{FrontProtocol, Protocol};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
    header::{CONNECTION, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::tls;

/// A server's address: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A server, and how it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    protocol: Protocol,
    /// Accepts the server's certificate; `None` without TLS.
    authority: Option<Arc<ClientConfig>>,
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

/// Time limit of the first request to a server that is starting, which may accept one and never
/// answer it. Each that gets no answer doubles it, for a server that takes longer to answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two calls of `give_up` while an answer is awaited.
const GIVE_UP_INTERVAL: Duration = Duration::from_millis(100);

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
        server: &Server,
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

    /// Like [`ask`](Self::ask), but calls `give_up` before it and again and again, and fails if
    /// that does.
    fn ask_unless_given_up(
        &self,
        server: &Server,
        question: &Question<'_>,
        at_most: Duration,
        give_up: &mut impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<anyhow::Result<Answer>> {
        let begun = Instant::now();
        let mut asked = pin!(ask(server, question));
        loop {
            give_up()?;
            let left = at_most.saturating_sub(begun.elapsed());
            let within = left.min(GIVE_UP_INTERVAL);
            let answered = async { timeout(within, asked.as_mut()).await };
            match self.runtime.block_on(answered) {
                Ok(answer) => return Ok(answer),
                Err(_) if left <= within => {
                    let within_ms = at_most.as_millis();
                    return Ok(Err(TimedOut { within_ms }.into()));
                }
                Err(_) => {}
            }
        }
    }

    /// Repeats a request until `is_ready` accepts the answer. Returns the last error if that is not
    /// so by the deadline, at which a request may still be under way. Calls `give_up` before each
    /// request and while one is under way.
    pub(crate) fn wait_until_ready(
        &self,
        server: &Server,
        question: &Question<'_>,
        deadline: Instant,
        is_ready: impl Fn(&Answer) -> Result<(), String>,
        mut give_up: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut at_most = ATTEMPT_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let within = at_most.min(left.max(ATTEMPT_TIMEOUT));
            let problem = match self.ask_unless_given_up(server, question, within, &mut give_up)? {
                Ok(answer) => match is_ready(&answer) {
                    Ok(()) => return Ok(()),
                    Err(problem) => anyhow::anyhow!(problem),
                },
                Err(error) => error,
            };
            if problem.is::<TimedOut>() {
                at_most *= 2;
            }
            if Instant::now() >= deadline {
                return Err(problem);
            }
            self.runtime.block_on(async { sleep(RETRY_INTERVAL).await });
        }
    }
}

async fn ask(server: &Server, question: &Question<'_>) -> anyhow::Result<Answer> {
    let protocol = server.protocol;
    match &server.endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let host = address.to_string();
            let Some(authority) = &server.authority else {
                return ask_on(stream, protocol, ("http", &host), question).await;
            };
            let stream = tls::connect(authority, address.ip(), protocol, stream).await?;
            ask_on(stream, protocol, ("https", &host), question).await
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            ask_on(stream, protocol, ("http", "localhost"), question).await
        }
    }
}

/// Maximum number of header fields of an answer. A server may send more than hyper's own 100.
const FIELDS_MAX: usize = 10_000;

/// Maximum length of an answer's head in HTTP/2, in bytes: hyper's own for HTTP/1.
const HEAD_BYTES_MAX: u32 = 400 << 10;

async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    protocol: Protocol,
    (scheme, host): (&str, &str),
    question: &Question<'_>,
) -> anyhow::Result<Answer> {
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
    match protocol {
        Protocol::Http1 => ask_by_http1(stream, scheme, request).await,
        Protocol::H2 => ask_by_h2(stream, as_in_h2(request, scheme)?).await,
    }
}

async fn ask_by_http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    scheme: &str,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the sender or the server, whichever is first. The request has its errors too.
    let connection = tokio::spawn(connection.without_shutdown());
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(CONNECTION, close);
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| match scheme {
        "http" => with_hint(error),
        _ => error.into(),
    })?;
    let answer = read(response).await?;
    let rest = timeout(END_TIMEOUT, is_followed(connection));
    Ok(Answer {
        is_followed: rest.await.unwrap_or(false),
        ..answer
    })
}

/// Adds to an error what an answer often means that doesn't begin like one of HTTP/1.1.
fn with_hint(error: hyper::Error) -> anyhow::Error {
    let is_other = error.is_parse() && error.to_string().contains("HTTP version");
    let error = anyhow::Error::new(error);
    match is_other {
        true => error.context(
            "the answer isn't HTTP/1.1; if the hop speaks TLS, begin 'front' with 'https://' \
             (with 'quick', add '--tls'), and if it speaks HTTP/2 alone, add 'protocol = \"h2\"'",
        ),
        false => error,
    }
}

/// Asks by HTTP/2, in which nothing can follow an answer.
async fn ask_by_h2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let response = response.context(
        "no answer by HTTP/2: expected a hop that speaks it, without TLS by prior knowledge; or \
         ask it by 'http1' (its 'protocol')",
    )?;
    read(response).await
}

/// Returns a request as HTTP/2 has it: the host stands in the target.
fn as_in_h2(
    mut request: Request<Full<Bytes>>,
    scheme: &str,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let host = request.headers_mut().remove(HOST).context("no host")?;
    let target = request.uri().path_and_query();
    let absolute = Uri::builder()
        .scheme(scheme)
        .authority(host.as_bytes())
        .path_and_query(target.map_or("/", |target| target.as_str()));
    *request.uri_mut() = absolute.build()?;
    Ok(request)
}

/// Receives the whole answer.
async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
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
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        length_bytes,
        sha256,
        beginning,
        is_followed: false,
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

impl Server {
    /// Returns the front of a path. `authority` signs certificates, if it is asked over TLS.
    pub(crate) fn front(
        endpoint: Endpoint,
        protocol: FrontProtocol,
        authority: Option<Arc<ClientConfig>>,
    ) -> Self {
        Self {
            endpoint,
            protocol: protocol.protocol,
            authority,
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the beginning of its URLs.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.authority {
            Some(_) => "https://",
            None => "http://",
        }
    }

    pub(crate) fn protocol(&self) -> FrontProtocol {
        FrontProtocol {
            tls: self.authority.is_some(),
            protocol: self.protocol,
        }
    }
}

impl From<Endpoint> for Server {
    /// Returns a server that is asked by HTTP/1.1, without TLS.
    fn from(endpoint: Endpoint) -> Self {
        Self::front(endpoint, FrontProtocol::default(), None)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.authority.as_ref().map_or("", |_| self.scheme());
        write!(f, "{scheme}{}", self.endpoint)
    }
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

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::process::wait_until;

    /// Takes a connection that it never answers, and answers the next one late.
    #[test]
    fn a_server_that_answers_late_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let late = ATTEMPT_TIMEOUT + ATTEMPT_TIMEOUT / 50;
        thread::spawn(move || {
            let _unanswered = listener.accept().expect("a connection");
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                assert!(stream.read(&mut [0; 1000]).expect("a request") > 0);
                wait_until(Instant::now() + late);
                // A client on a very busy machine may have gone, and asks again.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let client = Client::new().expect("a runtime");
        let question = Question {
            method: "GET",
            target: "/",
            headers: &[],
            body: Bytes::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(600);
        let mut asked = 0;
        let ready = client.wait_until_ready(
            &Endpoint::Tcp(address).into(),
            &question,
            deadline,
            |_| Ok(()),
            || {
                asked += 1;
                Ok(())
            },
        );
        ready.expect("an answer");
        // Whether to give up is asked while an answer is awaited, too.
        assert!(asked > 5, "{asked} times");
    }
}
