//! The request, and the address of the server.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, HeaderValue, USER_AGENT},
    http::uri::{Authority, PathAndQuery},
};

use crate::Options;

/// One request, to be sent many times.
#[derive(Clone, Debug)]
pub(crate) struct RequestTarget {
    pub(crate) addresses: Vec<SocketAddr>,
    method: Method,
    path: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl RequestTarget {
    pub(crate) fn of(options: &Options) -> anyhow::Result<Self> {
        let url: Uri = options.url.parse().with_context(|| expected_url(options))?;
        let authority = url.authority().filter(|_| url.scheme_str() == Some("http"));
        let authority = authority.with_context(|| expected_url(options))?;
        // An IPv6 address has brackets only in a URL.
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(80);
        let addresses: Vec<SocketAddr> = (host, port)
            .to_socket_addrs()
            .with_context(|| {
                format!("could not resolve '{host}'; try an IP address, such as '127.0.0.1'")
            })?
            .collect();
        anyhow::ensure!(!addresses.is_empty(), "'{host}' resolves to no address");
        let method = Method::from_bytes(options.method.as_bytes());
        let method = method
            .with_context(|| format!("'{}' is not an HTTP method; try 'GET'", options.method))?;
        let body = match &options.body {
            None => Bytes::new(),
            Some(file) => std::fs::read(file)
                .with_context(|| format!("could not read the body from '{}'", file.display()))?
                .into(),
        };
        // A server expects it without scheme and host.
        let slash = PathAndQuery::from_static("/");
        let path = url.path_and_query().cloned().unwrap_or(slash).into();
        Ok(Self {
            addresses,
            method,
            path,
            headers: headers(&host_header(authority), options.no_keepalive)?,
            body,
        })
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Returns the headers that oha sends, except for its name: both loops send the same request.
fn headers(host: &str, no_keepalive: bool) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(
        ACCEPT_ENCODING,
        HeaderValue::from_static("gzip, compress, deflate, br"),
    );
    let program = concat!("hopbench-load/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(program));
    headers.insert(HOST, HeaderValue::from_str(host)?);
    if no_keepalive {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(headers)
}

/// Returns host and port, without a user name.
fn host_header(authority: &Authority) -> String {
    match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    }
}

fn expected_url(options: &Options) -> String {
    format!(
        "'--url={}': expected 'http://HOST[:PORT]/PATH'; try 'http://127.0.0.1:8080/'",
        options.url
    )
}
