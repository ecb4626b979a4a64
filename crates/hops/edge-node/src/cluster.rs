//! Exchanges counters with other nodes, over HTTP: each node posts what has changed to each peer,
//! and gets the peer's changes in the answer. What is lost is sent again.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::post,
};
use http_body_util::{BodyExt as _, Full, Limited};
use http_proxy::Place;
use hyper::{Request, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Cluster,
    crdt::{Exchange, Heard, wire::MESSAGE_BYTES_MAX},
    state::{Counters, now_ms},
};

/// State that the tasks of the exchange share.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) exchange: Exchange,
    pub(crate) counters: Arc<Counters>,
}

/// Time limit of an exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(1);

/// Most exchanges in a row with a peer that has more to say.
const IN_A_ROW_MAX: usize = 8;

const PATH: &str = "/counters";

/// Makes the routes at which peers post.
pub(crate) fn router(nodes: &Arc<Nodes>) -> Router {
    Router::new()
        .route(PATH, post(take))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(Arc::clone(nodes))
}

async fn take(State(nodes): State<Arc<Nodes>>, message: Bytes) -> Result<Vec<u8>, StatusCode> {
    let answer = nodes.exchange.answer(&message, clock());
    match answer {
        Ok((answer, heard)) => {
            nodes.note(&heard);
            Ok(answer)
        }
        Err(error) => {
            nodes.counters.messages_refused.add(1);
            tracing::debug!("a message is not taken: {error}");
            Err(StatusCode::BAD_REQUEST)
        }
    }
}

impl Nodes {
    fn note(&self, heard: &Heard) {
        let refused = usize::try_from(heard.applied.refused).unwrap_or(usize::MAX);
        self.counters.counts_refused.add(refused);
    }

    /// Exchanges with all peers until it is told to stop.
    pub(crate) async fn exchange_forever(
        self: Arc<Self>,
        cluster: Cluster,
        stop: CancellationToken,
    ) {
        let mut peers = JoinSet::new();
        for (index, peer) in cluster.peers.into_iter().enumerate() {
            peers.spawn(Arc::clone(&self).exchange_with(index, peer, cluster.interval));
        }
        stop.cancelled().await;
    }

    async fn exchange_with(self: Arc<Self>, index: usize, peer: Place, pause: Duration) {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_reached = true;
        loop {
            ticks.tick().await;
            let now = clock();
            self.exchange.store().expire(now);
            for _ in 0..IN_A_ROW_MAX {
                let exchanged = timeout(EXCHANGE_MAX, self.exchange_once(index, &peer)).await;
                let exchanged =
                    exchanged.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
                let has_more = match exchanged {
                    Ok(heard) => {
                        was_reached = true;
                        self.counters.exchanges.add(1);
                        self.note(&heard);
                        heard.more
                    }
                    Err(error) => {
                        self.counters.exchanges_failed.add(1);
                        if std::mem::take(&mut was_reached) {
                            tracing::warn!("peer '{peer}' can't be reached: {error:#}");
                        }
                        false
                    }
                };
                if !has_more {
                    break;
                }
            }
        }
    }

    async fn exchange_once(&self, index: usize, peer: &Place) -> anyhow::Result<Heard> {
        let message = self.exchange.offer(index)?;
        let stream = match peer {
            Place::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
            Place::Address(address) => TcpStream::connect(address).await?,
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(PATH)
            .header("host", "peer")
            .body(Full::new(Bytes::from(message)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "it answered {status}");
        let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX)
            .collect()
            .await;
        connection.abort();
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok(self.exchange.heard(index, &body, clock())?)
    }
}

fn clock() -> u64 {
    u64::try_from(now_ms()).unwrap_or_default()
}
