//! Goal: bytes arrive although something ends a read early, and answers arrive although their
//! connection is reset. Method: as in `conformance.rs`, with servers and clients that do what such
//! programs do; the same exchanges without a tunnel show what is expected of one.

use std::{
    io::{ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, ToSocketAddrs, UnixListener},
};

use super::{
    echo,
    support::{self, Kind, Rig, noise},
    upstream,
};

conformance! {
    urgent_data_before_the_first_read_holds_up_nothing
    urgent_data_of_a_client_to_a_relay_without_room_holds_up_nothing
    urgent_data_of_a_server_to_a_relay_without_room_holds_up_nothing
    what_a_unix_client_sends_beside_bytes_holds_up_nothing
    what_a_unix_server_sends_beside_bytes_holds_up_nothing
    an_answer_to_a_refused_upload_arrives
    the_first_of_two_pipelined_requests_is_answered
    all_that_came_before_a_reset_arrives_after_a_failed_write
    all_that_came_before_a_unix_reset_arrives_after_a_failed_write
    an_orderly_end_stays_one_after_a_failed_write
    the_origin_answers_an_upload_that_it_refuses
    a_host_that_stops_refuses_newcomers_at_once
}

/// Bytes of one write. A relay that has room reads them at once, and they fit any socket's buffer.
const PIECE_BYTES: u64 = 16 * 1024;

/// Sends piece by piece until the relay reads no more, and the rest waits in its socket. `taken`
/// returns how many bytes the relay has read. Returns all that was sent.
async fn fill(socket: &mut (impl AsyncWrite + Unpin), taken: impl Fn() -> u64) -> Vec<u8> {
    let mut sent = Vec::new();
    loop {
        let piece = noise(sent.len() as u64, PIECE_BYTES);
        socket.write_all(&piece).await.expect("written");
        sent.extend(piece);
        let (mut before, mut same) = (taken(), 0);
        while before < sent.len() as u64 {
            if same == 10 {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = taken();
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
    }
}

/// Sends a byte, then an urgent byte, then another byte.
fn send_around_urgent(socket: BorrowedFd<'_>) {
    for (byte, flags) in [
        (b"a", SendFlags::empty()),
        (b"!", SendFlags::OOB),
        (b"b", SendFlags::empty()),
    ] {
        rustix::net::send(socket, byte, flags).expect("room for a byte");
    }
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

async fn assert_receives(socket: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).await.expect("received");
    assert!(received == expected, "the bytes received differ");
}

/// Starts a tunnel, and returns it with the connections at its ends.
async fn joined(kind: Kind) -> (Rig, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let rig = Rig::relay(kind, &address).await;
    let client = rig.connect().await;
    let (server, _) = listener.accept().await.expect("connected to");
    (rig, client, server)
}

/// Sends back two bytes at a time. A single byte would cause an event on the relay's socket, and
/// the relay would then read what it had left there.
async fn echo_pairs(mut socket: TcpStream) {
    let mut pair = [0; 2];
    while socket.read_exact(&mut pair).await.is_ok() {
        socket.write_all(&pair).await.expect("written");
    }
}

/// The host accepts the second client once the first has left. By then it has sent everything.
async fn urgent_data_before_the_first_read_holds_up_nothing(kind: Kind) {
    let rig = Rig::builder(kind).connections_max(1);
    let rig = rig.relay(&upstream(echo_pairs).await).await;
    let first = rig.connect().await;
    rig.wait_for_tunnels(1).await;
    let mut second = rig.connect().await;
    send_around_urgent(second.as_fd());
    drop(first);
    assert_receives(&mut second, b"ab").await;
    // And again, now that the relay waits for it.
    send_around_urgent(second.as_fd());
    assert_receives(&mut second, b"ab").await;
}

async fn urgent_data_of_a_client_to_a_relay_without_room_holds_up_nothing(kind: Kind) {
    let (rig, mut client, mut server) = joined(kind).await;
    let counters = rig.host_counters();
    let mut sent = fill(&mut client, || counters.bytes_in.get()).await;
    send_around_urgent(client.as_fd());
    sent.extend(b"ab");
    assert_receives(&mut server, &sent).await;
}

async fn urgent_data_of_a_server_to_a_relay_without_room_holds_up_nothing(kind: Kind) {
    let (rig, mut client, mut server) = joined(kind).await;
    let counters = rig.plugin_counters();
    let mut sent = fill(&mut server, || counters.bytes_in.get()).await;
    send_around_urgent(server.as_fd());
    sent.extend(b"ab");
    assert_receives(&mut client, &sent).await;
}

async fn what_a_unix_client_sends_beside_bytes_holds_up_nothing(kind: Kind) {
    let rig = Rig::builder(kind).connections_max(1).unix_clients();
    let rig = rig.relay(&upstream(echo_pairs).await).await;
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
        let counters = rig.plugin_counters();
        let before = counters.bytes_in.get();
        let mut sent = fill(&mut server, || counters.bytes_in.get() - before).await;
        send(server.as_fd());
        sent.extend(b"ab");
        assert_receives(&mut client, &sent).await;
    }
}

const ANSWER: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\ntoo large";
const REQUEST: &[u8] = b"GET /first HTTP/1.1\r\nhost: a\r\n\r\n";
const ROUNDS: usize = 100;

/// Reads the head of a request, answers, and closes with the rest unread.
async fn refuse(mut socket: TcpStream) {
    let mut head = [0; REQUEST.len()];
    socket.read_exact(&mut head).await.expect("a head");
    socket.write_all(ANSWER).await.expect("written");
}

/// Returns how many of [`ROUNDS`] clients that send `request` get the whole answer.
async fn answered(address: impl ToSocketAddrs + Copy, request: &[u8]) -> usize {
    let mut answered = 0;
    for _ in 0..ROUNDS {
        let mut client = TcpStream::connect(address).await.expect("it listens");
        // Fails if the connection is reset meanwhile.
        let _ = client.write_all(request).await;
        let mut answer = Vec::new();
        // The reset follows, or is what the write has failed with.
        let _ = client.read_to_end(&mut answer).await;
        answered += usize::from(answer == ANSWER);
    }
    answered
}

async fn an_answer_to_a_refused_upload_arrives(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(refuse).await).await;
    let upload = noise(5, 64 * 1024);
    assert_eq!(answered(rig.client_address(), &upload).await, ROUNDS);
    rig.assert_nothing_open().await;
}

async fn the_first_of_two_pipelined_requests_is_answered(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(refuse).await).await;
    let requests = [REQUEST, REQUEST].concat();
    assert_eq!(answered(rig.client_address(), &requests).await, ROUNDS);
    rig.assert_nothing_open().await;
}

/// The two tests above expect of a tunnel what holds without one.
#[test]
fn without_a_tunnel_every_answer_arrives() {
    support::watched(async {
        let address = upstream(refuse).await;
        let upload = noise(5, 64 * 1024);
        assert_eq!(answered(address.as_str(), &upload).await, ROUNDS);
        let requests = [REQUEST, REQUEST].concat();
        assert_eq!(answered(address.as_str(), &requests).await, ROUNDS);
    });
}

async fn all_that_came_before_a_reset_arrives_after_a_failed_write(kind: Kind) {
    let (rig, client, server) = joined(kind).await;
    reset_after_all(&rig, client, server).await;
}

async fn all_that_came_before_a_unix_reset_arrives_after_a_failed_write(kind: Kind) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("upstream");
    let listener = UnixListener::bind(&path).expect("free");
    let rig = Rig::relay(kind, &format!("unix:{}", path.display())).await;
    let client = rig.connect().await;
    let (server, _) = listener.accept().await.expect("connected to");
    reset_after_all(&rig, client, server).await;
}

/// The server closes with data unread while the relay has no room for the end of what the server
/// has sent. Then the relay has more to write to the server.
async fn reset_after_all(
    rig: &Rig,
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) {
    let plugin = rig.plugin_counters();
    let sent = fill(&mut server, || plugin.bytes_in.get()).await;
    client.write_all(b"?").await.expect("written");
    rig.wait_for_bytes_to_origin(1).await;
    drop(server);
    // Less than the smallest window.
    client.write_all(&[0; 500]).await.expect("written");
    rig.wait_for_bytes_from_client(501).await;
    assert_receives(&mut client, &sent).await;
    let ended = client.read(&mut [0; 100]).await;
    assert_eq!(
        ended.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset),
        "a cut-off answer must not look complete"
    );
    drop(client);
    rig.assert_nothing_open().await;
}

async fn an_orderly_end_stays_one_after_a_failed_write(kind: Kind) {
    let (rig, mut client, mut server) = joined(kind).await;
    let plugin = rig.plugin_counters();
    let sent = fill(&mut server, || plugin.bytes_in.get()).await;
    drop(server);
    // The first write is answered by a reset, and the second one fails. Each fits any frame.
    client.write_all(&[0; 50]).await.expect("written");
    rig.wait_for_bytes_to_origin(50).await;
    client.write_all(&[0; 50]).await.expect("written");
    rig.wait_for_bytes_from_client(100).await;
    assert_receives(&mut client, &sent).await;
    let ended = client.read(&mut [0; 100]).await;
    assert_eq!(ended.expect("a clean end"), 0);
    drop(client);
    rig.assert_nothing_open().await;
}

async fn the_origin_answers_an_upload_that_it_refuses(kind: Kind) {
    // Frames of 64 bytes take their time.
    let is_tiny = matches!(kind, Kind::ShmTiny | Kind::StreamSmallChunks);
    let (upload_bytes, rounds) = if is_tiny { (1 << 20, 1) } else { (4 << 20, 5) };
    for rig in [
        Rig::in_process(kind).await,
        Rig::origin_behind_tcp(kind).await,
    ] {
        for _ in 0..rounds {
            let mut client = rig.connect().await;
            let head = format!(
                "POST /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                 content-length: {upload_bytes}\r\n\r\n"
            );
            let mut request = head.into_bytes();
            request.extend(noise(6, upload_bytes));
            // Fails if the connection is reset meanwhile.
            let _ = client.write_all(&request).await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "'{answer}'");
        }
        rig.assert_nothing_open().await;
    }
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
