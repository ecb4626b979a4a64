//! Goal: a TCP route is as good as a cable. Method: the list of `cable.rs`, through the real
//! program, for every way to carry bytes.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;
#[path = "../../../testing/streams.rs"]
mod streams;
mod support;

use std::{io, net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;
use processes::{Running, bin, command};
use support::{Forwarder, SPARE_MAX, forwarder};
use tokio::{net::TcpStream, time::sleep};

/// Instantiates every test for every way to carry bytes.
macro_rules! conformance {
    ($($test:ident)+) => {
        conformance!(@kind copy Copy: $($test)+);
        conformance!(@kind splice Splice: $($test)+);
        conformance!(@kind auto Auto: $($test)+);
    };
    (@kind $module:ident $kind:ident: $($test:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::watched(super::$test(super::Kind::$kind));
                }
            )+
        }
    };
}

#[path = "../../../testing/cable.rs"]
mod cable;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Copy,
    Splice,
    Auto,
}

/// A forwarder with its target.
struct Rig {
    forwarder: Forwarder,
    /// The target, if it is a process.
    _origin: Option<Running>,
    /// Descriptors that the forwarder has without connections.
    descriptors: usize,
}

impl Rig {
    async fn relay(kind: Kind, target: &str) -> Self {
        Self::start(kind, target, 1000, None)
    }

    /// Relays one client at a time; others wait.
    async fn relay_one(kind: Kind, target: &str) -> Self {
        Self::start(kind, target, 1, None)
    }

    /// Starts a relay for each way to have the origin as its upstream.
    async fn origins(kind: Kind) -> [Self; 1] {
        let mut origin = command(bin("http_baseline"));
        let origin = origin.args(["--listen=127.0.0.1:0", "--exit-with-stdin"]);
        let origin = Running::start(origin);
        let target = origin.line("listening on ");
        [Self::start(kind, &target, 1000, Some(origin))]
    }

    fn start(kind: Kind, target: &str, connections_max: usize, origin: Option<Running>) -> Self {
        let carry = match kind {
            Kind::Copy => "copy",
            Kind::Splice => "splice",
            Kind::Auto => "auto",
        };
        // A small buffer, so that `auto` soon begins to splice.
        let config =
            format!("relay = '{carry}'\nbuffer_size_kb = 4\nmax_connections = {connections_max}\n");
        let forwarder = forwarder(target.parse().expect("an address"), &config);
        Self {
            descriptors: forwarder.running.descriptors(),
            forwarder,
            _origin: origin,
        }
    }

    async fn connect(&self) -> TcpStream {
        self.try_connect().await.expect("it listens")
    }

    async fn try_connect(&self) -> io::Result<TcpStream> {
        let client = TcpStream::connect(self.client_address()).await?;
        client.set_nodelay(true)?;
        Ok(client)
    }

    fn client_address(&self) -> SocketAddr {
        self.forwarder.address
    }

    fn is_tiny(&self) -> bool {
        false
    }

    /// Returns how many of the bytes that the client has sent were not read.
    fn unread_of_client(&self, client: &TcpStream, _sent: u64) -> u64 {
        streams::unread_by_peer(client)
    }

    /// Returns how many of the bytes that the server has sent were not read.
    fn unread_of_server(&self, server: &TcpStream, _sent: u64) -> u64 {
        streams::unread_by_peer(server)
    }

    /// Waits until everything that the client has sent was read.
    async fn until_read(&self, client: &TcpStream, _bytes: u64) {
        streams::until_read(client).await;
    }

    /// Waits until what a client has sent was written to the target: in the same step in which it
    /// was read.
    async fn until_forwarded(&self, client: &TcpStream, _bytes: u64) {
        streams::until_read(client).await;
    }

    /// Waits until the forwarder does nothing any more: everything that may wait is waiting.
    async fn wait_until_quiet(&self) {
        let (mut before, mut same) = (Duration::ZERO, 0);
        while same < 10 {
            sleep(Duration::from_millis(20)).await;
            let now = self.forwarder.running.cpu_time();
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
    }

    fn stop(&self) {
        self.forwarder.running.signal(Signal::SIGTERM);
    }

    /// Waits for a clean end.
    async fn ended(self) {
        let (status, ..) = self.forwarder.running.wait();
        assert!(status.success());
    }

    /// Waits until every connection is closed.
    async fn assert_nothing_open(&self) {
        while self.forwarder.running.descriptors() > self.descriptors + SPARE_MAX {
            sleep(Duration::from_millis(2)).await;
        }
    }
}
