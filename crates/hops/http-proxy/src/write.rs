//! Writes the pieces of a message with the cheapest system call.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{io::AsyncWrite, net::TcpStream};

/// Most bytes that are copied together. The kernel needs longer to take several pieces than it
/// takes to copy this much.
const TOGETHER_BYTES: usize = 1024;

/// Writes pieces: a head with a short body as one, and a single piece without a list.
pub(crate) fn poll_pieces(
    stream: Pin<&mut TcpStream>,
    context: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = pieces {
        return stream.poll_write(context, only);
    }
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    if length > TOGETHER_BYTES {
        return stream.poll_write_vectored(context, pieces);
    }
    let mut together = [0; TOGETHER_BYTES];
    let mut at = 0;
    for piece in pieces {
        together[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    stream.poll_write(context, &together[..length])
}
