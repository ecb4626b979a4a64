//! System calls on sockets that have no safe function: receiving into uninitialised memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use bytes::BytesMut;

use crate::io::{Received, message, repeat};

/// Receives at most `limit` bytes and appends them to `target`, as far as it has room.
///
/// # Errors
/// As recv(2) with `MSG_DONTWAIT`. An interrupted call is repeated.
pub fn receive(from: BorrowedFd<'_>, target: &mut BytesMut, limit: usize) -> io::Result<Received> {
    let from = from.as_raw_fd();
    let bytes = append(target, limit, |piece| {
        // SAFETY: the piece names bytes that may be written.
        repeat(|| unsafe { libc::recv(from, piece.iov_base, piece.iov_len, libc::MSG_DONTWAIT) })
    })?;
    Ok(Received {
        bytes,
        is_cut: false,
    })
}

/// Receives as [`receive`] does, from a Unix socket. Descriptors may come with the bytes. They are
/// dropped, but they end a call, which recv(2) doesn't report.
///
/// # Errors
/// As recvmsg(2) with `MSG_DONTWAIT`. An interrupted call is repeated.
pub fn receive_alone(
    from: BorrowedFd<'_>,
    target: &mut BytesMut,
    limit: usize,
) -> io::Result<Received> {
    let from = from.as_raw_fd();
    let mut flags = 0;
    let bytes = append(target, limit, |piece| {
        let mut message = message(piece, 1);
        // SAFETY: the one piece names bytes that may be written, and there is nowhere to put
        // anything else.
        let result =
            repeat(|| unsafe { libc::recvmsg(from, &raw mut message, libc::MSG_DONTWAIT) });
        flags = message.msg_flags;
        result
    })?;
    Ok(Received {
        bytes,
        is_cut: flags & libc::MSG_CTRUNC != 0,
    })
}

/// Lets `fill` write into the spare room of `target`, and appends as many bytes as it returns.
fn append(
    target: &mut BytesMut,
    limit: usize,
    fill: impl FnOnce(&mut libc::iovec) -> io::Result<usize>,
) -> io::Result<usize> {
    let spare = target.spare_capacity_mut();
    let mut piece = libc::iovec {
        iov_base: spare.as_mut_ptr().cast(),
        iov_len: spare.len().min(limit),
    };
    let filled = fill(&mut piece)?;
    let length = target.len() + filled;
    // SAFETY: the kernel has written that many bytes there.
    unsafe { target.set_len(length) };
    Ok(filled)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::{
        io::{IoSlice, Write as _},
        mem::MaybeUninit,
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;
    use crate::io::bytes_under_way;

    #[test]
    fn bytes_are_received_behind_those_there_are_and_no_more_than_wanted() {
        let (mut far, near) = UnixStream::pair().expect("sockets");
        far.write_all(b"abcdef").expect("room");
        for receive in [receive, receive_alone] {
            let mut target = BytesMut::with_capacity(64);
            target.extend_from_slice(b"> ");
            let received = receive(near.as_fd(), &mut target, 3).expect("there are some");
            assert_eq!((received.bytes, received.is_cut), (3, false));
            assert_eq!(target.len(), 5);
        }
        assert_eq!(bytes_under_way(far.as_fd()).expect("a socket"), 0);
        drop(far);
        let end = receive(near.as_fd(), &mut BytesMut::with_capacity(1), 1);
        assert_eq!(end.expect("an end").bytes, 0);
    }

    #[test]
    fn a_descriptor_that_ends_a_call_is_told_and_dropped() {
        let (far, near) = UnixStream::pair().expect("sockets");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let descriptors = [far.as_fd()];
        assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let bytes = [IoSlice::new(b"a")];
        rustix::net::sendmsg(&far, &bytes, &mut beside, SendFlags::empty()).expect("room");
        rustix::net::send(&far, b"b", SendFlags::empty()).expect("room");
        assert_ne!(bytes_under_way(far.as_fd()).expect("a socket"), 0);
        let mut target = BytesMut::with_capacity(64);
        let mut receive = || receive_alone(near.as_fd(), &mut target, 64).expect("there is some");
        let (first, second) = (receive(), receive());
        assert_eq!((first.bytes, first.is_cut), (1, true));
        assert_eq!((second.bytes, second.is_cut), (1, false));
        assert_eq!(target, "ab");
    }
}
