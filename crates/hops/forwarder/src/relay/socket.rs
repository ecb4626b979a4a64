//! A TCP socket that is registered with the worker's runtime.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, Shutdown, SocketFlags, SocketType, connect, socket_with, sockopt},
};
use shm_ring::io::bytes_under_way;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::lookup_host,
    time::sleep,
};

use super::pipes::Pipe;

/// A connected TCP socket. It is registered for urgent data, too, which tokio's own socket can't
/// be, and readiness is forgotten only when the socket was the reason.
#[derive(Debug)]
pub(crate) struct Socket(AsyncFd<TcpStream>);

/// Pause between two checks whether what was written has arrived. No event tells.
const ARRIVAL_LOOK: Duration = Duration::from_millis(5);

impl Socket {
    /// Registers a socket that doesn't block.
    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor; this one owns its own"
    )]
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        AsyncFd::with_interest(stream, interest).map(Self)
    }

    /// Connects to the first address of a host that can be reached.
    pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((host, port)).await? {
            match Self::connect_to(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) async fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Self::new(socket.into())?;
        drop(socket.0.writable().await?);
        sockopt::socket_error(&socket.0)??;
        Ok(socket)
    }

    /// Writes the first few bytes of a connection, for which it has room.
    pub(crate) fn write_first(&self, bytes: &[u8]) -> io::Result<()> {
        match self.0.get_ref().write(bytes)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Waits until there is something to read, or the end.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.0.poll_read_ready(context))?;
        guard.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Reads; 0 bytes are the end.
    ///
    /// A read that doesn't fill the room has emptied the socket, so no further read is made that
    /// would find nothing. Only an urgent byte ends a read early.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            match guard.get_inner().read(room) {
                Ok(read) => {
                    if 0 < read && read < room.len() && !self.take_mark() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => guard.clear_ready(),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// Moves bytes into an empty pipe; 0 bytes are the end. Returns `None` if an urgent byte is
    /// next: splice(2) never gets past it, but a read does.
    pub(super) fn poll_fill(
        &self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            match pipe.fill(guard.get_inner()) {
                Ok(moved) => return Poll::Ready(Ok(Some(moved))),
                Err(Errno::AGAIN) if self.take_mark() => return Poll::Ready(Ok(None)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.get_inner().write(bytes) {
                Ok(written) => {
                    if written < bytes.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => guard.clear_ready(),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// Moves bytes out of a pipe that isn't empty.
    pub(super) fn poll_empty(
        &self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match pipe.empty(guard.get_inner()) {
                Ok(moved) => return Poll::Ready(Ok(moved)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Returns whether an urgent byte has come since the last call, or the stream has ended.
    fn take_mark(&self) -> bool {
        let mut is_marked = false;
        // `WouldBlock` makes the runtime forget this one and wait for another.
        let _ = self.0.try_io(Interest::PRIORITY, |_| {
            is_marked = true;
            io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
        });
        is_marked
    }

    /// Half-closes: no more will be written.
    pub(super) fn close_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Write)?)
    }

    /// Waits until all that was written has arrived. A reset takes back what has not.
    pub(crate) async fn until_arrived(&self) {
        while bytes_under_way(self.0.as_fd()).is_ok_and(|bytes| bytes > 0) {
            sleep(ARRIVAL_LOOK).await;
        }
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        let _ = sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }
}
