//! Small servers in this process: upstreams whose answers say which of them answered.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::process::wait_until;

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Connections that are open, by their numbers.
    open: Mutex<HashMap<u64, TcpStream>>,
}

/// Most connections at a time. Each has a thread.
const CONNECTIONS_MAX: usize = 2_048;

/// Pause after a connection that could not be accepted: too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

impl Server {
    /// Serves each connection on a thread of its own by `serve`, which returns when it is closed.
    pub(super) fn start(
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener, &serve));
        Ok(Self { address, shared })
    }

    /// Serves HTTP: every request is answered with this body.
    pub(super) fn answering(body: &str) -> io::Result<Self> {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        Self::start(move |stream| answer_all(stream, &answer))
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Shared {
    fn accept(
        self: Arc<Self>,
        listener: &TcpListener,
        serve: &(impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static),
    ) {
        for (number, stream) in (0..).zip(listener.incoming()) {
            if self.is_over.load(Relaxed) {
                return;
            }
            let both = stream.and_then(|stream| Ok((stream.try_clone()?, stream)));
            let Ok((kept, stream)) = both else {
                wait_until(Instant::now() + ACCEPT_PAUSE);
                continue;
            };
            if self.open().len() >= CONNECTIONS_MAX {
                continue;
            }
            self.open().insert(number, kept);
            let (serve, shared) = (serve.clone(), Arc::clone(&self));
            thread::spawn(move || {
                // A client that breaks off is no fault.
                let _ = serve(stream);
                shared.open().remove(&number);
            });
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for stream in self.shared.open().values() {
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // Wakes the thread that accepts; it is gone if this fails.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer_all(mut stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        while let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            received.drain(..at + 4);
            stream.write_all(answer.as_bytes())?;
        }
        let count = stream.read(&mut piece)?;
        if count == 0 || received.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
        received.extend_from_slice(&piece[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::client::Connection, *};

    #[test]
    fn a_server_takes_any_number_of_connections_one_after_another() {
        let server = Server::answering("here").expect("a port");
        for _ in 0..2 * CONNECTIONS_MAX {
            let mut client = Connection::open(server.address, Duration::from_secs(60));
            let reply = client.as_mut().expect("open").get("a", "/", "");
            assert_eq!(reply.expect("an answer").body, b"here");
        }
    }
}
