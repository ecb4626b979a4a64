//! Goal: whatever the transport, a tunnel is as good as a cable. Method: a host and a plugin in
//! this process with real sockets, one list of tests, every test for every transport. `cable.rs`
//! has those that hold for every relay.

#[path = "../../../testing/streams.rs"]
mod streams;
mod support;

use std::io::ErrorKind;

use streams::{echo, flood, noise, upstream, watched};
use support::{Kind, Rig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixSocket,
};

/// Instantiates every test for every transport.
macro_rules! conformance {
    ($($test:ident)+) => {
        conformance!(@kind stream_over_unix StreamUnix: $($test)+);
        conformance!(@kind stream_over_tcp StreamTcp: $($test)+);
        conformance!(@kind stream_small_chunks StreamSmallChunks: $($test)+);
        conformance!(@kind shm Shm: $($test)+);
        conformance!(@kind shm_large ShmLarge: $($test)+);
        conformance!(@kind shm_tiny ShmTiny: $($test)+);
        conformance!(@kind ring Ring: $($test)+);
        conformance!(@kind ring_tiny RingTiny: $($test)+);
        conformance!(@kind handoff Handoff: $($test)+);
        conformance!(@kind handoff_relay_host HandoffRelayHost: $($test)+);
    };
    (@kind $module:ident $kind:ident: $($test:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::watched(super::$test(super::Kind::$kind));
                }
            )+
        }
    };
}

#[path = "../../../testing/cable.rs"]
mod cable;
mod ends;

conformance! {
    an_upstream_whose_backlog_is_full_is_waited_for
    what_waits_for_a_slow_reader_is_bounded
    a_restarted_plugin_is_attached
    a_restarted_host_is_attached_to
    a_second_plugin_is_refused
    more_clients_than_allowed_wait
    copies_are_counted_byte_by_byte
}

async fn an_upstream_whose_backlog_is_full_is_waited_for(kind: Kind) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("upstream");
    let socket = UnixSocket::new_stream().expect("a socket");
    socket.bind(&path).expect("free");
    let listener = socket.listen(1).expect("listens");
    let rig = Rig::relay(kind, &format!("unix:{}", path.display())).await;
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = rig.connect().await;
        client.write_all(&[number]).await.expect("sent");
        clients.push(client);
    }
    // One gives up while it waits.
    drop(clients.swap_remove(6));
    rig.wait_for_tunnels(8).await;
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    for client in &mut clients {
        client.shutdown().await.expect("half-closed");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("answered");
        assert_eq!(answer.len(), 1);
    }
    drop(clients);
    rig.assert_nothing_open().await;
    serving.abort();
}

async fn what_waits_for_a_slow_reader_is_bounded(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(flood).await).await;
    let client = rig.connect().await;
    rig.wait_until_quiet().await;
    let taken = rig.taken_from_server();
    // What lies in the client's own socket buffers comes on top of the window; the kernel doubles
    // and auto-tunes them up to 6 MiB.
    let bound = rig.window_bytes() + 8 * 1024 * 1024;
    assert!(
        taken < bound,
        "{taken} bytes were taken from the origin for a client that reads none"
    );
    drop(client);
    rig.assert_nothing_open().await;
}

async fn a_restarted_plugin_is_attached(kind: Kind) {
    let address = upstream(echo).await;
    let mut rig = Rig::relay(kind, &address).await;
    let mut client = rig.connect().await;
    client.write_all(b"a").await.expect("written");
    assert_eq!(client.read_u8().await.expect("echoed"), b'a');

    rig.kill_plugin().await;
    let ended = client.read_u8().await.map_err(|error| error.kind());
    assert_eq!(
        ended,
        Err(ErrorKind::ConnectionReset),
        "a broken tunnel is no orderly end"
    );
    rig.wait_until_detached().await;
    // Nobody is there to answer, so the client must get a prompt end and not hang.
    let mut orphan = rig.connect().await;
    assert!(orphan.read_u8().await.is_err(), "nothing can come");

    rig.start_plugin(&address).await;
    rig.wait_until_attached().await;
    let mut client = rig.connect().await;
    client.write_all(b"b").await.expect("written");
    assert_eq!(client.read_u8().await.expect("echoed"), b'b');
}

async fn a_restarted_host_is_attached_to(kind: Kind) {
    let mut rig = Rig::relay(kind, &upstream(echo).await).await;
    let mut client = rig.connect().await;
    client.write_all(b"a").await.expect("written");
    assert_eq!(client.read_u8().await.expect("echoed"), b'a');
    rig.kill_host().await;
    rig.start_host().await;
    let mut client = rig.connect().await;
    client.write_all(b"b").await.expect("written");
    assert_eq!(client.read_u8().await.expect("echoed"), b'b');
}

async fn a_second_plugin_is_refused(kind: Kind) {
    let address = upstream(echo).await;
    let rig = Rig::relay(kind, &address).await;
    let mut client = rig.connect().await;
    client.write_all(b"a").await.expect("written");
    let error = rig
        .run_another_plugin(&address)
        .await
        .expect_err("refused")
        .to_string();
    assert!(error.contains("another plugin is attached"), "{error}");
    assert_eq!(client.read_u8().await.expect("the first one goes on"), b'a');
}

async fn more_clients_than_allowed_wait(kind: Kind) {
    let rig = Rig::builder(kind)
        .connections_max(2)
        .relay(&upstream(echo).await)
        .await;
    let first = rig.connect().await;
    let mut second = rig.connect().await;
    second.write_all(b"2").await.expect("written");
    assert_eq!(second.read_u8().await.expect("echoed"), b'2');
    let mut third = rig.connect().await;
    third.write_all(b"3").await.expect("the kernel takes it");
    rig.wait_for_accept_stall().await;
    assert_eq!(rig.host_counters().tunnels_opened.get(), 2);
    drop(first);
    assert_eq!(third.read_u8().await.expect("its turn has come"), b'3');
}

async fn copies_are_counted_byte_by_byte(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(echo).await).await;
    let mut client = rig.connect().await;
    // One message at a time, each waited for: nothing is batched, and nothing goes to a backlog.
    let sizes = [1_u64, 16, 17, 1_000, 4_000];
    for size in sizes {
        let sent = noise(4, size);
        client.write_all(&sent).await.expect("written");
        let mut received = vec![0; sent.len()];
        client.read_exact(&mut received).await.expect("echoed");
    }
    let sum: u64 = sizes.iter().sum();
    let (host, plugin) = (rig.host_counters(), rig.plugin_counters());
    rig.wait_until_counted(sum).await;
    for (name, counters) in [("host", &host), ("plugin", &plugin)] {
        // On handoff one of them sees no bytes. It doesn't show these counters.
        let seen = if rig.sees_bytes(name) { sum } else { 0 };
        assert_eq!(counters.bytes_in.get(), seen, "{name}");
        assert_eq!(counters.bytes_out.get(), seen, "{name}");
        // On ring every byte that was taken crosses by reference; rapace copies all.
        let is_ring = matches!(kind, Kind::Ring | Kind::RingTiny);
        let expected = if is_ring { sum } else { 0 };
        assert_eq!(counters.zero_copy_bytes.get(), expected, "{name}");
    }
    // See docs/SHM.md, and "Copies" in docs/ARCHITECTURE.md. One side sends a direction and the
    // other receives it, so that both together count each copy of both directions.
    let copied = host.copied_bytes.get() + plugin.copied_bytes.get();
    let per_direction = match kind {
        // All frames are so small that the sender gathers them. The receiver's vector comes on top.
        Kind::StreamUnix | Kind::StreamTcp => sum + sum,
        // The same goes for frames of 64 bytes.
        Kind::StreamSmallChunks => sum + sum,
        // A payload is copied into the slot, or into the descriptor if it fits there.
        Kind::Shm | Kind::ShmLarge | Kind::ShmTiny => sum,
        // Bytes go from the kernel to the kernel.
        Kind::Ring | Kind::RingTiny | Kind::Handoff | Kind::HandoffRelayHost => {
            assert_eq!(copied, 0);
            return;
        }
    };
    // The upstream was connected to while the first byte was on its way: it may have waited in the
    // backlog, which costs a copy where the frame isn't on the heap already.
    let first = sizes[0];
    let range = 2 * per_direction..=2 * per_direction + first;
    assert!(
        range.contains(&copied),
        "{copied} bytes copied, expected {range:?}"
    );
}
