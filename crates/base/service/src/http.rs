//! Serves an axum router on a listener, or on a byte stream that is already open.

use std::{future::Future, io, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use crate::connections::Acceptor;

/// Serves `router` until `stop` resolves, then lets open requests finish for at most `drain`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    acceptor: Acceptor,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        stop.await;
        // Fails only if serving has already ended by itself.
        let _ = stopping.send(());
    };
    let serving = axum::serve(acceptor, router).with_graceful_shutdown(stop);
    let overdue = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        result = serving.into_future() => result?,
        () = overdue => {
            tracing::info!(?drain, "connections were still open at the end of the drain");
        }
    }
    Ok(())
}

/// Serves `router` on one open byte stream, as [`serve`] does on each that it accepts. An HTTP/1
/// head must be complete within `head_timeout` of its first byte, or of the answer before it.
///
/// # Errors
/// The error with which the connection ended, if it did not end cleanly.
pub async fn serve_stream<S>(
    stream: S,
    router: Router,
    head_timeout: Option<Duration>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    if let Some(limit) = head_timeout {
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limit);
    }
    server
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
