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
use service::{
    Address, Listener, ProcessArgs, Registry, Server, admin::Program, args, connections::Acceptor,
    http, limit::CONNECTIONS_MAX, process, server,
};
use tunnel::{
    plugin::{Plugin, PluginOptions, Target},
    transport::{ADMIN_HELP, Relay, TransportKind, TransportOptions},
};

#[derive(Debug, Parser)]
#[command(version, about = "Answers the tunnels that a host opens")]
#[command(mut_arg("admin", |admin| admin.help(ADMIN_HELP)))]
struct Options {
    #[command(flatten)]
    transport: TransportOptions,
    /// Whether the built-in origin listens on loopback TCP or answers directly on the tunnels
    #[arg(long, value_enum, default_value = "tcp", conflicts_with = "upstream")]
    origin: Origin,
    /// Port of the built-in origin on 127.0.0.1; 0 takes any free port
    #[arg(
        long,
        default_value_t = 9876,
        value_name = "PORT",
        conflicts_with = "upstream"
    )]
    origin_port: u16,
    /// Number of threads of the built-in origin behind TCP [default: one per core]
    #[arg(long, value_name = "N", conflicts_with = "upstream", value_parser = args::threads)]
    origin_threads: Option<NonZeroUsize>,
    /// Relay to this server instead of the built-in origin: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    upstream: Option<Address>,
    /// Milliseconds that connecting to the origin or upstream may take
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    connect_timeout_ms: u64,
    /// With --origin=in-process, close a connection if the head of a request takes longer than this
    /// many milliseconds [default: no limit]
    #[arg(
        long,
        value_name = "MS",
        conflicts_with = "upstream",
        value_parser = clap::value_parser!(u64).range(10..=604_800_000),
    )]
    head_timeout_ms: Option<u64>,
    /// Number of threads that relay, and that serve with --origin=in-process
    /// [default: 1; on handoff, unless --relay=host: one per core]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Origin {
    InProcess,
    Tcp,
}

impl Options {
    fn validate(&self) -> Result<(), String> {
        if self.head_timeout_ms.is_some() && self.origin != Origin::InProcess {
            let message = "'--head-timeout-ms' needs '--origin=in-process': only then does \
                           the plugin read requests itself";
            return Err(message.to_owned());
        }
        let serves_itself = self.upstream.is_none() && self.origin == Origin::InProcess;
        if self.transport.relay == Relay::Host && serves_itself {
            let message = "'--relay=host' needs '--origin=tcp' or '--upstream': with \
                           '--origin=in-process' there is nothing to relay to";
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
    // This comes first, since the origin's runtime can't be made within another one.
    let target = match target(&options) {
        Ok(target) => target,
        Err(error) => return process::exit_code(Err(error)),
    };
    // On handoff one of the two has nothing to do for a request, and the other one does it all.
    let default = match (options.transport.transport, options.transport.relay) {
        (TransportKind::Handoff, Relay::Plugin) => None,
        _ => Some(NonZeroUsize::MIN),
    };
    let (process, threads) = (options.process.clone(), options.threads.or(default));
    server::run("plugin", threads, &process, async |server| {
        serve(server, options, target).await
    })
}

fn target(options: &Options) -> anyhow::Result<Target> {
    Ok(match (&options.upstream, options.origin) {
        (Some(upstream), _) => Target::Upstream(upstream.clone()),
        (None, Origin::InProcess) => Target::InProcess {
            router: origin::router_in,
            head_timeout: options.head_timeout_ms.map(Duration::from_millis),
        },
        (None, Origin::Tcp) => {
            Target::Upstream(start_origin(options.origin_port, options.origin_threads)?)
        }
    })
}

async fn serve(server: Server, options: Options, target: Target) -> anyhow::Result<()> {
    let program = Program {
        name: "http-tunnel-plugin",
        version: env!("CARGO_PKG_VERSION"),
        details: vec![("transport", serde_json::json!(options.transport.transport))],
    };
    let admin = options.transport.admin_beside("plugin");
    let plugin_options = PluginOptions {
        transport: options.transport,
        target,
        connect_timeout: Duration::from_millis(options.connect_timeout_ms),
        drain: server.drain,
    };
    let plugin = Plugin::new(plugin_options, &server.registry)?;
    server.serve_admin(program, admin)?;
    plugin.run(server.stop).await
}

/// Serves the origin on threads of its own, so that its CPU time can be told from the tunnel's.
fn start_origin(port: u16, threads: Option<NonZeroUsize>) -> anyhow::Result<Address> {
    let runtime = process::runtime("origin", threads)?;
    let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let listener = runtime.block_on(async { Listener::bind(&address) })?;
    let address = listener.address()?;
    let acceptor = Acceptor::new(listener, CONNECTIONS_MAX, &Registry::default());
    let serving = http::serve(acceptor, origin::router(), pending(), Duration::ZERO);
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                tracing::error!(%error, "the built-in origin failed");
            }
        })?;
    Ok(address)
}
