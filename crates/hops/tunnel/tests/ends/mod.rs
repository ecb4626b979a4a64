//! Goal: bytes arrive although something ends a read early, and answers arrive although their
//! connection is reset, on Unix sockets, too. Method: as in `conformance.rs`, with servers and
//! clients that do what such programs do.

use std::{
    io::{ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::{io::AsyncWriteExt, net::UnixListener};

use super::{
    Kind, Rig, cable,
    streams::{assert_receives, echo, fill, noise, send_around_urgent, upstream, watched},
};

conformance! {
    what_a_unix_client_sends_beside_bytes_holds_up_nothing
    what_a_unix_server_sends_beside_bytes_holds_up_nothing
    all_that_came_before_a_unix_reset_arrives_after_a_failed_write
    a_host_that_stops_refuses_newcomers_at_once
}

/// Sends a byte with a descriptor, and a byte without.
fn send_descriptor(socket: BorrowedFd<'_>) {
    let descriptors = [socket];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = [IoSlice::new(b"a")];
    rustix::net::sendmsg(socket, &bytes, &mut beside, SendFlags::empty()).expect("room");
    rustix::net::send(socket, b"b", SendFlags::empty()).expect("room");
}

/// The ways to send `ab` with something beside it.
const BESIDE_BYTES: [fn(BorrowedFd<'_>); 2] = [send_around_urgent, send_descriptor];

async fn what_a_unix_client_sends_beside_bytes_holds_up_nothing(kind: Kind) {
    let rig = Rig::builder(kind).connections_max(1).unix_clients();
    let rig = rig.relay(&upstream(cable::echo_pairs).await).await;
    let mut first = rig.connect_unix().await;
    rig.wait_for_tunnels(1).await;
    for send in BESIDE_BYTES {
        let mut second = rig.connect_unix().await;
        send(second.as_fd());
        drop(std::mem::replace(&mut first, rig.connect_unix().await));
        assert_receives(&mut second, b"ab").await;
        send(second.as_fd());
        assert_receives(&mut second, b"ab").await;
    }
}

async fn what_a_unix_server_sends_beside_bytes_holds_up_nothing(kind: Kind) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("upstream");
    let listener = UnixListener::bind(&path).expect("free");
    let rig = Rig::relay(kind, &format!("unix:{}", path.display())).await;
    for send in BESIDE_BYTES {
        let mut client = rig.connect().await;
        let (mut server, _) = listener.accept().await.expect("connected to");
        let before = rig.taken_from_server();
        let mut sent = fill(&mut server, |_, sent| {
            sent + before - rig.taken_from_server()
        })
        .await;
        send(server.as_fd());
        sent.extend(b"ab");
        assert_receives(&mut client, &sent).await;
    }
}

/// Two tests of the list in `cable.rs` expect of a tunnel what holds without one.
#[test]
fn without_a_tunnel_every_answer_arrives() {
    watched(async {
        let address = upstream(cable::refuse).await;
        let upload = noise(5, 64 * 1024);
        assert_eq!(
            cable::answered(address.as_str(), &upload).await,
            cable::ROUNDS
        );
        let requests = [cable::REQUEST, cable::REQUEST].concat();
        assert_eq!(
            cable::answered(address.as_str(), &requests).await,
            cable::ROUNDS
        );
    });
}

async fn all_that_came_before_a_unix_reset_arrives_after_a_failed_write(kind: Kind) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("upstream");
    let listener = UnixListener::bind(&path).expect("free");
    let rig = Rig::relay(kind, &format!("unix:{}", path.display())).await;
    let client = rig.connect().await;
    let (server, _) = listener.accept().await.expect("connected to");
    let unread = |_: &_, sent| sent - rig.taken_from_server();
    cable::reset_after_all(&rig, client, server, unread).await;
}

/// The host refuses newcomers on both its addresses, while connected clients go on. Whoever is
/// refused may try the next host.
async fn a_host_that_stops_refuses_newcomers_at_once(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(echo).await).await;
    let mut client = rig.connect().await;
    client.write_all(b"a").await.expect("written");
    assert_receives(&mut client, b"a").await;
    rig.stop_host();
    // The host has to notice first.
    while rig.try_connect().await.is_ok() || rig.try_connect_as_peer().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = [
        rig.try_connect().await.map(drop),
        rig.try_connect_as_peer().await,
    ];
    for refused in refused {
        let kind = refused.expect_err("refused").kind();
        // The file of a Unix socket is gone with its listener.
        assert!(matches!(
            kind,
            ErrorKind::ConnectionRefused | ErrorKind::NotFound
        ));
    }
    client.write_all(b"b").await.expect("written");
    assert_receives(&mut client, b"b").await;
}
