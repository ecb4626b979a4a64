//! Connections at the near end: clients that are accepted, upstreams that are connected to.

use std::{io, time::Duration};

use origin::{
    process,
    server::{Address, Listener},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::framed::LocalSocket;

/// Accepts one client.
pub(crate) async fn accept(listener: &Listener) -> io::Result<LocalSocket> {
    match listener {
        Listener::Tcp(listener) => {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            Ok(LocalSocket::Tcp(socket))
        }
        Listener::Unix(listener, _) => Ok(LocalSocket::Unix(listener.accept().await?.0)),
    }
}

/// Until the peer at the other end of a socket on which nothing more is sent has gone. What comes
/// all the same is taken for its end.
pub(crate) async fn until_closed(socket: &mut UnixStream) {
    while let Err(error) = socket.read_u8().await
        && error.kind() == io::ErrorKind::Interrupted
    {}
}

/// Whether a connection is idle, found by looking at it again and again.
#[derive(Debug, Default)]
pub(crate) struct Idleness {
    quiet_looks: u32,
}

impl Idleness {
    /// Within the time after which a connection is idle, so many times is looked: it is found at
    /// most a quarter of that time later.
    const LOOKS: u32 = 4;

    pub(crate) fn look_interval(limit: Duration) -> Duration {
        limit / Self::LOOKS
    }

    /// Looks once more; whether it is idle, given whether anything has moved since the last look.
    pub(crate) fn look(&mut self, has_moved: bool) -> bool {
        self.quiet_looks = if has_moved { 0 } else { self.quiet_looks + 1 };
        self.quiet_looks >= Self::LOOKS
    }
}

/// Between two attempts to connect to a Unix socket whose backlog is full.
pub(crate) const CONNECT_RETRY: Duration = Duration::from_millis(5);

/// Connects to an upstream.
pub(crate) async fn connect(address: &Address, at_most: Duration) -> io::Result<LocalSocket> {
    timeout(at_most, async {
        match address {
            Address::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Ok(LocalSocket::Tcp(socket))
            }
            Address::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    // Its backlog is full. Nothing tells when it isn't.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(CONNECT_RETRY).await;
                    }
                    connected => break Ok(LocalSocket::Unix(connected?)),
                }
            },
        }
    })
    .await?
}

/// Says why a client's connection goes nowhere.
pub(crate) fn warn_unreachable(address: &Address, error: io::Error) {
    let cause = process::with_remedy(&error.into());
    tracing::warn!(%address, "could not connect to the upstream: {cause}");
}
