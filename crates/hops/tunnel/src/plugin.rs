//! The plugin: attaches to a host, and answers the tunnels that the host opens.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use axum::Router;
use origin::Memory;
use service::{Address, Registry, http, process};
use shm_ring::Arena;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    counters::Counters,
    framed::{FramedPeer, Local, Role, Session, SessionTerms, SlotCounters, Tunnel, TunnelStream},
    handoff::{self, Client, End},
    local,
    rendezvous::{self, Peer, PluginRing},
    ring::{self, Guard, LaneStream, Link, RelayOptions, Upstream},
    transport::{Relay, TransportKind, TransportOptions},
};

/// Options of a plugin.
#[derive(Clone, Debug)]
pub struct PluginOptions {
    /// The transport to the host.
    pub transport: TransportOptions,
    /// Where tunnels lead.
    pub target: Target,
    /// How long connecting to an upstream may take.
    pub connect_timeout: Duration,
    /// How long open connections may take to finish once the plugin is told to stop.
    pub drain: Duration,
}

/// The application or server to which tunnels lead.
#[derive(Clone, Debug)]
pub enum Target {
    /// An application in this process, served straight on the tunnels.
    InProcess {
        /// Builds the application, with its bodies in the given memory.
        router: fn(Memory) -> Router,
        /// How long a request's head may take; `None` for no limit.
        head_timeout: Option<Duration>,
    },
    /// Any server, with one connection per tunnel.
    Upstream(Address),
}

/// A plugin that is ready to attach to a host.
#[derive(Debug)]
pub struct Plugin {
    options: PluginOptions,
    counters: Arc<Counters>,
    slot_counters: Arc<SlotCounters>,
    tunnels: TaskTracker,
    stopped: watch::Sender<bool>,
    /// On ring, the arena. Bodies in it are sent without a copy.
    ring: Option<PluginRing>,
    /// The target, if it is in this process.
    application: Option<Application>,
}

/// An application that is served on every tunnel.
#[derive(Clone, Debug)]
struct Application {
    router: Router,
    head_timeout: Option<Duration>,
}

impl Plugin {
    /// Creates a plugin and, on ring, its arena. Registers the plugin's counters.
    ///
    /// # Errors
    /// If there is no memory for the arena.
    pub fn new(options: PluginOptions, registry: &Registry) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let slot_counters = Arc::new(SlotCounters::default());
        registry.register(counters.shown(options.transport.sees_bytes(false)));
        registry.register(slot_counters.clone());
        let (tunnels, stopped) = (TaskTracker::new(), watch::Sender::new(false));
        let ring = match options.transport.transport {
            TransportKind::Ring => {
                let created = Arena::create(options.transport.arena_bytes());
                let (arena, file) = created.context("could not create the arena")?;
                Some(PluginRing { arena, file })
            }
            TransportKind::Shm | TransportKind::Stream | TransportKind::Handoff => None,
        };
        let application = match options.target {
            Target::InProcess {
                router,
                head_timeout,
            } => Some(Application {
                router: router(memory(ring.as_ref())),
                head_timeout,
            }),
            Target::Upstream(_) => None,
        };
        Ok(Self {
            options,
            counters,
            slot_counters,
            tunnels,
            stopped,
            ring,
            application,
        })
    }

    /// Returns the plugin's counters.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Attaches to one host after the other until `stop` resolves, then lets open connections
    /// finish for the drain time.
    ///
    /// # Errors
    /// If no host is there within the peer timeout, if it refuses, or if no session with it lasts.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let serving = self.serve();
        tokio::pin!(serving);
        tokio::select! {
            () = stop => {}
            result = &mut serving => return result,
        }
        self.tunnels.close();
        tokio::select! {
            _ = timeout(self.options.drain, self.tunnels.wait()) => {}
            result = &mut serving => return result,
        }
        // The session sends what is left, and ends.
        self.stopped.send_replace(true);
        timeout(STOP_TIMEOUT, serving).await.unwrap_or(Ok(()))
    }

    async fn serve(&self) -> anyhow::Result<()> {
        let mut stopped = self.stopped.subscribe();
        // When the first session began. It counts only until a session has worked.
        let mut trying_since = None;
        let mut has_worked = false;
        loop {
            let options = &self.options.transport;
            let peer = tokio::select! {
                attached = rendezvous::attach(options, self.ring.as_ref(), &self.counters) => {
                    attached?
                }
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
            };
            tracing::info!("attached to the host");
            let attached = Instant::now();
            let ended = match peer {
                Peer::Framed(peer, terms) => self.attend(peer, terms).await,
                Peer::Ring { socket, links } => self.attend_ring(socket, links).await,
                Peer::Handoff {
                    socket,
                    terms,
                    tunnels_max: clients_max,
                } => {
                    let limits = handoff::Limits { terms, clients_max };
                    self.attend_handoff(socket, limits).await
                }
            };
            let is_short = attached.elapsed() < LASTING;
            has_worked |= !is_short || self.counters.tunnels_opened.get() > 0;
            let cause = match ended {
                Ok(()) => {
                    tracing::info!("the host left");
                    "the host disconnects".to_owned()
                }
                Err(error) => {
                    let cause = process::with_remedy(&error);
                    tracing::warn!("the session with the host failed: {cause}");
                    cause
                }
            };
            let trying_since = trying_since.get_or_insert(attached);
            if !has_worked && trying_since.elapsed() >= options.peer_timeout() {
                let address = &options.addr;
                bail!("every session with the host at '{address}' ended at once: {cause}");
            }
            if is_short {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn attend_ring(&self, socket: UnixStream, links: Vec<Arc<Link>>) -> anyhow::Result<()> {
        self.counters.sessions.add(1);
        let stopped = self.stopped.subscribe();
        let tuning = &self.options.transport.tuning;
        match &self.options.target {
            Target::InProcess { .. } => {
                let over = ring::until_over(socket, stopped);
                let serve_stream = |stream| self.serve_lane(stream);
                let serving = ring::serve(links, tuning.spin(), &self.counters, serve_stream);
                tokio::select! {
                    ended = serving => Ok(ended?),
                    _ = over => Ok(()),
                }
            }
            Target::Upstream(address) => {
                let tunnels = self.tunnels.clone();
                let guard = move || -> Option<Guard> {
                    (!tunnels.is_closed()).then(|| Box::new(tunnels.token()) as Guard)
                };
                let upstream = Upstream {
                    address: Arc::new(address.clone()),
                    connect_timeout: self.options.connect_timeout,
                    guard: Arc::new(guard),
                };
                let relaying = RelayOptions::new(tuning, 1);
                Ok(
                    ring::run_relays(links, Some(upstream), relaying, socket, stopped, drop)
                        .await?,
                )
            }
        }
    }

    async fn attend_handoff(
        &self,
        socket: UnixStream,
        limits: handoff::Limits,
    ) -> anyhow::Result<()> {
        self.counters.sessions.add(1);
        let stopped = self.stopped.subscribe();
        if self.options.transport.relay == Relay::Host {
            let Target::Upstream(address) = &self.options.target else {
                bail!("'--relay=host' needs an upstream, and this plugin serves clients itself");
            };
            let lender = handoff::Lender {
                address: address.clone(),
                connect_timeout: self.options.connect_timeout,
                clients_max: limits.clients_max,
                tunnels: self.tunnels.clone(),
            };
            return Ok(handoff::lend_upstreams(socket, lender, &self.counters, stopped).await?);
        }
        let serve = |client| {
            // The plugin is stopping: open connections may finish, but no new one begins.
            let serving = (!self.tunnels.is_closed()).then(|| self.serve_client(client));
            let tracked = serving.map(|serving| self.tunnels.track_future(serving));
            async {
                match tracked {
                    Some(serving) => serving.await,
                    None => End::Failed,
                }
            }
        };
        Ok(handoff::take_clients(socket, limits, &self.counters, stopped, serve).await?)
    }

    fn serve_client(&self, client: Client) -> impl Future<Output = End> + Send + use<> {
        let (application, target) = (self.application.clone(), self.options.target.clone());
        let connect_timeout = self.options.connect_timeout;
        async move {
            match (application, target) {
                (Some(application), _) => client.serve(|stream| application.serve(stream)).await,
                (None, Target::Upstream(address)) => client.relay(&address, connect_timeout).await,
                (None, Target::InProcess { .. }) => End::Failed,
            }
        }
    }

    fn serve_lane(&self, stream: LaneStream) -> bool {
        let application = self.application.clone();
        let Some(application) = application.filter(|_| !self.tunnels.is_closed()) else {
            return false;
        };
        self.tunnels.spawn(application.serve(stream));
        true
    }

    async fn attend(&self, peer: FramedPeer, terms: SessionTerms) -> anyhow::Result<()> {
        let (session, mut opened) = Session::new(terms, self.counters.clone());
        let running = peer.run(
            &session,
            Role::Acceptor,
            &self.counters,
            &self.slot_counters,
            self.stopped.subscribe(),
        );
        tokio::pin!(running);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                Some(tunnel) = opened.recv() => self.serve_or_connect(tunnel),
            }
        };
        abort_all(opened);
        Ok(ended?)
    }

    fn serve_or_connect(&self, tunnel: Arc<Tunnel>) {
        // The plugin is stopping: open tunnels may finish, but no new one begins.
        if self.tunnels.is_closed() {
            return tunnel.abort();
        }
        match &self.options.target {
            Target::InProcess { .. } => {
                if let Some(application) = self.application.clone() {
                    self.tunnels
                        .spawn(application.serve(TunnelStream::new(tunnel)));
                }
            }
            Target::Upstream(address) => {
                let (address, at_most) = (address.clone(), self.options.connect_timeout);
                self.tunnels.spawn(async move {
                    let connected = tokio::select! {
                        connected = local::connect(&address, at_most) => connected,
                        // The client has gone.
                        () = tunnel.until_reset() => return,
                    };
                    match connected {
                        Ok(socket) => tunnel.relay(socket, Local::Upstream).await,
                        Err(error) => {
                            local::warn_unreachable(&address, error);
                            tunnel.abort();
                        }
                    }
                });
            }
        }
    }
}

/// Returns the memory for the application's bodies: on ring the arena, from which they are sent
/// without a copy.
fn memory(ring: Option<&PluginRing>) -> Memory {
    let Some(arena) = ring.map(|ring| ring.arena.clone()) else {
        return Memory::default();
    };
    Memory::new(move |length, fill| {
        let mut memory = arena.alloc(length)?;
        fill(&mut memory);
        Some(memory.freeze(length))
    })
}

impl Application {
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let serving = http::serve_stream(stream, self.router, self.head_timeout);
        if let Err(error) = serving.await {
            tracing::debug!(error, "connection failed");
        }
    }
}

/// Length below which a session is followed by a pause, since the next one may end as soon.
const LASTING: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long the session may take to send what is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

fn abort_all(mut opened: mpsc::UnboundedReceiver<Arc<Tunnel>>) {
    while let Ok(tunnel) = opened.try_recv() {
        tunnel.abort();
    }
}
