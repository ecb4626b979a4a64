//! A connection: a socket and its lane.

use std::{
    io::{self, ErrorKind},
    ops::BitOr,
    os::fd::AsFd,
    sync::Arc,
};

use mio::event::Event;
use rustix::net::sockopt::socket_incoming_cpu;
use service::Address;
use shm_ring::Violation;

use super::{Guard, Missed};
use crate::{
    local::{self, Idleness},
    ring::{
        lane::{Lane, Read, State, TURN_CALLS, Written},
        link::RelayError,
        socket::RelaySocket,
    },
};

pub(super) struct Connection {
    lane: Lane,
    socket: RelaySocket,
    _guard: Guard,
    /// Address of the upstream that the socket leads to; `None` for a client's socket. Answers come
    /// from an upstream's socket, and from a client's lane.
    upstream: Option<Arc<Address>>,
    /// Whether the socket is connected. An upstream may not have accepted yet.
    connected: bool,
    readable: bool,
    writable: bool,
    /// Whether the socket has ended or failed. What is left must then be read to its end.
    hung_up: bool,
    /// Whether urgent data is among what is to be read. It ends a read early.
    has_urgent: bool,
    /// Whether the socket's end was sent.
    read_ended: bool,
    /// Whether the lane's end was received.
    write_ended: bool,
    /// Result of the last write.
    written: Written,
    /// Reason why the upstream takes no more. What it has sent is still wanted.
    refusal: Option<ErrorKind>,
    /// How the connection is to end once all that was written has arrived.
    ending: Option<Progress>,
    /// Whether the last bytes went towards the upstream, so that an answer is due.
    awaits_answer: bool,
    /// Whether bytes went towards the upstream since `take_asked` was last called.
    has_asked: bool,
    has_moved: bool,
    /// Whether the client is on this machine; `None` if that has not mattered yet.
    is_client_here: Option<bool>,
    idleness: Idleness,
}

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Open,
    /// Both directions have ended in order.
    Done,
    /// The peer has reset the lane, or this side stops.
    Aborted,
    /// The socket has failed.
    Failed,
    /// The upstream has failed, or takes no more and has ended. What it had sent is in the lane.
    CutOff,
}

/// Events of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) hung_up: bool,
    pub(super) failed: bool,
    pub(super) has_urgent: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let hung_up = event.is_read_closed() || event.is_error();
        Self {
            readable: event.is_readable() || hung_up,
            writable: event.is_writable() || event.is_error(),
            hung_up,
            failed: event.is_error(),
            has_urgent: event.is_priority(),
        }
    }
}

impl BitOr for Readiness {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            readable: self.readable | other.readable,
            writable: self.writable | other.writable,
            hung_up: self.hung_up | other.hung_up,
            failed: self.failed | other.failed,
            has_urgent: self.has_urgent | other.has_urgent,
        }
    }
}

impl Connection {
    /// Joins a lane to an upstream's socket, which may not be connected yet, or to a client's.
    pub(super) fn new(
        lane: Lane,
        socket: RelaySocket,
        guard: Guard,
        upstream: Option<Arc<Address>>,
    ) -> Self {
        let is_upstream = upstream.is_some();
        Self {
            lane,
            socket,
            _guard: guard,
            upstream,
            connected: !is_upstream,
            readable: !is_upstream,
            writable: !is_upstream,
            hung_up: false,
            // If there is urgent data already, the first event says so.
            has_urgent: false,
            read_ended: false,
            write_ended: false,
            written: Written::All,
            refusal: None,
            ending: None,
            awaits_answer: false,
            has_asked: false,
            has_moved: true,
            is_client_here: None,
            idleness: Idleness::default(),
        }
    }

    /// Checks whether anything has moved since the last call. Returns whether the connection is
    /// idle.
    pub(super) fn look(&mut self) -> bool {
        self.idleness.look(std::mem::take(&mut self.has_moved))
    }

    /// Returns how many bytes were written to the socket since the last call.
    pub(super) fn take_written(&mut self) -> usize {
        self.lane.take_written()
    }

    /// Returns whether writing what the peer has sent takes long enough to be worth a helper.
    pub(super) fn has_bulk(&mut self) -> Result<bool, Violation> {
        Ok(self.writable && self.lane.has_bulk()?)
    }

    /// Returns the core on which the socket's last packet was handled, if the client is on this
    /// machine: then it is the client's core. A network card may handle the packets of all clients
    /// on one core, which must not write everything. `None` also if there was no packet, or the
    /// socket has none.
    pub(super) fn core(&mut self) -> Option<usize> {
        let socket = &self.socket;
        if !*self
            .is_client_here
            .get_or_insert_with(|| socket.is_on_this_machine())
        {
            return None;
        }
        let core = socket_incoming_cpu(self.socket.as_fd()).ok()?;
        // The kernel says -1 if there was none.
        (core != u32::MAX).then_some(core as usize)
    }

    pub(super) fn awaits_answer(&self) -> bool {
        self.awaits_answer && !self.read_ended && !self.write_ended
    }

    /// Returns whether bytes for which an answer is due have come since the last call.
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.has_asked)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Ends the connection. The lane must be kept until the peer is done with it.
    pub(super) fn end(self, progress: Progress) -> Lane {
        let mut lane = self.lane;
        match progress {
            Progress::Open | Progress::Done | Progress::CutOff => lane.finish(State::Closed),
            Progress::Aborted | Progress::Failed => {
                lane.finish(State::Reset);
                self.socket.reset();
            }
        }
        lane
    }

    /// Goes on after a mark of the peer's: it has sent something, made room, or ended.
    pub(super) fn on_peer(&mut self) -> Result<Progress, RelayError> {
        if self.lane.peer_state() == State::Reset {
            return Ok(Progress::Aborted);
        }
        self.pump()
    }

    /// Delivers what a peer that has gone had sent, as long as the socket takes it.
    pub(super) fn on_peer_gone(&mut self) -> Result<Progress, RelayError> {
        match self.pump()? {
            Progress::Open if self.write_ended => Ok(Progress::Done),
            // The socket takes no more for now, or other lanes come first.
            Progress::Open
                if self.connected && (self.written == Written::More || !self.writable) =>
            {
                Ok(Progress::Open)
            }
            Progress::Open if self.connected => Ok(self.end_when_arrived(Progress::Aborted)),
            Progress::Open => Ok(Progress::Aborted),
            progress => Ok(progress),
        }
    }

    pub(super) fn on_socket(&mut self, now: Readiness) -> Result<Progress, RelayError> {
        if !self.connected {
            match self.socket.is_connected() {
                Ok(false) => return Ok(Progress::Open),
                Ok(true) => self.connected = true,
                Err(error) => {
                    if let Some(address) = &self.upstream {
                        local::warn_unreachable(address, error);
                    }
                    return Ok(Progress::Failed);
                }
            }
        }
        self.readable |= now.readable;
        self.writable |= now.writable;
        self.hung_up |= now.hung_up;
        self.has_urgent |= now.has_urgent;
        match self.pump()? {
            // What a client had sent before its reset is void, and there may be no room for it.
            Progress::Open if now.failed && self.upstream.is_none() => Ok(Progress::Failed),
            progress => Ok(progress),
        }
    }

    /// Handles the events that came while a helper had the connection.
    pub(super) fn catch_up(&mut self, missed: Missed) -> Result<Progress, RelayError> {
        let progress = match missed.peer {
            true => self.on_peer()?,
            false => Progress::Open,
        };
        match (progress, missed.socket) {
            (Progress::Open, Some(readiness)) => self.on_socket(readiness),
            (progress, _) => Ok(progress),
        }
    }

    /// Returns whether the connection ends as soon as what was written has arrived.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Checks whether a connection that is ending has ended.
    pub(super) fn look_whether_arrived(&self) -> Progress {
        match self.ending {
            Some(ending) if self.socket.has_arrived() => ending,
            _ => Progress::Open,
        }
    }

    fn end_when_arrived(&mut self, ending: Progress) -> Progress {
        self.ending = Some(ending);
        self.look_whether_arrived()
    }

    fn pump(&mut self) -> Result<Progress, RelayError> {
        // The state is read first: whoever finds the peer done also finds all that it has sent
        // (E6).
        let peer_is_done = self.lane.peer_state() == State::Closed;
        match self.write() {
            Ok(()) => {}
            Err(RelayError::Io(error)) if self.upstream.is_some() => self.on_refusal(&error),
            Err(RelayError::Io(error)) => {
                tracing::debug!(%error, "connection failed");
                return Ok(Progress::Failed);
            }
            Err(violation) => return Err(violation),
        }
        match self.read() {
            Ok(()) => Ok(self.progress(peer_is_done)),
            Err(RelayError::Io(error)) => {
                tracing::debug!(%error, "connection failed");
                Ok(match self.upstream {
                    Some(_) => Progress::CutOff,
                    None => Progress::Failed,
                })
            }
            Err(violation) => Err(violation),
        }
    }

    /// Records that the upstream takes no more: it has reset the connection, or will read nothing.
    /// It may have answered before.
    fn on_refusal(&mut self, error: &io::Error) {
        tracing::debug!(%error, "the upstream accepts no more data");
        self.refusal = Some(error.kind());
        // What there is must be read to its end, since there may be no further event.
        (self.readable, self.hung_up) = (true, true);
    }

    fn progress(&mut self, peer_is_done: bool) -> Progress {
        if self.is_ending() {
            return self.look_whether_arrived();
        }
        match (self.read_ended, self.write_ended) {
            (true, true) => Progress::Done,
            // The end is in the lane, and nothing more will be written.
            (true, false) if self.refusal.is_some() => Progress::CutOff,
            // Nobody will read what this socket may still send.
            (false, true) if peer_is_done => self.end_when_arrived(Progress::Done),
            // All that the peer sent is written, and it has no end.
            (_, false) if peer_is_done && self.written == Written::All => {
                self.end_when_arrived(Progress::Aborted)
            }
            _ => Progress::Open,
        }
    }

    /// Moves bytes from the socket to the lane, as long as there are any and this lane's turn
    /// lasts.
    fn read(&mut self) -> Result<(), RelayError> {
        let mut calls = 0;
        while self.readable && !self.read_ended && self.ending.is_none() {
            if calls == TURN_CALLS {
                self.lane.look_again();
                return Ok(());
            }
            calls += 1;
            let read = self.lane.read_from(&self.socket)?;
            if matches!(read, Read::Some | Read::Cut | Read::Full) {
                self.awaits_answer = self.upstream.is_none();
                self.has_asked |= self.awaits_answer;
                self.has_moved = true;
            }
            match read {
                Read::NoRoom => return Ok(()),
                // Urgent data that comes later is an event of its own.
                Read::Nothing => (self.readable, self.has_urgent) = (false, false),
                Read::End => self.on_end()?,
                // The read has emptied the socket, so a further one would find nothing. There are
                // two exceptions: the stream has ended, which the next read finds, or urgent data
                // has ended this read early.
                Read::Some => self.readable = self.hung_up || self.has_urgent,
                Read::Cut | Read::Full => {}
            }
        }
        Ok(())
    }

    /// Handles the end of the socket's stream.
    fn on_end(&mut self) -> io::Result<()> {
        match self.refusal {
            // The kernel reports an error only once, and the failed write has got it.
            Some(kind) if kind != ErrorKind::BrokenPipe => Err(kind.into()),
            _ => {
                self.lane.send_end();
                self.read_ended = true;
                Ok(())
            }
        }
    }

    /// Moves bytes from the lane to the socket, as long as it takes them.
    fn write(&mut self) -> Result<(), RelayError> {
        if !self.writable || self.write_ended || self.refusal.is_some() {
            return Ok(());
        }
        let before = self.lane.written();
        let written = self.lane.write_to(self.socket.as_fd())?;
        if self.lane.written() != before {
            self.awaits_answer = self.upstream.is_some();
            self.has_asked |= self.awaits_answer;
            self.has_moved = true;
        }
        self.written = written;
        match written {
            Written::All | Written::More => {}
            Written::Blocked => self.writable = false,
            Written::End => {
                self.write_ended = true;
                self.socket.shut_down();
            }
        }
        Ok(())
    }
}
