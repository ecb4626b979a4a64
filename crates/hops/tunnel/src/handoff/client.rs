//! A client that was taken: how it is served, and how it ends.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use service::Address;

use super::{HandoffError, relay::relay, stream::ClientStream};
use crate::{counters::Counters, framed::LocalSocket, local::Idleness};

/// A client's socket that the host has passed. The connection is reset when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) socket: LocalSocket,
    pub(super) connection: Arc<Connection>,
}

/// A client's connection, whoever has its socket. It counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    counters: Arc<Counters>,
    idle_timeout: Option<Duration>,
    /// Number of bytes that the client has given and taken. Orders nothing, like the others.
    moved_bytes: AtomicU64,
    has_failed: AtomicBool,
    /// Whether nothing has moved for the idle time-out.
    is_idle: AtomicBool,
    /// Whether the session is over.
    is_over: Arc<AtomicBool>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    /// By a reset, or it never got as far as an upstream.
    Failed,
}

impl End {
    /// Returns the byte that reports it.
    pub(super) fn report(self) -> u8 {
        match self {
            Self::Orderly => b'e',
            Self::Failed => b'f',
        }
    }

    pub(super) fn of_report(report: u8) -> Option<Self> {
        [Self::Orderly, Self::Failed]
            .into_iter()
            .find(|end| end.report() == report)
    }
}

impl Client {
    /// Makes a client of a descriptor that the host has passed. The inner error is this process's,
    /// not the host's.
    pub(super) fn new(
        socket: OwnedFd,
        counters: &Arc<Counters>,
        is_over: &Arc<AtomicBool>,
        idle_timeout: Option<Duration>,
    ) -> Result<io::Result<Self>, HandoffError> {
        let family = connected_family(&socket).ok_or(HandoffError::NoConnection)?;
        // The host has done this already, if it is an honest one.
        if let Err(error) = rustix::io::ioctl_fionbio(&socket, true) {
            return Ok(Err(error.into()));
        }
        let socket = match family {
            AddressFamily::UNIX => LocalSocket::Unix(socket.into()),
            _ => LocalSocket::Tcp(socket.into()),
        };
        counters.tunnels_opened.add(1);
        counters.tunnels_open.add(1);
        Ok(Ok(Self {
            socket,
            connection: Arc::new(Connection {
                counters: counters.clone(),
                idle_timeout,
                moved_bytes: AtomicU64::new(0),
                has_failed: AtomicBool::new(false),
                is_idle: AtomicBool::new(false),
                is_over: is_over.clone(),
            }),
        }))
    }

    /// Serves the client by an application in this process: by the future that `serve` makes.
    pub(crate) async fn serve<F>(self, serve: impl FnOnce(ClientStream) -> F) -> End
    where
        F: Future<Output = ()>,
    {
        let connection = self.connection.clone();
        let stream = match ClientStream::new(self) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("could not serve a client: {error}");
                return End::Failed;
            }
        };
        tokio::select! {
            biased;
            () = serve(stream) => {}
            () = connection.until_idle() => return End::Failed,
        }
        connection.end()
    }

    /// Joins the client to an upstream, to which connecting may take so long.
    pub(crate) async fn relay(self, upstream: &Address, at_most: Duration) -> End {
        let connection = self.connection.clone();
        match relay(self, upstream, at_most).await {
            Ok(()) => connection.end(),
            Err(failure) => {
                tracing::debug!("connection failed: {failure}");
                End::Failed
            }
        }
    }
}

/// Returns the address family of a socket that may be a connection: TCP or a Unix stream.
fn connected_family(socket: &OwnedFd) -> Option<AddressFamily> {
    let socket = socket.as_fd();
    let family = sockopt::socket_domain(socket).ok()?;
    let is_known = [
        AddressFamily::INET,
        AddressFamily::INET6,
        AddressFamily::UNIX,
    ]
    .contains(&family);
    let is_stream = sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    let listens = sockopt::socket_acceptconn(socket) != Ok(false);
    (is_known && is_stream && !listens).then_some(family)
}

impl Connection {
    /// Counts bytes that the client has sent: they are given to the application or upstream.
    pub(super) fn given(&self, bytes: usize) {
        self.counters.bytes_out.add(bytes);
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that are sent to the client: they are taken from the application or upstream.
    pub(super) fn taken(&self, bytes: usize) {
        self.counters.bytes_in.add(bytes);
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that the client has taken, although its upstream gave them before.
    pub(super) fn moved(&self, bytes: usize) {
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn fail(&self) {
        self.has_failed.store(true, Relaxed);
    }

    fn end(&self) -> End {
        match self.has_failed.load(Relaxed) {
            true => End::Failed,
            false => End::Orderly,
        }
    }

    /// Returns whether the connection must end with a reset.
    pub(super) fn is_cut(&self) -> bool {
        self.is_idle.load(Relaxed) || self.is_over.load(Relaxed)
    }

    /// Waits until nothing has moved for the idle time-out; without one, forever.
    pub(super) async fn until_idle(&self) {
        let Some(limit) = self.idle_timeout else {
            return std::future::pending().await;
        };
        let (mut idleness, mut before) = (Idleness::default(), 0);
        loop {
            tokio::time::sleep(Idleness::look_interval(limit)).await;
            let now = self.moved_bytes.load(Relaxed);
            if idleness.look(std::mem::replace(&mut before, now) != now) {
                self.is_idle.store(true, Relaxed);
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.tunnels_open.subtract(1);
    }
}
