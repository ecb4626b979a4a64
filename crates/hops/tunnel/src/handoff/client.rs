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
use tokio::sync::oneshot;

use super::{
    HandoffError,
    relay::{Failure, relay},
    stream::ClientStream,
};
use crate::{
    counters::Counters,
    framed::LocalSocket,
    local::{self, Idleness},
};

/// A client's socket that the host has passed. The connection is reset when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) socket: LocalSocket,
    pub(super) connection: Arc<Connection>,
}

/// A client's connection, whoever has its socket. It counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    common: Arc<Common>,
    /// Number of bytes that the client has given and taken. Orders nothing, like the others.
    moved_bytes: AtomicU64,
    has_failed: AtomicBool,
    /// Whether nothing has moved for the idle time-out.
    is_idle: AtomicBool,
}

/// A session's part of its connections.
#[derive(Debug)]
pub(super) struct Common {
    counters: Arc<Counters>,
    idle_timeout: Option<Duration>,
    /// Whether this process is the host.
    is_host: bool,
    /// Whether the session is over, so that no connection may end in good order.
    is_over: AtomicBool,
}

impl Common {
    pub(super) fn new(
        counters: &Arc<Counters>,
        idle_timeout: Option<Duration>,
        is_host: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            counters: counters.clone(),
            idle_timeout,
            is_host,
            is_over: AtomicBool::new(false),
        })
    }

    /// Lets the connections that are still open end with a reset.
    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
    }
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
        common: &Arc<Common>,
    ) -> Result<io::Result<Self>, HandoffError> {
        let socket = passed_socket(socket)?;
        Ok(socket.map(|socket| Self::accepted(socket, common)))
    }

    /// Makes a client of a socket that this process has accepted.
    pub(super) fn accepted(socket: LocalSocket, common: &Arc<Common>) -> Self {
        common.counters.tunnels_opened.add(1);
        common.counters.tunnels_open.add(1);
        Self {
            socket,
            connection: Arc::new(Connection {
                common: common.clone(),
                moved_bytes: AtomicU64::new(0),
                has_failed: AtomicBool::new(false),
                is_idle: AtomicBool::new(false),
            }),
        }
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

    /// Joins the client to an upstream, to which connecting may take at most so long.
    pub(crate) async fn relay(self, upstream: &Address, at_most: Duration) -> End {
        let connecting = async {
            let connected = local::connect(upstream, at_most).await;
            connected.map_err(|error| {
                local::warn_unreachable(upstream, error);
                Failure::Unreachable
            })
        };
        relay(self, connecting).await
    }

    /// Joins the client to an upstream once it is given one. Also returns whether it was given one.
    pub(super) async fn relay_when_given(
        self,
        mut upstream: oneshot::Receiver<LocalSocket>,
    ) -> (End, bool) {
        let mut was_given = false;
        let giving = async {
            let given = (&mut upstream).await;
            was_given = given.is_ok();
            let socket = given.map_err(|_| Failure::Unreachable)?;
            socket.register().map_err(Failure::Upstream)
        };
        let end = relay(self, giving).await;
        // It may have come while the client went.
        upstream.close();
        (end, was_given || upstream.try_recv().is_ok())
    }
}

/// Makes a socket of a descriptor that the peer has passed. The inner error is this process's, not
/// the peer's.
pub(super) fn passed_socket(socket: OwnedFd) -> Result<io::Result<LocalSocket>, HandoffError> {
    let family = connected_family(&socket).ok_or(HandoffError::NoConnection)?;
    // The peer has done this already, if it is an honest one.
    if let Err(error) = rustix::io::ioctl_fionbio(&socket, true) {
        return Ok(Err(error.into()));
    }
    Ok(Ok(match family {
        AddressFamily::UNIX => LocalSocket::Unix(socket.into()),
        _ => LocalSocket::Tcp(socket.into()),
    }))
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
        let counters = &self.common.counters;
        match self.common.is_host {
            true => counters.bytes_in.add(bytes),
            false => counters.bytes_out.add(bytes),
        }
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that are sent to the client: they are taken from the application or upstream.
    pub(super) fn taken(&self, bytes: usize) {
        let counters = &self.common.counters;
        match self.common.is_host {
            true => counters.bytes_out.add(bytes),
            false => counters.bytes_in.add(bytes),
        }
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that the client has taken, although its upstream gave them before.
    pub(super) fn moved(&self, bytes: usize) {
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn fail(&self) {
        self.has_failed.store(true, Relaxed);
    }

    pub(super) fn end(&self) -> End {
        match self.has_failed.load(Relaxed) {
            true => End::Failed,
            false => End::Orderly,
        }
    }

    /// Returns whether the connection must end with a reset.
    pub(super) fn is_cut(&self) -> bool {
        self.is_idle.load(Relaxed) || self.common.is_over.load(Relaxed)
    }

    /// Waits until nothing has moved for the idle time-out; without one, forever.
    pub(super) async fn until_idle(&self) {
        let Some(limit) = self.common.idle_timeout else {
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
        self.common.counters.tunnels_open.subtract(1);
    }
}
