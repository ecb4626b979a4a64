//! Passes messages on without sockets.

use super::{
    answer::{self, For, Rest},
    exchange::write_chunk,
    request::{self, Found},
};
use crate::fields::{Client, Forwarding};

/// Returns a plain request as the upstream gets it, and how many bytes it took. `None` if it is
/// left to hyper.
pub(crate) fn pass_request(
    bytes: &[u8],
    client: &Client,
    forwarding: Forwarding,
) -> Option<(usize, Vec<u8>)> {
    let found = request::read(bytes, 16 * 1024, client, |request| {
        let mut out = Vec::new();
        request.write(&mut out, forwarding, b"1.1 hop");
        Some(out)
    });
    match found {
        Found::Plain(used, passed) => Some((used, passed)),
        Found::Partial | Found::Special => None,
    }
}

/// Returns an answer as the client gets it, without interim ones. `None` if it isn't whole.
pub(crate) fn pass_answer(mut bytes: &[u8], is_head: bool) -> Option<Vec<u8>> {
    let client = For {
        is_head,
        closes: false,
        date: "Thu, 01 Jan 1970 00:00:00 GMT",
    };
    loop {
        let mut out = Vec::new();
        let mut head = answer::pass(bytes, client, &mut out).ok()??;
        bytes = &bytes[head.bytes..];
        match head.status {
            101 => return None,
            100..200 => continue,
            _ => {}
        }
        let (length, has_ended) = head.rest.follow(bytes, &mut None).ok()?;
        if let Rest::UntilClosed = head.rest {
            write_chunk(&mut out, bytes);
            out.extend_from_slice(b"0\r\n\r\n");
            return Some(out);
        }
        out.extend_from_slice(&bytes[..length]);
        return has_ended.then_some(out);
    }
}
