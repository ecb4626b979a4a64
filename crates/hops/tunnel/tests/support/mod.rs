//! A host and a plugin in the test's own process.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use service::{Address, Listener, Registry, connections::Acceptor, http};
use tempfile::TempDir;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tunnel::{
    counters::Counters,
    host::{Host, HostOptions},
    plugin::{Plugin, PluginOptions, Target},
    transport::{PeerAddress, TransportOptions},
};

use super::streams;

/// The transports, with sizes that differ in what may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    StreamUnix,
    StreamTcp,
    StreamSmallChunks,
    Shm,
    ShmLarge,
    /// As few and as small slots as are allowed: everything has to wait.
    ShmTiny,
    Ring,
    /// The smallest sizes that are allowed.
    RingTiny,
    Handoff,
    /// If there is an upstream, the host relays to it.
    HandoffRelayHost,
}

/// Longer than any test lets a connection stay open.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    transport: TransportOptions,
}

#[derive(Debug)]
pub(crate) struct Rig {
    kind: Kind,
    connections_max: usize,
    unix_clients: bool,
    has_upstream: bool,
    directory: TempDir,
    tcp_port: u16,
    host: Option<Running>,
    plugin: Option<Running>,
    client_address: SocketAddr,
    host_counters: Arc<Counters>,
    plugin_counters: Arc<Counters>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
pub(crate) struct Builder {
    kind: Kind,
    connections_max: usize,
    unix_clients: bool,
}

impl Builder {
    pub(crate) fn connections_max(self, connections_max: usize) -> Self {
        Self {
            connections_max,
            ..self
        }
    }

    /// Clients connect to a Unix socket: [`Rig::connect_unix`].
    pub(crate) fn unix_clients(self) -> Self {
        Self {
            unix_clients: true,
            ..self
        }
    }

    pub(crate) async fn relay(self, upstream: &str) -> Rig {
        let target = Target::Upstream(upstream.parse().expect("an address"));
        Rig::start(self, target).await
    }
}

impl Rig {
    pub(crate) fn builder(kind: Kind) -> Builder {
        Builder {
            kind,
            connections_max: 1024,
            unix_clients: false,
        }
    }

    pub(crate) async fn relay(kind: Kind, upstream: &str) -> Self {
        Self::builder(kind).relay(upstream).await
    }

    /// Relays one client at a time; others wait.
    pub(crate) async fn relay_one(kind: Kind, upstream: &str) -> Self {
        Self::builder(kind).connections_max(1).relay(upstream).await
    }

    /// Starts a relay for each way to have the origin as its upstream.
    pub(crate) async fn origins(kind: Kind) -> [Self; 2] {
        [
            Self::in_process(kind).await,
            Self::origin_behind_tcp(kind).await,
        ]
    }

    async fn in_process(kind: Kind) -> Self {
        let target = Target::InProcess {
            router: origin::router_in,
            head_timeout: None,
        };
        Self::start(Self::builder(kind), target).await
    }

    async fn origin_behind_tcp(kind: Kind) -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(&address).expect("a free port");
        let address = listener.address().expect("bound");
        let (never, drain) = (std::future::pending(), Duration::ZERO);
        let acceptor = Acceptor::new(listener, 1024, &Registry::default());
        tokio::spawn(http::serve(acceptor, origin::router(), never, drain));
        Self::start(Self::builder(kind), Target::Upstream(address)).await
    }

    async fn start(builder: Builder, target: Target) -> Self {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tcp_port = probe.local_addr().expect("bound").port();
        drop(probe);
        let mut rig = Self {
            kind: builder.kind,
            connections_max: builder.connections_max,
            unix_clients: builder.unix_clients,
            has_upstream: matches!(target, Target::Upstream(_)),
            directory: TempDir::new().expect("a directory"),
            tcp_port,
            host: None,
            plugin: None,
            client_address: ([127, 0, 0, 1], 0).into(),
            host_counters: Arc::default(),
            plugin_counters: Arc::default(),
        };
        // The plugin starts first: it waits for the host.
        rig.start_plugin_for(target);
        rig.start_host().await;
        rig.wait_until_attached().await;
        rig
    }

    pub(crate) async fn start_host(&mut self) {
        let listen = match self.unix_clients {
            true => Address::Unix(self.unix_path()),
            false => "127.0.0.1:0".parse().expect("an address"),
        };
        let options = HostOptions {
            idle_timeout: None,
            transport: self.transport(),
            listen,
            connections_max: self.connections_max,
            drain: DRAIN,
            threads: if self.kind == Kind::Ring { 4 } else { 1 },
            event_loops: None,
        };
        let registry = Registry::default();
        let host = Host::bind(options, &registry).await;
        let host = host.expect("the addresses are free");
        if let Address::Tcp(address) = host.address().expect("bound") {
            self.client_address = address;
        }
        self.host_counters = host.counters();
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            host.run(async move { drop(stopped.wait_for(|stop| *stop).await) })
                .await
        });
        self.host = Some(Running { task, stop });
    }

    pub(crate) async fn start_plugin(&mut self, upstream: &str) {
        self.start_plugin_for(Target::Upstream(upstream.parse().expect("an address")));
    }

    fn start_plugin_for(&mut self, target: Target) {
        let plugin = self.plugin(target);
        self.plugin_counters = plugin.counters();
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            plugin
                .run(async move { drop(stopped.wait_for(|stop| *stop).await) })
                .await
        });
        self.plugin = Some(Running { task, stop });
    }

    pub(crate) async fn run_another_plugin(&self, upstream: &str) -> anyhow::Result<()> {
        let target = Target::Upstream(upstream.parse().expect("an address"));
        let (_stop, stopped) = oneshot::channel::<()>();
        self.plugin(target).run(async { drop(stopped.await) }).await
    }

    fn plugin(&self, target: Target) -> Plugin {
        let options = PluginOptions {
            transport: self.transport(),
            target,
            connect_timeout: Duration::from_secs(5),
            drain: DRAIN,
        };
        Plugin::new(options, &Registry::default()).expect("there is memory")
    }

    fn transport(&self) -> TransportOptions {
        let path = self.directory.path().join("tunnel").display().to_string();
        let tcp = format!("127.0.0.1:{}", self.tcp_port);
        let (transport, address, more): (_, _, &[&str]) = match self.kind {
            Kind::StreamUnix => ("stream", path, &[]),
            Kind::StreamTcp => ("stream", tcp, &[]),
            Kind::StreamSmallChunks => {
                ("stream", path, &["--chunk-bytes=64", "--window-bytes=1000"])
            }
            Kind::Shm => ("shm", path, &[]),
            Kind::ShmLarge => ("shm", path, &["--shm-slots=256", "--shm-slot-size=16384"]),
            Kind::ShmTiny => ("shm", path, &["--shm-slots=8", "--shm-slot-size=64"]),
            Kind::Ring => ("ring", path, &[]),
            Kind::RingTiny => {
                let tiny = &["--ring-entries=2", "--ring-kib=4", "--arena-mib=1"];
                ("ring", path, tiny)
            }
            Kind::HandoffRelayHost if self.has_upstream => ("handoff", path, &["--relay=host"]),
            Kind::Handoff | Kind::HandoffRelayHost => ("handoff", path, &[]),
        };
        let fixed = [
            "test".to_owned(),
            format!("--transport={transport}"),
            format!("--addr={address}"),
        ];
        let more = more.iter().map(|option| (*option).to_owned());
        Command::parse_from(fixed.into_iter().chain(more)).transport
    }

    /// Ends the plugin's tasks without notice, as a crash does.
    pub(crate) async fn kill_plugin(&mut self) {
        kill(&mut self.plugin).await;
    }

    pub(crate) async fn kill_host(&mut self) {
        kill(&mut self.host).await;
    }

    pub(crate) fn stop_host(&self) {
        self.host.as_ref().expect("started").stop.send_replace(true);
    }

    fn stop_plugin(&self) {
        self.plugin
            .as_ref()
            .expect("started")
            .stop
            .send_replace(true);
    }

    /// Tells both ends to stop.
    pub(crate) fn stop(&self) {
        self.stop_host();
        self.stop_plugin();
    }

    /// Waits for both to end cleanly.
    pub(crate) async fn ended(mut self) {
        for running in [self.host.take(), self.plugin.take()].into_iter().flatten() {
            running.task.await.expect("no panic").expect("a clean end");
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        self.try_connect().await.expect("the host listens")
    }

    pub(crate) async fn try_connect(&self) -> std::io::Result<TcpStream> {
        let client = TcpStream::connect(self.client_address).await?;
        client.set_nodelay(true)?;
        Ok(client)
    }

    /// Connects where plugins do.
    pub(crate) async fn try_connect_as_peer(&self) -> std::io::Result<()> {
        match self.transport().addr {
            PeerAddress::Path(path) => drop(UnixStream::connect(path).await?),
            PeerAddress::Tcp(address) => drop(TcpStream::connect(address).await?),
        }
        Ok(())
    }

    pub(crate) async fn connect_unix(&self) -> UnixStream {
        let connected = UnixStream::connect(self.unix_path()).await;
        connected.expect("the host listens")
    }

    fn unix_path(&self) -> PathBuf {
        self.directory.path().join("clients")
    }

    pub(crate) fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    pub(crate) fn host_counters(&self) -> Arc<Counters> {
        self.host_counters.clone()
    }

    pub(crate) fn plugin_counters(&self) -> Arc<Counters> {
        self.plugin_counters.clone()
    }

    /// Returns whether there are few and small slots or frames, which take their time.
    pub(crate) fn is_tiny(&self) -> bool {
        matches!(self.kind, Kind::ShmTiny | Kind::StreamSmallChunks)
    }

    fn is_handoff(&self) -> bool {
        matches!(self.kind, Kind::Handoff | Kind::HandoffRelayHost)
    }

    /// Returns whether the host or the plugin sees the bytes.
    pub(crate) fn sees_bytes(&self, name: &str) -> bool {
        let seeing = match self.kind {
            Kind::HandoffRelayHost if self.has_upstream => "host",
            Kind::Handoff | Kind::HandoffRelayHost => "plugin",
            _ => return true,
        };
        name == seeing
    }

    /// Returns how many bytes were taken from the origin or upstream.
    pub(crate) fn taken_from_server(&self) -> u64 {
        match self.sees_bytes("plugin") {
            true => self.plugin_counters.bytes_in.get(),
            // The same bytes are given to clients.
            false => self.host_counters.bytes_out.get(),
        }
    }

    /// Returns how many bytes were given to the origin or upstream.
    fn given_to_server(&self) -> u64 {
        match self.sees_bytes("plugin") {
            true => self.plugin_counters.bytes_out.get(),
            false => self.host_counters.bytes_in.get(),
        }
    }

    pub(crate) fn window_bytes(&self) -> u64 {
        self.transport().window_bytes.into()
    }

    pub(crate) async fn wait_until_attached(&self) {
        until(|| self.host_counters.sessions.get() > 0 && self.plugin_counters.sessions.get() > 0)
            .await;
    }

    /// Waits until a new client is turned away.
    pub(crate) async fn wait_until_detached(&self) {
        let before = self.host_counters.clients_refused.get();
        loop {
            let client = self.connect().await;
            for _ in 0..20 {
                if self.host_counters.clients_refused.get() > before {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(client);
        }
    }

    /// Waits until this many bytes of clients were written to the upstream.
    pub(crate) async fn until_forwarded(&self, _client: &TcpStream, bytes: u64) {
        until(|| self.given_to_server() >= bytes).await;
    }

    /// Returns how many of the bytes that the only client has sent were not read.
    pub(crate) fn unread_of_client(&self, client: &TcpStream, sent: u64) -> u64 {
        match self.is_handoff() {
            // Nothing counts what was read and not written yet.
            true => streams::unread_by_peer(client),
            false => sent - self.host_counters.bytes_in.get(),
        }
    }

    /// Returns how many of the bytes that the only server has sent were not read.
    pub(crate) fn unread_of_server(&self, _server: &TcpStream, sent: u64) -> u64 {
        sent - self.taken_from_server()
    }

    /// Waits until this many bytes of clients were read.
    pub(crate) async fn until_read(&self, client: &TcpStream, bytes: u64) {
        match self.is_handoff() {
            true => streams::until_read(client).await,
            false => until(|| self.host_counters.bytes_in.get() >= bytes).await,
        }
    }

    /// Waits until those ends that see bytes have counted this much in and out: a byte may arrive
    /// before it is counted.
    pub(crate) async fn wait_until_counted(&self, bytes: u64) {
        until(|| {
            let ends = [
                ("host", &self.host_counters),
                ("plugin", &self.plugin_counters),
            ];
            let mut seeing = ends.iter().filter(|(name, _)| self.sees_bytes(name));
            seeing.all(|(_, end)| end.bytes_in.get() >= bytes && end.bytes_out.get() >= bytes)
        })
        .await;
    }

    /// Waits until the host has opened `count` tunnels.
    pub(crate) async fn wait_for_tunnels(&self, count: u64) {
        until(|| self.host_counters.tunnels_opened.get() >= count).await;
    }

    pub(crate) async fn wait_for_accept_stall(&self) {
        until(|| self.host_counters.accept_stalls.get() > 0).await;
    }

    /// Waits until no more bytes are taken from the origin: everything that may wait is waiting.
    pub(crate) async fn wait_until_quiet(&self) {
        let (mut before, mut same) = (0, 0);
        while same < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.taken_from_server();
            same = if now == before && now > 0 {
                same + 1
            } else {
                0
            };
            before = now;
        }
    }

    /// Waits until no tunnel is open at either end: every tunnel ends once its connections have.
    pub(crate) async fn assert_nothing_open(&self) {
        until(|| {
            let open = [&self.host_counters, &self.plugin_counters];
            open.iter().all(|counters| counters.tunnels_open.get() == 0)
        })
        .await;
    }
}

async fn kill(running: &mut Option<Running>) {
    let running = running.take().expect("started");
    running.task.abort();
    // The task was cancelled, as asked for.
    let _ = running.task.await;
}

/// Waits for a state that nothing announces. The watchdog ends it if it never comes.
async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
