//! Serves the clients of one thread.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    rc::Rc,
    sync::Arc,
};

use http_proxy::{Place, Pool, PoolLimits, Proxy, Serve, Serving};
use service::limit::Permit;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Counters, Shared,
    config::Route,
    http::{Http, Router},
    relay::relay,
    table::{Key, Port, TcpRoute},
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
    /// All TCP connections read into it.
    buffer: RefCell<Vec<u8>>,
    http: Rc<Http>,
    serving: Serving,
}

impl Worker {
    pub(crate) fn new(shared: &Arc<Shared>, buffer_bytes: usize) -> Self {
        let limits = PoolLimits {
            buffer_bytes: buffer_bytes.max(HTTP_BUFFER_BYTES_MIN),
            ..PoolLimits::default()
        };
        let pool = Pool::start(limits, Arc::clone(&shared.http_counters));
        let proxy = Proxy::new(pool, "forwarder");
        Self {
            counters: Arc::clone(&shared.counters),
            buffer: RefCell::new(vec![0; buffer_bytes]),
            http: Rc::new(Http::new(proxy, Arc::clone(shared))),
            serving: Serving {
                limits: http_proxy::ClientLimits::default(),
                buffer_bytes: limits.buffer_bytes,
                stop: shared.stop.clone(),
                counters: Arc::clone(&shared.http_counters),
            },
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
        let Ok(stream) = TcpStream::from_std(stream) else {
            return self.counters.clients_failed.add(1);
        };
        match port {
            Port::Tcp(tcp) => forward(stream, &tcp, &self.counters, &self.buffer).await,
            Port::Http(_) => {
                let http = Rc::clone(&self.http);
                let router = Router { http, key };
                let client = http_proxy::Client::new(address);
                self.serving.serve(stream, client, router).await;
            }
        }
    }
}

/// Smallest buffer of an HTTP connection: hyper takes no smaller one.
const HTTP_BUFFER_BYTES_MIN: usize = 16 * 1024;

impl Serve<Client> for Worker {
    async fn serve(self: Rc<Self>, client: Client) {
        self.serve_one(client).await;
    }
}

async fn forward(
    mut client: TcpStream,
    tcp: &TcpRoute,
    counters: &Counters,
    buffer: &RefCell<Vec<u8>>,
) {
    let route = &tcp.route;
    let mut target = match connect(route).await {
        Ok(target) => target,
        Err(error) => {
            counters.targets_missing.add(1);
            tracing::warn!(
                "route '{}': could not reach its target: {error}",
                route.name
            );
            return reset(&client);
        }
    };
    let (up, down, result) = relay(&mut client, &mut target, buffer).await;
    counters.bytes_up.add(up);
    counters.bytes_down.add(down);
    if let Err(error) = result {
        counters.connections_failed.add(1);
        tracing::debug!("route '{}': {error}", route.name);
        // What one side learns by a reset, the other must not take for an end.
        reset(&client);
        reset(&target);
    }
}

/// Connects to the first target that can be reached.
async fn connect(route: &Route) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::NotFound.into();
    for place in &route.targets {
        let connecting = async {
            match place {
                Place::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
                Place::Address(address) => TcpStream::connect(address).await,
            }
        };
        match timeout(route.timeout, connecting).await {
            Ok(Ok(target)) => {
                target.set_nodelay(true)?;
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
