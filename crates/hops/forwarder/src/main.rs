//! A forwarder of TCP ports.
#![forbid(unsafe_code)]

mod config;
mod relay;
mod worker;

use std::{
    net::SocketAddr, num::NonZeroUsize, path::PathBuf, process::ExitCode, sync::Arc, thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use service::{
    Address, AdminAddress, ConnectionLimit, Listener, ProcessArgs, Server, admin::Program, args,
    process, server,
};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;

use crate::{
    config::{Config, Route},
    worker::{Client, Workers},
};

service::counters! {
    /// Counters of the forwarder.
    pub(crate) struct Counters, "forwarder_" {
        /// clients accepted, on all routes
        clients_accepted: Counter, "clients";
        /// clients that were gone before they could be served
        clients_failed: Counter, "clients";
        /// times that no client was accepted because max_connections was reached
        accept_stalls: Counter, "stalls";
        /// clients whose target could not be reached
        targets_missing: Counter, "clients";
        /// connections that one side reset
        connections_failed: Counter, "connections";
        /// half-closed connections on which nothing moved for half_closed_seconds
        half_closed_reaped: Counter, "connections";
        /// connections on which nothing moved for idle_seconds
        idle_reaped: Counter, "connections";
        /// reads that had to copy, as no pipe could be made; counted when a connection ends
        pipes_missing: Counter, "reads";
        /// bytes that went through a pipe, counted when a connection ends
        bytes_spliced: Counter, "bytes";
        /// bytes from clients to targets, counted when a connection ends
        bytes_up: Counter, "bytes";
        /// bytes from targets to clients, counted when a connection ends
        bytes_down: Counter, "bytes";
    }
}

/// Forwards TCP ports to other addresses
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// Number of threads that relay [default: one per core that the process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Port of the main route, in place of the file's
    #[arg(long, value_name = "PORT", global = true)]
    listen_port: Option<u16>,
    /// Port of the main route's target, in place of the file's
    #[arg(long, value_name = "PORT", global = true)]
    target_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Forward (the default)
    Start,
    /// Check the configuration and print the routes
    Check,
    /// Print a configuration to begin with
    GenerateConfig,
}

/// Interval at which a stopping forwarder looks for connections that are still open.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Pause after a failed accept. If the process has run out of descriptors, a retry would fail at
/// once.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let options = Options::parse();
    match options.command.unwrap_or(Command::Start) {
        Command::GenerateConfig => {
            process::say(include_str!("../examples/01-basic-tcp.toml").trim_end());
            ExitCode::SUCCESS
        }
        Command::Check => process::exit_code(check(&options.config)),
        Command::Start => {
            let process = options.process.clone();
            // One thread accepts; the workers relay.
            let one = Some(NonZeroUsize::MIN);
            server::run("accept", one, &process, async |server| {
                serve(server, options).await
            })
        }
    }
}

impl ConfigArgs {
    fn read(&self) -> anyhow::Result<Config> {
        let mut config = Config::read(self.config.as_deref())?;
        config.listen_port = self.listen_port.unwrap_or(config.listen_port);
        config.target_port = self.target_port.unwrap_or(config.target_port);
        Ok(config)
    }
}

fn check(config: &ConfigArgs) -> anyhow::Result<()> {
    for route in config.read()?.routes()? {
        let ((address, port), (host, target)) = (&route.listen, &route.target);
        process::say(&format!(
            "{}: {} to {host}:{target}",
            route.name,
            SocketAddr::new(*address, *port)
        ));
    }
    Ok(())
}

async fn serve(mut server: Server, options: Options) -> anyhow::Result<()> {
    let config = options.config.read()?;
    let routes = config.routes()?;
    let counters = Arc::new(Counters::default());
    server.registry.register(counters.clone());
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let workers = Arc::new(Workers::start(
        threads,
        config.buffer_size_kb * 1024,
        &counters,
    )?);
    let limit = Arc::new(ConnectionLimit::new(config.max_connections));
    let mut accepting = Vec::new();
    for route in routes {
        let (address, port) = route.listen;
        let listener = Listener::bind(&Address::Tcp(SocketAddr::new(address, port)))?;
        let listening = listener.address()?;
        process::say(&format!(
            "listening on {listening} (route '{}')",
            route.name
        ));
        let accept = accept_all(
            listener,
            Arc::new(route),
            Arc::clone(&limit),
            Arc::clone(&workers),
            Arc::clone(&counters),
        );
        accepting.push(tokio::spawn(accept));
    }
    let program = Program::new("forwarder", env!("CARGO_PKG_VERSION"));
    server.serve_admin(program, AdminAddress::Nowhere)?;
    (&mut server.stop).await;
    for accept in &accepting {
        accept.abort();
    }
    let all_closed = async {
        while workers.open() > 0 {
            sleep(DRAIN_LOOK).await;
        }
    };
    if timeout(server.drain, all_closed).await.is_err() {
        tracing::info!("connections were still open at the end of the drain");
    }
    Ok(())
}

/// Accepts the clients of a route until it is aborted.
async fn accept_all(
    listener: Listener,
    route: Arc<Route>,
    limit: Arc<ConnectionLimit>,
    workers: Arc<Workers>,
    counters: Arc<Counters>,
) {
    loop {
        let permit = limit.permit(|| counters.accept_stalls.add(1)).await;
        match listener.accept().await.map(|stream| match stream {
            Either::Left(stream) => stream.into_std(),
            Either::Right(_) => Err(std::io::ErrorKind::Unsupported.into()),
        }) {
            Ok(Ok(stream)) => {
                counters.clients_accepted.add(1);
                let route = Arc::clone(&route);
                workers.take(Client {
                    stream,
                    route,
                    permit,
                });
            }
            // The client has gone.
            Ok(Err(_)) => counters.clients_failed.add(1),
            Err(error) => {
                tracing::warn!("route '{}': could not accept: {error}", route.name);
                sleep(FAILED_PAUSE).await;
            }
        }
    }
}
