//! handoff: the host passes the clients' sockets themselves to the plugin, and keeps nothing.
//!
//! ```text
//! host                                          plugin
//!   accept a client
//!   a byte with its socket, by SCM_RIGHTS  ──►  serve it, or relay it to an upstream
//!   ◄──  a byte when a connection has ended: 'e', or 'f' if it failed
//! ```
//!
//! With `--relay=host` it is the other way round, and the plugin keeps nothing:
//!
//! ```text
//!   accept a client
//!   a byte: 'w' for an upstream wanted  ──►     connect to an upstream
//!   ◄──  a byte with its socket; or without it, if it can't be reached
//!   relay
//!   a byte when a connection has ended  ──►
//! ```
//!
//! | file | what |
//! |---|---|
//! | `passing` | the host's end: passes clients, and hears of their ends |
//! | `taking` | the plugin's end: takes clients, and reports their ends |
//! | `client` | a client that was taken: how it is served, and how it ends |
//! | `stream` | its socket as a byte stream, for an application in this process |
//! | `relay` | its socket joined to an upstream's |
//! | `asking` | the host's end where the host relays: asks for upstreams |
//! | `lending` | the plugin's end where the host relays: passes upstreams |
//!
//! A client's connection is of its session. It counts within the host's limit until the plugin has
//! reported its end, and it is reset when the session ends. So the host's limit, its drain and its
//! end mean what they mean on the other transports.
//!
//! The kernel closes the sockets of a process that is killed in good order, which makes a cut-off
//! answer look complete. So the host makes each client's socket one that is reset when it is
//! closed, and the plugin takes that back when a connection has ended in good order.

mod asking;
mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod lending;
mod passing;
mod relay;
mod stream;
mod taking;

use std::{io, os::fd::AsFd, time::Duration};

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use service::limit::Permit;
use tokio::net::UnixStream;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(crate) use self::{
    asking::{Asker, ask_upstreams},
    client::{Client, End},
    lending::{Lender, lend_upstreams},
    passing::{Passer, pass_clients},
    taking::{Limits, take_clients},
};

/// The host's terms of a session.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Terms {
    /// Time without traffic after which the plugin resets a client. Only it sees the traffic.
    idle_timeout_ms: Option<u64>,
}

/// Longest idle time-out, in milliseconds: a week, as on the command line.
const IDLE_TIMEOUT_MS_MAX: u64 = 604_800_000;

/// Pause after a client could not be passed or taken for lack of descriptors. No event tells when
/// there are some again.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

/// Asks a plugin for an upstream.
const WANTED: u8 = b'w';

/// A client's place within the host's limit, which it has until its end, and the drain's knowledge
/// of it.
type Place = (Permit, TaskTrackerToken);

/// Reason why a session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoffError {
    #[error("the peer passed {0} descriptors at once, expected 1")]
    Count(usize),
    #[error("the peer passed a descriptor that is no connection, expected a socket")]
    NoConnection,
    #[error("the host has more than the {0} clients that it may")]
    TooMany(usize),
    #[error("the plugin passed an upstream that nobody asked for")]
    Unasked,
    #[error("the peer said {0:#04x}, expected 'e' or 'f' for the end of a connection")]
    Word(u8),
    #[error("the peer reported the end of more connections than it has")]
    TooManyEnds,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Terms {
    pub(crate) fn new(idle_timeout: Option<Duration>) -> Self {
        let ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self {
            idle_timeout_ms: idle_timeout.map(ms),
        }
    }

    /// Checks that the terms of a peer are within bounds.
    pub(crate) fn check(self) -> Result<(), String> {
        match self.idle_timeout_ms {
            Some(ms) if !(1..=IDLE_TIMEOUT_MS_MAX).contains(&ms) => Err(format!(
                "it asks for an idle time-out of {ms} ms, expected 1 to {IDLE_TIMEOUT_MS_MAX}"
            )),
            _ => Ok(()),
        }
    }

    fn idle_timeout(self) -> Option<Duration> {
        self.idle_timeout_ms.map(Duration::from_millis)
    }
}

/// Says whether a connection is reset when its socket is closed, in whatever way. On a Unix socket
/// this has no effect.
fn set_reset_on_close(socket: impl AsFd, is_reset: bool) {
    let linger = is_reset.then_some(Duration::ZERO);
    // Fails only on what is no socket.
    let _ = sockopt::set_socket_linger(socket, linger);
}

/// Returns whether the peer has left. It may have left behind what was on its way to it.
fn has_left(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Writes as many of the bytes as there is room for. Returns how many.
async fn write_some(socket: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return written,
        }
    }
}

/// Reads what the peer says. No bytes are its end.
async fn hear(socket: &UnixStream, words: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(words) {
            // It has left behind what was on its way to it.
            Err(error) if has_left(&error) => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            heard => return heard,
        }
    }
}
