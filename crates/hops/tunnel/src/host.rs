//! The host: accepts clients and opens a tunnel for each; attaches one plugin at a time.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use service::{Address, ConnectionLimit, Listener, Registry, limit::Permit, process};
use tokio::{net::UnixStream, sync::watch, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    counters::Counters,
    framed::{Local, LocalSocket, Role, Session, SlotCounters},
    handoff::{self, HandoffError},
    local::Clients,
    rendezvous::{Bounds, Newcomer, Newcomers, Peer, PeerListener},
    ring::{self, RelayOptions, RelaySocket, Relays, SHARDS_MAX},
    transport::{Relay, TransportKind, TransportOptions},
};

/// Options of a host.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The transport to the plugin.
    pub transport: TransportOptions,
    /// Address that clients connect to.
    pub listen: Address,
    /// Most clients connected at a time; more wait in the listen backlog.
    pub connections_max: usize,
    /// Time without traffic after which a client is reset; `None` for never. On handoff, the
    /// process that relays does so.
    pub idle_timeout: Option<Duration>,
    /// How long open connections may take to finish once the host is told to stop.
    pub drain: Duration,
    /// On ring, number of cores that a session may use. If there are two or more, each may have a
    /// helper.
    pub threads: usize,
    /// On ring, number of event loops; `None` for one for every two cores.
    pub event_loops: Option<usize>,
}

/// A host that has bound its addresses.
#[derive(Debug)]
pub struct Host {
    clients: Listener,
    peers: PeerListener,
    sessions: Sessions,
}

/// Sessions with plugins, one at a time, and the tunnels through them.
#[derive(Debug)]
struct Sessions {
    options: HostOptions,
    counters: Arc<Counters>,
    slot_counters: Arc<SlotCounters>,
    /// The session in which new clients get a tunnel.
    current: watch::Sender<Option<Attached>>,
    /// Whether nobody is let in any more.
    stopping: watch::Sender<bool>,
    /// Whether sessions must end.
    stopped: watch::Sender<bool>,
}

/// A session in which clients can be given tunnels.
#[derive(Clone, Debug)]
enum Attached {
    Framed(Arc<Session>),
    Ring(Relays),
    Handoff(handoff::Passer),
    /// Also on handoff, where the host relays.
    Asking(handoff::Asker),
}

/// Most event loops on ring: their descriptors are sent to the plugin at once.
pub const EVENT_LOOPS_MAX: usize = SHARDS_MAX;

/// How long a second plugin is kept waiting for the first one's end: a restarted plugin may connect
/// before its predecessor's end has been noticed.
const TAKEOVER: Duration = Duration::from_millis(500);

/// Pause after accepting or a session has failed, for example for lack of file descriptors. A retry
/// would fail at once.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

impl Host {
    /// Binds the addresses and registers the host's counters.
    ///
    /// # Errors
    /// If an address is in use or not permitted.
    pub async fn bind(options: HostOptions, registry: &Registry) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let slot_counters = Arc::new(SlotCounters::default());
        registry.register(counters.shown(options.transport.sees_bytes(true)));
        registry.register(slot_counters.clone());
        let peers = PeerListener::bind(&options.transport.addr).await?;
        let clients = Listener::bind(&options.listen)?;
        let current = watch::Sender::new(None);
        let [stopping, stopped] = [(); 2].map(|()| watch::Sender::new(false));
        let sessions = Sessions {
            options,
            counters,
            slot_counters,
            current,
            stopping,
            stopped,
        };
        Ok(Self {
            clients,
            peers,
            sessions,
        })
    }

    /// Returns the address that clients connect to.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn address(&self) -> std::io::Result<Address> {
        self.clients.address()
    }

    /// Returns the host's counters.
    pub fn counters(&self) -> Arc<Counters> {
        self.sessions.counters.clone()
    }

    /// Serves until `stop` resolves, then refuses new clients and lets open connections finish for
    /// the drain time.
    ///
    /// # Errors
    /// If no plugin comes within the peer timeout.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self {
            clients,
            peers,
            sessions,
        } = self;
        let clients = Clients::of(clients)?;
        let tunnels = TaskTracker::new();
        let mut attached = sessions.current.subscribe();
        let attaching = sessions.attach_plugins(peers);
        tokio::pin!(attaching);
        tokio::select! {
            () = stop => {}
            result = &mut attaching => return result,
            // This future owns the listener, and drops it when it is dropped.
            () = async {
                // Until the first plugin has come, clients wait in the listen backlog. That plugin
                // may have gone again. This fails only without a sender, and there is one.
                let _ = attached.changed().await;
                sessions.accept_clients(clients, &tunnels).await;
            } => {}
        }
        sessions.stopping.send_replace(true);
        tunnels.close();
        // Attaching goes on while connections finish: it drives the session.
        tokio::select! {
            _ = timeout(sessions.options.drain, tunnels.wait()) => {}
            result = &mut attaching => return result,
        }
        sessions.stopped.send_replace(true);
        // The session sends what is left and tells its tunnels, whose tasks close their sockets.
        let end = async {
            attaching.await?;
            tunnels.wait().await;
            Ok(())
        };
        timeout(STOP_TIMEOUT, end).await.unwrap_or(Ok(()))
    }
}

impl Sessions {
    /// Attaches one plugin after the other. Only the wait for the first one has a limit; later the
    /// host is a server whose back end is away. Returns without an error once `stopped`.
    async fn attach_plugins(&self, peers: PeerListener) -> anyhow::Result<()> {
        let wait = self.options.transport.peer_timeout();
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        let mut stopped = self.stopped.subscribe();
        let mut newcomers = Newcomers::at(peers, self.stopping.subscribe());
        let mut next = None;
        let mut failed = None;
        loop {
            let newcomer = match next.take() {
                Some(newcomer) => Ok(newcomer),
                None => tokio::select! {
                    next = newcomers.next() => next,
                    // A plugin that was refused doesn't count.
                    () = &mut deadline, if self.counters.sessions.get() == 0 => {
                        return Err(self.nobody_attached(failed));
                    }
                    () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
                        return Ok(());
                    }
                },
            };
            let attached = match newcomer {
                Ok(newcomer) => self.attach(newcomer, &mut newcomers).await,
                Err(error) => Err(error),
            };
            match attached {
                Ok(waiting) => next = waiting,
                Err(error) => {
                    let cause = process::with_remedy(&error);
                    tracing::warn!("a plugin could not attach: {cause}");
                    failed = Some(cause);
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
            if *stopped.borrow() {
                return Ok(());
            }
        }
    }

    /// Returns why the host gives up. `failed` says what happened to the last plugin that tried.
    fn nobody_attached(&self, failed: Option<String>) -> anyhow::Error {
        let TransportOptions { addr, .. } = &self.options.transport;
        let wait_ms = self.options.transport.peer_timeout().as_millis();
        match failed {
            Some(cause) => {
                anyhow!("no plugin could attach at '{addr}' within {wait_ms} ms: {cause}")
            }
            None => anyhow!(
                "no plugin connected to '{addr}' within {wait_ms} ms; start http-tunnel-plugin \
                 with the same --transport and --addr"
            ),
        }
    }

    /// Runs a session with a plugin until it is over. Returns the next plugin if one has come
    /// shortly before the end.
    async fn attach(
        &self,
        newcomer: Newcomer,
        newcomers: &mut Newcomers,
    ) -> anyhow::Result<Option<Newcomer>> {
        let (options, counters) = (&self.options, &self.counters);
        let welcome = newcomer.welcome(&options.transport, self.bounds(), counters);
        let peer = welcome.await?;
        tracing::info!("plugin attached");
        let running = self.run_session(peer);
        tokio::pin!(running);
        let mut waiting = None;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut running => break ended,
                newcomer = newcomers.next(), if waiting.is_none() => match newcomer {
                    Ok(newcomer) => waiting = Some(newcomer),
                    Err(error) => tracing::warn!("a plugin could not attach: {error:#}"),
                },
                () = tokio::time::sleep(TAKEOVER), if waiting.is_some() => {
                    if let Some(newcomer) = waiting.take() {
                        self.refuse(newcomer).await;
                    }
                }
            }
        };
        self.current.send_replace(None);
        match ended {
            Ok(()) => tracing::info!("plugin left"),
            Err(error) => {
                let cause = process::with_remedy(&error);
                tracing::warn!("the session with the plugin failed: {cause}");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
        }
        Ok(waiting)
    }

    async fn run_session(&self, peer: Peer) -> anyhow::Result<()> {
        let stopped = self.stopped.subscribe();
        let counters = &self.counters;
        match peer {
            Peer::Framed(peer, terms) => {
                let (session, _) = Session::new(terms, counters.clone());
                self.current
                    .send_replace(Some(Attached::Framed(session.clone())));
                let slots = &self.slot_counters;
                let running = peer.run(&session, Role::Opener, counters, slots, stopped);
                Ok(running.await?)
            }
            Peer::Ring { socket, links } => {
                let options = &self.options;
                let mut relaying = RelayOptions::new(&options.transport.tuning, options.threads);
                relaying.idle_timeout = options.idle_timeout;
                let started = |relays| self.begin(Attached::Ring(relays));
                Ok(ring::run_relays(links, None, relaying, socket, stopped, started).await?)
            }
            Peer::Handoff { socket, .. } => Ok(self.run_handoff(socket, stopped).await?),
        }
    }

    /// Lets clients into a session, and counts it then: whoever sees the count may connect.
    fn begin(&self, attached: Attached) {
        self.current.send_replace(Some(attached));
        self.counters.sessions.add(1);
    }

    async fn run_handoff(
        &self,
        socket: UnixStream,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), HandoffError> {
        let counters = &self.counters;
        match self.options.transport.relay {
            Relay::Plugin => {
                let started = |passer| self.begin(Attached::Handoff(passer));
                handoff::pass_clients(socket, counters, stopped, started).await
            }
            Relay::Host => {
                let started = |asker| self.begin(Attached::Asking(asker));
                let idle_timeout = self.options.idle_timeout;
                handoff::ask_upstreams(socket, counters, idle_timeout, stopped, started).await
            }
        }
    }

    async fn refuse(&self, newcomer: Newcomer) {
        let reason = "another plugin is attached; stop it, or choose another --addr";
        if let Err(error) = newcomer.refuse(reason).await {
            tracing::debug!("a plugin left before it was refused: {error:#}");
        }
    }

    async fn accept_clients(&self, clients: Clients, tunnels: &TaskTracker) {
        let limit = ConnectionLimit::new(self.bounds().tunnels_max);
        loop {
            let stalled = || self.counters.accept_stalls.add(1);
            let permit = limit.permit(stalled).await;
            let socket = match clients.accept().await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!("could not accept a client: {error}");
                    tokio::time::sleep(FAILED_PAUSE).await;
                    continue;
                }
            };
            let attached = self.current.borrow().clone();
            let Some(attached) = attached else {
                // The client is closed at once, so that it is told promptly.
                self.counters.clients_refused.add(1);
                continue;
            };
            self.carry(socket, permit, &attached, tunnels).await;
        }
    }

    /// Opens a tunnel for a client. On handoff, waits until there is room to pass it.
    async fn carry(
        &self,
        socket: LocalSocket,
        permit: Permit,
        attached: &Attached,
        tunnels: &TaskTracker,
    ) {
        match attached {
            Attached::Framed(session) => {
                let Some(tunnel) = session.open() else {
                    self.counters.clients_refused.add(1);
                    return;
                };
                let socket = match socket.register() {
                    Ok(socket) => socket,
                    Err(error) => {
                        tracing::warn!("could not tunnel a client: {error}");
                        return tunnel.abort();
                    }
                };
                let idle_timeout = self.options.idle_timeout;
                tunnels.spawn(async move {
                    let client = Local::Client { idle_timeout };
                    tunnel.relay(socket, client).await;
                    drop(permit);
                });
            }
            Attached::Ring(relays) => {
                let guard = Box::new((permit, tunnels.token()));
                relays.give(RelaySocket::from(socket), guard);
            }
            Attached::Asking(asker) => asker.give(socket, (permit, tunnels.token())),
            Attached::Handoff(passer) => passer.pass(socket, (permit, tunnels.token())).await,
        }
    }

    /// Returns the limits of a session. On ring it admits no more clients than it has lanes.
    fn bounds(&self) -> Bounds {
        let options = &self.options;
        let shards = options.event_loops;
        let shards = shards.unwrap_or_else(|| ring::event_loops(options.threads));
        let most = options.connections_max;
        let tunnels_max = match options.transport.transport {
            TransportKind::Ring => {
                let terms = options.transport.ring_terms(shards, most);
                terms.connections_max().min(most)
            }
            TransportKind::Shm | TransportKind::Stream | TransportKind::Handoff => most,
        };
        Bounds {
            tunnels_max,
            shards,
            idle_timeout: options.idle_timeout,
        }
    }
}

/// How long the session may take to send what is left, and tunnels to close their sockets.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
