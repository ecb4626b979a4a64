//! The listening ports, and how a new configuration takes the place of an old one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_proxy::Workers;
use service::{Address, ConnectionLimit, Listener, process};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::{either::Either, sync::CancellationToken};

use crate::{
    Shared,
    config::Config,
    table::{self, Key, Port, Table},
    worker::Client,
};

/// The listening ports.
#[derive(Debug)]
pub(crate) struct Listeners {
    shared: Arc<Shared>,
    workers: Arc<Workers<Client>>,
    open: BTreeMap<Key, Open>,
    /// The limit on all clients, and its size.
    limit: Arc<Mutex<(usize, ConnectionLimit)>>,
}

/// A port that is listened at.
#[derive(Debug)]
struct Open {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

/// Pause after a failed accept. If the process has run out of descriptors, a retry would fail at
/// once.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

impl Listeners {
    /// Prepares to listen for `workers`.
    pub(crate) fn new(shared: Arc<Shared>, workers: Arc<Workers<Client>>, config: &Config) -> Self {
        let most = config.max_connections;
        Self {
            shared,
            workers,
            open: BTreeMap::new(),
            limit: Arc::new(Mutex::new((most, ConnectionLimit::new(most)))),
        }
    }

    /// Has a configuration take the place of the one before, as a whole. Connections that are open
    /// go on; an HTTP connection's next request is routed by the new configuration.
    ///
    /// # Errors
    /// If a port can't be listened at. Then nothing has changed.
    pub(crate) async fn apply(&mut self, config: &Config) -> anyhow::Result<()> {
        let old = self.shared.table.load_full();
        let table = table::build(config, &old, Some(&self.shared.log));
        let mut opened = Vec::new();
        for (key, port) in &table {
            if !self.open.contains_key(key) {
                let listener = bind(key.address, port)?;
                let address = listener.address()?;
                opened.push((key.clone(), listener, address, port.names()));
            }
        }
        let table = Arc::new(table);
        self.shared.table.store(Arc::clone(&table));
        self.set_limit(config.max_connections);
        self.close(|key| !table.contains_key(key)).await;
        for (key, listener, address, names) in opened {
            process::say(&format!("listening on {address} (route {names})"));
            let stop = CancellationToken::new();
            let accepting = self.accept_all(listener, key.clone(), stop.clone());
            let accepting = tokio::spawn(accepting);
            self.open.insert(key, Open { stop, accepting });
        }
        Ok(())
    }

    /// Stops listening at the ports that `is_over` names, and waits until they can be listened at
    /// again.
    pub(crate) async fn close(&mut self, is_over: impl Fn(&Key) -> bool) {
        let over: Vec<Open> = self
            .open
            .extract_if(.., |key, _| is_over(key))
            .map(|it| it.1)
            .collect();
        for Open { stop, accepting } in over {
            stop.cancel();
            // It fails only if it panicked, and then the port is closed, too.
            accepting.await.ok();
        }
    }

    fn set_limit(&self, most: usize) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.0 != most {
            // The clients of before count within the limit of before.
            *limit = (most, ConnectionLimit::new(most));
        }
    }

    /// Accepts the clients of a port until `stop`.
    fn accept_all(
        &self,
        listener: Listener,
        key: Key,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
        let limit = Arc::clone(&self.limit);
        let key = Arc::new(key);
        async move {
            let accepting = Accepting {
                listener,
                key,
                shared,
                limit,
            };
            while let Some(client) = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                client = accepting.client() => Some(client),
            } {
                if let Some(client) = client {
                    workers.take(client);
                }
            }
        }
    }
}

/// A port at which clients are accepted.
struct Accepting {
    listener: Listener,
    key: Arc<Key>,
    shared: Arc<Shared>,
    limit: Arc<Mutex<(usize, ConnectionLimit)>>,
}

impl Accepting {
    /// Accepts a client. Returns `None` if that failed.
    ///
    /// The client waits for the route's limit and then for that of all. So a port at its limit
    /// accepts one client more, which waits, and takes nothing from other ports.
    async fn client(&self) -> Option<Client> {
        let counters = &self.shared.counters;
        let stream = match self.listener.accept().await {
            Ok(Either::Left(stream)) => stream,
            Ok(Either::Right(_)) => return None,
            Err(error) => {
                tracing::warn!("could not accept at {}: {error}", self.key.address);
                sleep(FAILED_PAUSE).await;
                return None;
            }
        };
        counters.clients_accepted.add(1);
        let stalled = || {
            if counters.accept_stalls.get() == 0 {
                tracing::warn!(
                    "a client has to wait, since max_connections is reached; later ones are only \
                     counted"
                );
            }
            counters.accept_stalls.add(1);
        };
        let own = match self.port()? {
            Port::Tcp(tcp) => tcp.limit.clone(),
            Port::Http(_) => None,
        };
        let own = match own {
            Some(limit) => Some(limit.permit(stalled).await),
            None => None,
        };
        let all = self
            .limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .clone();
        let all = all.permit(stalled).await;
        let address = stream.peer_addr();
        let (Ok(address), Ok(stream)) = (address, stream.into_std()) else {
            // It has gone.
            counters.clients_failed.add(1);
            return None;
        };
        Some(Client {
            stream,
            address,
            port: self.port()?,
            key: Arc::clone(&self.key),
            permits: (own, all),
        })
    }

    /// Returns what the port forwards now; `None` if it is about to close.
    fn port(&self) -> Option<Port> {
        let table: &Table = &self.shared.table.load();
        table.get(&self.key).cloned()
    }
}

fn bind(address: SocketAddr, port: &Port) -> anyhow::Result<Listener> {
    let listener = Listener::bind(&Address::Tcp(address));
    listener.map_err(|error| error.context(format!("route {}", port.names())))
}
