//! A socket and its lane.

use std::{ops::BitOr, os::fd::AsFd, sync::Arc};

use mio::event::Event;
use origin::server::Address;
use rustix::net::sockopt::socket_incoming_cpu;
use shm_ring::Violation;

use super::Guard;
use crate::{
    local::{self, Idleness},
    ring::{
        lane::{Lane, Read, State, TURN_CALLS, Written},
        link::LinkError,
        socket::RelaySocket,
    },
};

pub(super) struct Connection {
    lane: Lane,
    socket: RelaySocket,
    _guard: Guard,
    /// Answers come from the socket, and not from the lane; where it leads.
    upstream: Option<Arc<Address>>,
    /// An upstream may not have accepted yet.
    connected: bool,
    readable: bool,
    writable: bool,
    /// The socket has ended or failed: what is left must be read to its end.
    hung_up: bool,
    /// The socket's end was sent.
    read_ended: bool,
    /// The lane's end was received.
    write_ended: bool,
    /// The lane had more to write when its turn was over.
    has_more: bool,
    /// The last bytes went to the upstream: an answer is due.
    awaits_answer: bool,
    has_moved: bool,
    idleness: Idleness,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    /// Both directions have ended in order.
    Done,
    /// The peer has reset the lane, or this side stops.
    Aborted,
    /// The socket has failed.
    Failed,
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readiness {
    readable: bool,
    writable: bool,
    hung_up: bool,
    failed: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let hung_up = event.is_read_closed() || event.is_error();
        Self {
            readable: event.is_readable() || hung_up,
            writable: event.is_writable() || event.is_error(),
            hung_up,
            failed: event.is_error(),
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
        }
    }
}

impl Connection {
    /// Of an upstream's socket, which may not be connected yet, or of a client's.
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
            read_ended: false,
            write_ended: false,
            has_more: false,
            awaits_answer: false,
            has_moved: true,
            idleness: Idleness::default(),
        }
    }

    /// Looks whether anything has moved since the last time; whether it is idle.
    pub(super) fn look(&mut self) -> bool {
        self.idleness.look(std::mem::take(&mut self.has_moved))
    }

    /// Bytes written to the socket since the last call.
    pub(super) fn take_written(&mut self) -> usize {
        self.lane.take_written()
    }

    /// Whether writing what the peer has sent takes long enough to be worth another thread.
    pub(super) fn has_bulk(&mut self) -> Result<bool, Violation> {
        Ok(self.writable && self.lane.has_bulk()?)
    }

    /// Where the socket's last packet was handled: on loopback, its sender's core; else that of the
    /// network card's queue. `None` if there was none, or it is no socket for packets.
    pub(super) fn core(&self) -> Option<usize> {
        let core = socket_incoming_cpu(self.socket.as_fd()).ok()?;
        // The kernel's -1: there was none.
        (core != u32::MAX).then_some(core as usize)
    }

    pub(super) fn awaits_answer(&self) -> bool {
        self.awaits_answer && !self.read_ended && !self.write_ended
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Ends it; the lane must be kept until the peer is done with it.
    pub(super) fn end(self, progress: Progress) -> Lane {
        let mut lane = self.lane;
        match progress {
            Progress::Goes | Progress::Done => lane.finish(State::Closed),
            Progress::Aborted | Progress::Failed => {
                lane.finish(State::Reset);
                self.socket.reset();
            }
        }
        lane
    }

    /// The peer has sent something, made room, or gone.
    pub(super) fn on_peer(&mut self) -> Result<Progress, LinkError> {
        if self.lane.peer_state() == State::Reset {
            return Ok(Progress::Aborted);
        }
        self.pump()
    }

    /// The peer is gone: what it has sent is delivered, as long as the socket takes it.
    pub(super) fn on_peer_gone(&mut self) -> Result<Progress, LinkError> {
        match self.pump()? {
            Progress::Goes if self.write_ended => Ok(Progress::Done),
            // It takes no more for now, or others come first.
            Progress::Goes if self.connected && (self.has_more || !self.writable) => {
                Ok(Progress::Goes)
            }
            Progress::Goes => Ok(Progress::Aborted),
            progress => Ok(progress),
        }
    }

    pub(super) fn on_socket(&mut self, now: Readiness) -> Result<Progress, LinkError> {
        if !self.connected {
            match self.socket.is_connected() {
                Ok(false) => return Ok(Progress::Goes),
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
        match self.pump()? {
            // What a client had sent before its reset is void, and there may be no room for it.
            Progress::Goes if now.failed && self.upstream.is_none() => Ok(Progress::Failed),
            progress => Ok(progress),
        }
    }

    fn pump(&mut self) -> Result<Progress, LinkError> {
        for step in [Self::write, Self::read] {
            match step(self) {
                Ok(()) => {}
                Err(LinkError::Io(error)) => {
                    tracing::debug!(%error, "connection failed");
                    return Ok(Progress::Failed);
                }
                Err(violation) => return Err(violation),
            }
        }
        if self.read_ended && self.write_ended {
            Ok(Progress::Done)
        } else {
            Ok(Progress::Goes)
        }
    }

    /// From the socket to the lane, as long as there is something and this lane's turn lasts.
    fn read(&mut self) -> Result<(), LinkError> {
        let mut calls = 0;
        while self.readable && !self.read_ended {
            if calls == TURN_CALLS {
                self.lane.look_again();
                return Ok(());
            }
            calls += 1;
            let read = self.lane.read_from(self.socket.as_fd())?;
            if matches!(read, Read::Some | Read::Full) {
                self.awaits_answer = self.upstream.is_none();
                self.has_moved = true;
            }
            match read {
                Read::NoRoom => return Ok(()),
                Read::Nothing => self.readable = false,
                Read::End => {
                    self.lane.send_end();
                    self.read_ended = true;
                }
                // There is no more, unless it has ended: that would be the next thing to read.
                Read::Some => self.readable = self.hung_up,
                Read::Full => {}
            }
        }
        Ok(())
    }

    /// From the lane to the socket, as long as it takes it.
    fn write(&mut self) -> Result<(), LinkError> {
        if !self.writable || self.write_ended {
            return Ok(());
        }
        let before = self.lane.written();
        let written = self.lane.write_to(self.socket.as_fd())?;
        if self.lane.written() != before {
            self.awaits_answer = self.upstream.is_some();
            self.has_moved = true;
        }
        self.has_more = written == Written::More;
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
