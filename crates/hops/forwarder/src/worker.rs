//! Serves the clients of one thread.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http_proxy::{Place, Pool, PoolLimits, Proxy, Serve, Serving};
use service::limit::Permit;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Counters, Shared,
    config::Route,
    http::{Http, Router},
    proxy_header::Ends,
    relay::{self, End, Side, Socket, relay},
    table::{Key, Port},
};

/// A client that was accepted.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: StdStream,
    pub(crate) address: SocketAddr,
    pub(crate) port: Port,
    pub(crate) key: Arc<Key>,
    /// Its places within the limits.
    pub(crate) permits: (Option<Permit>, Permit),
}

/// The work of one thread.
#[derive(Debug)]
pub(crate) struct Worker {
    counters: Arc<Counters>,
    /// The buffer and the pipes of all TCP connections.
    relays: RefCell<relay::Shared>,
    http: Rc<Http>,
    serving: Serving,
}

impl Worker {
    pub(crate) fn new(shared: &Arc<Shared>, buffer_bytes: usize) -> Self {
        let limits = PoolLimits {
            buffer_bytes: buffer_bytes.clamp(HYPER_BUFFER_BYTES_MIN, HYPER_BUFFER_BYTES_MAX),
            ..PoolLimits::default()
        };
        let pool = Pool::start(limits, Arc::clone(&shared.http_counters));
        let proxy = Proxy::new(pool, "forwarder");
        let plain_buffer_bytes = buffer_bytes.max(HYPER_BUFFER_BYTES_MIN);
        let stop = shared.stop.clone();
        let serving = Serving::new(&proxy, plain_buffer_bytes, limits.buffer_bytes, stop);
        Self {
            counters: Arc::clone(&shared.counters),
            relays: RefCell::new(relay::Shared::new(buffer_bytes)),
            http: Rc::new(Http::new(proxy, Arc::clone(shared))),
            serving,
        }
    }

    async fn serve_one(&self, client: Client) {
        let Client {
            stream,
            address,
            port,
            key,
            permits: _permits,
        } = client;
        let Ok((stream, ends)) = self.begin(stream, address, port.accepts_proxy()).await else {
            return self.counters.clients_failed.add(1);
        };
        match port {
            Port::Tcp(tcp) => self.forward(stream, ends, &tcp.route).await,
            Port::Http(_) => {
                let http = Rc::clone(&self.http);
                let router = Router { http, key };
                let client = http_proxy::Client::new(ends.client);
                // Apart, or TCP connections would have memory for it, too.
                Box::pin(self.serving.serve(stream, client, router)).await;
            }
        }
    }

    /// Registers a client's socket and finds out who the client is.
    async fn begin(
        &self,
        stream: StdStream,
        address: SocketAddr,
        accepts_proxy: bool,
    ) -> io::Result<(TcpStream, Ends)> {
        let mut stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        let mut ends = Ends::of(&stream, address)?;
        if accepts_proxy {
            ends = ends.read(&mut stream).await.map_err(|error| {
                self.counters.proxy_headers_refused.add(1);
                tracing::warn!("client {address} was refused: {error}");
                reset(&stream);
                io::Error::other(error)
            })?;
        }
        Ok((stream, ends))
    }

    /// Forwards a TCP connection until its end.
    async fn forward(&self, client: TcpStream, ends: Ends, route: &Route) {
        let counters = &self.counters;
        let Ok(client) = client.into_std().and_then(Socket::new) else {
            return counters.clients_failed.add(1);
        };
        let target = match connect(route, ends).await {
            Ok(target) => target,
            Err(error) => {
                counters.targets_missing.add(1);
                tracing::warn!(
                    "route '{}': could not reach its target: {error}",
                    route.name
                );
                return client.reset();
            }
        };
        let relayed = relay(&client, &target, &route.terms, &self.relays).await;
        counters.bytes_up.add(relayed.bytes_up);
        counters.bytes_down.add(relayed.bytes_down);
        counters.bytes_spliced.add(relayed.bytes_spliced);
        counters.pipes_missing.add(relayed.pipes_missing);
        end(client, target, route, relayed.end, counters).await;
    }
}

/// Smallest buffer of a connection that hyper reads: it takes no smaller one.
const HYPER_BUFFER_BYTES_MIN: usize = 16 * 1024;

/// Largest buffer of such a connection. Each has its own.
const HYPER_BUFFER_BYTES_MAX: usize = 32 * 1024;

impl Serve<Client> for Worker {
    async fn serve(self: Rc<Self>, client: Client) {
        self.serve_one(client).await;
    }
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

/// Connects to the first target that can be reached, and tells it who the client is, if it is to
/// know.
async fn connect(route: &Route, ends: Ends) -> io::Result<Socket> {
    let mut failed = io::ErrorKind::NotFound.into();
    for place in &route.targets {
        let connecting = async {
            match place {
                Place::Name(host, port) => Socket::connect(host, *port).await,
                Place::Address(address) => Socket::connect_to(*address).await,
            }
        };
        match timeout(route.timeout, connecting).await {
            Ok(Ok(target)) => {
                if let Some(version) = route.sends_proxy {
                    target.write_first(&ends.header(version)?)?;
                }
                return Ok(target);
            }
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// Lets a connection end with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}
