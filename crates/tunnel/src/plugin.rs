//! The plugin: attaches to a host, and answers the tunnels it opens.

use std::{sync::Arc, time::Duration};

use axum::Router;
use origin::server::Address;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    admin::{self, AdminAddress},
    counters::Counters,
    framed::{Peer, Role, Session, Terms, Tunnel, TunnelStream},
    local, rendezvous,
    transport::TransportOptions,
};

/// How a plugin is to run.
#[derive(Clone, Debug)]
pub struct PluginOptions {
    pub transport: TransportOptions,
    pub target: Target,
    /// `None`: a Unix socket beside `--addr`.
    pub admin: Option<AdminAddress>,
    /// How long connecting to an upstream may take.
    pub connect_timeout: Duration,
}

/// What answers at this end.
#[derive(Clone, Debug)]
pub enum Target {
    /// An application in this process, served straight on the tunnels.
    InProcess(Router),
    /// Any server: one connection per tunnel.
    Upstream(Address),
}

/// A plugin that serves its counters.
#[derive(Debug)]
pub struct Plugin {
    options: PluginOptions,
    counters: Arc<Counters>,
    tunnels: TaskTracker,
    stopped: watch::Sender<bool>,
}

impl Plugin {
    /// Serves the counters.
    ///
    /// # Errors
    /// If their address is in use or not permitted.
    pub fn bind(options: PluginOptions) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let beside = || AdminAddress::beside(&options.transport, "plugin");
        let admin = options.admin.clone().unwrap_or_else(beside);
        admin::start(&admin, "http-tunnel-plugin", &options.transport, &counters)?;
        let (tunnels, stopped) = (TaskTracker::new(), watch::Sender::new(false));
        Ok(Self {
            options,
            counters,
            tunnels,
            stopped,
        })
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Attaches to one host after the other until `stop` resolves, then lets open connections
    /// finish for the drain time.
    ///
    /// # Errors
    /// If no host is there within the peer timeout, or it refuses.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let serving = self.serve();
        tokio::pin!(serving);
        tokio::select! {
            () = stop => {}
            result = &mut serving => return result,
        }
        self.tunnels.close();
        tokio::select! {
            _ = timeout(self.options.transport.drain(), self.tunnels.wait()) => {}
            result = &mut serving => return result,
        }
        // The session sends what is left, and ends.
        self.stopped.send_replace(true);
        timeout(STOP_TIMEOUT, serving).await.unwrap_or(Ok(()))
    }

    async fn serve(&self) -> anyhow::Result<()> {
        let mut stopped = self.stopped.subscribe();
        loop {
            let (peer, terms) = tokio::select! {
                attached = rendezvous::attach(&self.options.transport) => attached?,
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
            };
            tracing::info!("attached to the host");
            self.attend(peer, terms).await;
        }
    }

    async fn attend(&self, peer: Peer, terms: Terms) {
        let (session, mut opened) = Session::new(terms, self.counters.clone());
        let running = peer.run(
            &session,
            Role::Acceptor,
            &self.counters,
            self.stopped.subscribe(),
        );
        tokio::pin!(running);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                Some(tunnel) = opened.recv() => self.answer(tunnel),
            }
        };
        abort_all(opened);
        match ended {
            Ok(()) => tracing::info!("the host left"),
            Err(error) => tracing::warn!("the session with the host failed: {error}"),
        }
    }

    fn answer(&self, tunnel: Arc<Tunnel>) {
        // Stopping: what is open is finished, nothing new is begun.
        if self.tunnels.is_closed() {
            return tunnel.abort();
        }
        match &self.options.target {
            Target::InProcess(router) => {
                let router = router.clone();
                self.tunnels.spawn(async move {
                    let stream = TunnelStream::new(tunnel);
                    if let Err(error) = origin::server::serve_stream(stream, router).await {
                        tracing::debug!(error, "connection failed");
                    }
                });
            }
            Target::Upstream(address) => {
                let (address, at_most) = (address.clone(), self.options.connect_timeout);
                self.tunnels.spawn(async move {
                    match local::connect(&address, at_most).await {
                        Ok(socket) => tunnel.relay(socket).await,
                        Err(error) => {
                            tracing::warn!(%address, %error, "could not connect to the upstream");
                            tunnel.abort();
                        }
                    }
                });
            }
        }
    }
}

/// How long the session may take to send what is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

fn abort_all(mut opened: mpsc::UnboundedReceiver<Arc<Tunnel>>) {
    while let Ok(tunnel) = opened.try_recv() {
        tunnel.abort();
    }
}
