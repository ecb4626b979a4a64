//! The local connection behind a tunnel: its write side, its read side, and how it ends.

use std::{
    io::{self, IoSlice, Write as _},
    net,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix,
    },
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BytesMut, buf::Limit};
use rustix::net::{Shutdown, sockopt};
use shm_ring::{
    io::{Received, bytes_under_way},
    socket::{receive, receive_alone},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::local::register;

/// The local connection's write side. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    Closed,
    /// Not connected yet, or an application in this process: everything goes to the backlog.
    Backlog,
    Socket(Arc<Registered>),
    /// The upstream takes no more, for this reason. What comes for it is thrown away, but what it
    /// has sent is still wanted.
    Failed(io::ErrorKind),
}

/// The local connection's read side.
#[derive(Debug)]
pub(crate) struct Source {
    socket: Arc<Registered>,
    /// Whether an urgent byte is among what is to be read.
    has_mark: bool,
}

/// A connected local socket, which doesn't block.
#[derive(Debug)]
pub(crate) enum LocalSocket {
    Tcp(net::TcpStream),
    Unix(unix::net::UnixStream),
}

/// A local socket that is registered with the runtime.
#[derive(Debug)]
pub(crate) struct Registered(AsyncFd<LocalSocket>);

/// Most slices per `writev`. The kernel takes up to 1,024, but a socket's buffer is full long
/// before.
const SLICES_MAX: usize = 32;

impl Sink {
    /// Writes what the socket takes at once. Returns how many bytes that was, possibly 0.
    pub(crate) fn try_write<'a>(
        &self,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let socket = match self {
            Self::Socket(socket) => socket,
            Self::Backlog => return Ok(0),
            Self::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
            Self::Failed(kind) => return Err((*kind).into()),
        };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, payload) in slices.iter_mut().zip(payloads) {
            *slice = IoSlice::new(payload);
            used += 1;
        }
        loop {
            let write = |socket: &LocalSocket| socket.write(&slices[..used]);
            let result = socket.0.try_io(Interest::WRITABLE, write);
            match result.as_ref().map_err(io::Error::kind) {
                Err(io::ErrorKind::Interrupted) => {}
                Err(io::ErrorKind::WouldBlock) => return Ok(0),
                _ => return result,
            }
        }
    }

    /// Waits until the connection fails, for example by a reset, whatever there is to be read.
    pub(crate) async fn failure(&self) -> io::Error {
        let Self::Socket(socket) = self else {
            return std::future::pending().await;
        };
        let ready = socket.0.ready(Interest::ERROR).await;
        ready
            .err()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.0.poll_write_ready(cx).map_ok(drop),
            Self::Backlog => Poll::Pending,
            Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Self::Failed(kind) => Poll::Ready(Err((*kind).into())),
        }
    }

    /// Half-closes: no more will be written. The connection may be gone already.
    pub(crate) fn shut_down(&self) {
        if let Self::Socket(socket) = self
            && let Err(error) = rustix::net::shutdown(socket, Shutdown::Write)
        {
            tracing::debug!(%error, "could not half-close");
        }
    }

    /// Waits until all that was written has arrived. A reset takes back what has not.
    pub(crate) async fn until_arrived(&self) {
        let Self::Socket(socket) = self else {
            return;
        };
        // On a Unix socket the reader keeps what was written, whatever happens to the writer.
        if let LocalSocket::Unix(_) = socket.0.get_ref() {
            return;
        }
        while bytes_under_way(socket.as_fd()).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(ARRIVAL_LOOK).await;
        }
    }

    /// Makes the close that follows a reset instead of an orderly end, as at the other end of the
    /// tunnel. A cut-off answer must not look complete.
    pub(crate) fn reset_on_close(self) {
        if let Self::Socket(socket) = self
            && let LocalSocket::Tcp(stream) = socket.0.get_ref()
        {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// Pause between two checks whether what was written has arrived. No event tells.
const ARRIVAL_LOOK: Duration = Duration::from_millis(5);

impl Source {
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.0.poll_read_ready(cx).map_ok(drop)
    }

    /// Reads as much as there is room for. Returns `None` if there is nothing. Then, or if the read
    /// has emptied the socket, the next [`Self::poll_read_ready`] waits for more.
    ///
    /// A read that doesn't fill the room has emptied the socket, so no further read is made that
    /// would find nothing. Two things end a read early, though: an urgent byte, which makes the
    /// socket ready for [`Interest::PRIORITY`], and descriptors beside the bytes.
    pub(crate) fn try_read(
        &mut self,
        room: &mut Limit<&mut BytesMut>,
    ) -> io::Result<Option<usize>> {
        self.has_mark |= self.take_mark();
        let limit = room.limit();
        let mut read = None;
        let result = self.socket.0.try_io(Interest::READABLE, |socket| {
            let received = socket.receive(room.get_mut(), limit)?;
            read = Some(received.bytes);
            let is_short = 0 < received.bytes && received.bytes < limit;
            let is_cut = received.is_cut || is_short && std::mem::take(&mut self.has_mark);
            match is_short && !is_cut {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        match result {
            Err(error) if read.is_none() && error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(read),
        }
    }

    /// Returns whether an urgent byte has come since the last call, or the stream has ended.
    fn take_mark(&self) -> bool {
        let mut is_marked = false;
        // `WouldBlock` makes the runtime forget this one and wait for another.
        let _ = self.socket.0.try_io(Interest::PRIORITY, |_| {
            is_marked = true;
            io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
        });
        is_marked
    }
}

impl LocalSocket {
    /// Registers the socket with the runtime.
    pub(crate) fn register(self) -> io::Result<Registered> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        register(self, interest).map(Registered)
    }

    /// Writes slices by one call. For a single one, that is `send`, which costs less than `writev`.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(stream), [slice]) => (&mut &*stream).write(slice),
            (Self::Unix(stream), [slice]) => (&mut &*stream).write(slice),
            (Self::Tcp(stream), _) => (&mut &*stream).write_vectored(slices),
            (Self::Unix(stream), _) => (&mut &*stream).write_vectored(slices),
        }
    }

    fn receive(&self, target: &mut BytesMut, limit: usize) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => receive(stream.as_fd(), target, limit),
            Self::Unix(stream) => receive_alone(stream.as_fd(), target, limit),
        }
    }
}

impl Registered {
    pub(crate) fn split(self) -> (Source, Sink) {
        let socket = Arc::new(self);
        let source = Source {
            socket: socket.clone(),
            has_mark: false,
        };
        (source, Sink::Socket(socket))
    }

    /// Waits until a connection that was begun is there or has failed.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        drop(self.0.writable().await?);
        match sockopt::socket_error(self)? {
            Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for LocalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for LocalSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
