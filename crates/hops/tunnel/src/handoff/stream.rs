//! A client's socket as a byte stream.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use service::listener::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_util::either::Either;

use super::{
    client::{Client, Connection},
    set_reset_on_close,
};
use crate::framed::LocalSocket;

/// The socket of a client that an application in this process serves. Dropping it closes the
/// socket as usual, unless the connection is cut: then it is reset.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: Stream,
    connection: Arc<Connection>,
}

impl ClientStream {
    /// Registers the socket with the runtime.
    pub(super) fn new(client: Client) -> io::Result<Self> {
        let Client { socket, connection } = client;
        let stream = match socket {
            LocalSocket::Tcp(socket) => Either::Left(TcpStream::from_std(socket)?),
            LocalSocket::Unix(socket) => Either::Right(UnixStream::from_std(socket)?),
        };
        Ok(Self { stream, connection })
    }

    /// Counts what was written, or that the connection failed.
    fn written(&self, written: io::Result<usize>) -> io::Result<usize> {
        match &written {
            Ok(bytes) => self.connection.taken(*bytes),
            Err(_) => self.connection.fail(),
        }
        written
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &read {
            Ok(()) => self.connection.given(buffer.filled().len() - before),
            Err(_) => self.connection.fail(),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.written(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.written(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.connection.is_cut() {
            return;
        }
        let socket = match &self.stream {
            Either::Left(socket) => socket.as_fd(),
            Either::Right(socket) => socket.as_fd(),
        };
        set_reset_on_close(socket, false);
    }
}
