//! Bytes on their way to the local connection.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes, BytesMut};

use super::{rapace::IncomingFrame, socket::Sink};
use crate::{copy, counters::Counters};

/// The bytes on their way to the local connection.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) sink: Sink,
    pub(super) backlog: VecDeque<Bytes>,
    /// Whether no more will arrive. The local connection is told once the backlog is empty.
    pub(super) ended: bool,
    /// Whether the local connection was told.
    told: bool,
}

/// Length below which a piece is appended to the one before. Each piece takes memory of its own,
/// and a window of single bytes would be very many pieces.
const SHORT_BYTES: usize = 512;
/// Longest piece that results from that.
const JOINED_BYTES_MAX: usize = 8192;

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            sink: Sink::Backlog,
            backlog: VecDeque::new(),
            ended: false,
            told: false,
        }
    }

    /// Keeps what is left of `frames` without the first `skip` bytes.
    pub(super) fn keep_rest(
        &mut self,
        frames: &mut Vec<IncomingFrame>,
        mut skip: usize,
        counters: &Counters,
    ) {
        for frame in frames.drain(..) {
            let taken = skip.min(frame.payload().len());
            skip -= taken;
            if taken < frame.payload().len() {
                let mut rest = frame.into_heap(counters);
                rest.advance(taken);
                self.keep(rest, counters);
            }
        }
    }

    /// Half-closes the local connection once, as soon as everything has been delivered to it.
    pub(super) fn tell_end(&mut self) {
        let is_due = self.ended && self.backlog.is_empty();
        if is_due && matches!(self.sink, Sink::Socket(_)) && !self.told {
            self.sink.shut_down();
            self.told = true;
        }
    }

    /// Stops writing to an upstream, which may still send something. Returns how many bytes are
    /// thrown away.
    pub(super) fn fail(&mut self, kind: io::ErrorKind) -> usize {
        self.sink = Sink::Failed(kind);
        self.backlog.drain(..).map(|piece| piece.len()).sum()
    }

    fn keep(&mut self, piece: Bytes, counters: &Counters) {
        let is_short = piece.len() < SHORT_BYTES;
        match self.backlog.pop_back() {
            Some(last) if is_short && last.len() + piece.len() <= JOINED_BYTES_MAX => {
                let mut last = last.try_into_mut().unwrap_or_else(BytesMut::from);
                last.reserve(piece.len());
                copy::append(counters, &mut last, &piece);
                self.backlog.push_back(last.freeze());
            }
            last => self.backlog.extend(last.into_iter().chain([piece])),
        }
    }

    pub(super) fn consume(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let first = self
                .backlog
                .front_mut()
                .expect("no more is consumed than there is");
            let taken = bytes.min(first.len());
            first.advance(taken);
            bytes -= taken;
            if first.is_empty() {
                self.backlog.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream, pin::pin, sync::Arc};

    use futures_util::poll;

    use super::*;
    use crate::framed::{Local, LocalSocket, Role, Session, SessionTerms};

    /// A client that sends a request before it knows of the end behind its last answer gets no
    /// answer. So an end takes the same way as data: on shm, the runtime's thread need not be
    /// woken.
    #[tokio::test]
    async fn whoever_receives_an_end_tells_the_socket_of_it() {
        let terms = SessionTerms {
            role: Role::Opener,
            frame_bytes: 1024,
            window_bytes: 1024,
            peer_window_bytes: 1024,
            tunnels_max: 1,
        };
        let (session, _opened) = Session::new(terms, Arc::default());
        let tunnel = session.open().expect("there is none yet");
        let (near, mut far) = UnixStream::pair().expect("sockets");
        for end in [&near, &far] {
            end.set_nonblocking(true).expect("a socket");
        }
        let near = LocalSocket::Unix(near).register().expect("a runtime");
        let client = Local::Client { idle_timeout: None };
        let mut relaying = pin!(tunnel.clone().relay(near, client));
        assert!(poll!(&mut relaying).is_pending());
        tunnel.on_end().expect("the first");
        // The tunnel's own task has not run since.
        assert_eq!(far.read(&mut [0; 1]).expect("an end"), 0);
    }

    #[test]
    fn many_short_pieces_are_kept_in_few() {
        let counters = Counters::default();
        let mut inbound = Inbound::new();
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (bytes, blocks) = sent.split_at(50_000);
        for byte in bytes {
            inbound.keep(Bytes::copy_from_slice(&[*byte]), &counters);
            // Now and then something is taken.
            if *byte == 3 {
                inbound.consume(1);
            }
        }
        let taken = bytes.iter().filter(|byte| **byte == 3).count();
        assert!(inbound.backlog.len() <= 50_000 / (JOINED_BYTES_MAX / 2) + 1);
        for block in blocks.chunks(SHORT_BYTES) {
            inbound.keep(Bytes::copy_from_slice(block), &counters);
        }
        let kept: Vec<u8> = inbound.backlog.iter().flatten().copied().collect();
        assert_eq!(kept, sent[taken..]);
    }
}
