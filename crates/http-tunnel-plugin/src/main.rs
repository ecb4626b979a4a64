//! The origin's end of the tunnel.
#![forbid(unsafe_code)]

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use origin::{
    process,
    server::{Address, Listener},
};
use tunnel::{
    admin::AdminAddress,
    plugin::{Plugin, PluginOptions, Target},
    transport::TransportOptions,
};

#[derive(Debug, Parser)]
#[command(version, about = "Answers the tunnels that a host opens")]
struct Options {
    #[command(flatten)]
    transport: TransportOptions,
    /// Where the built-in origin is: behind loopback TCP, or served straight on the tunnels
    #[arg(long, value_enum, default_value = "tcp", conflicts_with = "upstream")]
    origin: Origin,
    /// Port of the built-in origin on 127.0.0.1; 0 takes any free one
    #[arg(
        long,
        default_value_t = 9876,
        value_name = "PORT",
        conflicts_with = "upstream"
    )]
    origin_port: u16,
    /// Threads of the built-in origin behind TCP; default: one per core
    #[arg(long, value_name = "N", conflicts_with = "upstream", value_parser = process::threads)]
    origin_threads: Option<NonZeroUsize>,
    /// Relay to this server instead of the built-in origin: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    upstream: Option<Address>,
    /// How long connecting to the origin or upstream may take
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    connect_timeout_ms: u64,
    /// With --origin=in-process: close connections whose next request's head takes longer than so
    /// [default: never]
    #[arg(
        long,
        value_name = "MS",
        conflicts_with = "upstream",
        value_parser = clap::value_parser!(u64).range(10..=604_800_000),
    )]
    head_timeout_ms: Option<u64>,
    /// Where to serve the counters: unix:PATH, a loopback HOST:PORT, or 'none'
    /// [default: a Unix socket beside --addr]
    #[arg(long, value_name = "ADDR")]
    admin: Option<AdminAddress>,
    /// Threads that relay, or that relay and serve with --origin=in-process
    #[arg(long, default_value = "1", value_name = "N", value_parser = process::threads)]
    threads: NonZeroUsize,
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
    /// What to log on stderr: a level, or a filter such as 'tunnel=debug'
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Origin {
    InProcess,
    Tcp,
}

impl Options {
    fn validate(&self) -> Result<(), String> {
        if self.head_timeout_ms.is_some() && self.origin != Origin::InProcess {
            let message = "'--head-timeout-ms' needs '--origin=in-process': only there are \
                           requests read by the plugin itself";
            return Err(message.to_owned());
        }
        self.transport.validate()
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(message) = options.validate() {
        Options::command()
            .error(ErrorKind::ValueValidation, message)
            .exit();
    }
    process::exit_code(run(options))
}

fn run(options: Options) -> anyhow::Result<()> {
    process::log_to_stderr(&options.log)?;
    process::raise_open_files_limit();
    let target = match (options.upstream, options.origin) {
        (Some(upstream), _) => Target::Upstream(upstream),
        (None, Origin::InProcess) => Target::InProcess {
            router: origin::router_in,
            head_timeout: options.head_timeout_ms.map(Duration::from_millis),
        },
        (None, Origin::Tcp) => {
            Target::Upstream(start_origin(options.origin_port, options.origin_threads)?)
        }
    };
    let runtime = process::runtime("plugin", Some(options.threads))?;
    runtime.block_on(async {
        let stop = process::stop_requested(options.exit_with_stdin)?;
        let plugin = Plugin::bind(PluginOptions {
            transport: options.transport,
            target,
            admin: options.admin,
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
        })?;
        let counters = plugin.counters();
        plugin.run(stop).await?;
        process::say(&counters.to_json().to_string());
        Ok(())
    })
}

/// Serves the origin on threads of its own, so that its CPU time can be told from the tunnel's.
fn start_origin(port: u16, threads: Option<NonZeroUsize>) -> anyhow::Result<Address> {
    let runtime = process::runtime("origin", threads)?;
    let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let listener = runtime.block_on(async { Listener::bind(&address) })?;
    let address = listener.address()?;
    let serving = origin::server::serve(listener, origin::router(), pending(), Duration::ZERO);
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                tracing::error!(%error, "the built-in origin failed");
            }
        })?;
    Ok(address)
}
