//! A reverse proxy on pingora, so that it can be compared with the hops and proxies that hopbench
//! measures: one listener, one upstream, one thread pool, nothing that touches the messages.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, num::NonZeroUsize, thread};

use async_trait::async_trait;
use clap::Parser;
use pingora_core::{
    Result,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Forward HTTP requests to one upstream, through pingora
#[derive(Debug, Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " (pingora 0.9.1)"))]
struct Options {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Address of the server that answers
    #[arg(long, value_name = "HOST:PORT")]
    upstream: SocketAddr,
    /// Number of threads [default: one per core that the process may use]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Sends every request to the same upstream.
struct ToUpstream(SocketAddr);

/// Idle connections to the upstream that are kept: more than any load has clients. pingora's
/// default of 128 would make every other client wait for a new connection.
const IDLE_CONNECTIONS_MAX: usize = 16_384;

/// Seconds that open connections have to finish after SIGTERM. pingora's default is five minutes.
const DRAIN_S: u64 = 1;

#[async_trait]
impl ProxyHttp for ToUpstream {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let options = Options::parse();
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok());
    let configuration = ServerConf {
        threads: threads.map_or(1, NonZeroUsize::get),
        upstream_keepalive_pool_size: IDLE_CONNECTIONS_MAX,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(DRAIN_S),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, ToUpstream(options.upstream));
    service.add_tcp(&options.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
