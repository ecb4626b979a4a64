//! Turns a client's request into the one that the upstream gets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use hyper::{
    Method, StatusCode, Uri, Version,
    header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderValue, TE, UPGRADE},
    http::request::Parts,
    upgrade::OnUpgrade,
};

use crate::fields::{self, Client, Forwarding};

/// Properties of a client's request that what is sent doesn't show.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    /// Set if the client asks for another protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Set if the client waits with its body. It becomes true when the upstream asks for it.
    pub(crate) continued: Option<Arc<AtomicBool>>,
    /// Whether asking twice is the same as asking once (RFC 9110, section 9.2.2).
    pub(crate) is_idempotent: bool,
}

/// Prepares a request's head.
pub(crate) fn prepare(
    head: &mut Parts,
    client: &Client,
    forwarding: Forwarding,
    via: &HeaderValue,
) -> Asked {
    let fields = &head.headers;
    let protocol = fields.get(UPGRADE).cloned();
    let protocol = protocol.filter(|_| {
        head.version == Version::HTTP_11
            && fields::has_token(fields, &CONNECTION, "upgrade")
            // It would be a tunnel for requests that nobody checks (RFC 9113, section 3.1).
            && !fields::has_token(fields, &UPGRADE, "h2c")
    });
    let takes_trailers = fields.contains_key(TE) && fields::has_token(fields, &TE, "trailers");
    let expects = head.version == Version::HTTP_11
        && fields
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let asked = Asked {
        version: head.version,
        upgrade: protocol.as_ref().and_then(|_| head.extensions.remove()),
        continued: expects.then(Arc::default),
        is_idempotent: matches!(
            head.method,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
        ),
    };
    // What hyper noted of the client's connection isn't about the upstream's.
    head.extensions.clear();
    fields::strip(&mut head.headers);
    address(head);
    fields::forward(&mut head.headers, client, forwarding, via);
    let fields = &mut head.headers;
    if takes_trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let (Some(protocol), Some(_)) = (protocol, &asked.upgrade) {
        fields.insert(UPGRADE, protocol);
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    head.version = Version::HTTP_11;
    asked
}

/// Gives a request the form in which an origin server expects it: a path, and a `Host` field.
fn address(head: &mut Parts) {
    if let Some(authority) = head.uri.authority() {
        // It counts more than a Host field (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if let Ok(host) = HeaderValue::from_str(host) {
            head.headers.insert(HOST, host);
        }
        let target = head.uri.path_and_query().cloned();
        head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    if head.version == Version::HTTP_2 {
        join_cookies(head);
    }
}

/// Joins the `Cookie` fields that HTTP/2 may split (RFC 9113, section 8.2.3).
fn join_cookies(head: &mut Parts) {
    let crumbs: Vec<&[u8]> = {
        let crumbs = head.headers.get_all(COOKIE).iter();
        crumbs.map(HeaderValue::as_bytes).collect()
    };
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()))
    {
        head.headers.insert(COOKIE, joined);
    }
}

/// Has `continued` set when the upstream answers `100 Continue`.
pub(crate) fn note_continue<B>(request: &mut hyper::Request<B>, continued: &Arc<AtomicBool>) {
    let continued = Arc::clone(continued);
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            continued.store(true, Relaxed);
        }
    });
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn prepared(request: hyper::http::request::Builder) -> (Parts, Asked) {
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        let client = Client::new("10.0.0.1:5".parse().expect("an address"));
        let via = HeaderValue::from_static("1.1 hop");
        let asked = prepare(&mut head, &client, Forwarding::Pass, &via);
        (head, asked)
    }

    #[test]
    fn an_upstream_gets_a_path_and_a_host() {
        for (target, host, said, path) in [
            ("/a%2f//b?c", "own", "own", "/a%2f//b?c"),
            ("http://user@other:81/a?b", "own", "other:81", "/a?b"),
            ("http://other", "own", "other", "/"),
            ("*", "own", "own", "*"),
        ] {
            let (head, _) = prepared(Request::builder().uri(target).header(HOST, host));
            assert_eq!(head.headers[HOST], said, "{target}");
            assert_eq!(head.uri.to_string(), path, "{target}");
        }
    }

    #[test]
    fn options_of_the_root_are_not_those_of_the_whole_server() {
        let request = Request::builder().method(Method::OPTIONS);
        let (head, _) = prepared(request.uri("http://a/").version(Version::HTTP_2));
        assert_eq!(head.uri, "/");
    }

    #[test]
    fn only_trailers_are_asked_of_an_upstream() {
        let (head, _) = prepared(Request::builder().uri("/").header(TE, "gzip, Trailers"));
        assert_eq!(head.headers[TE], "trailers");
        let (head, _) = prepared(Request::builder().uri("/").header(TE, "gzip"));
        assert!(!head.headers.contains_key(TE));
    }

    #[test]
    fn the_cookies_of_http_2_are_joined() {
        let request = Request::builder().uri("http://a/").version(Version::HTTP_2);
        let (head, asked) = prepared(request.header(COOKIE, "a=1").header(COOKIE, "b=2"));
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
        assert_eq!(
            (asked.version, head.version),
            (Version::HTTP_2, Version::HTTP_11)
        );
    }
}
