//! The bytes of a connection, with or without TLS.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::front::Front;

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) async fn open(front: &Front) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let stream = TcpStream::connect(&front.address.sockets[..]);
        let stream = stream.await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(match &front.tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Tls(Box::new(tls.connect(stream).await?)),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_read(context, buffer),
            Self::Tls(stream) => pin!(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_write(context, data),
            Self::Tls(stream) => pin!(stream).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => pin!(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_flush(context),
            Self::Tls(stream) => pin!(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_shutdown(context),
            Self::Tls(stream) => pin!(stream).poll_shutdown(context),
        }
    }
}
