//! The plugin's end where the host relays: connects to upstreams, and passes their sockets.

use std::{collections::VecDeque, io, os::fd::AsFd, sync::Arc, time::Duration};

use service::Address;
use tokio::{
    net::UnixStream,
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{End, HandoffError, WANTED, has_left, hear, passing::send, set_reset_on_close};
use crate::{counters::Counters, framed::Registered, local};

/// The upstreams that a plugin connects to for its host.
#[derive(Clone, Debug)]
pub(crate) struct Lender {
    pub(crate) address: Address,
    /// How long connecting may take.
    pub(crate) connect_timeout: Duration,
    /// Most connections whose end the host has not reported.
    pub(crate) clients_max: usize,
    /// Knows of each connection until its end. Once it is closed, no new one begins.
    pub(crate) tunnels: TaskTracker,
}

/// An upstream's socket for the host, or word that there is none.
type Offer = (Option<Registered>, TaskTrackerToken);

/// A session with a host.
struct Lending {
    lender: Lender,
    counters: Arc<Counters>,
    connecting: JoinSet<Offer>,
    offers: VecDeque<Offer>,
    /// Those of the connections that the host has.
    places: Vec<TaskTrackerToken>,
}

/// Number of the host's words that are read at once.
const WORDS: usize = 256;

/// Passes an upstream's socket for each that the host asks for, until it leaves (`Ok`), breaks the
/// protocol, or `stopped` says so.
pub(crate) async fn lend_upstreams(
    socket: UnixStream,
    lender: Lender,
    counters: &Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), HandoffError> {
    let mut lending = Lending {
        lender,
        counters: counters.clone(),
        connecting: JoinSet::new(),
        offers: VecDeque::new(),
        places: Vec::new(),
    };
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    tokio::pin!(stop);
    let mut words = [0; WORDS];
    loop {
        tokio::select! {
            heard = hear(&socket, &mut words) => match heard? {
                0 => return Ok(()),
                count => lending.heard(&words[..count])?,
            },
            Some(connected) = lending.connecting.join_next() => lending.connected(connected),
            Some(passed) = pass(&socket, lending.offers.front(), counters) => match passed {
                Err(error) if has_left(&error) => return Ok(()),
                passed => {
                    passed?;
                    lending.passed();
                }
            },
            () = &mut stop => return Ok(()),
        }
    }
}

/// Passes an offer, if there is one. Waits while there is no room for it.
async fn pass(
    socket: &UnixStream,
    offer: Option<&Offer>,
    counters: &Counters,
) -> Option<io::Result<()>> {
    let (upstream, _) = offer?;
    Some(send(socket, upstream.as_ref().map(AsFd::as_fd), counters).await)
}

impl Lending {
    fn heard(&mut self, words: &[u8]) -> Result<(), HandoffError> {
        self.counters.wake_ups.add(1);
        self.counters.frames_received.add(words.len());
        for word in words {
            if *word == WANTED {
                self.connect()?;
                continue;
            }
            let end = End::of_report(*word).ok_or(HandoffError::Word(*word))?;
            drop(self.places.pop().ok_or(HandoffError::TooManyEnds)?);
            self.counters.tunnels_open.subtract(1);
            if end == End::Failed {
                self.counters.tunnels_failed.add(1);
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), HandoffError> {
        let clients_max = self.lender.clients_max;
        if self.connecting.len() + self.offers.len() + self.places.len() >= clients_max {
            return Err(HandoffError::TooMany(clients_max));
        }
        let token = self.lender.tunnels.token();
        // The plugin is stopping: open connections may finish, but no new one begins.
        if self.lender.tunnels.is_closed() {
            self.counters.tunnels_failed.add(1);
            self.offers.push_back((None, token));
            return Ok(());
        }
        let (address, at_most) = (self.lender.address.clone(), self.lender.connect_timeout);
        self.connecting.spawn(async move {
            let connected = local::connect(&address, at_most).await;
            let socket = connected.map_err(|error| local::warn_unreachable(&address, error));
            (socket.ok(), token)
        });
        Ok(())
    }

    fn connected(&mut self, connected: Result<Offer, JoinError>) {
        // A task fails only if it panics, which is logged.
        let (socket, token) = connected.unwrap_or_else(|_| (None, self.lender.tunnels.token()));
        match &socket {
            // Whoever closes it, and be it the kernel.
            Some(socket) => set_reset_on_close(socket.as_fd(), true),
            None => self.counters.tunnels_failed.add(1),
        }
        self.offers.push_back((socket, token));
    }

    /// Closes an upstream's socket here, and knows of its connection until the host has reported
    /// its end.
    fn passed(&mut self) {
        self.counters.frames_sent.add(1);
        self.counters.doorbells_sent.add(1);
        if let Some((Some(_), token)) = self.offers.pop_front() {
            self.counters.tunnels_opened.add(1);
            self.counters.tunnels_open.add(1);
            self.places.push(token);
        }
    }
}

impl Drop for Lending {
    /// The connections end with their session.
    fn drop(&mut self) {
        self.counters.tunnels_open.subtract(self.places.len());
        self.counters.tunnels_failed.add(self.places.len());
    }
}
