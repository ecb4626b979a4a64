//! The header fields that a hop must remove, add or replace.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, CONTENT_LENGTH, Entry, FORWARDED, HOST, HeaderName, HeaderValue, TE,
        TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

/// The address of a client, as later hops are told it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address from which the client connected.
    pub address: SocketAddr,
    text: HeaderValue,
}

/// Whether a client's own word on who it forwards for is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Its fields are replaced.
    #[default]
    Replace,
    /// Its fields are kept, and this hop's are added.
    Trust,
    /// Nothing is added or removed, `Via` included.
    Pass,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 4] = [KEEP_ALIVE, PROXY_CONNECTION, TE, UPGRADE];

/// Fields that a message needs, even if its `Connection` field names them.
const END_TO_END: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

impl Client {
    /// Describes a client that connects from `address`.
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        let text = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => ip.to_string(),
        };
        let text = HeaderValue::try_from(text).expect("an address is visible ASCII");
        Self { address, text }
    }

    /// Returns the address without the port, as later hops are told it.
    pub(crate) fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Removes the fields that concern one connection only, and those that `Connection` names.
///
/// `Transfer-Encoding` stays: hyper reads it and writes its own.
pub(crate) fn strip(fields: &mut HeaderMap) {
    match fields.entry(CONNECTION) {
        Entry::Vacant(_) => {}
        Entry::Occupied(entry) => {
            let (_, values) = entry.remove_entry_mult();
            let values: Vec<HeaderValue> = values.collect();
            for name in values.iter().flat_map(named) {
                if !END_TO_END.contains(&name) {
                    fields.remove(name);
                }
            }
        }
    }
    for name in HOP_BY_HOP {
        fields.remove(name);
    }
}

/// Keeps of the fields of one connection those that tell a client of its new protocol.
pub(crate) fn keep_upgrade(fields: &mut HeaderMap) {
    let protocol = fields.get(UPGRADE).cloned();
    strip(fields);
    if let Some(protocol) = protocol {
        fields.insert(UPGRADE, protocol);
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Returns the names of fields in a value of `Connection`.
fn named(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let names = value.as_bytes().split(|&byte| byte == b',');
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Returns whether a field that is a list of tokens has `token`.
pub(crate) fn has_token(fields: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = fields.get_all(name).into_iter();
    let mut tokens = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Tells later hops for whom and through whom a request is forwarded.
pub(crate) fn forward(
    fields: &mut HeaderMap,
    client: &Client,
    forwarding: Forwarding,
    via: &HeaderValue,
) {
    // RFC 9110, section 7.6.3: a gateway adds itself after those before it.
    let add_via = |fields: &mut HeaderMap| fields.append(VIA, via.clone());
    match forwarding {
        Forwarding::Pass => {}
        Forwarding::Replace => {
            add_via(fields);
            let host = fields.get(HOST).cloned();
            fields.remove(FORWARDED);
            fields.insert(X_FORWARDED_FOR, client.text.clone());
            match host {
                Some(host) => fields.insert(X_FORWARDED_HOST, host),
                None => fields.remove(X_FORWARDED_HOST),
            };
            fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        }
        Forwarding::Trust => {
            add_via(fields);
            fields.append(X_FORWARDED_FOR, client.text.clone());
            let host = fields.get(HOST).cloned();
            if let (Entry::Vacant(entry), Some(host)) = (fields.entry(X_FORWARDED_HOST), host) {
                entry.insert(host);
            }
            let proto = fields.entry(X_FORWARDED_PROTO);
            proto.or_insert(HeaderValue::from_static("http"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|&(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        lines.collect()
    }

    fn lines(fields: &HeaderMap) -> Vec<(&str, &str)> {
        let lines = fields.iter();
        let text = |value: &'_ HeaderValue| str::from_utf8(value.as_bytes()).map(str::to_owned);
        let mut lines: Vec<_> = lines
            .map(|(name, value)| (name.as_str(), &*text(value).expect("text").leak()))
            .collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn fields_of_one_connection_are_removed() {
        let mut message = fields(&[
            ("host", "a"),
            ("connection", "close, X-Own, host"),
            ("connection", "content-length"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("x-own", "1"),
            ("x-own", "2"),
            ("x-kept", ""),
        ]);
        strip(&mut message);
        let left = [("content-length", "3"), ("host", "a"), ("x-kept", "")];
        assert_eq!(lines(&message), left);
    }

    #[test]
    fn a_client_is_believed_only_if_told_so() {
        let client = Client::new("[::ffff:10.0.0.1]:5".parse().expect("an address"));
        let via = HeaderValue::from_static("1.1 hop");
        let own = [
            ("host", "a"),
            ("forwarded", "for=9.9.9.9"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
        ];
        let said = |forwarding| {
            let mut message = fields(&own);
            forward(&mut message, &client, forwarding, &via);
            let said = lines(&message).into_iter();
            let said: Vec<_> = said
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            said.join("\n")
        };
        assert_eq!(
            said(Forwarding::Replace),
            "host: a\nvia: 1.1 hop\nx-forwarded-for: 10.0.0.1\nx-forwarded-host: a\n\
             x-forwarded-proto: http"
        );
        assert_eq!(
            said(Forwarding::Trust),
            "forwarded: for=9.9.9.9\nhost: a\nvia: 1.1 hop\nx-forwarded-for: 10.0.0.1\n\
             x-forwarded-for: 9.9.9.9\nx-forwarded-host: a\nx-forwarded-proto: https"
        );
        assert_eq!(
            said(Forwarding::Pass),
            "forwarded: for=9.9.9.9\nhost: a\nx-forwarded-for: 9.9.9.9\n\
             x-forwarded-proto: https"
        );
    }
}
