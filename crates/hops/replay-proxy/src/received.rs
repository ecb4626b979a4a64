//! Answers of the upstream, as far as they are stored: their head as it came, without the fields of
//! the connection.

use bytes::Bytes;
use http_proxy::RawHead;
use hyper::Response;

use crate::{
    fields::Fields,
    head::{Builder, Head},
    stored::Framing,
};

/// The head of an answer that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    /// When the request was sent, in milliseconds since 1970.
    pub(crate) requested_ms: i64,
    /// When it came.
    pub(crate) received_ms: i64,
}

/// Fields that concern one connection only (RFC 9110, section 7.6.1; RFC 9111, section 3.1).
const OF_CONNECTION: [&[u8]; 8] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
    b"proxy-authentication-info",
    b"proxy-authenticate",
];

/// Reads an answer's head.
///
/// # Errors
/// If its framing is one that this program can't undo: the client would get something else than
/// the upstream sent.
pub(crate) fn received<B>(
    response: &Response<B>,
    requested_ms: i64,
) -> Result<Option<Received>, &'static str> {
    match response.extensions().get::<RawHead>() {
        Some(RawHead(raw)) => received_head(raw.clone(), requested_ms).map(Some),
        None => Ok(None),
    }
}

/// Reads an answer's head from its bytes.
///
/// # Errors
/// If its framing is one that this program can't undo.
pub(crate) fn received_head(raw: Bytes, requested_ms: i64) -> Result<Received, &'static str> {
    let head = Head::parse(raw).map_err(|_| "the upstream's head can't be read")?;
    let codings: Vec<&[u8]> = head.list("transfer-encoding").collect();
    let framing = match codings.as_slice() {
        [] if head.has("content-length") => Framing::Length,
        [] => Framing::Close,
        [coding] if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        _ => return Err("the upstream used a transfer coding other than 'chunked'"),
    };
    Ok(Received {
        head: end_to_end(&head, framing).finish(head.status),
        framing,
        requested_ms,
        received_ms: crate::clock::now_ms(),
    })
}

/// Leaves out the fields of the connection, and a length beside chunks (RFC 9112, section 6.3).
fn end_to_end(head: &Head, framing: Framing) -> Builder {
    let named: Vec<&[u8]> = head.list("connection").collect();
    head.filtered(|name, _| {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let is_length = is(b"content-length");
        if is_length {
            return framing != Framing::Chunked;
        }
        !OF_CONNECTION.iter().any(|other| is(other)) && !named.iter().any(|other| is(other))
    })
}

/// Writes trailers as lines.
pub(crate) fn trailer_lines(trailers: &hyper::HeaderMap) -> Bytes {
    crate::store::rows::lines(&trailers.to_pairs()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(raw: &'static str) -> Result<Option<Received>, &'static str> {
        let mut response = Response::new(());
        response.extensions_mut().insert(RawHead(raw.into()));
        received(&response, 0)
    }

    #[test]
    fn fields_of_the_connection_are_left_out() {
        let raw = "HTTP/1.1 200 OK\r\nConnection: X-Own, close\r\nKeep-Alive: 1\r\nX-Own: 1\r\n\
            Transfer-Encoding: chunked\r\nContent-Length: 5\r\nX-Kept: 1\r\n\r\n";
        let received = of(raw).expect("understood").expect("a head");
        assert_eq!(
            received.head.bytes(),
            "HTTP/1.1 200 OK\r\nX-Kept: 1\r\n".as_bytes()
        );
        assert_eq!(received.framing, Framing::Chunked);
    }

    #[test]
    fn other_codings_are_refused() {
        for coding in [
            "gzip, chunked",
            "arizona",
            "chunked\r\nTransfer-Encoding: chunked",
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
            assert!(of(raw.leak()).is_err(), "{coding}");
        }
    }
}
