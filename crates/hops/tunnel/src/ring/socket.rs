//! A local connection of the event loop.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use mio::{Interest, Registry, Token, event::Source};
use rustix::net::{Shutdown, sockopt};
use service::Address;
use shm_ring::io::{Received, Space, bytes_under_way};

use crate::framed::LocalSocket;

/// A client's or an upstream's connection.
#[derive(Debug)]
pub(crate) enum RelaySocket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl RelaySocket {
    /// Begins to connect; the socket is writable once that has succeeded or failed.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = mio::net::TcpStream::connect(*address)?;
                socket.set_nodelay(true)?;
                Ok(Self::Tcp(socket))
            }
            Address::Unix(path) => Ok(Self::Unix(mio::net::UnixStream::connect(path)?)),
        }
    }

    /// Returns whether connecting has succeeded; `false` if it still goes on.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let error = match self {
            Self::Tcp(socket) => socket.take_error()?,
            Self::Unix(socket) => socket.take_error()?,
        };
        if let Some(error) = error {
            return Err(error);
        }
        let peer = match self {
            Self::Tcp(socket) => socket.peer_addr().map(drop),
            Self::Unix(socket) => socket.peer_addr().map(drop),
        };
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Urgent data ends a read early.
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        match self {
            Self::Tcp(socket) => socket.register(registry, token, interest),
            Self::Unix(socket) => socket.register(registry, token, interest),
        }
    }

    /// Reads what is there into the spaces, in order.
    pub(super) fn read(&self, spaces: &mut [Space<'_>]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket) => shm_ring::io::read(socket.as_fd(), spaces),
            Self::Unix(socket) => shm_ring::io::read_alone(socket.as_fd(), spaces),
        }
    }

    /// Returns whether the other end is known to be on this machine: by its address, which is a
    /// loopback address or that of this end. A socket without addresses says nothing.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match self {
            Self::Tcp(socket) => match (socket.peer_addr(), socket.local_addr()) {
                (Ok(peer), Ok(own)) => is_on_this_machine(peer.ip(), own.ip()),
                _ => false,
            },
            Self::Unix(_) => true,
        }
    }

    /// Returns whether all that was written has arrived. A reset takes back what has not.
    pub(super) fn has_arrived(&self) -> bool {
        match self {
            // A socket that can't be asked is not worth waiting for.
            Self::Tcp(socket) => bytes_under_way(socket.as_fd()).map_or(true, |bytes| bytes == 0),
            // The reader keeps what was written, whatever happens to the writer.
            Self::Unix(_) => true,
        }
    }

    /// Half-closes: no more will be written. The connection may be gone already.
    pub(super) fn shut_down(&self) {
        if let Err(error) = rustix::net::shutdown(self, Shutdown::Write) {
            tracing::debug!(%error, "could not half-close");
        }
    }

    /// Closes with a reset instead of an orderly end, as the connection at the lane's other end
    /// did.
    pub(super) fn reset(self) {
        if let Self::Tcp(socket) = &self {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

fn is_on_this_machine(peer: IpAddr, own: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || peer == own
}

impl From<LocalSocket> for RelaySocket {
    fn from(socket: LocalSocket) -> Self {
        match socket {
            LocalSocket::Tcp(socket) => Self::Tcp(mio::net::TcpStream::from_std(socket)),
            LocalSocket::Unix(socket) => Self::Unix(mio::net::UnixStream::from_std(socket)),
        }
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_on_this_machine_are_told_from_others() {
        for (peer, own, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.2", "192.0.2.1", false),
            ("2001:db8::2", "2001:db8::1", false),
        ] {
            let [peer, own] = [peer, own].map(|it| it.parse().expect("an address"));
            assert_eq!(is_on_this_machine(peer, own), expected, "{peer} at {own}");
        }
    }
}
