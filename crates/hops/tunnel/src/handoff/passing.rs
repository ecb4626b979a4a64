//! The host's end: passes clients, and hears of their ends.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{io::Errno, net::Shutdown};
use service::process;
use tokio::{net::UnixStream, sync::watch};

use super::{FAILED_PAUSE, HandoffError, Place, client::End, hear, set_reset_on_close};
use crate::{
    counters::Counters,
    framed::LocalSocket,
    rendezvous::descriptors::{send_descriptors, send_once},
};

/// A session in which clients can be passed to a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Passer {
    socket: Arc<UnixStream>,
    places: Arc<Places>,
    counters: Arc<Counters>,
}

/// The places of the clients that the plugin has. Which of them belongs to whom doesn't matter.
#[derive(Debug)]
struct Places {
    /// `None` once the session is over.
    taken: Mutex<Option<Vec<Place>>>,
    counters: Arc<Counters>,
}

/// Number of reports that are read at once.
const REPORTS: usize = 256;

/// Lets clients be passed over `socket` until the plugin leaves (`Ok`), breaks the protocol, or
/// `stopped` says so. Gives `started` what passes them.
pub(crate) async fn pass_clients(
    socket: UnixStream,
    counters: &Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
    started: impl FnOnce(Passer),
) -> Result<(), HandoffError> {
    let passer = Passer {
        socket: Arc::new(socket),
        places: Arc::new(Places {
            taken: Mutex::new(Some(Vec::new())),
            counters: counters.clone(),
        }),
        counters: counters.clone(),
    };
    let _ending = EndOnDrop(passer.clone());
    started(passer.clone());
    tokio::select! {
        ended = passer.hear_ends() => ended,
        // An error means that the sender is gone, so nobody will say so.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => Ok(()),
    }
}

/// Ends the session for whoever is about to pass a client, and for the plugin.
struct EndOnDrop(Passer);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.places.end();
        // Somebody who waits to pass a client still has the socket.
        let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
    }
}

impl Passer {
    /// Passes a client to the plugin and closes it here. Waits while there is no room for it. If
    /// it can't be passed, it is reset.
    pub(crate) async fn pass(&self, client: LocalSocket, place: Place) {
        // Whoever closes it, and be it the kernel.
        set_reset_on_close(client.as_fd(), true);
        // Taken first: its end may be reported before this goes on.
        let Some(place) = self.places.take(place) else {
            self.counters.clients_refused.add(1);
            return;
        };
        match send(&self.socket, Some(client.as_fd()), &self.counters).await {
            Ok(()) => {
                place.keep();
                self.counters.tunnels_opened.add(1);
                self.counters.frames_sent.add(1);
                self.counters.doorbells_sent.add(1);
            }
            Err(error) => {
                self.counters.clients_refused.add(1);
                let cause = process::with_remedy(&error.into());
                tracing::warn!("could not pass a client to the plugin: {cause}");
            }
        }
    }

    /// Hears which connections have ended, until the plugin leaves.
    async fn hear_ends(&self) -> Result<(), HandoffError> {
        let mut reports = [0; REPORTS];
        loop {
            let count = hear(&self.socket, &mut reports).await?;
            if count == 0 {
                return Ok(());
            }
            self.counters.wake_ups.add(1);
            self.counters.frames_received.add(count);
            for report in &reports[..count] {
                let end = End::of_report(*report).ok_or(HandoffError::Word(*report))?;
                if !self.places.leave() {
                    return Err(HandoffError::TooManyEnds);
                }
                if end == End::Failed {
                    self.counters.tunnels_failed.add(1);
                }
            }
        }
    }
}

/// Passes a socket, or word that there is none. Waits while there is no room for it.
pub(super) async fn send(
    to: &UnixStream,
    passed: Option<BorrowedFd<'_>>,
    counters: &Counters,
) -> io::Result<()> {
    let descriptors = passed.as_slice();
    match send_once(to, descriptors) {
        Err(error) if is_full(&error) => counters.ring_full_stalls.add(1),
        sent => return sent,
    }
    let mut has_warned = false;
    loop {
        match send_descriptors(to, descriptors).await {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut has_warned, true) {
                    let cause = process::with_remedy(&error.into());
                    tracing::warn!("the peer has yet to take earlier sockets: {cause}");
                }
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            sent => return sent,
        }
    }
}

/// Returns whether a socket can't be passed because too many are on their way. Whether there is
/// room for bytes, an event tells.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}

/// A place that is given back when this is dropped, unless the plugin has its client.
struct Taken<'a>(&'a Places);

impl Taken<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Place>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, or returns `None` if the session is over.
    fn take(&self, place: Place) -> Option<Taken<'_>> {
        self.lock().as_mut()?.push(place);
        self.counters.tunnels_open.add(1);
        Some(Taken(self))
    }

    /// Gives a place back. Returns whether one was taken.
    fn leave(&self) -> bool {
        let place = self.lock().as_mut().and_then(Vec::pop);
        if place.is_some() {
            self.counters.tunnels_open.subtract(1);
        }
        place.is_some()
    }

    /// Gives all places back: the connections end with their session.
    fn end(&self) {
        let count = self.lock().take().map_or(0, |places| places.len());
        self.counters.tunnels_open.subtract(count);
        self.counters.tunnels_failed.add(count);
    }
}
