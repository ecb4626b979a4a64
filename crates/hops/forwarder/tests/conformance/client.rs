//! The client: sends what the case says, and reads answers strictly.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    case::{Case, Expect, Message, Step},
    exchange::{self, End, Exchange, Received, State, WATCHDOG},
    message::{Body, Framing, Head, find},
    wire::{Action, Then},
};

/// The request that shows whether a connection is still open.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n";

/// Target of [`PROBE`].
pub(crate) const PROBE_TARGET: &[u8] = b"/probe";

/// The answers to a client, as far as they have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) list: Vec<Received>,
    /// Bytes behind the last of them.
    pub(crate) rest: Vec<u8>,
    /// Why the rest can't be read as an answer.
    pub(crate) mistake: Option<String>,
}

/// The client's side of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answers: Answers,
    /// Whether the connection ended before a probe was answered; unknown if nobody looked.
    pub(crate) has_ended: Option<bool>,
}

/// A connection whose answers a thread reads all the time, so that no writer waits for a reader.
struct Connection {
    stream: TcpStream,
    is_read: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

/// Runs the client's side of a case.
pub(crate) fn run(
    case: &Case,
    expect: &Expect,
    address: SocketAddr,
    exchange: &Arc<Exchange>,
) -> Outcome {
    let methods = methods(&case.client);
    let mut connection = Some(Connection::open(address, exchange));
    for step in &case.client {
        take(step, &mut connection, exchange);
    }
    let answers = |state: &State| Answers::read(&state.client, state.client_end, &methods);
    let required = expect.answers.iter().filter(|it| !it.is_optional);
    let required: Vec<_> = required.collect();
    let is_final = |it: &&&Message| it.statuses.iter().any(|status| is_final(*status));
    let wanted = required.iter().filter(is_final).count();
    if connection.is_none() {
        let answers = answers(&exchange.state());
        return Outcome {
            answers,
            has_ended: None,
        };
    }
    let come = |state: &State, count: usize, after: usize| {
        let answers = answers(state);
        let has_come = answers.finals() >= count
            && answers.list.len() >= required.len()
            && answers.rest.len() >= after;
        let is_over = state.client_end.is_some() || answers.mistake.is_some();
        (has_come || is_over).then_some(answers)
    };
    let after = expect.after.len();
    exchange.until(
        || format!("the client waited in vain for {wanted} answers"),
        |state| come(state, wanted, after),
    );
    let before = answers(&exchange.state());
    let mut has_ended = None;
    match expect.then {
        Then::Any => {}
        Then::Ends => {
            let ended = exchange.until(
                || "the client's connection doesn't end".to_owned(),
                |state| state.client_end,
            );
            has_ended = Some(ended.is_some());
        }
        Then::Open | Then::Closed => {
            // Fails if the connection has ended, which is then seen.
            let stream = connection.as_ref().map(|it| &it.stream);
            let _ = stream.expect("not closed").write_all(PROBE);
            let probed = exchange.until(
                || "a further request is not answered, and the connection stays open".to_owned(),
                |state| come(state, before.finals() + 1, 0),
            );
            has_ended = probed.map(|after| after.finals() <= before.finals());
        }
    }
    let answers = match expect.then {
        Then::Ends => answers(&exchange.state()),
        _ => before,
    };
    connection.into_iter().for_each(|it| drop(it.close()));
    Outcome { answers, has_ended }
}

fn take(step: &Step, connection: &mut Option<Connection>, exchange: &Exchange) {
    let Some(open) = connection else {
        return exchange.trouble("a step behind the client's end".to_owned());
    };
    match step {
        // A subject that refuses a request need not read it; its answer says what happened.
        Step::Send(bytes) => drop((&open.stream).write_all(bytes)),
        Step::WaitFor(text) => {
            exchange.until_received("client", text, |state| &state.client);
        }
        Step::WaitOther(text) => {
            exchange.until_received("client", text, |state| &state.origin);
        }
        // Fails if the connection has ended already.
        Step::Do(Action::HalfClose) => drop(open.stream.shutdown(Shutdown::Write)),
        Step::Do(Action::WaitEnd) => {
            exchange.until(
                || "the client's connection doesn't end".to_owned(),
                |state| state.client_end,
            );
        }
        Step::Do(Action::Close) => {
            connection
                .take()
                .into_iter()
                .for_each(|it| drop(it.close()));
        }
        Step::Do(Action::Reset) => {
            let open = connection.take().into_iter();
            open.for_each(|it| exchange::reset_at_close(&it.close()));
        }
        Step::Do(Action::Early | Action::ReadBody) => {
            exchange.trouble("a client has no requests to read".to_owned());
        }
    }
}

impl Connection {
    fn open(address: SocketAddr, exchange: &Arc<Exchange>) -> Self {
        let stream = TcpStream::connect(address).expect("the subject listens");
        stream.set_nodelay(true).expect("a socket");
        stream
            .set_write_timeout(Some(WATCHDOG))
            .expect("longer than nothing");
        let is_read = Arc::new(AtomicBool::new(true));
        let reader = {
            let (exchange, is_read) = (Arc::clone(exchange), Arc::clone(&is_read));
            let stream = stream.try_clone().expect("descriptors are left");
            thread::spawn(move || {
                while let Some(part) = exchange::read(&stream, || is_read.load(Ordering::Relaxed)) {
                    let is_end = part.is_err();
                    exchange.change(|state| match part {
                        Ok(bytes) => state.client.extend(bytes),
                        Err(end) => state.client_end = Some(end),
                    });
                    if is_end {
                        break;
                    }
                }
            })
        };
        Self {
            stream,
            is_read,
            reader,
        }
    }

    /// Stops reading, and returns the only handle that is left.
    fn close(self) -> TcpStream {
        self.is_read.store(false, Ordering::Relaxed);
        self.reader.join().expect("it only reads");
        self.stream
    }
}

impl Answers {
    /// Reads the answers to requests with these methods, as far as they have come.
    fn read(bytes: &[u8], end: Option<End>, methods: &[Vec<u8>]) -> Self {
        let mut answers = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let method = methods.get(answers.list.iter().filter(|it| it.is_final()).count());
            match answer(rest, end, method.map_or(b"GET", Vec::as_slice)) {
                Ok(Some((answer, used))) => {
                    let is_last = answer.is_whole != Some(true) || answer.is_switch();
                    answers.list.push(answer);
                    rest = &rest[used..];
                    if is_last {
                        break;
                    }
                }
                Ok(None) => break,
                Err(mistake) => {
                    answers.mistake = Some(mistake);
                    break;
                }
            }
        }
        answers.rest = rest.to_owned();
        answers
    }

    /// Counts the answers that are whole and no interim ones.
    fn finals(&self) -> usize {
        let whole = self.list.iter().filter(|it| it.is_whole == Some(true));
        whole.filter(|it| it.is_final()).count()
    }
}

impl Received {
    fn is_final(&self) -> bool {
        self.head.status().is_ok_and(is_final)
    }

    /// Whether no more HTTP follows on this connection.
    fn is_switch(&self) -> bool {
        self.head.status() == Ok(101)
    }
}

fn is_final(status: u16) -> bool {
    status >= 200 || status == 101
}

/// Reads an answer, and returns it with its length on the wire.
fn answer(
    bytes: &[u8],
    end: Option<End>,
    method: &[u8],
) -> Result<Option<(Received, usize)>, String> {
    let Some((head, used)) = Head::read(bytes)? else {
        return Ok(None);
    };
    let status = head.status()?;
    let framing = head.framing()?.unwrap_or(Framing::UntilEnd);
    let framing = if status < 200 || [204, 304].contains(&status) || method == b"HEAD" {
        Framing::Length(0)
    } else {
        framing
    };
    let body = Body::read(&bytes[used..], framing)?;
    let is_whole = match (body.is_whole, end) {
        (true, _) => Some(true),
        (false, None) => None,
        (false, Some(end)) => Some(framing == Framing::UntilEnd && end == End::Closed),
    };
    let used = used + body.used;
    let received = Received {
        head,
        body,
        is_whole,
    };
    Ok(Some((received, used)))
}

/// Finds the methods of all requests that a client sends.
fn methods(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut methods = Vec::new();
    for step in steps {
        let Step::Send(bytes) = step else { continue };
        for line in bytes.split(|byte| *byte == b'\n') {
            let is_request = find(line, b" HTTP/1.").is_some();
            let word = line.split(|byte| *byte == b' ').next();
            methods.extend(word.filter(|_| is_request).map(<[u8]>::to_owned));
        }
    }
    methods
}
