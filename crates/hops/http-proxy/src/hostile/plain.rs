//! Messages that are passed on without hyper must mean to hyper what they meant before.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client,
    header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Builder,
};

use crate::{
    fields::{self, Client, Forwarding},
    framing::{Framing, Part},
    plain::hostile::{pass_answer, pass_request},
};

/// The lines of a head, without the order of fields with different names, and the body.
type Message = (Vec<String>, Bytes);

/// Passes bytes on as a request, or as an answer if the first byte says so. Returns whether they
/// were one.
///
/// # Panics
/// If hyper reads what is passed on differently from what came.
pub fn attack_plain(input: &[u8]) -> bool {
    match input.split_first() {
        Some((b'>', bytes)) => attack_request(bytes),
        Some((b'<', bytes)) => attack_answer(bytes, false),
        Some((b'#', bytes)) => attack_answer(bytes, true),
        _ => false,
    }
}

fn attack_request(bytes: &[u8]) -> bool {
    let client = Client::new("10.0.0.1:5".parse().expect("an address"));
    let Some((used, passed)) = pass_request(bytes, &client, Forwarding::Pass) else {
        return false;
    };
    let mut framing = Framing::default();
    let followed = framing.follow(&bytes[..used]);
    assert_eq!(
        (followed, framing.part()),
        (Ok(()), Part::End),
        "the framing"
    );
    let came = requests(&bytes[..used]);
    assert_eq!(came.len(), 1, "hyper saw another number of requests");
    assert_eq!(
        came,
        requests(&passed),
        "hyper reads the request differently"
    );
    true
}

fn attack_answer(bytes: &[u8], is_head: bool) -> bool {
    let Some(passed) = pass_answer(bytes, is_head) else {
        return false;
    };
    let passed = answer(&passed, is_head).expect("hyper refuses what is passed on");
    if let Some(came) = answer(bytes, is_head) {
        assert_eq!(came, passed, "hyper reads the answer differently");
    }
    true
}

/// Lists the fields that a hop passes on.
fn lines(first: String, mut fields: hyper::HeaderMap) -> Vec<String> {
    fields::strip(&mut fields);
    fields.remove(DATE);
    let mut names: Vec<_> = fields.keys().cloned().collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    let mut lines = vec![first];
    for name in names {
        for value in fields.get_all(&name) {
            lines.push(format!("{name}: {}", value.as_bytes().escape_ascii()));
        }
    }
    lines
}

/// Runs what needs a runtime.
fn run<F: Future>(future: F) -> F::Output {
    let runtime = Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// Makes a pipe with room for the bytes and what hyper has to say about them.
fn pipe(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    duplex((8 * bytes.len()).max(1024))
}

/// Returns the whole requests that hyper reads from the bytes.
fn requests(bytes: &[u8]) -> Vec<Message> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let saw = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Rc::clone(&saw);
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let first = format!("{} {}", head.method, head.uri);
                let message = (lines(first, head.headers), body.to_bytes());
                seen.borrow_mut().push(message);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    run(async {
        let (mut client, server) = pipe(bytes);
        client.write_all(bytes).await.expect("it has room");
        client.shutdown().await.expect("it is open");
        let mut http = server::conn::http1::Builder::new();
        let http = http.half_close(true);
        // hyper may refuse anything.
        http.serve_connection(TokioIo::new(server), service)
            .await
            .ok();
    });
    seen.take()
}

/// Returns the whole answer that hyper reads from the bytes.
fn answer(bytes: &[u8], is_head: bool) -> Option<Message> {
    run(async {
        let (client, mut server) = pipe(bytes);
        let connecting = client::conn::http1::handshake(TokioIo::new(client));
        let (mut sender, connection) = connecting.await.ok()?;
        let mut request = Request::new(Empty::<Bytes>::new());
        if is_head {
            *request.method_mut() = Method::HEAD;
        }
        let asked = async {
            let (mut head, body) = sender.send_request(request).await.ok()?.into_parts();
            // What ends with the connection goes on in chunks. Beside them, no length counts.
            if head.headers.remove(TRANSFER_ENCODING).is_some() {
                head.headers.remove(CONTENT_LENGTH);
            }
            // One length is as good as two that are equal, and 204 has none (RFC 9110, 8.6).
            if head.status == StatusCode::NO_CONTENT {
                head.headers.remove(CONTENT_LENGTH);
            }
            let body = body.collect().await.ok()?.to_bytes();
            let mut lines = lines(head.status.to_string(), head.headers);
            lines.dedup_by(|next, line| next == line && line.starts_with("content-length"));
            Some((lines, body))
        };
        let answered = async {
            // hyper takes no answer before it has asked.
            server.read_u8().await.ok()?;
            server.write_all(bytes).await.ok()?;
            server.shutdown().await.ok()
        };
        let (message, _, _) = tokio::join!(asked, connection, answered);
        message
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_seeds_mean_the_same_before_and_after() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds/http_plain");
        let (mut passed, mut refused) = (0, 0);
        for file in fs::read_dir(root).expect("seeds") {
            let file = file.expect("readable").path();
            let name = file.file_name().expect("a name").to_string_lossy();
            let is_passed = attack_plain(&fs::read(&file).expect("readable"));
            assert_eq!(is_passed, name.starts_with("passed"), "{name}");
            passed += usize::from(is_passed);
            refused += usize::from(!is_passed);
        }
        assert!(passed > 10 && refused > 5, "{passed} {refused}");
    }
}
