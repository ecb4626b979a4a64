//! The life of a forwarder.

use std::{io, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use arc_swap::ArcSwap;
use http_proxy::{AccessLog, Workers};
use service::{AdminAddress, Server, admin::Program};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    Counters, Shared, cli::StartArgs, config::Config, listeners::Listeners, reload, watch,
    watch::Watch, worker::Worker,
};

/// How long the last lines of the access log may take.
const LOG_END: Duration = Duration::from_secs(1);

/// Forwards until the process is told to stop.
pub(crate) async fn serve(
    mut server: Server,
    options: StartArgs,
    config: Config,
) -> anyhow::Result<()> {
    let (counters, http_counters) = (Arc::new(Counters::default()), Arc::default());
    server.registry.register(Arc::clone(&counters) as _);
    server.registry.register(Arc::clone(&http_counters) as _);
    let (format, when_full) = (config.log_format, config.log_when_full);
    let log = AccessLog::start(io::stdout(), format, when_full, &http_counters);
    let (log, log_writer) = log?;
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        table: ArcSwap::default(),
        counters,
        http_counters,
        log,
        stop: stop.clone(),
    });
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let (workers_share, buffer_bytes) = (Arc::clone(&shared), config.buffer_bytes);
    let make = move || Worker::new(&workers_share, buffer_bytes);
    let workers = Arc::new(Workers::start(threads, "forwarder", make)?);
    let program = Program::new("forwarder", env!("CARGO_PKG_VERSION"));
    server.serve_admin(program, AdminAddress::Nowhere)?;
    // Until then, the signal would end the process.
    let hangups = signal(SignalKind::hangup())?;
    let mut listeners = Listeners::new(Arc::clone(&shared), Arc::clone(&workers), &config);
    listeners.apply(&config).await?;
    let watched = options.config.file.clone().filter(|_| options.watch);
    let watched = watched.map(|file| Watch::new(file, watch::LOOK));
    let read = || options.config.read();
    let reload = reload::reload_forever(&mut listeners, read, hangups, watched, &shared.counters);
    tokio::select! {
        () = &mut server.stop => {}
        () = reload => {}
    }
    listeners.close(|_| true).await;
    stop.cancel();
    if !workers.drained(server.drain).await {
        tracing::info!("connections were still open at the end of the drain");
    }
    drop((listeners, workers, shared));
    log_writer.finish(LOG_END);
    Ok(())
}
