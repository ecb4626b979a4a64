//! The host's end where the host relays: asks the plugin for upstreams, and joins its clients to
//! them.

use std::{collections::VecDeque, io, os::fd::AsFd, sync::Arc, time::Duration};

use rustix::io::Errno;
use service::process;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
};

use super::{
    HandoffError, Place, WANTED,
    client::{Client, Common, End, passed_socket},
    has_left, set_reset_on_close, write_some,
};
use crate::{
    counters::Counters,
    framed::LocalSocket,
    rendezvous::descriptors::{Received, receive},
};

/// A session in which clients can be given upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Bounded by the limit of connections: each client has its place.
    clients: mpsc::UnboundedSender<(LocalSocket, Place)>,
    counters: Arc<Counters>,
}

/// A session with a plugin. Its connections are cut when this is dropped.
struct Asking {
    counters: Arc<Counters>,
    common: Arc<Common>,
    clients: JoinSet<Ended>,
    /// Those that wait for an upstream. All upstreams are alike, so the first one gets the first.
    waiting: VecDeque<oneshot::Sender<LocalSocket>>,
    /// Number of upstreams that the plugin owes. Clients that gave up count, too.
    owed: usize,
    /// Places of clients that gave up. The plugin counts each until it has paid what it owes.
    given_up: Vec<Place>,
    /// Words for the plugin that were not sent yet: wants, and ends.
    words: Vec<u8>,
}

/// How a client's connection ended.
struct Ended {
    end: End,
    had_upstream: bool,
    /// Free only once the plugin is told of the end, or it would count one connection too many.
    place: Place,
}

/// Joins clients to upstreams that the plugin passes over `socket`, until it leaves (`Ok`), breaks
/// the protocol, or `stopped` says so. Gives `started` what takes the clients.
pub(crate) async fn ask_upstreams(
    socket: UnixStream,
    counters: &Arc<Counters>,
    idle_timeout: Option<Duration>,
    mut stopped: watch::Receiver<bool>,
    started: impl FnOnce(Asker),
) -> Result<(), HandoffError> {
    let (clients, mut accepted) = mpsc::unbounded_channel();
    started(Asker {
        clients,
        counters: counters.clone(),
    });
    let mut asking = Asking {
        counters: counters.clone(),
        common: Common::new(counters, idle_timeout, true),
        clients: JoinSet::new(),
        waiting: VecDeque::new(),
        owed: 0,
        given_up: Vec::new(),
        words: Vec::new(),
    };
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            Some((client, place)) = accepted.recv() => asking.ask(client, place),
            received = receive(&socket) => {
                let received = match received {
                    Err(error) if has_left(&error) => return Ok(()),
                    received => received?,
                };
                if received.has_ended {
                    return Ok(());
                }
                asking.receive(received)?;
            }
            Some(ended) = asking.clients.join_next() => asking.ended(ended),
            written = write_some(&socket, &asking.words), if !asking.words.is_empty() => {
                match written {
                    Err(error) if has_left(&error) => return Ok(()),
                    written => asking.written(written?),
                }
            }
            () = &mut stop => return Ok(()),
        }
    }
}

impl Asker {
    /// Gives a client an upstream as soon as the plugin has one for it.
    pub(crate) fn give(&self, client: LocalSocket, place: Place) {
        if self.clients.send((client, place)).is_err() {
            self.counters.clients_refused.add(1);
        }
    }
}

impl Asking {
    fn ask(&mut self, socket: LocalSocket, place: Place) {
        // Whoever closes it, and be it the kernel.
        set_reset_on_close(socket.as_fd(), true);
        let client = Client::accepted(socket, &self.common);
        let (give, upstream) = oneshot::channel();
        self.waiting.push_back(give);
        self.owed += 1;
        self.words.push(WANTED);
        self.clients.spawn(async move {
            let (end, had_upstream) = client.relay_when_given(upstream).await;
            Ended {
                end,
                had_upstream,
                place,
            }
        });
    }

    /// Gives what was received to the first client that waits: an upstream, or none.
    fn receive(&mut self, received: Received) -> Result<(), HandoffError> {
        let Received {
            mut descriptors,
            is_cut,
            ..
        } = received;
        self.counters.wake_ups.add(1);
        self.counters.frames_received.add(1);
        self.owed = self.owed.checked_sub(1).ok_or(HandoffError::Unasked)?;
        let upstream = match (descriptors.pop(), descriptors.is_empty(), is_cut) {
            (Some(socket), true, false) => self.checked(passed_socket(socket)?),
            // It could not be connected to.
            (None, _, false) => None,
            // The kernel had one, and has closed it.
            (None, _, true) => self.checked(Err(Errno::MFILE.into())),
            (Some(_), ..) => return Err(HandoffError::Count(descriptors.len() + 1)),
        };
        self.give(upstream);
        if !self.given_up.is_empty() {
            self.settle();
        }
        Ok(())
    }

    /// Gives the first client that waits an upstream, or tells it by the end of its channel that
    /// there is none.
    fn give(&mut self, upstream: Option<LocalSocket>) {
        while let Some(client) = self.waiting.pop_front() {
            if client.is_closed() {
                continue;
            }
            if let Some(upstream) = upstream
                && client.send(upstream).is_err()
            {
                self.words.push(End::Failed.report());
            }
            return;
        }
        // Whoever wanted it has gone.
        if upstream.is_some() {
            self.words.push(End::Failed.report());
        }
    }

    /// Frees the places of clients that gave up, as far as the plugin owes them nothing any more.
    fn settle(&mut self) {
        self.waiting.retain(|client| !client.is_closed());
        let owed_to_nobody = self.owed.saturating_sub(self.waiting.len());
        self.given_up.truncate(owed_to_nobody);
    }

    /// Returns an upstream, or says why this process can't have it.
    fn checked(&mut self, upstream: io::Result<LocalSocket>) -> Option<LocalSocket> {
        upstream
            .map_err(|error| {
                let cause = process::with_remedy(&error.into());
                tracing::warn!("could not take an upstream: {cause}");
                self.words.push(End::Failed.report());
            })
            .ok()
    }

    /// Records how a connection has ended, and tells the plugin if that had an upstream.
    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        let Ok(ended) = ended else {
            // A task fails only if it panics, which is logged, or is cut.
            self.counters.tunnels_failed.add(1);
            return self.words.push(End::Failed.report());
        };
        if ended.end == End::Failed {
            self.counters.tunnels_failed.add(1);
        }
        if ended.had_upstream {
            self.words.push(ended.end.report());
        } else {
            self.given_up.push(ended.place);
            self.settle();
        }
    }

    fn written(&mut self, count: usize) {
        self.words.drain(..count);
        self.counters.frames_sent.add(count);
        self.counters.doorbells_sent.add(1);
        self.counters
            .doorbells_suppressed
            .add(count.saturating_sub(1));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.common.end();
        while let Some(ended) = self.clients.try_join_next() {
            self.ended(ended);
        }
        self.counters.tunnels_failed.add(self.clients.len());
    }
}
