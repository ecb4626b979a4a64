//! Accepts clients for workers.

use std::{
    net::{SocketAddr, TcpStream as StdStream},
    time::Duration,
};

use service::{ConnectionLimit, Listener, limit::Permit};
use tokio::{net::TcpStream, time::sleep};
use tokio_util::{either::Either, sync::CancellationToken};
use tower_service::Service;

use crate::{
    body::ProxyBody,
    fields::Client,
    plain::PlainRoutes,
    serve::{Call, Serving},
};

/// A client that was accepted.
#[derive(Debug)]
pub struct Accepted {
    stream: StdStream,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its place within the limit.
    permit: Permit,
}

/// Pause after a failed accept. If the process has run out of descriptors, a retry would fail at
/// once.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts clients until it is told to stop, and hands each to `take`. Once there are as many as
/// the limit allows, others wait to be accepted.
pub async fn accept(
    listener: Listener,
    limit: ConnectionLimit,
    stop: CancellationToken,
    take: impl Fn(Accepted),
) {
    loop {
        let accepted = async {
            let permit = limit.permit(|| {}).await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(Either::Left(stream)) => {
                if let (Ok(address), Ok(stream)) = (stream.peer_addr(), stream.into_std()) {
                    take(Accepted {
                        stream,
                        address,
                        permit,
                    });
                }
            }
            Ok(Either::Right(_)) => {}
            Err(error) => {
                tracing::warn!("could not accept a client: {error}");
                sleep(FAILED_PAUSE).await;
            }
        }
    }
}

impl Serving {
    /// Serves a client that was accepted, until its end.
    pub async fn serve_accepted<S>(&self, client: Accepted, service: S)
    where
        S: Service<Call, Response = hyper::Response<ProxyBody>, Error = std::convert::Infallible>,
        S: PlainRoutes + Clone + 'static,
        S::Future: Unpin,
    {
        let Accepted {
            stream,
            address,
            permit: _permit,
        } = client;
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        if stream.set_nodelay(true).is_ok() {
            self.serve(stream, Client::new(address), service).await;
        }
    }
}
