//! The origin: reads requests strictly, records them, and runs the script of each.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
};

use rustix::net::{AddressFamily, SocketType};

use super::{
    case::Step,
    client::PROBE_TARGET,
    exchange::{self, End, Exchange, Received, WATCHDOG},
    message::{Body, Framing, Head, find},
    wire::Action,
};

/// The answer to requests without a script.
const DEFAULT_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A port of its own for the origin of each case.
#[derive(Debug)]
pub(crate) enum Port {
    Listens(TcpListener),
    /// Bound, so that nobody else gets the port, but not listening.
    Refuses {
        address: SocketAddr,
        _socket: OwnedFd,
    },
}

/// A connection to the origin.
struct Connection<'a> {
    stream: TcpStream,
    scripts: &'a [Vec<Step>],
    exchange: &'a Exchange,
    /// Bytes that were read and don't belong to a request yet.
    bytes: Vec<u8>,
    end: Option<End>,
    /// Place of the present request among all, unless it is a probe.
    request: Option<usize>,
}

/// The connection must be closed.
struct Finished;

impl Port {
    pub(crate) fn new(refuses: bool) -> Self {
        if !refuses {
            return Self::Listens(TcpListener::bind("127.0.0.1:0").expect("ports are left"));
        }
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("descriptors are left");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        rustix::net::bind(&socket, &any).expect("ports are left");
        let address = rustix::net::getsockname(&socket).expect("bound");
        let address = address.try_into().expect("an internet address");
        Self::Refuses {
            address,
            _socket: socket,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Listens(listener) => listener.local_addr().expect("bound"),
            Self::Refuses { address, .. } => *address,
        }
    }
}

/// Ends an origin when dropped, even if the client panicked.
struct Over<'a>(&'a Port, &'a Exchange);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.1.change(|state| state.is_over = true);
        if let Port::Listens(_) = self.0 {
            // Wakes it.
            drop(TcpStream::connect(self.0.address()).expect("it listens"));
        }
    }
}

/// Serves connections with these scripts while something else happens.
pub(crate) fn during<T>(
    port: &Port,
    scripts: &[Vec<Step>],
    exchange: &Arc<Exchange>,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        if let Port::Listens(listener) = port {
            scope.spawn(|| serve(listener, scripts, exchange));
        }
        let _over = Over(port, exchange);
        work()
    })
}

fn serve(listener: &TcpListener, scripts: &[Vec<Step>], exchange: &Exchange) {
    thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept().expect("descriptors are left");
            if exchange.state().is_over {
                return;
            }
            stream.set_nodelay(true).expect("a socket");
            stream
                .set_write_timeout(Some(WATCHDOG))
                .expect("longer than nothing");
            exchange.change(|state| state.connections += 1);
            let connection = Connection {
                stream,
                scripts,
                exchange,
                bytes: Vec::new(),
                end: None,
                request: None,
            };
            scope.spawn(|| connection.serve());
        }
    });
}

impl Connection<'_> {
    fn serve(mut self) {
        loop {
            let head = match Head::read(&self.bytes) {
                Ok(Some((head, used))) => {
                    self.bytes.drain(..used);
                    head
                }
                Ok(None) if self.end.is_none() && self.more() => continue,
                Ok(None) => return,
                Err(mistake) => {
                    let text = format!("the origin got what is no request: {mistake}");
                    return self.exchange.trouble(text);
                }
            };
            if let Err(Finished) = self.answer(head) {
                return self.exchange.change(|state| {
                    if let Some(index) = self.request {
                        state.requests[index].is_whole.get_or_insert(false);
                    }
                });
            }
        }
    }

    fn answer(&mut self, head: Head) -> Result<(), Finished> {
        let framing = match head.framing() {
            Ok(framing) => framing.unwrap_or(Framing::Length(0)),
            Err(mistake) => {
                let text = format!("the origin got a request with {mistake}");
                self.exchange.trouble(text);
                return Err(Finished);
            }
        };
        let is_probe = find(&head.line, PROBE_TARGET).is_some();
        let received = Received {
            head,
            body: Body::default(),
            is_whole: None,
        };
        self.request = (!is_probe).then(|| {
            self.exchange.change(|state| {
                state.requests.push(received);
                state.requests.len() - 1
            })
        });
        let script = self.request.and_then(|index| self.scripts.get(index));
        let default = [Step::Send(DEFAULT_ANSWER.to_owned())];
        let script = script.map_or(&default[..], Vec::as_slice);
        let is_early = matches!(script.first(), Some(Step::Do(Action::Early)));
        let mut is_read = !is_early;
        if !is_early {
            self.read_body(framing)?;
        }
        for step in script {
            if let Step::Do(Action::ReadBody) = step {
                self.read_body(framing)?;
                is_read = true;
            } else {
                self.take(step)?;
            }
        }
        if is_read {
            Ok(())
        } else {
            self.read_body(framing)
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), Finished> {
        match step {
            // Fails if the subject has gone, which is then read.
            Step::Send(bytes) => drop((&self.stream).write_all(bytes)),
            Step::WaitFor(text) => {
                while find(&self.bytes, text).is_none() {
                    if !self.more() {
                        let text = text.escape_ascii();
                        let text = format!("the origin waited in vain for '{text}'");
                        self.exchange.trouble(text);
                        return Err(Finished);
                    }
                }
            }
            Step::WaitOther(text) => {
                let received = |state: &exchange::State| find(&state.client, text).map(|_| ());
                let what = || format!("the origin waited in vain for '{}'", text.escape_ascii());
                self.exchange.until(what, received).ok_or(Finished)?;
            }
            Step::Do(Action::WaitEnd) => while self.more() {},
            Step::Do(Action::HalfClose) => drop(self.stream.shutdown(Shutdown::Write)),
            Step::Do(Action::Close) => return Err(Finished),
            Step::Do(Action::Reset) => {
                exchange::reset_at_close(&self.stream);
                return Err(Finished);
            }
            Step::Do(Action::Early | Action::ReadBody) => {}
        }
        Ok(())
    }

    /// Reads the body of the present request, and records it.
    fn read_body(&mut self, framing: Framing) -> Result<(), Finished> {
        loop {
            let body = match Body::read(&self.bytes, framing) {
                Ok(body) => body,
                Err(mistake) => {
                    let text = format!("the origin got a body with {mistake}");
                    self.exchange.trouble(text);
                    return Err(Finished);
                }
            };
            let is_over = !body.is_whole && !self.more();
            if body.is_whole || is_over {
                self.bytes.drain(..body.used.min(self.bytes.len()));
                let is_whole = body.is_whole;
                self.exchange.change(|state| {
                    if let Some(index) = self.request {
                        state.requests[index].body = body;
                        state.requests[index].is_whole = Some(is_whole);
                    }
                });
                return if is_whole { Ok(()) } else { Err(Finished) };
            }
        }
    }

    /// Reads more bytes; returns whether there were any before the end.
    fn more(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        match exchange::read(&self.stream, || !self.exchange.state().is_over) {
            Some(Ok(bytes)) => {
                self.exchange.change(|state| state.origin.extend(&bytes));
                self.bytes.extend(bytes);
                true
            }
            Some(Err(end)) => {
                self.end = Some(end);
                false
            }
            None => false,
        }
    }
}
