//! A client's socket, and what it has not taken yet.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{io::AsyncWrite as _, net::TcpStream};

use crate::{deadline::Deadline, write::poll_pieces};

/// A client's side of an exchange.
#[derive(Debug)]
pub(super) struct ClientSide {
    pub(super) stream: TcpStream,
    /// Bytes for the client that it has not taken yet.
    pub(super) unsent: Vec<u8>,
    /// The rest of a body of our own, which comes after those.
    pub(super) unsent_body: Bytes,
    pub(super) deadline: Deadline,
    /// How long it may take nothing.
    pub(super) idle: Duration,
}

/// Longest last piece that is held back as a whole.
const HOLD_WHOLE_BYTES: usize = 16 * 1024;

/// The bytes that are held back of a longer one: more than what ends the last chunk.
const HELD_BYTES: usize = 16;

impl ClientSide {
    /// Writes two pieces, and keeps what isn't taken now. An error shows at the next flush.
    pub(super) fn write(&mut self, context: &mut Context<'_>, first: &[u8], second: &[u8]) {
        let written = self.write_now(context, first, second);
        let of_first = written.min(first.len());
        self.unsent.extend_from_slice(&first[of_first..]);
        self.unsent.extend_from_slice(&second[written - of_first..]);
    }

    /// Writes two pieces but for their end, which the next flush writes. What is short is kept as a
    /// whole: a further write would cost more than a copy.
    pub(super) fn hold_end(&mut self, context: &mut Context<'_>, first: &[u8], second: &[u8]) {
        let now = match second.len() {
            ..HOLD_WHOLE_BYTES => 0,
            length => length - HELD_BYTES,
        };
        let (second, held) = second.split_at(now);
        if second.is_empty() {
            self.unsent.extend_from_slice(first);
        } else {
            self.write(context, first, second);
        }
        self.unsent.extend_from_slice(held);
    }

    /// Writes an answer of our own, and keeps what isn't taken now. A body is kept without a copy.
    pub(super) fn write_own(&mut self, context: &mut Context<'_>, head: &[u8], mut body: Bytes) {
        let written = self.write_now(context, head, &body);
        let of_head = written.min(head.len());
        self.unsent.extend_from_slice(&head[of_head..]);
        self.unsent_body = body.split_off(written - of_head);
    }

    /// Returns how much of two pieces is taken now: nothing while others wait.
    fn write_now(&mut self, context: &mut Context<'_>, first: &[u8], second: &[u8]) -> usize {
        if !self.is_flushed() || first.is_empty() && second.is_empty() {
            return 0;
        }
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let count = if second.is_empty() { 1 } else { 2 };
        let stream = Pin::new(&mut self.stream);
        match poll_pieces(stream, context, &slices[..count]) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    }

    /// Returns whether nothing is left to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.unsent_body.is_empty()
    }

    /// Writes what is left. Fails once the client has taken nothing for too long.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        let mut written = 0;
        let result = loop {
            let unsent = match &self.unsent[written.min(self.unsent.len())..] {
                [] => &self.unsent_body[written - self.unsent.len()..],
                unsent => unsent,
            };
            if unsent.is_empty() {
                if !self.unsent.is_empty() {
                    // Its memory is rarely needed again.
                    self.unsent = Vec::new();
                }
                self.unsent_body = Bytes::new();
                self.deadline.clear();
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(context, unsent) {
                Poll::Ready(Ok(now)) => written += now,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        let of_copied = written.min(self.unsent.len());
        self.unsent.drain(..of_copied);
        self.unsent_body.advance(written - of_copied);
        if written > 0 || !self.deadline.is_set() {
            self.deadline.set(self.idle);
        }
        if result.is_pending() && self.deadline.poll_passed(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}
