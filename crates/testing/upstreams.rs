//! Upstreams for tests that answer as a test says, and what tests do with answers.
//!
//! Tests of several crates include this file as a module, beside `processes`.

// Each test file uses only part of this module.
#![allow(dead_code)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::processes::{self, WATCHDOG};

/// Writes a request after which the connection ends.
pub(crate) fn request(method: &str, target: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}");
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

/// Returns a value of what a program says at its admin address.
pub(crate) fn status_value(admin: &str, name: &str) -> u64 {
    let text = processes::get(admin, "/_admin/status").expect("it answers");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let value = status[name]
        .as_u64()
        .or_else(|| status["counters"][name].as_u64());
    value.unwrap_or_else(|| panic!("no '{name}' in {status}"))
}

/// Sends a request and reads all that comes.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("set");
    stream.write_all(request).expect("sent");
    let mut answer = Vec::new();
    // A reset shows as an answer that is cut off.
    stream.read_to_end(&mut answer).ok();
    answer
}

/// An upstream, and how many requests it got.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// Starts an upstream. `answer` writes the answer to a request, of which it gets the number and the
/// head, and says whether the connection goes on.
pub(crate) fn upstream(
    answer: impl Fn(usize, &str, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = Arc::clone(&requests);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (requests, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            thread::spawn(move || serve(client, &requests, &*answer));
        }
    });
    Upstream { address, requests }
}

/// Starts an upstream that gives the same answer to every request.
pub(crate) fn answers(text: impl Into<Vec<u8>>) -> Upstream {
    let text = text.into();
    upstream(move |_, _, client| client.write_all(&text).is_ok())
}

fn serve(
    mut client: TcpStream,
    requests: &AtomicUsize,
    answer: &dyn Fn(usize, &str, &mut TcpStream) -> bool,
) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let head = loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some(at) = text.find("\r\n\r\n") {
                let length = field(&text[..at], "content-length").parse().unwrap_or(0);
                if read.len() >= at + 4 + length {
                    read.drain(..at + 4 + length);
                    break text[..at].to_owned();
                }
            }
            match client.read(&mut buffer) {
                Ok(length @ 1..) => read.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        };
        let number = requests.fetch_add(1, SeqCst);
        if !answer(number, &head, &mut client) {
            return;
        }
    }
}

/// Returns the value of a field; empty if there is none.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map_or("", |(_, it)| it.trim())
}

/// Splits an answer into its head and its body.
pub(crate) fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(answer)));
    (
        String::from_utf8_lossy(&answer[..at]).into_owned(),
        answer[at + 4..].to_vec(),
    )
}

/// Returns the status of an answer.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let (head, _) = split(answer);
    head.get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{head}"))
}
