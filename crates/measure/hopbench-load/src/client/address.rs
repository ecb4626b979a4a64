//! The address of the server.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use anyhow::Context;
use hyper::{
    Uri,
    http::uri::{Authority, PathAndQuery},
};

use super::connection::CONNECT_MAX;

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) sockets: Vec<SocketAddr>,
    /// Value of the `Host` field, unless a request sets its own.
    pub(crate) host: String,
    /// Name or IP address without the port, which a certificate must have.
    pub(crate) name: String,
    pub(crate) is_tls: bool,
}

/// Resolves a URL; returns the address, and the target of a request for it.
pub(crate) fn resolve(url: &str) -> anyhow::Result<(Address, Uri)> {
    let uri: Uri = url.parse().with_context(|| expected_url(url))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => anyhow::bail!(expected_url(url)),
    };
    let authority = uri.authority().with_context(|| expected_url(url))?;
    // An IPv6 address has brackets only in a URL.
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority
        .port_u16()
        .unwrap_or(if is_tls { 443 } else { 80 });
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
    let address = Address {
        sockets,
        host: host_header(authority),
        name: host.to_owned(),
        is_tls,
    };
    Ok((address, target))
}

/// Returns what oha must be told of a URL whose host has several addresses: to connect to the
/// first that can be reached. By itself, oha would try only one of them.
pub(crate) fn connect_to(url: &str) -> anyhow::Result<Option<String>> {
    let (Address { sockets, host, .. }, _) = resolve(url)?;
    if sockets.len() < 2 {
        return Ok(None);
    }
    let socket = first_reached(&sockets);
    let port = format!(":{}", socket.port());
    let host = host.strip_suffix(&port).unwrap_or(&host);
    Ok(Some(format!("{host}{port}:{socket}")))
}

/// Returns the first address that can be connected to, or else the first.
fn first_reached(sockets: &[SocketAddr]) -> SocketAddr {
    let is_reached = |socket: &&SocketAddr| TcpStream::connect_timeout(socket, CONNECT_MAX).is_ok();
    *sockets.iter().find(is_reached).unwrap_or(&sockets[0])
}

/// Returns host and port, without a user name.
fn host_header(authority: &Authority) -> String {
    match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    }
}

fn expected_url(url: &str) -> String {
    format!(
        "'--url={url}': expected 'http://HOST[:PORT]/PATH', or the same with 'https'; try \
         'http://127.0.0.1:8080/'"
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let open = listener.local_addr().expect("bound");
        // Nobody listens there any more.
        let closed = TcpListener::bind("127.0.0.2:0").and_then(|gone| gone.local_addr());
        let closed = closed.expect("a free port");
        assert_eq!(first_reached(&[closed, open]), open);
        assert_eq!(first_reached(&[open, closed]), open);
        assert_eq!(first_reached(&[closed]), closed);
        assert_eq!(
            connect_to(&format!("http://{open}/a")).expect("valid"),
            None
        );
    }
}
