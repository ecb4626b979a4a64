//! Reads the configuration again when it changes, or when it is told to.

use tokio::signal::unix::Signal;

use crate::{config::Config, listeners::Listeners, watch::Watch};

/// Reads the configuration anew at each SIGHUP and whenever a watched file changes. A configuration
/// that is invalid, or whose ports are in use, changes nothing.
///
/// Never returns.
pub(crate) async fn reload_forever(
    listeners: &mut Listeners,
    read: impl Fn() -> anyhow::Result<Config>,
    mut hangups: Signal,
    mut watched: Option<Watch>,
    counters: &crate::Counters,
) {
    loop {
        let changed = async {
            match &mut watched {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangups.recv() => {}
            () = changed => {}
        }
        let taken = match read() {
            Ok(config) => listeners.apply(&config).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                counters.reloads.add(1);
                tracing::info!("the configuration was read again");
            }
            Err(error) => {
                counters.reloads_refused.add(1);
                tracing::error!("the configuration stays as it was: {error:#}");
            }
        }
    }
}
