//! How many TCP connections this process opens.
//!
//! oha says how long opening took on average, and not how often it was done. But tokio does its I/O
//! through mio, and mio logs each socket that it begins to watch: once for each connection, and
//! nothing for a request. So this is a logger that counts. Nothing else here logs: rustls would,
//! and TLS is never used.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use log::{LevelFilter, Log, Metadata, Record};

#[derive(Debug)]
struct Counter {
    opened: AtomicU64,
}

static COUNTER: Counter = Counter {
    opened: AtomicU64::new(0),
};

/// Counts from now on.
pub(crate) fn count() -> anyhow::Result<()> {
    log::set_logger(&COUNTER).map_err(|error| anyhow::anyhow!("connections: {error}"))?;
    log::set_max_level(LevelFilter::Trace);
    Ok(())
}

/// Connections that were opened so far, or tried to be.
pub(crate) fn opened() -> u64 {
    COUNTER.opened.load(Relaxed)
}

impl Log for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "mio::poll"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && is_connection(record.args()) {
            self.opened.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Timers and the pipes of signals are watched for reading only.
fn is_connection(message: &fmt::Arguments<'_>) -> bool {
    let message = message.to_string();
    message.starts_with("registering event source with poller")
        && message.ends_with("interests=READABLE | WRITABLE")
}
