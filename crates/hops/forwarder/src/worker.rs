//! Workers: threads with their own runtime and their own connections.

use std::{
    cell::RefCell,
    io,
    net::TcpStream as StdStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self as std_mpsc, SyncSender},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use service::limit::Permit;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::spawn_local,
    time::timeout,
};

use crate::{
    Counters,
    config::Route,
    relay::{End, Shared, Side, Socket, relay},
};

/// The threads that relay.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    clients: UnboundedSender<Client>,
    /// Number of connections that it has.
    load: Arc<AtomicUsize>,
}

/// A client that was accepted.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: StdStream,
    pub(crate) route: Arc<Route>,
    /// Its place within the limit.
    pub(crate) permit: Permit,
}

impl Workers {
    /// Starts a worker for each of `threads`.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(crate) fn start(
        threads: usize,
        buffer_bytes: usize,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let workers = (0..threads).map(|_| {
            let (clients, arriving) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let (own_load, counters) = (Arc::clone(&load), Arc::clone(counters));
            let (started_in, started) = std_mpsc::sync_channel(1);
            let work = move || run(arriving, &started_in, &own_load, &counters, buffer_bytes);
            let named = thread::Builder::new().name("forwarder".to_owned());
            named.spawn(work).context("could not start a thread")?;
            let started = started.recv().context("a worker ended at once")?;
            started.context("could not start a worker's runtime")?;
            anyhow::Ok(Worker { clients, load })
        });
        Ok(Self {
            workers: workers.collect::<Result<_, _>>()?,
        })
    }

    /// Hands a client to the worker with the fewest connections.
    pub(crate) fn take(&self, client: Client) {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Relaxed));
        if let Some(worker) = least {
            worker.load.fetch_add(1, Relaxed);
            // A worker ends only with the process.
            worker.clients.send(client).ok();
        }
    }

    /// Returns the number of connections of all workers.
    pub(crate) fn open(&self) -> usize {
        self.workers
            .iter()
            .map(|worker| worker.load.load(Relaxed))
            .sum()
    }
}

fn run(
    mut arriving: UnboundedReceiver<Client>,
    started: &SyncSender<io::Result<()>>,
    load: &Arc<AtomicUsize>,
    counters: &Arc<Counters>,
    buffer_bytes: usize,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        // The starter is waiting for this.
        Err(error) => return drop(started.send(Err(error))),
    };
    started.send(Ok(())).ok();
    runtime.block_on(async {
        let shared = Rc::new(RefCell::new(Shared::new(buffer_bytes)));
        while let Some(client) = arriving.recv().await {
            let (load, counters) = (Arc::clone(load), Arc::clone(counters));
            let shared = Rc::clone(&shared);
            spawn_local(async move {
                forward(client, &counters, &shared).await;
                load.fetch_sub(1, Relaxed);
            });
        }
    });
}

async fn forward(client: Client, counters: &Counters, shared: &RefCell<Shared>) {
    let Client {
        stream,
        route,
        permit: _permit,
    } = client;
    let Ok(client) = Socket::new(stream) else {
        return counters.clients_failed.add(1);
    };
    let target = match connect(&route).await {
        Ok(target) => target,
        Err(error) => {
            counters.targets_missing.add(1);
            let (host, port) = &route.target;
            tracing::warn!(
                "route '{}': could not reach '{host}:{port}': {error}",
                route.name
            );
            return client.reset();
        }
    };
    let relayed = relay(&client, &target, &route.terms, shared).await;
    counters.bytes_up.add(relayed.bytes_up);
    counters.bytes_down.add(relayed.bytes_down);
    counters.bytes_spliced.add(relayed.bytes_spliced);
    counters.pipes_missing.add(relayed.pipes_missing);
    end(client, target, &route, relayed.end, counters).await;
}

/// Ends a connection so that each side learns how. What one side learns by a reset, the other must
/// not take for an end.
async fn end(client: Socket, target: Socket, route: &Route, end: End, counters: &Counters) {
    let cause = match end {
        End::Whole => return,
        End::Failed(side, error) => {
            counters.connections_failed.add(1);
            tracing::debug!("route '{}': {side:?}: {error}", route.name);
            let (failed, other) = match side {
                Side::Client => (client, target),
                Side::Target => (target, client),
            };
            failed.reset();
            let most = route.terms.half_closed_max.unwrap_or(ARRIVAL_MAX);
            // A side that takes no more gets its reset all the same.
            let _ = timeout(most, other.until_arrived()).await;
            return other.reset();
        }
        End::HalfClosed => {
            counters.half_closed_reaped.add(1);
            "half-closed"
        }
        End::Idle => {
            counters.idle_reaped.add(1);
            "idle"
        }
    };
    tracing::debug!("route '{}': {cause} for too long", route.name);
    client.reset();
    target.reset();
}

/// Longest wait for the arrival of what one side had sent before it failed, where half-closed
/// connections have no limit.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

async fn connect(route: &Route) -> io::Result<Socket> {
    let (host, port) = &route.target;
    timeout(route.connect_max, Socket::connect(host, *port)).await?
}
