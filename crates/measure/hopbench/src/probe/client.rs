//! A client that blocks, and knows when it sent and when it was answered.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A connection that is kept.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Time that an answer may take, however many pieces it comes in.
    at_most: Duration,
    deadline: Instant,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether the server closes the connection.
    pub(super) is_last: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReply {
    /// The connection was closed, or broke, before the answer was complete.
    #[error("the connection was closed before the answer: {0}")]
    Dropped(io::Error),
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// An answer that can't be read.
    #[error("an answer that can't be read: {0}")]
    Unreadable(&'static str),
}

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Connection {
    /// Connects; an answer may take this long.
    pub(super) fn open(server: SocketAddr, at_most: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, at_most)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(at_most))?;
        Ok(Self {
            stream,
            received: Vec::new(),
            at_most,
            deadline: Instant::now() + at_most,
        })
    }

    /// Sends bytes as they are. The time for an answer begins.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.deadline = Instant::now() + self.at_most;
        self.stream.write_all(bytes)
    }

    /// Closes both directions, as a connection that breaks.
    pub(super) fn break_off(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Sends a request and waits for its answer. `fields` are lines that end in CRLF.
    pub(super) fn get(&mut self, host: &str, target: &str, fields: &str) -> Result<Reply, NoReply> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        self.send(request.as_bytes()).map_err(NoReply::of)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply, NoReply> {
        let head_bytes = loop {
            if let Some(at) = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
            self.receive()?;
        };
        let head = String::from_utf8_lossy(&self.received[..head_bytes]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or(NoReply::Unreadable("no status"))?;
        let field = |name: &str| {
            let mut lines = head.lines().skip(1);
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let length = field("content-length:").and_then(|text| text.parse::<usize>().ok());
        let length = length.ok_or(NoReply::Unreadable("no length"))?;
        if length > ANSWER_BYTES_MAX {
            return Err(NoReply::Unreadable("too long"));
        }
        while self.received.len() < head_bytes + length {
            self.receive()?;
        }
        let mut answer: Vec<u8> = self.received.drain(..head_bytes + length).collect();
        Ok(Reply {
            status,
            body: answer.split_off(head_bytes),
            is_last: field("connection:").is_some_and(|value| value.contains("close")),
        })
    }

    fn receive(&mut self) -> Result<(), NoReply> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoReply::Late);
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(NoReply::of)?;
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(NoReply::Dropped(ErrorKind::UnexpectedEof.into())),
            Ok(count) if self.received.len() + count > 2 * ANSWER_BYTES_MAX => {
                Err(NoReply::Unreadable("too long"))
            }
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(NoReply::of(error)),
        }
    }

    /// Waits for a line.
    pub(super) fn line(&mut self) -> Result<String, NoReply> {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.receive()?;
        }
    }

    /// Returns the port of this end.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }
}

impl NoReply {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Late,
            _ => Self::Dropped(error),
        }
    }
}
