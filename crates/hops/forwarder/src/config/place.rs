//! The places that a configuration names: targets, and hosts that clients ask for.

use std::net::{IpAddr, SocketAddr};

use http_proxy::Place;
use service::Mistake;

/// Checks a target's host and port.
///
/// # Errors
/// If they can't name a server.
pub(crate) fn target(host: &str, port: u16) -> Result<Place, Mistake> {
    if port == 0 {
        let text = "'target_port': expected 1 to 65535, found 0";
        return Err(Mistake::at("target_port", text));
    }
    if !is_host(host) {
        let text = format!("'target_addr': expected a name or an address, found '{host}'");
        return Err(Mistake::at("target_addr", text));
    }
    Ok(Place::Name(host.to_owned(), port))
}

/// Parses `HOST:PORT`, with brackets around an IPv6 address.
///
/// # Errors
/// If it is something else.
pub(crate) fn host_and_port(text: &str) -> Result<Place, Mistake> {
    let parse = || {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_right = match bare {
            Some(address) => is_host(address) && address.contains(':'),
            None => is_host(host) && !host.contains(':'),
        };
        is_right.then(|| Place::Name(bare.unwrap_or(host).to_owned(), port))
    };
    let place = parse();
    place.ok_or_else(|| {
        let text = format!("'targets': expected 'HOST:PORT' or '[IPV6]:PORT', found '{text}'");
        Mistake::at("targets", text)
    })
}

/// Checks a host that clients ask for, perhaps with `*.` first. Returns it in lower case.
///
/// # Errors
/// If no client can ask for it.
pub(crate) fn asked_host(key: &'static str, host: &str) -> Result<String, Mistake> {
    if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
        let text =
            format!("'{key}': expected a name without a port, or '*.' and a name, found '{host}'");
        return Err(Mistake::at(key, text));
    }
    Ok(host.trim_end_matches('.').to_ascii_lowercase())
}

/// Returns whether a text is an address, or has only bytes that names have.
pub(crate) fn is_host(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.parse::<IpAddr>().is_ok()
        || (text.bytes().any(|byte| byte != b'.') && text.bytes().all(is_of_name))
}

/// Returns whether a target is the port itself that is forwarded to it.
pub(crate) fn is_itself(target: &Place, listen: SocketAddr) -> bool {
    let (address, port) = match target {
        Place::Address(address) => (Some(address.ip()), address.port()),
        Place::Name(host, port) => (host.parse().ok(), *port),
    };
    let reaches = |address: IpAddr| {
        address == listen.ip() || (listen.ip().is_unspecified() && address.is_loopback())
    };
    port == listen.port() && address.is_some_and(reaches)
}
