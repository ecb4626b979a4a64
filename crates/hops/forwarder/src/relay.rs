//! Relays bytes between a client and a target, in both directions, in one task.
//!
//! Each worker has one buffer, into which every connection reads. What can't be written at once is
//! kept by the connection, and nothing more is read in that direction until it is written. So an
//! idle connection has no buffer, and a slow reader holds back the writer.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that one direction has carried.
#[derive(Debug, Default)]
struct Direction {
    /// Bytes that were read and not written yet, from `at` on.
    kept: Vec<u8>,
    at: usize,
    /// Whether the reader has reached its end.
    is_at_end: bool,
    /// Whether the end has been passed on.
    is_closed: bool,
    carried: usize,
}

/// Most reads in a row before other connections of the worker get their turn.
const READS_MAX: usize = 16;

/// Relays until both directions have ended, or one fails. Returns the bytes from the client and
/// those from the target. After an error, the caller drops both, which resets them.
///
/// The end of one direction is passed on, and the other goes on (RFC 9293, section 3.6).
pub(crate) async fn relay(
    client: &mut TcpStream,
    target: &mut TcpStream,
    buffer: &std::cell::RefCell<Vec<u8>>,
) -> (usize, usize, io::Result<()>) {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let result = poll_fn(|context| {
        let buffer = &mut *buffer.borrow_mut();
        let up = up.poll(context, client, target, buffer)?;
        let down = down.poll(context, target, client, buffer)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    let result = result.await;
    (up.carried, down.carried, result)
}

impl Direction {
    /// Carries on; ready when the end has been passed on.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<Poll<()>> {
        match self.poll_carry(context, from, to, buffer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(result) => result.map(Poll::Ready),
        }
    }

    fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        for _ in 0..READS_MAX {
            while self.at < self.kept.len() {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(context, &self.kept[self.at..]))?;
                self.at += written;
                self.carried += written;
            }
            // Most connections never need it again.
            (self.kept, self.at) = (Vec::new(), 0);
            if self.is_at_end {
                if !self.is_closed {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.is_closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut room = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *from).poll_read(context, &mut room))?;
            let mut left = room.filled();
            self.is_at_end = left.is_empty();
            while !left.is_empty() {
                match Pin::new(&mut *to).poll_write(context, left)? {
                    Poll::Ready(written) => {
                        self.carried += written;
                        left = &left[written..];
                    }
                    Poll::Pending => {
                        self.kept = left.to_owned();
                        return Poll::Pending;
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
