//! The client's end of the tunnel.
#![forbid(unsafe_code)]

use std::{num::NonZeroUsize, process::ExitCode, thread, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};
use service::{Server, ServerArgs, admin::Program, args, process, server};
use tunnel::{
    host::{EVENT_LOOPS_MAX, Host, HostOptions},
    transport::{ADMIN_HELP, Relay, TransportKind, TransportOptions},
};

#[derive(Debug, Parser)]
#[command(version, about = "Accepts clients and tunnels their bytes to a plugin")]
#[command(mut_arg("admin", |admin| admin.help(ADMIN_HELP)))]
struct Options {
    #[command(flatten)]
    transport: TransportOptions,
    #[command(flatten)]
    server: ServerArgs,
    /// Reset a client after this many milliseconds without traffic in either direction
    /// [default: never]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=604_800_000))]
    idle_timeout_ms: Option<u64>,
    /// Number of threads that relay. On ring, number of cores to use: every two cores share an
    /// event loop and, with two or more cores, each core on which clients are has a helper thread
    /// for long answers [default: 1; on ring, and on handoff with --relay=host: all cores that this
    /// process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
    /// Number of event loops on ring, and of those of a plugin that has an upstream [default: one
    /// for every two of --threads, 16 at most]
    #[arg(long, value_name = "N", value_parser = event_loops)]
    event_loops: Option<u8>,
}

fn event_loops(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(loops) if (1..=EVENT_LOOPS_MAX).contains(&usize::from(loops)) => Ok(loops),
        _ => Err(format!("expected a number from 1 to {EVENT_LOOPS_MAX}")),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(message) = options.transport.validate() {
        Options::command()
            .error(ErrorKind::ValueValidation, message)
            .exit();
    }
    // On ring the runtime only accepts clients; on other transports it also relays. On handoff, it
    // either does next to nothing, or is the only one that relays.
    let one = NonZeroUsize::MIN;
    let all = thread::available_parallelism().unwrap_or(one);
    let is_only_relay = options.transport.relay == Relay::Host;
    let (runtime_threads, relays) = match options.transport.transport {
        TransportKind::Ring => (one, options.threads.unwrap_or(all)),
        TransportKind::Handoff if is_only_relay => (options.threads.unwrap_or(all), one),
        TransportKind::Stream | TransportKind::Shm | TransportKind::Handoff => {
            (options.threads.unwrap_or(one), one)
        }
    };
    let process = options.server.process.clone();
    server::run("host", Some(runtime_threads), &process, async |server| {
        serve(server, options, relays).await
    })
}

async fn serve(server: Server, options: Options, relays: NonZeroUsize) -> anyhow::Result<()> {
    let program = Program {
        name: "http-tunnel-host",
        version: env!("CARGO_PKG_VERSION"),
        details: vec![("transport", serde_json::json!(options.transport.transport))],
    };
    let admin = options.transport.admin_beside("host");
    let host_options = HostOptions {
        transport: options.transport,
        listen: options.server.listen,
        connections_max: options.server.max_connections,
        idle_timeout: options.idle_timeout_ms.map(Duration::from_millis),
        drain: server.drain,
        threads: relays.get(),
        event_loops: options.event_loops.map(usize::from),
    };
    let host = Host::bind(host_options, &server.registry).await?;
    server.serve_admin(program, admin)?;
    process::say(&format!("listening on {}", host.address()?));
    host.run(server.stop).await
}
