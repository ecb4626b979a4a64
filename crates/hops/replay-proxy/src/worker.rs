//! Serves the clients of one thread.

use std::{rc::Rc, sync::Arc};

use http_proxy::{Accepted, Pool, PoolLimits, Proxy, Serve, Serving};

use crate::{
    hop::{Hop, Router},
    state::Shared,
};

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
}

impl Serve<Accepted> for Worker {
    async fn serve(self: Rc<Self>, client: Accepted) {
        let router = Router(Rc::clone(&self.hop));
        self.serving.serve_accepted(client, router).await;
    }
}
