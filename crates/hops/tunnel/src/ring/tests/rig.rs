//! The set-up that tests of ring share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use service::{Address, Listener, Registry, connections::Acceptor, http};
use shm_ring::Arena;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::timeout,
};

use super::super::{Link, Offer, Terms, hostile::ARENA_BYTES};
use crate::{
    counters::Counters,
    host::{Host, HostOptions},
    hostile::WATCHDOG,
    plugin::{Plugin, PluginOptions, Target},
    transport::TransportOptions,
};

/// One end of a link, and its counters.
pub(in crate::ring) struct End {
    pub(in crate::ring) link: Arc<Link>,
    pub(in crate::ring) counters: Arc<Counters>,
}

/// Makes the host's end and the plugin's end of a link.
pub(in crate::ring) fn link(terms: Terms) -> [End; 2] {
    let counters = [Arc::<Counters>::default(), Arc::default()];
    let (offer, descriptors) = Offer::new(terms).expect("memory");
    let (arena, file) = Arena::create(ARENA_BYTES).expect("memory");
    let host = offer.accept((&file, ARENA_BYTES), &counters[0]);
    let plugin = Link::of_offer(terms, descriptors, arena, &counters[1]);
    let links = [host.expect("an arena"), plugin.expect("laid out")];
    let [host, plugin] = links.map(Arc::new);
    let [host_counters, plugin_counters] = counters;
    [(host, host_counters), (plugin, plugin_counters)]
        .map(|(link, counters)| End { link, counters })
}

/// A host and a plugin, joined by ring.
pub(super) struct Rig {
    pub(super) host: Arc<Counters>,
    pub(super) plugin: Arc<Counters>,
    client_address: SocketAddr,
    _directory: TempDir,
    running: JoinSet<anyhow::Result<()>>,
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    transport: TransportOptions,
}

/// Runs a test, and makes it fail if it hangs.
pub(super) fn watched<R>(runtime: &Runtime, test: impl Future<Output = R>) -> R {
    let ended = runtime.block_on(async { timeout(WATCHDOG, test).await });
    ended.expect("the test hangs")
}

/// Makes a runtime for tests in which nothing runs beside what the test waits for.
pub(super) fn one_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Returns the origin in the plugin's process.
pub(super) fn in_process() -> Target {
    Target::InProcess {
        router: origin::router_in,
        head_timeout: None,
    }
}

/// Starts the origin behind TCP.
pub(super) fn behind_tcp() -> Target {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind(&address).expect("a free port");
    let address = listener.address().expect("bound");
    let never = std::future::pending();
    let acceptor = Acceptor::new(listener, 1024, &Registry::default());
    tokio::spawn(http::serve(
        acceptor,
        origin::router(),
        never,
        Duration::ZERO,
    ));
    Target::Upstream(address)
}

impl Rig {
    /// Starts a host that may use `threads` cores, and a plugin.
    pub(super) async fn start(threads: usize, target: Target) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = directory.path().join("tunnel");
        let arguments = ["test", "--transport=ring", "--addr"];
        let arguments = arguments.map(String::from).into_iter();
        let address = address.display().to_string();
        let Command { transport } = Command::parse_from(arguments.chain([address]));
        let plugin_options = PluginOptions {
            transport: transport.clone(),
            target,
            connect_timeout: WATCHDOG,
            drain: WATCHDOG,
        };
        let host_options = HostOptions {
            transport,
            listen: "127.0.0.1:0".parse().expect("an address"),
            connections_max: 64,
            idle_timeout: None,
            drain: WATCHDOG,
            threads,
            event_loops: None,
        };
        let plugin = Plugin::new(plugin_options, &Registry::default()).expect("memory");
        let host = Host::bind(host_options, &Registry::default()).await;
        let host = host.expect("free");
        let Address::Tcp(client_address) = host.address().expect("bound") else {
            panic!("not a TCP address");
        };
        let counters = [host.counters(), plugin.counters()];
        let mut running = JoinSet::new();
        running.spawn(host.run(std::future::pending()));
        running.spawn(plugin.run(std::future::pending()));
        while counters.iter().any(|counters| counters.sessions.get() == 0) {
            tokio::task::yield_now().await;
        }
        let [host, plugin] = counters;
        Self {
            host,
            plugin,
            client_address,
            _directory: directory,
            running,
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.client_address).await;
        let client = client.expect("the host listens");
        client.set_nodelay(true).expect("a TCP socket");
        client
    }

    pub(super) async fn stop(mut self) {
        self.running.shutdown().await;
    }
}

/// Asks for a short answer and reads it.
pub(super) async fn ask(client: &mut TcpStream) {
    const REQUEST: &[u8] = b"GET /bytes/7 HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(REQUEST).await.expect("written");
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") || answer.len() < head_bytes(&answer) + 7
    {
        let count = client.read(&mut piece).await.expect("answered");
        assert_ne!(count, 0, "an end");
        answer.extend(&piece[..count]);
    }
}

fn head_bytes(answer: &[u8]) -> usize {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n");
    end.expect("a head") + 4
}
