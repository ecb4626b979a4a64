//! The plugin's end: takes clients, and reports their ends.

use std::sync::Arc;

use rustix::io::Errno;
use service::process;
use tokio::{
    net::UnixStream,
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    FAILED_PAUSE, HandoffError, Terms,
    client::{Client, Common, End},
    has_left, write_some,
};
use crate::{
    counters::Counters,
    rendezvous::descriptors::{Received, receive},
};

/// The host's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) terms: Terms,
    /// Most clients whose end the host has not heard of.
    pub(crate) clients_max: usize,
}

/// A session with a host. Its connections are cut when this is dropped.
struct Taking {
    limits: Limits,
    counters: Arc<Counters>,
    clients: JoinSet<End>,
    /// Reports that were not sent yet. With the clients they are at most `clients_max`.
    reports: Vec<u8>,
    common: Arc<Common>,
}

/// Takes clients from `socket` until the host leaves (`Ok`), breaks the protocol, or `stopped` says
/// so. Runs what `serve` returns for each of them.
pub(crate) async fn take_clients<F>(
    socket: UnixStream,
    limits: Limits,
    counters: &Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
    serve: impl Fn(Client) -> F,
) -> Result<(), HandoffError>
where
    F: Future<Output = End> + Send + 'static,
{
    let mut taking = Taking {
        limits,
        counters: counters.clone(),
        clients: JoinSet::new(),
        reports: Vec::new(),
        common: Common::new(counters, limits.terms.idle_timeout(), false),
    };
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            received = receive(&socket) => {
                let received = match received {
                    Err(error) if has_left(&error) => return Ok(()),
                    received => received?,
                };
                if received.has_ended {
                    return Ok(());
                }
                match taking.take(received)? {
                    Some(client) => drop(taking.clients.spawn(serve(client))),
                    None => tokio::time::sleep(FAILED_PAUSE).await,
                }
            }
            Some(ended) = taking.clients.join_next() => taking.report(ended),
            written = write_some(&socket, &taking.reports), if !taking.reports.is_empty() => {
                match written {
                    Err(error) if has_left(&error) => return Ok(()),
                    written => taking.written(written?),
                }
            }
            () = &mut stop => return taking.stop(&socket).await,
        }
    }
}

impl Taking {
    /// Takes a client out of what was received. Returns `None` if there was no descriptor left for
    /// it, in which case it is reset.
    fn take(&mut self, received: Received) -> Result<Option<Client>, HandoffError> {
        let Received {
            mut descriptors,
            is_cut,
            ..
        } = received;
        self.counters.wake_ups.add(1);
        self.counters.frames_received.add(1);
        if self.clients.len() + self.reports.len() >= self.limits.clients_max {
            return Err(HandoffError::TooMany(self.limits.clients_max));
        }
        let taken = match (descriptors.pop(), descriptors.is_empty(), is_cut) {
            (Some(socket), true, false) => Client::new(socket, &self.common)?,
            // The kernel had one, and has closed it.
            (None, _, true) => Err(Errno::MFILE.into()),
            (None, ..) => return Err(HandoffError::Count(0)),
            // At least so many.
            (Some(_), ..) => return Err(HandoffError::Count(descriptors.len() + 1)),
        };
        match taken {
            Ok(client) => Ok(Some(client)),
            Err(error) => {
                let cause = process::with_remedy(&error.into());
                tracing::warn!("could not take a client: {cause}");
                self.counters.tunnels_opened.add(1);
                self.reports.push(End::Failed.report());
                self.counters.tunnels_failed.add(1);
                Ok(None)
            }
        }
    }

    /// Records how a connection has ended.
    fn report(&mut self, ended: Result<End, JoinError>) {
        // A task fails only if it panics, which is logged, or is cut.
        let end = ended.unwrap_or(End::Failed);
        if end == End::Failed {
            self.counters.tunnels_failed.add(1);
        }
        self.reports.push(end.report());
    }

    fn written(&mut self, count: usize) {
        self.reports.drain(..count);
        self.counters.frames_sent.add(count);
        self.counters.doorbells_sent.add(1);
        self.counters
            .doorbells_suppressed
            .add(count.saturating_sub(1));
    }

    /// Cuts what is still open, and reports all that has ended.
    async fn stop(mut self, socket: &UnixStream) -> Result<(), HandoffError> {
        self.common.end();
        self.clients.abort_all();
        while let Some(ended) = self.clients.join_next().await {
            self.report(ended);
        }
        while !self.reports.is_empty() {
            let written = write_some(socket, &self.reports).await;
            match written {
                Ok(count) => self.written(count),
                // The host has left, too.
                Err(error) if has_left(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.common.end();
        while let Some(ended) = self.clients.try_join_next() {
            self.report(ended);
        }
        self.counters.tunnels_failed.add(self.clients.len());
    }
}
