//! The life of a proxy: the store is opened, workers and the admin endpoint start, clients come.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, bail};
use http_proxy::{Accepted, Place, UpstreamLimits, Upstreams, Workers, accept};
use service::{Address, AdminAddress, ConnectionLimit, Listener, Registry, admin::Program};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    cache::Cache,
    cached,
    flight::Flights,
    keep::{Keeper, subset},
    key::Keys,
    recordings::Recordings,
    respond::ReplayTiming,
    rules::Rules,
    state::{AtomicMode, Counters, Freshness, Miss, Mode, Shared},
    store::{BodyPlace, Durability, Kind, Reader, Row, Store, Writer},
    stored::Stored,
    worker::Worker,
};

/// Settings of a proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mode to begin with.
    pub mode: Mode,
    /// Where requests are sent.
    pub upstream: Option<Place>,
    /// The store's directory.
    pub store: PathBuf,
    /// The session that is recorded and replayed.
    pub session: String,
    /// How requests are matched and redacted.
    pub rules: Rules,
    /// How long answers are used.
    pub freshness: Freshness,
    /// The fate of requests without a recording.
    pub miss: Miss,
    /// When the pieces of a recorded body are sent.
    pub timing: ReplayTiming,
    /// The events that the store must survive.
    pub durability: Durability,
    /// Most bytes of recordings in memory.
    pub memory_bytes_max: usize,
    /// Most bytes of cached answers.
    pub cache_bytes_max: u64,
    /// Longest body that is stored.
    pub body_bytes_max: u64,
    /// Time limit for an answer of the upstream.
    pub upstream_timeout: Duration,
    /// Number of threads that serve.
    pub threads: Option<NonZeroUsize>,
    /// Most clients at a time.
    pub connections_max: usize,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Where clients connect to.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    workers: Arc<Workers<Accepted>>,
    accepting: JoinHandle<()>,
}

impl Settings {
    /// Returns the usual settings of a mode, with a store.
    pub fn new(mode: Mode, store: PathBuf) -> Self {
        Self {
            mode,
            upstream: None,
            store,
            session: "default".to_owned(),
            rules: Rules::default(),
            freshness: Freshness::default(),
            miss: Miss::default(),
            timing: ReplayTiming::default(),
            durability: Durability::default(),
            memory_bytes_max: 64 << 20,
            cache_bytes_max: 256 << 20,
            body_bytes_max: 4 << 30,
            upstream_timeout: Duration::from_secs(60),
            threads: None,
            connections_max: 4096,
        }
    }
}

/// Starts a proxy.
///
/// # Errors
/// If the store can't be opened, or the address can't be listened at.
pub async fn start(
    settings: Settings,
    listen: &Address,
    registry: &Registry,
) -> anyhow::Result<Running> {
    if settings.upstream.is_none() && settings.mode != Mode::Replay {
        bail!(
            "--mode={}: expected --upstream=HOST:PORT",
            settings.mode.name()
        );
    }
    if settings.upstream.is_none() && settings.miss != Miss::Error {
        bail!("--miss: what is forwarded needs --upstream=HOST:PORT");
    }
    let threads = settings
        .threads
        .or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let connections_max = settings.connections_max;
    let shared = open(settings)?;
    registry.register(Arc::clone(&shared.counters));
    registry.register(Arc::clone(&shared.http_counters));
    let for_workers = Arc::clone(&shared);
    let make = move || Worker::new(&for_workers);
    let workers = Arc::new(Workers::start(threads, "replay-proxy", make)?);
    let listener = Listener::bind(listen)?;
    let Address::Tcp(address) = listener.address()? else {
        bail!("--listen: expected HOST:PORT");
    };
    let limit = ConnectionLimit::new(connections_max);
    let for_accepting = Arc::clone(&workers);
    let take = move |client| for_accepting.take(client);
    let accepting = tokio::spawn(accept(listener, limit, shared.stop.clone(), take));
    Ok(Running {
        address,
        shared,
        workers,
        accepting,
    })
}

impl Running {
    /// Serves `/_admin/status`, `/metrics` and the proxy's own routes in the background.
    ///
    /// # Errors
    /// If the address is in use or not permitted.
    pub fn serve_admin(&self, address: &AdminAddress, registry: &Registry) -> anyhow::Result<()> {
        let program = Program::new("replay-proxy", env!("CARGO_PKG_VERSION"));
        let (routes, shared) = (admin::router(&self.shared), Arc::clone(&self.shared));
        let details = move || admin::status(&shared);
        service::admin::start_with(address, program, registry.clone(), routes, details)
    }

    /// Ends: accepts nobody new, lets requests finish for at most `drain`, writes everything.
    pub async fn stop(self, drain: Duration) {
        let Self {
            shared,
            workers,
            accepting,
            ..
        } = self;
        shared.stop.cancel();
        // It fails only if it panicked.
        accepting.await.ok();
        if !workers.drained(drain).await {
            tracing::info!("connections were still open at the end of the drain");
        }
        let (closed_in, closed) = tokio::sync::oneshot::channel();
        shared.writer.close(Box::new(|_| {
            closed_in.send(()).ok();
        }));
        closed.await.ok();
    }
}

/// Opens the store and loads the index.
fn open(settings: Settings) -> anyhow::Result<Arc<Shared>> {
    // A mistyped directory would be an empty store, and answer nothing.
    if settings.mode == Mode::Replay && settings.upstream.is_none() {
        Store::must_be(&settings.store)?;
    }
    let store = Store::open(&settings.store, settings.durability)?;
    let session = store
        .session(&settings.session)
        .context("could not make the session")?;
    for refused in &store.refused {
        tracing::error!("store '{}': {refused}", settings.store.display());
    }
    if store.dropped > 0 {
        let dropped = store.dropped;
        tracing::warn!(
            "store '{}': {dropped} half-written bodies dropped",
            settings.store.display()
        );
    }
    let keys = Keys::new(settings.rules, store.secret);
    let answers = keys.rules().matching.answers;
    let recordings = Recordings::new(answers, settings.memory_bytes_max);
    let cache = Cache::new(settings.cache_bytes_max);
    load(&store, session, &keys, &recordings, &cache);
    let counters = Arc::new(Counters::default());
    counters.answers_unreadable.add(store.refused.len());
    let limits = UpstreamLimits {
        connect: settings.upstream_timeout.min(Duration::from_secs(10)),
        head: settings.upstream_timeout,
        idle: settings.upstream_timeout,
        total: Duration::from_secs(3_600),
        retries_max: 2,
    };
    let (files, next_id) = (store.files.clone(), store.next_id);
    let second = store
        .second()
        .context("could not open the store a second time")?;
    let reader = Reader::start(second, files.clone())?;
    let writer = Writer::start(store)?;
    let shared = Shared {
        mode: AtomicMode::new(settings.mode),
        freshness: settings.freshness,
        miss: settings.miss,
        timing: settings.timing,
        upstreams: settings
            .upstream
            .map(|place| Arc::new(Upstreams::new([place], limits))),
        keeper: Keeper::new(keys, files, session, next_id),
        recordings,
        cache,
        flights: Flights::default(),
        reader,
        writer,
        store: settings.store,
        session_name: settings.session,
        body_bytes_max: settings.body_bytes_max,
        counters,
        http_counters: Arc::default(),
        stop: CancellationToken::new(),
    };
    Ok(Arc::new(shared))
}

/// Fills the index, and the memory as far as there is room.
fn load(store: &Store, session: i64, keys: &Keys, recordings: &Recordings, cache: &Cache) {
    store.each(None, |row| {
        if row.kind == Kind::Cached {
            return load_cached(store, row, cache);
        }
        if row.session != session {
            return;
        }
        let query = row.target.split_once('?').map(|(_, query)| query);
        let pairs = subset(keys, &query);
        let answer = match &row.body {
            BodyPlace::Row(bytes) if blake3::hash(bytes).as_bytes() == &row.digest => {
                let mut stored = Stored::new(row.head, row.framing, bytes.clone());
                stored.trailers = row.trailers;
                stored.timing = row.timing;
                let memory = stored.memory(false);
                Some((stored, memory))
            }
            _ => None,
        };
        recordings.add(&row.key, row.id, pairs, answer);
    });
}

fn load_cached(store: &Store, row: Row, cache: &Cache) {
    let (id, target) = (row.id, row.target.clone());
    match cached::variant_of(row, &store.files) {
        Ok(variant) => {
            // What has no room any more is evicted by and by.
            cache.insert(Arc::new(variant));
        }
        Err(error) => tracing::error!("cached answer {id} for '{target}': {error}"),
    }
}
