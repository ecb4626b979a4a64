//! Small servers in this process: upstreams whose answers say which of them answered.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// Most connections at a time. Each has a thread.
const CONNECTIONS_MAX: usize = 1_024;

impl Server {
    /// Serves each connection on a thread of its own by `serve`, which returns when it is closed.
    pub(super) fn start(
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_over.load(Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Ok(kept) = stream.try_clone() else {
                    continue;
                };
                let mut open = accepting
                    .open
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if open.len() < CONNECTIONS_MAX {
                    open.push(kept);
                    let serve = serve.clone();
                    // A client that breaks off is no fault.
                    thread::spawn(move || serve(stream));
                }
            }
        });
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

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        let open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for stream in open.iter() {
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
        if count == 0 || received.len() > 64 * 1024 {
            return Ok(());
        }
        received.extend_from_slice(&piece[..count]);
    }
}
