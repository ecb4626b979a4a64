//! Number of TCP connections that this process opens.
//!
//! oha reports how long it took to open connections, but not how many it opened. tokio does its I/O
//! through mio, and mio logs each socket that it registers: once per connection, never per request.
//! So this module installs a logger that counts these messages. The others that log here are passed
//! over by their target: rustls logs some messages about each handshake.

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

/// Starts counting.
pub(crate) fn count() -> anyhow::Result<()> {
    log::set_logger(&COUNTER).map_err(|error| anyhow::anyhow!("connections: {error}"))?;
    log::set_max_level(LevelFilter::Trace);
    Ok(())
}

/// Returns the number of connections opened so far, including failed attempts.
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

/// Recognizes connections, which are registered for reading and writing. Timers and signal pipes
/// are registered for reading only.
fn is_connection(message: &fmt::Arguments<'_>) -> bool {
    let message = message.to_string();
    message.starts_with("registering event source with poller")
        && message.ends_with("interests=READABLE | WRITABLE")
}
