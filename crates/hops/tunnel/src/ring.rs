//! ring: lanes in shared memory, no frames.
//!
//! | file | what |
//! |---|---|
//! | `link` | one end of a link: the segment, the arena and the doorbells |
//! | `lane` | one connection's rings: bytes in, bytes out, how it ends |
//! | `relay` | sockets ⇄ lanes: the event loop of the host, and of a plugin with an upstream |
//! | `socket` | a local connection of the event loop |
//! | `spin` | looks for work again before sleeping, where it pays |
//! | `serve` | an application in this process, served straight on lanes |
//!
//! Bytes go from the kernel into a lane's buffer or the arena, and from there back to the kernel,
//! without a copy in user space. `shm-ring` has the memory and its rules.

#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod lane;
mod link;
mod relay;
mod serve;
mod socket;
mod spin;
#[cfg(test)]
mod tests;

use std::{sync::Arc, thread, time::Duration};

use tokio::{
    net::UnixStream,
    sync::{oneshot, watch},
    task::JoinSet,
    time::interval,
};

use self::relay::{Helpers, Incoming, Relay};
pub(crate) use self::{
    link::{Link, Offer, RelayError, SHARDS_MAX, Terms, event_loops},
    relay::{Guard, RelayOptions, Upstream},
    serve::{LaneStream, serve},
    socket::RelaySocket,
};

use crate::local;

/// Runs relays, each on a thread of its own, until the peer leaves (`Ok`), a relay fails, or
/// `stopped` says so. What a peer that has left had sent is then delivered in the background.
pub(crate) async fn run_relays(
    links: Vec<Arc<Link>>,
    upstream: Option<Upstream>,
    options: RelayOptions,
    socket: UnixStream,
    stopped: watch::Receiver<bool>,
    started: impl FnOnce(Relays),
) -> Result<(), RelayError> {
    let helpers = Arc::new(Helpers::new(options));
    let mut relays = Vec::new();
    let mut threads = JoinSet::new();
    // Also ends the threads if this future is dropped.
    let mut stopping = StopOnDrop(Vec::new());
    for link in &links {
        let (upstream, helpers) = (upstream.clone(), helpers.clone());
        let (relay, event_loop) = Relay::new(link.clone(), upstream, options, helpers)?;
        relays.push(relay.clone());
        stopping.0.push(relay);
        let (ended, end) = oneshot::channel();
        // Nobody listens if this future was dropped.
        let body = move || drop(ended.send(event_loop()));
        let thread = thread::Builder::new()
            .name("relay".to_owned())
            .spawn(body)?;
        threads.spawn(async move {
            let ended = end.await;
            // No thread outlives its session. How this one ended is known already.
            let _ = thread.join();
            ended
        });
    }
    started(Relays::new(relays));
    let over = tokio::select! {
        failed = until_failed(&mut threads) => Err(failed),
        over = until_over(socket, stopped) => Ok(over),
    };
    stopping.tell_all(|| match over {
        Ok(Over::PeerGone) => Incoming::PeerGone,
        Ok(Over::Stopped) | Err(_) => Incoming::Stop,
    });
    let ended = wind_up(threads, stopping, links);
    match over {
        Ok(Over::Stopped) => ended.await,
        Ok(Over::PeerGone) | Err(_) => drop(tokio::spawn(ended)),
    }
    over.map(drop)
}

/// How a relay's thread ended, if it said so.
type Ended = Result<Result<(), RelayError>, oneshot::error::RecvError>;

/// Waits until a relay fails: none ends otherwise before it is told to.
async fn until_failed(threads: &mut JoinSet<Ended>) -> RelayError {
    match threads.join_next().await {
        Some(Ok(Ok(Err(error)))) => error,
        // It has ended without a result.
        _ => RelayError::Panicked,
    }
}

/// How often a session that is over checks whether its peer blocks one of its threads.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until all relays have ended. Before that, they deliver what a peer that has gone had sent,
/// within a time-out.
async fn wind_up(mut threads: JoinSet<Ended>, _stopping: StopOnDrop, links: Vec<Arc<Link>>) {
    let mut ticks = interval(UNBLOCK_INTERVAL);
    loop {
        tokio::select! {
            ended = threads.join_next() => match ended {
                Some(Ok(Ok(Ok(())))) => {}
                Some(ended) => {
                    tracing::warn!("a relay failed after its session was over: {ended:?}");
                }
                None => return,
            },
            _ = ticks.tick() => links.iter().for_each(|link| link.unblock()),
        }
    }
}

/// The relays of a session.
#[derive(Clone, Debug)]
pub(crate) struct Relays {
    relays: Arc<[Relay]>,
}

impl Relays {
    fn new(relays: Vec<Relay>) -> Self {
        Self {
            relays: relays.into(),
        }
    }

    /// Gives a client to the relay that has the fewest clients. The lanes of a relay are limited,
    /// and a client must not wait at one relay while another has a free lane.
    pub(crate) fn give(&self, socket: RelaySocket, guard: Guard) {
        if let Some(relay) = self.relays.iter().min_by_key(|relay| relay.clients()) {
            relay.tell(Incoming::Client(socket, relay.counted(guard)));
        }
    }
}

/// Reason why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    PeerGone,
    Stopped,
}

/// Waits until the peer has left or `stopped` says so.
pub(crate) async fn until_over(mut socket: UnixStream, mut stopped: watch::Receiver<bool>) -> Over {
    tokio::select! {
        () = local::until_closed(&mut socket) => Over::PeerGone,
        // An error means that the sender is gone, so nobody will say so.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => Over::Stopped,
    }
}

struct StopOnDrop(Vec<Relay>);

impl StopOnDrop {
    fn tell_all(&self, what: impl Fn() -> Incoming) {
        for relay in &self.0 {
            relay.tell(what());
        }
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.tell_all(|| Incoming::Stop);
    }
}
