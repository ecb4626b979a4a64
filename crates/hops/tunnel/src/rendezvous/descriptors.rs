//! Passes descriptors from one process to the other, by SCM_RIGHTS.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::{io::Interest, net::UnixStream};

use crate::ring::SHARDS_MAX;

/// Most descriptors that are sent at once: those of a host.
const DESCRIPTORS_MAX: usize = 3 * SHARDS_MAX;

/// Sends descriptors with one byte to carry them.
pub(crate) async fn send_descriptors(
    socket: &UnixStream,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let send = || send_once(socket, descriptors);
    socket.async_io(Interest::WRITABLE, send).await
}

/// Sends descriptors with one byte to carry them, if there is room.
///
/// # Errors
/// As sendmsg(2): `WouldBlock` if there is no room, and `ETOOMANYREFS` if this user has as many
/// descriptors on their way as this process may have files open.
pub(crate) fn send_once(socket: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let slices = [IoSlice::new(b"m")];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Descriptors that came with one byte. They are closed with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether the peer has closed the connection, and nothing came.
    pub(crate) has_ended: bool,
    /// Whether the peer sent more descriptors than these: they are too many, or this process may
    /// not have more.
    pub(crate) is_cut: bool,
}

/// Receives one byte with what it carries.
pub(crate) async fn receive(socket: &UnixStream) -> io::Result<Received> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags)
        })?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        Ok(Received {
            descriptors,
            has_ended: message.bytes == 0,
            is_cut: message.flags.contains(ReturnFlags::CTRUNC),
        })
    };
    socket.async_io(Interest::READABLE, receive).await
}

/// Receives exactly `expected` descriptors.
pub(super) async fn receive_descriptors(
    socket: &UnixStream,
    expected: usize,
) -> anyhow::Result<Vec<OwnedFd>> {
    let Received {
        descriptors,
        has_ended,
        is_cut,
    } = receive(socket).await?;
    let count = descriptors.len();
    anyhow::ensure!(
        !has_ended,
        "the peer closed the connection instead of sending its descriptors"
    );
    anyhow::ensure!(
        !is_cut || count >= expected,
        "only {count} of the peer's {expected} descriptors could be received; raise the limit on \
         open files with 'ulimit -n'"
    );
    anyhow::ensure!(
        count == expected && !is_cut,
        "the peer sent at least {count} descriptors, expected {expected}"
    );
    Ok(descriptors)
}

pub(super) async fn receive_exactly<const N: usize>(
    socket: &UnixStream,
) -> anyhow::Result<[OwnedFd; N]> {
    let received = receive_descriptors(socket, N).await?;
    received
        .try_into()
        .map_err(|_| anyhow::anyhow!("counted before"))
}
