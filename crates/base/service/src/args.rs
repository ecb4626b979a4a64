//! The command-line arguments that all servers share.

use std::{num::NonZeroUsize, time::Duration};

use crate::{Address, AdminAddress, limit};

/// The arguments of every server process.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessArgs {
    /// Address at which to serve the counters: unix:PATH, a loopback HOST:PORT, or 'none'
    /// [default: none]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<AdminAddress>,
    /// Milliseconds that open connections may take to finish after SIGTERM or SIGINT
    #[arg(long, default_value_t = 2_000, value_name = "MS")]
    pub drain_ms: u64,
    /// Stop when stdin reaches its end
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// Log level or filter for stderr, such as 'info' or 'info,hyper=warn'
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

/// The arguments of every server that clients connect to.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address for clients: HOST:PORT or unix:PATH. Port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:4000", value_name = "ADDR")]
    pub listen: Address,
    /// Largest number of clients connected at a time; any others wait to be accepted
    #[arg(long, default_value = "4096", value_name = "N", value_parser = limit::connections_max)]
    pub max_connections: usize,
    /// The arguments of every process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl ProcessArgs {
    /// Returns how long open connections may take to finish.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// Parses a number of threads.
///
/// # Errors
/// If it is not a number from 1 to 1024.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= THREADS_MAX => Ok(threads),
        _ => Err(format!("expected a number from 1 to {THREADS_MAX}")),
    }
}

/// Largest number of threads: more than any machine can use.
const THREADS_MAX: usize = 1024;
