//! Requests as a hostile client sends them.
//!
//! hyper and [`Framing`] read the same bytes. If they disagreed on where a request ends, the checks
//! would look at the wrong bytes. The same holds for the requests and answers that are passed on
//! without hyper.

mod plain;

use std::{cell::Cell, convert::Infallible, rc::Rc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, HeaderValue, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, duplex};

pub use self::plain::attack_plain;
use crate::framing::{Framing, Part};

/// Sends bytes to both, in pieces whose length is the first byte. Returns the number of whole
/// requests that hyper saw.
///
/// # Panics
/// If hyper saw a whole request that [`Framing`] did not see, or that it calls ambiguous; or if
/// pieces make a difference.
pub fn attack_framing(input: &[u8]) -> usize {
    let Some((&piece, bytes)) = input.split_first() else {
        return 0;
    };
    let piece = usize::from(piece).max(1);
    let (whole, fault) = follow(bytes, 1);
    let in_pieces = follow(bytes, piece);
    assert_eq!(in_pieces.1, fault, "pieces of {piece} make a difference");
    // A fault is overwritten with what no parser takes, as the guard does it.
    let mut seen = bytes.to_vec();
    if let Some(at) = fault {
        seen[at..].fill(0);
    }
    let served = served(&seen);
    assert!(
        served <= whole,
        "hyper saw {served} requests, and the framing {whole}"
    );
    served
}

/// Follows the bytes; returns the number of requests that ended, if known, and the fault.
fn follow(bytes: &[u8], piece: usize) -> (usize, Option<usize>) {
    let mut framing = Framing::default();
    let (mut ended, mut part) = (0, Part::End);
    for (number, bytes) in bytes.chunks(piece).enumerate() {
        if let Err(at) = framing.follow(bytes) {
            return (ended, Some(number * piece + at));
        }
        let now = framing.part();
        if now == Part::End && part != Part::End {
            ended += 1;
        }
        part = now;
    }
    // After an upgrade, or a length that hyper refuses, nothing is known: one more may have ended.
    (ended + usize::from(framing.is_unknown()), None)
}

/// Returns the number of requests, with their bodies, that hyper reads from the bytes.
fn served(bytes: &[u8]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let service = service_fn(move |request: Request<Incoming>| {
        let count = Rc::clone(&counted);
        async move {
            let is_upgrade = request.headers().contains_key(UPGRADE);
            let mut response = Response::new(Empty::<Bytes>::new());
            if request.into_body().collect().await.is_ok() {
                count.set(count.get() + 1);
            }
            if is_upgrade {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    runtime.block_on(async {
        // Answers find room, too: each is shorter than the shortest request.
        let (mut client, server) = duplex((8 * bytes.len()).max(1024));
        client.write_all(bytes).await.expect("it has room");
        client.shutdown().await.expect("it is open");
        let connection = http1::Builder::new()
            .half_close(true)
            .max_buf_size(32 * 1024)
            .serve_connection(TokioIo::new(server), service);
        // hyper may refuse anything.
        connection.await.ok();
    });
    count.get()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_seeds_are_read_alike() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds/http_framing");
        let mut served = 0;
        for file in fs::read_dir(root).expect("seeds") {
            let file = file.expect("readable").path();
            let requests = attack_framing(&fs::read(&file).expect("readable"));
            let name = file
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let expected = name
                .split('-')
                .next()
                .and_then(|number| number.parse().ok());
            assert_eq!(Some(requests), expected, "{name}");
            served += requests;
        }
        assert!(served > 8, "{served}");
    }
}
