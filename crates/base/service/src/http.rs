//! Serves an axum router on a listener, or on a byte stream that is already open.

use std::{
    future::Future,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
/// If the listener fails, or if the clock is where no date of HTTP is.
pub async fn serve(
    acceptor: Acceptor,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<()> {
    check_clock(SystemTime::now())?;
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

/// Checks that a date of HTTP can write the time: with another, each connection would panic.
fn check_clock(now: SystemTime) -> io::Result<()> {
    let since = now.duration_since(UNIX_EPOCH);
    if since.is_ok_and(|since| since < YEAR_10_000) {
        return Ok(());
    }
    Err(io::Error::other(
        "the clock of this machine is not in the years 1970 to 9999, which the dates of HTTP need; \
         set it, for example with 'date --set'",
    ))
}

/// Time from 1970 to the year 10,000.
const YEAR_10_000: Duration = Duration::from_secs(253_402_300_800);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_no_date_can_write_is_refused() {
        let year = Duration::from_secs(365 * 24 * 3_600);
        check_clock(UNIX_EPOCH + year * 8_000).expect("the year 9964");
        for wrong in [UNIX_EPOCH - year, UNIX_EPOCH + year * 10_030] {
            let error = check_clock(wrong).expect_err("no date").to_string();
            assert!(error.contains("1970 to 9999"), "{error}");
        }
    }
}
