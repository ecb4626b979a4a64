//! Servers that speak TLS and HTTP/2, for the tests.

use std::{convert::Infallible, fs, net::TcpListener, path::PathBuf, pin::pin, sync::Arc, thread};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// An authority with a server's certificate.
pub(crate) struct Authority {
    directory: TempDir,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// How a server serves.
#[derive(Clone, Default)]
pub(crate) struct Serving {
    pub(crate) tls: Option<TlsAcceptor>,
    /// Number of requests after which a connection is closed in good order; 0 for never.
    pub(crate) requests_max: usize,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("signed");
        let directory = TempDir::new().expect("a directory");
        fs::write(directory.path().join("ca.pem"), ca.pem()).expect("writable");
        let issuer = Issuer::new(params, key);
        let names = ["127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("a host");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        Self {
            directory,
            certificate: certificate.der().clone(),
            key,
        }
    }

    /// Returns the file with its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Returns a server with the certificate, which knows these protocols.
    pub(crate) fn serving(&self, alpn: &[&str]) -> Serving {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], PrivateKeyDer::from(key));
        let mut config = config.expect("key and certificate fit");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Serving {
            tls: Some(Arc::new(config).into()),
            ..Serving::default()
        }
    }
}

impl Serving {
    /// Serves until the process ends; returns the URL.
    pub(crate) fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("bound");
                loop {
                    let (client, _) = listener.accept().await.expect("a client");
                    client.set_nodelay(true).expect("TCP");
                    let (tls, max) = (self.tls.clone(), self.requests_max);
                    tokio::spawn(async move {
                        match tls {
                            None => serve(client, max).await,
                            // A client may not like the certificate.
                            Some(tls) => {
                                if let Ok(client) = tls.accept(client).await {
                                    serve(client, max).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        format!("{scheme}://{address}/")
    }
}

async fn serve(client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, requests_max: usize) {
    let asked = Arc::new(tokio::sync::Semaphore::new(0));
    let service = service_fn(|request| {
        asked.add_permits(1);
        answer(request)
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(client), service));
    if requests_max > 0 {
        let enough = asked.acquire_many(u32::try_from(requests_max).expect("few"));
        tokio::select! {
            // The client may close it first.
            ended = connection.as_mut() => return drop(ended),
            _ = enough => connection.as_mut().graceful_shutdown(),
        }
    }
    drop(connection.await);
}

type Body = BoxBody<Bytes, Infallible>;

/// Answers by the target: `/echo` with the body, `/empty` with 204, `/trailers` with trailers,
/// `/wrong` with other bytes, `/version` with the version and the host, and else with `ok`.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let (is_head, version) = (request.method() == Method::HEAD, request.version());
    let host = match version {
        Version::HTTP_2 => request.uri().authority().map(ToString::to_string),
        _ => {
            let host = request.headers().get(HOST);
            host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
        }
    };
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(match path.as_str() {
        "/echo" => Full::new(body).boxed(),
        "/empty" => Full::default().boxed(),
        "/trailers" => Full::from("ok").with_trailers(async { trailers() }).boxed(),
        "/wrong" => Full::from("no").boxed(),
        "/version" => Full::from(format!("{version:?} {}", host.unwrap_or_default())).boxed(),
        _ if is_head => Full::default().boxed(),
        _ => Full::from("ok").boxed(),
    });
    if path == "/empty" {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}

fn trailers() -> Option<Result<HeaderMap, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    Some(Ok(trailers))
}
