//! The parts that all server processes on a path have in common.
//!
//! | module | what it is for |
//! |---|---|
//! | [`address`] | addresses, `HOST:PORT` or `unix:PATH`, and connecting to them |
//! | [`args`] | the command-line arguments that all servers share |
//! | [`process`] | the log, the process's limits, signals and exit codes |
//! | [`proxy_protocol`] | the PROXY protocol: the address of the client behind a proxy |
//! | [`server`] | the life of a server: start, serve, drain, print its counters |
//! | [`listener`] | TCP and Unix listeners that clean up after themselves |
//! | [`limit`] | the limit of connections at a time |
//! | [`connections`] | accepts connections, hands each to a task, and drains them |
//! | [`http`] | serves an axum router on a listener or on one byte stream |
//! | [`mod@counters`] | counters and gauges, and the registry that lists them |
//! | [`admin`] | `/_admin/status` and `/metrics` |
//!
//! Hops and the origin's own server use it. It knows none of them. This is a whole hop, which
//! relays bytes; one that answers HTTP itself calls [`http::serve`] in place of
//! [`Acceptor::serve`].
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc, time::Duration};
//!
//! use clap::Parser;
//! use service::{
//!     Address, AdminAddress, Listener, Server, ServerArgs, admin::Program, connections::Acceptor,
//!     process, server,
//! };
//!
//! service::counters! {
//!     /// Counters of the relay. The acceptor counts connections.
//!     struct Counters, "relay_" {
//!         /// clients whose upstream could not be reached
//!         upstreams_missing: Counter, "clients";
//!     }
//! }
//!
//! /// Relays each client to an upstream
//! #[derive(Parser)]
//! #[command(version)]
//! struct Options {
//!     #[command(flatten)]
//!     server: ServerArgs,
//!     /// Address of the upstream: HOST:PORT or unix:PATH
//!     #[arg(long)]
//!     upstream: Address,
//! }
//!
//! const CONNECT_MAX: Duration = Duration::from_secs(5);
//!
//! fn main() -> ExitCode {
//!     let options = Options::parse();
//!     let process = options.server.process.clone();
//!     server::run("relay", None, &process, async |server| serve(server, options).await)
//! }
//!
//! async fn serve(server: Server, options: Options) -> anyhow::Result<()> {
//!     let listener = Listener::bind(&options.server.listen)?;
//!     let address = listener.address()?;
//!     let acceptor = Acceptor::new(listener, options.server.max_connections, &server.registry);
//!     let counters = Arc::new(Counters::default());
//!     server.registry.register(counters.clone());
//!     let program = Program::new("relay", env!("CARGO_PKG_VERSION"));
//!     server.serve_admin(program, AdminAddress::Nowhere)?;
//!     process::say(&format!("listening on {address}"));
//!     let relay = |mut client| {
//!         let (upstream, counters) = (options.upstream.clone(), counters.clone());
//!         async move {
//!             let Ok(mut upstream) = upstream.connect(CONNECT_MAX).await else {
//!                 return counters.upstreams_missing.add(1);
//!             };
//!             // An error means that one side is gone. Dropping both tells the other.
//!             tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok();
//!         }
//!     };
//!     acceptor.serve(relay, server.stop, server.drain).await;
//!     Ok(())
//! }
//! ```
//!
//! [`Acceptor::serve`]: connections::Acceptor::serve
#![forbid(unsafe_code)]

pub mod address;
pub mod admin;
pub mod args;
pub mod connections;
pub mod counters;
pub mod http;
pub mod limit;
pub mod listener;
pub mod mistake;
pub mod process;
pub mod proxy_protocol;
pub mod server;

pub use address::Address;
pub use admin::AdminAddress;
pub use args::{ProcessArgs, ServerArgs};
pub use counters::{Counter, Registry};
pub use limit::ConnectionLimit;
pub use listener::{Listener, SocketFile};
pub use mistake::Mistake;
pub use server::Server;
