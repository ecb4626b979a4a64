//! Reads the configuration again when it changes, or when it is told to.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::Signal,
    time::{MissedTickBehavior, interval},
};

use crate::{config::Config, listeners::Listeners};

/// Interval at which a watched file is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The marks by which a file is known to have changed.
type Marks = Option<(SystemTime, u64)>;

/// Reads the configuration anew at each SIGHUP and, with `watched`, whenever the file changes. A
/// configuration that is invalid, or whose ports are in use, changes nothing.
///
/// Never returns.
pub(crate) async fn reload_forever(
    listeners: &mut Listeners,
    read: impl Fn() -> anyhow::Result<Config>,
    mut hangups: Signal,
    watched: Option<PathBuf>,
    counters: &crate::Counters,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = watched.as_deref().and_then(marks);
    loop {
        tokio::select! {
            _ = hangups.recv() => {}
            _ = looks.tick(), if watched.is_some() => {
                let now = watched.as_deref().and_then(marks);
                if now == seen {
                    continue;
                }
                seen = now;
            }
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

fn marks(file: &Path) -> Marks {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
