//! The life of a node: the plan is made, workers and the admin endpoint start, clients come.

use std::{num::NonZeroUsize, path::Path, sync::Arc, thread};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use http_proxy::{Workers, accept};
use serde_json::json;
use service::{
    Address, AdminAddress, ConnectionLimit, Listener, Server, ServerArgs, admin::Program,
    connections::Acceptor, http, process,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    attack_log::AttackLog,
    cluster::{self, Nodes},
    config::Config,
    crdt::{ActorId, Exchange, Store, wire::Codec},
    edge::Edge,
    plan::Plan,
    state::Shared,
};

/// Most counters of clients, which take about 200 bytes each.
const KEYS_MAX: usize = 1 << 20;

/// Most connections of peers.
const PEERS_MAX: usize = 256;

/// Serves until told to stop.
pub(crate) async fn serve(
    mut server: Server,
    args: &ServerArgs,
    threads: Option<NonZeroUsize>,
    file: &Path,
    config: Config,
) -> anyhow::Result<()> {
    let hangups = signal(SignalKind::hangup())?;
    let store = Arc::new(Store::new(ActorId::random()?, KEYS_MAX));
    let cluster = config.cluster.clone();
    let plan = Plan::new(config, None, &store)?;
    let shared = Arc::new(Shared {
        plan: ArcSwap::from_pointee(plan),
        store: Arc::clone(&store),
        attacks: AttackLog::default(),
        counters: Arc::default(),
        http_counters: Arc::default(),
        stop: CancellationToken::new(),
    });
    server.registry.register(Arc::clone(&shared.counters));
    server.registry.register(Arc::clone(&shared.http_counters));
    let threads = threads.or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let for_workers = Arc::clone(&shared);
    let workers = Workers::start(threads, "edge-node", move || Edge::new(&for_workers))?;
    let workers = Arc::new(workers);
    let listener = Listener::bind(&args.listen)?;
    let address = listener.address()?;
    let program = Program::new("edge-node", env!("CARGO_PKG_VERSION"));
    let admin = args.process.admin.clone().unwrap_or(AdminAddress::Nowhere);
    let (seen, registry) = (Arc::clone(&shared), server.registry.clone());
    let details = move || status(&seen);
    service::admin::start_with(&admin, program, registry, axum::Router::new(), details)?;
    if let Some(cluster) = cluster {
        let codec = Codec::new(cluster.secret.as_bytes());
        let nodes = Arc::new(Nodes {
            exchange: Exchange::new(store, codec, cluster.peers.len()),
            counters: Arc::clone(&shared.counters),
        });
        let at = Address::Tcp(cluster.listen);
        let listener = Listener::bind(&at).context("the cluster's address")?;
        let acceptor = Acceptor::new(listener, PEERS_MAX, &service::Registry::default());
        let stop = shared.stop.clone();
        let stopped = async move { stop.cancelled().await };
        tokio::spawn(http::serve(
            acceptor,
            cluster::router(&nodes),
            stopped,
            server.drain,
        ));
        tokio::spawn(nodes.exchange_forever(cluster, shared.stop.clone()));
    }
    process::say(&format!("listening on {address}"));
    let limit = ConnectionLimit::new(args.max_connections);
    let taking = Arc::clone(&workers);
    let take = move |client| taking.take(client);
    let accepting = tokio::spawn(accept(listener, limit, shared.stop.clone(), take));
    tokio::select! {
        () = &mut server.stop => {}
        () = reload_forever(&shared, file, hangups) => {}
    }
    shared.stop.cancel();
    // It fails only if it panicked.
    accepting.await.ok();
    if !workers.drained(server.drain).await {
        tracing::info!("connections were still open at the end of the drain");
    }
    Ok(())
}

/// Reads the configuration anew at each SIGHUP. One that is invalid changes nothing. Never returns.
async fn reload_forever(shared: &Arc<Shared>, file: &Path, mut hangups: Signal) {
    loop {
        hangups.recv().await;
        match reload(shared, file) {
            Ok(generation) => {
                shared.counters.reloads.add(1);
                tracing::info!("the configuration was read again: generation {generation}");
            }
            Err(error) => {
                shared.counters.reloads_refused.add(1);
                tracing::error!("the configuration stays as it was: {error:#}");
            }
        }
    }
}

fn reload(shared: &Shared, file: &Path) -> anyhow::Result<u64> {
    let config = Config::read(file)?;
    let old = shared.plan.load_full();
    let plan = Plan::new(config, Some(&old), &shared.store)?;
    let generation = plan.generation;
    shared.plan.store(Arc::new(plan));
    Ok(generation)
}

/// Returns what `/_admin/status` says besides counters.
fn status(shared: &Shared) -> Vec<(&'static str, serde_json::Value)> {
    let plan = shared.plan.load();
    let counts = shared.store.counts();
    let mut status = vec![
        ("generation", json!(plan.generation)),
        (
            "routes",
            json!(plan.table.as_ref().map_or(0, |table| table.len())),
        ),
        ("counters_of_clients", json!(counts.keyed)),
        ("clients_crowded", json!(counts.crowded)),
    ];
    if let Some(caching) = &plan.cache {
        status.push(("cached", json!(caching.cache.count())));
        status.push(("cached_bytes", json!(caching.cache.bytes())));
    }
    if let Some(waf) = &plan.waf {
        let counts = waf.counts();
        let classes = counts
            .classes
            .iter()
            .map(|(class, count)| (format!("{class:?}").to_lowercase(), json!(count)));
        let classes: serde_json::Map<_, _> = classes.collect();
        status.push(("waf_attacks_by_class", classes.into()));
    }
    status
}
