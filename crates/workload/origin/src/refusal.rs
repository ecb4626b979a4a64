//! Refused requests, whose uploads are read all the same.
//!
//! If a server answers and closes with data unread, the kernel resets the connection, and the
//! answer may be lost with it. A client that writes its whole request before it reads then finds a
//! broken connection instead.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{StatusCode, header},
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

/// Most bytes that are read of a refused upload. An upload that is known to be longer is not read
/// at all.
const READ_BYTES_MAX: u64 = 16 << 20;

/// Longest time that reading a refused upload may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn not_found(request: Request) -> StatusCode {
    finish_upload(request).await;
    StatusCode::NOT_FOUND
}

pub(crate) async fn method_not_allowed(request: Request) -> StatusCode {
    finish_upload(request).await;
    StatusCode::METHOD_NOT_ALLOWED
}

/// Reads the upload, within bounds.
async fn finish_upload(request: Request) {
    let (head, body) = request.into_parts();
    // A client that expects '100 Continue' sends nothing before it is told to.
    let waits = head.headers.contains_key(header::EXPECT);
    if waits || body.size_hint().lower() > READ_BYTES_MAX {
        return;
    }
    // An upload that is late or cut off changes nothing: the request is refused anyway.
    let _ = timeout(READ_TIMEOUT, read(body)).await;
}

async fn read(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut bytes = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        bytes += piece.len() as u64;
        if bytes > READ_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use crate::wire::{connect, head};

    #[tokio::test]
    async fn a_refused_upload_is_read_and_the_connection_goes_on() {
        const UPLOAD_BYTES: usize = 4 << 20;
        let mut client = connect().await;
        for (path, status) in [("/nowhere", "404"), ("/small", "405")] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD_BYTES}\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.expect("written");
            let upload = vec![0; UPLOAD_BYTES];
            client.write_all(&upload).await.expect("all is read");
            let head = head(&mut client).await;
            assert!(head[0].contains(status), "{head:?}");
            assert!(head.contains(&"content-length: 0".to_owned()), "{head:?}");
            let names_methods = head.contains(&"allow: get,head".to_owned());
            assert_eq!(names_methods, status == "405", "{head:?}");
        }
    }

    #[tokio::test]
    async fn an_upload_is_not_waited_for_where_it_is_too_long_or_waits_itself() {
        let announced = super::READ_BYTES_MAX + 1;
        for headers in [
            format!("content-length: {announced}"),
            "content-length: 5\r\nexpect: 100-continue".to_owned(),
        ] {
            let mut client = connect().await;
            let request = format!("POST /nowhere HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("written");
            let head = head(&mut client).await;
            assert!(head[0].contains("404"), "{head:?}");
            // The server closed without waiting for an upload that will not come.
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("an end");
            assert!(rest.is_empty());
        }
    }
}
