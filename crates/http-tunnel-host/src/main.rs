//! The client's end of the tunnel.
#![forbid(unsafe_code)]

use std::{num::NonZeroUsize, process::ExitCode, thread, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};
use origin::{process, server::Address};
use tunnel::{
    admin::AdminAddress,
    host::{Host, HostOptions},
    transport::{TransportKind, TransportOptions, connections_max},
};

#[derive(Debug, Parser)]
#[command(version, about = "Accepts clients and tunnels their bytes to a plugin")]
struct Options {
    #[command(flatten)]
    transport: TransportOptions,
    /// Where clients connect: HOST:PORT or unix:PATH. Port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:4000", value_name = "ADDR")]
    listen: Address,
    /// Clients connected at a time; more wait to be accepted
    #[arg(long, default_value = "4096", value_name = "N", value_parser = connections_max)]
    max_connections: usize,
    /// Reset clients of which nothing has moved, in either direction, for so long [default: never]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=604_800_000))]
    idle_timeout_ms: Option<u64>,
    /// Where to serve the counters: unix:PATH, a loopback HOST:PORT, or 'none'
    /// [default: a Unix socket beside --addr]
    #[arg(long, value_name = "ADDR")]
    admin: Option<AdminAddress>,
    /// Threads that relay; on ring, cores to use: an event loop for every two of them, and from two
    /// on a helper for long answers on each [default: 1; on ring all cores]
    #[arg(long, value_name = "N", value_parser = process::threads)]
    threads: Option<NonZeroUsize>,
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
    /// What to log on stderr: a level, or a filter such as 'tunnel=debug'
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(message) = options.transport.validate() {
        Options::command()
            .error(ErrorKind::ValueValidation, message)
            .exit();
    }
    process::exit_code(run(options))
}

fn run(options: Options) -> anyhow::Result<()> {
    process::log_to_stderr(&options.log)?;
    process::raise_open_files_limit();
    // On ring the runtime only accepts; elsewhere it relays.
    let one = NonZeroUsize::MIN;
    let is_ring = options.transport.transport == TransportKind::Ring;
    let (runtime_threads, relays) = match (is_ring, options.threads) {
        (true, threads) => (one, threads.map_or_else(thread::available_parallelism, Ok)?),
        (false, threads) => (threads.unwrap_or(one), one),
    };
    let runtime = process::runtime("host", Some(runtime_threads))?;
    runtime.block_on(async {
        let stop = process::stop_requested(options.exit_with_stdin)?;
        let host = Host::bind(HostOptions {
            transport: options.transport,
            listen: options.listen,
            admin: options.admin,
            connections_max: options.max_connections,
            idle_timeout: options.idle_timeout_ms.map(Duration::from_millis),
            threads: relays.get(),
        })
        .await?;
        process::say(&format!("listening on {}", host.address()?));
        let counters = host.counters();
        host.run(stop).await?;
        process::say(&counters.to_json().to_string());
        Ok(())
    })
}
