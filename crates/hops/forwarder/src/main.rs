//! A forwarder of TCP and HTTP ports.
#![forbid(unsafe_code)]

mod allow;
mod config;
mod http;
mod listeners;
mod relay;
mod reload;
mod table;
mod worker;

use std::{
    io, num::NonZeroUsize, path::PathBuf, process::ExitCode, sync::Arc, thread, time::Duration,
};

use arc_swap::ArcSwap;
use clap::{Parser, Subcommand};
use http_proxy::{AccessLog, Place, ProxyCounters, Workers};
use service::{AdminAddress, ProcessArgs, Server, admin::Program, args, process, server};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Overrides},
    listeners::Listeners,
    table::Table,
    worker::Worker,
};

service::counters! {
    /// Counters of the forwarder.
    pub(crate) struct Counters, "forwarder_" {
        /// clients accepted, on all routes
        clients_accepted: Counter, "clients";
        /// clients that were gone before they could be served
        clients_failed: Counter, "clients";
        /// clients that had to wait because max_connections was reached
        accept_stalls: Counter, "stalls";
        /// TCP clients whose target could not be reached
        targets_missing: Counter, "clients";
        /// TCP connections that one side reset
        connections_failed: Counter, "connections";
        /// TCP bytes from clients to targets, counted when a connection ends
        bytes_up: Counter, "bytes";
        /// TCP bytes from targets to clients, counted when a connection ends
        bytes_down: Counter, "bytes";
        /// times a new configuration was taken
        reloads: Counter, "configurations";
        /// times a new configuration was refused
        reloads_refused: Counter, "configurations";
    }
}

/// State that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http_counters: Arc<ProxyCounters>,
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Cancelled when the process is told to stop.
    pub(crate) stop: CancellationToken,
}

/// Forwards TCP and HTTP ports to other addresses
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, clap::Args)]
struct StartArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// Number of threads that relay [default: one per core that the process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
    /// Read the configuration again whenever the file changes, not only at SIGHUP
    #[arg(long)]
    watch: bool,
    /// Log more: the same as --log=info
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Port of the main route, in place of the file's
    #[arg(long, value_name = "PORT")]
    listen_port: Option<u16>,
    /// Port of the main route's target, in place of the file's
    #[arg(long, value_name = "PORT")]
    target_port: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward (the default)
    Start(Box<StartArgs>),
    /// Check the configuration and print the routes
    Check(ConfigArgs),
    /// Print a configuration to begin with
    GenerateConfig,
}

/// Exit code for an invalid configuration, as for invalid arguments.
const EXIT_CONFIG: u8 = 2;

/// How long the last lines of the access log may take.
const LOG_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::parse();
    match options.command {
        None => start(options.start),
        Some(Command::Start(args)) => start(*args),
        Some(Command::GenerateConfig) => {
            process::say(include_str!("../examples/01-basic-tcp.toml").trim_end());
            ExitCode::SUCCESS
        }
        Some(Command::Check(args)) => match args.read() {
            Ok(config) => {
                check(&config);
                ExitCode::SUCCESS
            }
            Err(error) => invalid(error),
        },
    }
}

fn start(options: StartArgs) -> ExitCode {
    // It is read before anything else, so that mistakes in it have an exit code of their own.
    let config = match options.config.read() {
        Ok(config) => config,
        Err(error) => return invalid(error),
    };
    let mut process = options.process.clone();
    if options.verbose && process.log == "warn" {
        "info".clone_into(&mut process.log);
    }
    // One thread accepts; the workers relay.
    let one = Some(NonZeroUsize::MIN);
    server::run("accept", one, &process, async |server| {
        serve(server, options, config).await
    })
}

fn invalid(error: anyhow::Error) -> ExitCode {
    process::exit_code(Err(error));
    ExitCode::from(EXIT_CONFIG)
}

impl ConfigArgs {
    fn read(&self) -> anyhow::Result<Config> {
        let overrides = Overrides {
            listen_port: self.listen_port,
            target_port: self.target_port,
        };
        Config::read(self.config.as_deref(), overrides)
    }
}

fn check(config: &Config) {
    for route in &config.routes {
        let targets: Vec<_> = route.targets.iter().map(Place::to_string).collect();
        let targets = match targets.as_slice() {
            [] => "where the request says".to_owned(),
            targets => targets.join(", "),
        };
        let mode = match &route.http {
            None => "TCP".to_owned(),
            Some(http) => match &http.host {
                None => "HTTP".to_owned(),
                Some(host) => format!("HTTP for '{host}'"),
            },
        };
        let (name, listen) = (&route.name, route.listen);
        process::say(&format!("{name}: {mode} at {listen} to {targets}"));
    }
}

async fn serve(mut server: Server, options: StartArgs, config: Config) -> anyhow::Result<()> {
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
        log: Some(log),
        stop: stop.clone(),
    });
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let (workers_share, buffer_bytes) = (Arc::clone(&shared), config.buffer_bytes);
    let make = move || Worker::new(&workers_share, buffer_bytes);
    let workers = Arc::new(Workers::start(threads, "forwarder", make)?);
    let mut listeners = Listeners::new(Arc::clone(&shared), Arc::clone(&workers), &config);
    listeners.apply(&config).await?;
    let program = Program::new("forwarder", env!("CARGO_PKG_VERSION"));
    server.serve_admin(program, AdminAddress::Nowhere)?;
    let watched = options.config.config.clone().filter(|_| options.watch);
    let read = || options.config.read();
    let reload = reload::reload_forever(&mut listeners, read, watched, &shared.counters);
    tokio::select! {
        () = &mut server.stop => {}
        failed = reload => failed?,
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
