//! Connections at the near end: clients that are accepted, upstreams that are connected to.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, socket_with, sockopt,
    },
};
use service::{Address, Listener, SocketFile, process};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::UnixStream,
    time::timeout,
};

use crate::framed::{LocalSocket, Registered};

/// Flags of sockets made here. Whoever relays them registers them, for more kinds of events than
/// the runtime does with its own sockets.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Registers a socket with the runtime, for the events in `interest`.
#[expect(
    deprecated,
    reason = "unsound for types that lie about their descriptor; these own theirs"
)]
pub(crate) fn register<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

/// The listener for clients. When it is dropped, clients that were not accepted are reset, and new
/// ones are refused.
#[derive(Debug)]
pub(crate) struct Clients {
    listener: AsyncFd<OwnedFd>,
    /// File of a Unix socket. It is removed when this is dropped.
    file: Option<SocketFile>,
}

impl Clients {
    pub(crate) fn of(listener: Listener) -> io::Result<Self> {
        let (listener, file) = match listener {
            Listener::Tcp(listener) => (listener.into_std()?.into(), None),
            Listener::Unix(listener, file) => (listener.into_std()?.into(), Some(file)),
        };
        Ok(Self {
            listener: register(listener, Interest::READABLE)?,
            file,
        })
    }

    /// Accepts one client.
    pub(crate) async fn accept(&self) -> io::Result<LocalSocket> {
        let accept = |listener: &OwnedFd| Ok(accept_with(listener, FLAGS)?);
        let socket = self.listener.async_io(Interest::READABLE, accept).await?;
        Ok(match self.file {
            None => {
                sockopt::set_tcp_nodelay(&socket, true)?;
                LocalSocket::Tcp(socket.into())
            }
            Some(_) => LocalSocket::Unix(socket.into()),
        })
    }
}

/// Waits until the peer at the other end of a socket has gone. Nothing more is sent on such a
/// socket, so a byte that comes all the same also counts as the end.
pub(crate) async fn until_closed(socket: &mut UnixStream) {
    while let Err(error) = socket.read_u8().await
        && error.kind() == io::ErrorKind::Interrupted
    {}
}

/// Finds out whether a connection is idle, by looking at it repeatedly.
#[derive(Debug, Default)]
pub(crate) struct Idleness {
    quiet_looks: u32,
}

impl Idleness {
    /// Number of looks within the idle time-out. An idle connection is found at most a quarter of
    /// the time-out too late.
    const LOOKS: u32 = 4;

    pub(crate) fn look_interval(limit: Duration) -> Duration {
        limit / Self::LOOKS
    }

    /// Counts a look. `has_moved` says whether anything has moved since the last one. Returns
    /// whether the connection is idle.
    pub(crate) fn look(&mut self, has_moved: bool) -> bool {
        self.quiet_looks = if has_moved { 0 } else { self.quiet_looks + 1 };
        self.quiet_looks >= Self::LOOKS
    }
}

/// Pause between two attempts to connect to a Unix socket whose backlog is full.
pub(crate) const CONNECT_RETRY: Duration = Duration::from_millis(5);

/// Connects to an upstream.
pub(crate) async fn connect(address: &Address, at_most: Duration) -> io::Result<Registered> {
    let connecting = async {
        match address {
            Address::Tcp(address) => {
                let family = match address.is_ipv4() {
                    true => AddressFamily::INET,
                    false => AddressFamily::INET6,
                };
                let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
                match rustix::net::connect(&socket, address) {
                    Ok(()) | Err(Errno::INPROGRESS) => {}
                    Err(error) => return Err(error.into()),
                }
                let socket = LocalSocket::Tcp(socket.into()).register()?;
                socket.connected().await?;
                sockopt::set_tcp_nodelay(&socket, true)?;
                Ok(socket)
            }
            Address::Unix(path) => {
                let address = SocketAddrUnix::new(path)?;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
                // While the backlog is full, no event tells when it has room again.
                while let Err(error) = rustix::net::connect(&socket, &address) {
                    if error != Errno::AGAIN {
                        return Err(error.into());
                    }
                    tokio::time::sleep(CONNECT_RETRY).await;
                }
                LocalSocket::Unix(socket.into()).register()
            }
        }
    };
    timeout(at_most, connecting).await?
}

/// Logs why an upstream could not be connected to.
pub(crate) fn warn_unreachable(address: &Address, error: io::Error) {
    let cause = process::with_remedy(&error.into());
    tracing::warn!(%address, "could not connect to the upstream: {cause}");
}
