//! The state that client and origin of a case share, and waiting for it to change.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::{
    bytes::shown,
    message::{Body, Head, find},
};

/// Time limit of every wait, far longer than any time limit of a subject: a watchdog, not an
/// assertion.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

/// Interval at which a reader looks whether the case is over.
const LOOK: Duration = Duration::from_millis(20);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

/// A message that has been read.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: Head,
    pub(crate) body: Body,
    /// Whether it is whole; unknown while more may come.
    pub(crate) is_whole: Option<bool>,
}

/// Everything that happened on both sides so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Bytes that the client received.
    pub(crate) client: Vec<u8>,
    pub(crate) client_end: Option<End>,
    /// Bytes that the origin received, on all connections.
    pub(crate) origin: Vec<u8>,
    pub(crate) requests: Vec<Received>,
    pub(crate) connections: usize,
    /// Failures of the exchange itself, such as a wait in vain.
    pub(crate) troubles: Vec<String>,
    pub(crate) is_over: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
}

impl Exchange {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits for a state. In vain is a trouble of the case, unless the case is over.
    pub(crate) fn until<T>(
        &self,
        what: impl FnOnce() -> String,
        mut reached: impl FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + WATCHDOG;
        let mut state = self.state();
        loop {
            if let Some(value) = reached(&state) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.is_over {
                return None;
            }
            if left.is_zero() {
                state.troubles.push(what());
                return None;
            }
            state = self.changed.wait_timeout(state, left).expect("fine").0;
        }
    }

    /// Waits until one of the sides has received a text.
    pub(crate) fn until_received(
        &self,
        side: &str,
        text: &[u8],
        received: impl Fn(&State) -> &[u8],
    ) -> bool {
        let what = || format!("the {side} waited in vain for '{}'", shown(text));
        let waited = self.until(what, |state| find(received(state), text).map(|_| ()));
        waited.is_some()
    }

    pub(crate) fn trouble(&self, text: String) {
        self.change(|state| state.troubles.push(text));
    }
}

/// Reads once, and waits for that as long as `goes_on` says so.
pub(crate) fn read(
    stream: &TcpStream,
    mut goes_on: impl FnMut() -> bool,
) -> Option<Result<Vec<u8>, End>> {
    let mut buffer = vec![0; 64 << 10];
    stream
        .set_read_timeout(Some(LOOK))
        .expect("longer than nothing");
    while goes_on() {
        match (&mut &*stream).read(&mut buffer) {
            Ok(0) => return Some(Err(End::Closed)),
            Ok(length) => {
                buffer.truncate(length);
                return Some(Ok(buffer));
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Some(Err(End::Reset)),
            },
        }
    }
    None
}

/// Makes the close of a connection a reset.
pub(crate) fn reset_at_close(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket");
}
