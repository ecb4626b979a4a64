//! A connection to an upstream that carries plain requests.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
};

use crate::{deadline::Deadline, pool::Open};

/// A connection to an upstream, without buffers: whoever has it reads into the worker's buffer.
#[derive(Debug)]
pub(crate) struct PlainConnection {
    pub(crate) stream: TcpStream,
    /// The number of its target.
    pub(crate) target: u64,
    /// Whether it has carried a request before.
    pub(crate) is_reused: bool,
    pub(crate) deadline: Deadline,
    _open: Open,
}

impl PlainConnection {
    pub(crate) fn new(stream: TcpStream, target: u64, open: Open) -> Self {
        Self {
            stream,
            target,
            is_reused: false,
            deadline: Deadline::default(),
            _open: open,
        }
    }

    /// Returns whether it can take a request: it is open, and nothing came that nobody asked for.
    pub(crate) fn is_idle(&mut self) -> bool {
        // Nobody waits for it, so nobody is to be woken.
        let unwoken = &mut Context::from_waker(Waker::noop());
        poll_read(&mut self.stream, unwoken, &mut [0]).is_pending()
    }
}

/// Reads some bytes; none mean that the other side has ended its own.
pub(crate) fn poll_read(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    let read = Pin::new(stream).poll_read(context, &mut buffer);
    read.map_ok(|()| buffer.filled().len())
}
