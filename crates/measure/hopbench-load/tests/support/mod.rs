//! A tiny HTTP server, for the tests and the examples.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// A correct answer.
#[allow(dead_code, reason = "not everyone's")]
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Serves each connection on its own thread until the process ends; returns the URL.
pub(crate) fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            client.set_nodelay(true).expect("TCP");
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(client));
        }
    });
    format!("http://{address}/")
}

/// Waits for a request, which must arrive in one piece; returns false if the connection ends.
pub(crate) fn request(client: &mut TcpStream) -> bool {
    let mut request = [0; 4096];
    matches!(client.read(&mut request), Ok(n) if n > 0)
}

/// Answers every request with `answer`.
#[allow(dead_code, reason = "not everyone's")]
pub(crate) fn answer(mut client: TcpStream, answer: &str) -> io::Result<()> {
    while request(&mut client) {
        client.write_all(answer.as_bytes())?;
    }
    Ok(())
}
