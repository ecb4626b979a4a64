//! Serves the clients of one thread.

use std::{
    net::{SocketAddr, TcpStream as StdStream},
    rc::Rc,
    sync::Arc,
};

use http_proxy::{Pool, PoolLimits, Proxy, Serve, Serving};
use service::limit::Permit;
use tokio::net::TcpStream;

use crate::{
    hop::{Hop, Router},
    state::Shared,
};

/// A client that was accepted.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: StdStream,
    pub(crate) address: SocketAddr,
    /// Its place within the limit.
    pub(crate) permit: Permit,
}

/// The work of one thread.
#[derive(Debug)]
pub(crate) struct Worker {
    hop: Rc<Hop>,
    serving: Serving,
}

/// Size of the buffer of a worker for requests that hyper doesn't read.
const PLAIN_BUFFER_BYTES: usize = 128 * 1024;

impl Worker {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let limits = PoolLimits {
            keeps_heads: true,
            ..PoolLimits::default()
        };
        let pool = Pool::start(limits, Arc::clone(&shared.http_counters));
        let proxy = Proxy::new(pool, "replay-proxy");
        let (buffer_bytes, stop) = (limits.buffer_bytes, shared.stop.clone());
        let serving = Serving::new(&proxy, PLAIN_BUFFER_BYTES, buffer_bytes, stop);
        Self {
            hop: Rc::new(Hop {
                proxy,
                pieces: Rc::default(),
                shared: Arc::clone(shared),
            }),
            serving,
        }
    }

    async fn serve_one(&self, client: Client) {
        let Client {
            stream,
            address,
            permit: _permit,
        } = client;
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        if stream.set_nodelay(true).is_ok() {
            let client = http_proxy::Client::new(address);
            self.serving
                .serve(stream, client, Router(Rc::clone(&self.hop)))
                .await;
        }
    }
}

impl Serve<Client> for Worker {
    async fn serve(self: Rc<Self>, client: Client) {
        self.serve_one(client).await;
    }
}
