//! The local connection behind a tunnel: its write side, its read side, and how it ends.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::{Shutdown, sockopt};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::{TcpStream, UnixStream, tcp, unix},
};

/// The local connection's write side. A copy is of the same.
#[derive(Clone, Debug)]
pub(super) enum Sink {
    Closed,
    /// Not connected yet, or an application in this process: everything goes to the backlog.
    Backlog,
    Tcp(Arc<tcp::OwnedWriteHalf>),
    Unix(Arc<unix::OwnedWriteHalf>),
}

/// The local connection's read side.
#[derive(Debug)]
pub(super) enum Source {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// A connected local socket.
#[derive(Debug)]
pub(crate) enum LocalSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Slices per `writev`. The kernel takes up to 1,024; a socket's buffer is full long before.
const SLICES_MAX: usize = 32;

impl Sink {
    /// Writes what the socket takes at once; 0 if nothing.
    pub(super) fn try_write<'a>(
        &self,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, payload) in slices.iter_mut().zip(payloads) {
            *slice = IoSlice::new(payload);
            used += 1;
        }
        loop {
            let result = match self {
                Self::Tcp(half) => half.try_write_vectored(&slices[..used]),
                Self::Unix(half) => half.try_write_vectored(&slices[..used]),
                Self::Backlog => return Ok(0),
                Self::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            match result.as_ref().map_err(io::Error::kind) {
                Err(io::ErrorKind::Interrupted) => {}
                Err(io::ErrorKind::WouldBlock) => return Ok(0),
                _ => return result,
            }
        }
    }

    /// Until the connection fails, as by a reset, whatever there is to be read.
    pub(super) async fn failure(&self) -> io::Error {
        let ready = match self {
            Self::Tcp(half) => half.ready(Interest::ERROR).await,
            Self::Unix(half) => half.ready(Interest::ERROR).await,
            Self::Backlog | Self::Closed => std::future::pending().await,
        };
        ready
            .err()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => (**half).as_ref().poll_write_ready(cx),
            Self::Unix(half) => (**half).as_ref().poll_write_ready(cx),
            Self::Backlog => Poll::Pending,
            Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Half-closes: no more will be written. If the connection is gone already, so be it.
    pub(super) fn shut_down(&self) {
        let result = match self {
            Self::Tcp(half) => rustix::net::shutdown((**half).as_ref(), Shutdown::Write),
            Self::Unix(half) => rustix::net::shutdown((**half).as_ref(), Shutdown::Write),
            Self::Backlog | Self::Closed => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "could not half-close");
        }
    }

    /// Makes the close that follows a reset instead of an orderly end, as the connection at the
    /// other end of the tunnel got one: a cut-off answer must not look complete. There must be no
    /// copy any more.
    pub(super) fn reset_on_close(self) {
        match self {
            Self::Tcp(half) => {
                let stream: &TcpStream = (*half).as_ref();
                let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                // Dropping it would half-close first.
                if let Some(half) = Arc::into_inner(half) {
                    half.forget();
                }
            }
            Self::Unix(half) => {
                if let Some(half) = Arc::into_inner(half) {
                    half.forget();
                }
            }
            Self::Backlog | Self::Closed => {}
        }
    }
}

impl Source {
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_read_ready(cx),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx),
        }
    }
}

impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let read = match this {
                Self::Tcp(half) => Pin::new(half).poll_read(cx, target),
                Self::Unix(half) => Pin::new(half).poll_read(cx, target),
            };
            match read {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl LocalSocket {
    pub(super) fn split(self) -> (Source, Sink) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (Source::Tcp(read), Sink::Tcp(Arc::new(write)))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (Source::Unix(read), Sink::Unix(Arc::new(write)))
            }
        }
    }
}
