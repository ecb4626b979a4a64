//! The multiplexer's rules, without I/O: which tunnels there are, what may be sent on each, and
//! what the peer may send.
//!
//! [`Table`] knows the tunnels of a session by number. [`Flow`] knows one tunnel: its credit in
//! both directions, and how far each direction has come from open to ended. Neither holds payload,
//! locks, sockets or clocks; the session does (`session.rs`).
//!
//! The peer is another process of the same user, and may be of another build, or broken: whatever
//! it sends that these rules forbid is a [`FrameViolation`], which ends the session with a message.

use std::collections::HashMap;

/// The kind of a frame. The number is the `method_id` of its rapace descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The peer may send `value` more bytes on this tunnel.
    Credit = 1,
    /// Payload of `value` bytes.
    Data = 2,
    /// No more data in this direction.
    End = 3,
    /// A new tunnel. Only the host sends it.
    Open = 4,
    /// The connection behind this tunnel was reset: both directions are over, data may be lost.
    Reset = 5,
}

/// An end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The end that opens tunnels: the host.
    Opener,
    /// The end that accepts tunnels: the plugin.
    Acceptor,
}

/// A frame that the rules forbid. The session can't go on, since more may be wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameViolation {
    #[error("frame {found} arrived where frame {expected} was due: frames were lost or repeated")]
    Sequence { expected: u64, found: u64 },
    #[error("frame of unknown kind {0}")]
    Kind(u32),
    #[error("'{kind:?}' frame on tunnel {tunnel}, which was never opened")]
    NeverOpened { kind: Kind, tunnel: u32 },
    #[error("tunnel {0} opened twice or by the wrong side")]
    Open(u32),
    #[error("{sent} bytes on a tunnel with credit for {credit}")]
    Overrun { sent: u32, credit: u32 },
    #[error("credit beyond the window of {window} bytes")]
    CreditOverflow { window: u32 },
    #[error("data after the end of its direction")]
    DataAfterEnd,
    #[error("payload length {0} in a descriptor that can't hold it")]
    PayloadLength(u32),
    #[error("the peer sends but doesn't read: {0} frames wait for it")]
    Unread(usize),
}

/// The tunnels of one session, by number.
///
/// Numbers count up from 1 and wrap around, so that a frame which crossed with the end of its
/// tunnel is told from one on a tunnel that never was.
#[derive(Debug)]
pub(crate) struct Table<T> {
    role: Role,
    tunnels: HashMap<u32, T>,
    /// The number of the next tunnel to be opened, by either side.
    next: u32,
    closed: bool,
}

impl<T: Clone> Table<T> {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            tunnels: HashMap::new(),
            next: 1,
            closed: false,
        }
    }

    /// Opens a tunnel from this side; `make` gets its number. Returns `None` after [`Self::close`].
    pub(crate) fn open(&mut self, make: impl FnOnce(u32) -> T) -> Option<T> {
        debug_assert_eq!(self.role, Role::Opener, "only the host opens tunnels");
        if self.closed {
            return None;
        }
        // After 2³² tunnels a number may still be taken by a very old one.
        while self.tunnels.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        Some(self.insert(self.next, make))
    }

    /// Takes in a tunnel that the peer has opened.
    pub(crate) fn accept(
        &mut self,
        tunnel: u32,
        make: impl FnOnce(u32) -> T,
    ) -> Result<T, FrameViolation> {
        if self.role == Role::Opener || !self.is_ahead(tunnel) {
            return Err(FrameViolation::Open(tunnel));
        }
        Ok(self.insert(tunnel, make))
    }

    /// Returns the tunnel that a frame is about; `None` if it has ended on this side while the
    /// frame was on its way.
    pub(crate) fn find(&self, kind: Kind, tunnel: u32) -> Result<Option<T>, FrameViolation> {
        match self.tunnels.get(&tunnel) {
            Some(found) => Ok(Some(found.clone())),
            None if self.is_ahead(tunnel) => Err(FrameViolation::NeverOpened { kind, tunnel }),
            None => Ok(None),
        }
    }

    pub(crate) fn remove(&mut self, tunnel: u32) -> Option<T> {
        self.tunnels.remove(&tunnel)
    }

    /// Removes and returns all tunnels. No more are opened.
    pub(crate) fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.tunnels.drain().map(|(_, tunnel)| tunnel).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tunnels.len()
    }

    fn insert(&mut self, tunnel: u32, make: impl FnOnce(u32) -> T) -> T {
        let made = make(tunnel);
        self.tunnels.insert(tunnel, made.clone());
        self.next = tunnel.wrapping_add(1);
        made
    }

    /// Returns whether the number is still to come: it is less than half the number space ahead of
    /// the last one.
    fn is_ahead(&self, tunnel: u32) -> bool {
        tunnel.wrapping_sub(self.next) < 1 << 31
    }
}

/// How far one direction of a tunnel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    Ended,
}

/// How much may be sent on a tunnel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sendable {
    /// Up to that many bytes, at least one.
    Bytes(u32),
    /// Nothing until the peer gives credit.
    Blocked,
    /// Nothing ever: the tunnel was reset.
    Never,
    /// Nothing ever: the peer sends nothing more either, and what it had sent is still delivered.
    Over,
}

/// One tunnel's credit and progress.
///
/// Each side may have `window` bytes on their way to the other: sent, and not yet taken by the
/// socket or application at the far end. So a slow reader costs at most a window of memory, and
/// what arrives can always be stored: the reader of the transport never waits.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Bytes this side may still send.
    credit: u32,
    /// The peer's window: the most that `credit` can ever be.
    peer_window: u32,
    /// Bytes the peer may still send.
    receivable: u32,
    /// Bytes taken at this end for which the peer has not got its credit back yet.
    owed: u32,
    window: u32,
    sending: Direction,
    receiving: Direction,
    reset: bool,
    /// The peer has reset the tunnel, and what it had sent before is still delivered.
    delivering: bool,
    /// The session ended after everything had been received.
    over: bool,
}

impl Flow {
    /// Creates the flow of a fresh tunnel. This side has announced `window`, the peer
    /// `peer_window`.
    pub(crate) fn new(window: u32, peer_window: u32) -> Self {
        Self {
            credit: peer_window,
            peer_window,
            receivable: window,
            owed: 0,
            window,
            sending: Direction::Open,
            receiving: Direction::Open,
            reset: false,
            delivering: false,
            over: false,
        }
    }

    pub(crate) fn sendable(&self) -> Sendable {
        match self.credit {
            _ if self.reset && !self.delivering => Sendable::Never,
            _ if self.over || self.delivering => Sendable::Over,
            0 => Sendable::Blocked,
            credit => Sendable::Bytes(credit),
        }
    }

    /// Counts `bytes` as sent. They must have been sendable.
    pub(crate) fn send(&mut self, bytes: u32) {
        assert!(
            bytes <= self.credit,
            "sent {bytes} bytes with credit for {}",
            self.credit
        );
        assert_eq!(self.sending, Direction::Open, "sent after the end");
        self.credit -= bytes;
    }

    /// Ends this side's direction. Returns whether the peer must be told.
    pub(crate) fn send_end(&mut self) -> bool {
        !self.reset && std::mem::replace(&mut self.sending, Direction::Ended) == Direction::Open
    }

    /// Resets the tunnel. Returns whether the peer must be told.
    pub(crate) fn send_reset(&mut self) -> bool {
        let finished = self.is_finished();
        self.reset = true;
        self.delivering = false;
        !finished
    }

    /// Counts `bytes` as taken by the local socket or application. If enough has come together,
    /// returns the credit that the peer is to be given.
    pub(crate) fn take(&mut self, bytes: u32) -> Option<u32> {
        self.owed += bytes;
        debug_assert!(
            self.owed + self.receivable <= self.window,
            "took more than was received"
        );
        // Half a window: often enough that the peer rarely runs out of credit, and seldom enough
        // that the frames which carry credit cost little.
        let due = self.owed >= self.window.div_ceil(2);
        if !due || self.reset || self.receiving == Direction::Ended {
            return None;
        }
        self.receivable += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    /// Counts `bytes` of data that the peer has sent. `Ok(false)` means that the tunnel was reset
    /// and the data must be thrown away.
    pub(crate) fn receive(&mut self, bytes: u32) -> Result<bool, FrameViolation> {
        if self.receiving == Direction::Ended {
            return Err(FrameViolation::DataAfterEnd);
        }
        if bytes > self.receivable {
            return Err(FrameViolation::Overrun {
                sent: bytes,
                credit: self.receivable,
            });
        }
        self.receivable -= bytes;
        Ok(!self.reset)
    }

    pub(crate) fn receive_credit(&mut self, bytes: u32) -> Result<(), FrameViolation> {
        match self.credit.checked_add(bytes) {
            Some(credit) if credit <= self.peer_window => {
                self.credit = credit;
                Ok(())
            }
            _ => Err(FrameViolation::CreditOverflow {
                window: self.peer_window,
            }),
        }
    }

    pub(crate) fn receive_end(&mut self) -> Result<(), FrameViolation> {
        match std::mem::replace(&mut self.receiving, Direction::Ended) {
            Direction::Open => Ok(()),
            Direction::Ended => Err(FrameViolation::DataAfterEnd),
        }
    }

    /// Records that the peer has reset the tunnel. Returns whether that is news. If `deliver`, what
    /// it had sent before is still delivered.
    pub(crate) fn receive_reset(&mut self, deliver: bool) -> bool {
        let news = !std::mem::replace(&mut self.reset, true);
        self.delivering |= news && deliver;
        news
    }

    /// Records that the session has ended. Returns whether everything had been received: then the
    /// rest can be delivered, and the end is an orderly one. Otherwise the tunnel was cut off.
    pub(crate) fn receive_session_end(&mut self) -> bool {
        self.over = self.receiving == Direction::Ended;
        self.over
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.reset
    }

    /// Returns whether the tunnel was reset, and what had come before is still delivered.
    pub(crate) fn is_delivering(&self) -> bool {
        self.delivering
    }

    /// Returns whether nothing can happen on this tunnel any more.
    pub(crate) fn is_finished(&self) -> bool {
        let ended = self.sending == Direction::Ended && self.receiving == Direction::Ended;
        self.reset || ended
    }
}

impl TryFrom<u32> for Kind {
    type Error = FrameViolation;

    fn try_from(number: u32) -> Result<Self, FrameViolation> {
        let kinds = [Self::Credit, Self::Data, Self::End, Self::Open, Self::Reset];
        kinds
            .into_iter()
            .find(|kind| *kind as u32 == number)
            .ok_or(FrameViolation::Kind(number))
    }
}

#[cfg(test)]
mod tests;
