//! The address of the server.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;
use hyper::{
    Uri,
    http::uri::{Authority, PathAndQuery},
};

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) sockets: Vec<SocketAddr>,
    /// Value of the `Host` field, unless a request sets its own.
    pub(crate) host: String,
}

/// Resolves a URL; returns the address, and the target of a request for it.
pub(crate) fn resolve(url: &str) -> anyhow::Result<(Address, Uri)> {
    let uri: Uri = url.parse().with_context(|| expected_url(url))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.with_context(|| expected_url(url))?;
    // An IPv6 address has brackets only in a URL.
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(80);
    let sockets: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .with_context(|| {
            format!("could not resolve '{host}'; try an IP address, such as '127.0.0.1'")
        })?
        .collect();
    anyhow::ensure!(!sockets.is_empty(), "'{host}' resolves to no address");
    // A server expects it without scheme and host.
    let slash = PathAndQuery::from_static("/");
    let target = uri.path_and_query().cloned().unwrap_or(slash).into();
    let host = host_header(authority);
    Ok((Address { sockets, host }, target))
}

/// Returns host and port, without a user name.
fn host_header(authority: &Authority) -> String {
    match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    }
}

fn expected_url(url: &str) -> String {
    format!("'--url={url}': expected 'http://HOST[:PORT]/PATH'; try 'http://127.0.0.1:8080/'")
}
