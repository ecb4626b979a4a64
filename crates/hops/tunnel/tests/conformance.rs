//! Goal: whatever the transport, a tunnel is as good as a cable. Method: a host and a plugin in
//! this process with real sockets, one list of tests, every test for every transport.

mod support;

use std::{io::ErrorKind, time::Duration};

use support::{Kind, Rig, noise};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixSocket},
    task::JoinSet,
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
    };
    (@kind $module:ident $kind:ident: $($test:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::support::watched(super::$test(super::Kind::$kind));
                }
            )+
        }
    };
}

mod ends;

conformance! {
    bytes_arrive_unchanged_on_many_connections
    server_may_speak_first
    client_may_half_close
    server_may_half_close
    a_reset_by_the_client_reaches_the_server
    a_reset_by_the_server_reaches_the_client
    an_upstream_that_refuses_ends_the_client
    an_upstream_whose_backlog_is_full_is_waited_for
    a_client_that_does_not_read_holds_up_nobody
    what_waits_for_a_slow_reader_is_bounded
    a_restarted_plugin_is_attached
    a_restarted_host_is_attached_to
    a_second_plugin_is_refused
    more_clients_than_allowed_wait
    copies_are_counted_byte_by_byte
    pipelined_requests_are_answered_in_order
    stopping_lets_open_connections_finish
}

/// Starts a server that answers every connection with `serve`.
async fn upstream<F, R>(serve: F) -> String
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address
}

/// Sends back what it gets, until the client half-closes.
async fn echo(mut socket: TcpStream) {
    let (mut read, mut write) = socket.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        write.shutdown().await.ok();
    }
}

async fn bytes_arrive_unchanged_on_many_connections(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(echo).await).await;
    let mut clients = JoinSet::new();
    for seed in 0..24_u64 {
        let client = rig.connect().await;
        clients.spawn(async move {
            let sent = noise(seed, 700_000 + 4_567 * seed);
            let expected = sent.clone();
            let (mut read, mut write) = client.into_split();
            let writing = tokio::spawn(async move {
                // Pieces of all sizes: below and above what rapace puts inline, a slot, a chunk.
                let mut rest = &sent[..];
                for size in [1, 15, 16, 17, 100, 4_095, 4_097, 70_000]
                    .into_iter()
                    .cycle()
                {
                    let (piece, after) = rest.split_at(size.min(rest.len()));
                    write.write_all(piece).await.expect("written");
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
                write.shutdown().await.expect("half-closed");
            });
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.expect("a clean end");
            writing.await.expect("no panic");
            assert!(
                received == expected,
                "connection {seed}: the bytes that came back differ"
            );
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("no panic");
    }
    rig.assert_nothing_open().await;
}

async fn server_may_speak_first(kind: Kind) {
    let serve = |mut socket: TcpStream| async move {
        socket.write_all(b"220 ready\r\n").await.expect("written");
        echo(socket).await;
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    for _ in 0..20 {
        let mut client = rig.connect().await;
        let mut greeting = [0; 11];
        client.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"220 ready\r\n");
    }
}

async fn client_may_half_close(kind: Kind) {
    let serve = |mut socket: TcpStream| async move {
        let mut question = Vec::new();
        socket
            .read_to_end(&mut question)
            .await
            .expect("a clean end");
        let answer = format!("{} bytes", question.len());
        socket.write_all(answer.as_bytes()).await.expect("written");
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    let mut client = rig.connect().await;
    client.write_all(&noise(1, 300_000)).await.expect("written");
    client.shutdown().await.expect("half-closed");
    let mut answer = String::new();
    client
        .read_to_string(&mut answer)
        .await
        .expect("a clean end");
    assert_eq!(answer, "300000 bytes");
    rig.assert_nothing_open().await;
}

async fn server_may_half_close(kind: Kind) {
    let (report, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut socket: TcpStream| {
        let report = report.clone();
        async move {
            socket.write_all(b"that is all").await.expect("written");
            socket.shutdown().await.expect("half-closed");
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.expect("a clean end");
            report.send(rest.len()).expect("the test waits");
        }
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    let mut client = rig.connect().await;
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("a clean end");
    assert_eq!(text, "that is all");
    client
        .write_all(&noise(2, 300_000))
        .await
        .expect("the other direction is open");
    client.shutdown().await.expect("half-closed");
    assert_eq!(reported.recv().await, Some(300_000));
    rig.assert_nothing_open().await;
}

/// Makes a socket close with a reset, like that of a process that is killed with data unread.
fn reset(socket: &TcpStream) {
    socket.set_zero_linger().expect("a TCP socket");
}

async fn a_reset_by_the_client_reaches_the_server(kind: Kind) {
    let (report, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut socket: TcpStream| {
        let report = report.clone();
        async move {
            let ended = socket.read_to_end(&mut Vec::new()).await;
            report
                .send(ended.map_err(|error| error.kind()))
                .expect("the test waits");
        }
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    let mut client = rig.connect().await;
    client.write_all(b"half a ques").await.expect("written");
    rig.wait_for_bytes_to_origin(11).await;
    reset(&client);
    drop(client);
    assert_eq!(reported.recv().await, Some(Err(ErrorKind::ConnectionReset)));
    rig.assert_nothing_open().await;
}

async fn a_reset_by_the_server_reaches_the_client(kind: Kind) {
    let serve = |mut socket: TcpStream| async move {
        socket.write_all(b"half an ans").await.expect("written");
        // Wait until the client has it: a reset overtakes what is under way.
        socket.read_u8().await.expect("asked");
        reset(&socket);
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    let mut client = rig.connect().await;
    client
        .read_exact(&mut [0; 11])
        .await
        .expect("the first half");
    client.write_all(b"?").await.expect("written");
    let ended = client
        .read(&mut [0; 100])
        .await
        .map_err(|error| error.kind());
    assert_eq!(
        ended,
        Err(ErrorKind::ConnectionReset),
        "a cut-off answer must not look complete"
    );
    rig.assert_nothing_open().await;
}

async fn an_upstream_that_refuses_ends_the_client(kind: Kind) {
    // A port that nobody listens on any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let rig = Rig::relay(kind, &address).await;
    // The reset may come while the client is still connecting.
    let ended = match rig.try_connect().await {
        Ok(mut client) => client.read(&mut [0; 100]).await,
        Err(error) => Err(error),
    };
    assert_eq!(
        ended.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset)
    );
    rig.assert_nothing_open().await;
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

/// Sends without end.
async fn flood(mut socket: TcpStream) {
    let piece = noise(3, 64 * 1024);
    while socket.write_all(&piece).await.is_ok() {}
}

async fn a_client_that_does_not_read_holds_up_nobody(kind: Kind) {
    let serve = |mut socket: TcpStream| async move {
        match socket.read_u8().await {
            Ok(b'f') => flood(socket).await,
            _ => echo(socket).await,
        }
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    // More clients than there are slots. Each takes megabytes into its sockets' buffers, which is
    // many frames if they are small.
    let clients = if matches!(kind, Kind::ShmTiny | Kind::StreamSmallChunks) {
        12
    } else {
        100
    };
    let mut deaf = Vec::new();
    for _ in 0..clients {
        let mut client = rig.connect().await;
        client.write_all(b"f").await.expect("written");
        deaf.push(client);
    }
    // Wait until every one of them has filled its window and its sockets.
    rig.wait_until_quiet().await;
    let mut client = rig.connect().await;
    client.write_all(b"e").await.expect("written");
    for n in 0..1_000_u32 {
        client.write_all(&n.to_be_bytes()).await.expect("written");
        assert_eq!(client.read_u32().await.expect("echoed"), n);
    }
    drop(deaf);
    drop(client);
    rig.assert_nothing_open().await;
}

async fn what_waits_for_a_slow_reader_is_bounded(kind: Kind) {
    let rig = Rig::relay(kind, &upstream(flood).await).await;
    let client = rig.connect().await;
    rig.wait_until_quiet().await;
    let taken = rig.plugin_counters().bytes_in.get();
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
        assert_eq!(counters.bytes_in.get(), sum, "{name}");
        assert_eq!(counters.bytes_out.get(), sum, "{name}");
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
        Kind::Ring | Kind::RingTiny => {
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

async fn pipelined_requests_are_answered_in_order(kind: Kind) {
    for rig in [
        Rig::in_process(kind).await,
        Rig::origin_behind_tcp(kind).await,
    ] {
        let mut client = rig.connect().await;
        let mut requests = String::new();
        for n in 0..200 {
            requests += &format!("GET /bytes/{n} HTTP/1.1\r\nhost: a\r\n\r\n");
        }
        requests += "GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client
            .write_all(requests.as_bytes())
            .await
            .expect("written");
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.expect("a clean end");
        let text = String::from_utf8_lossy(&answers);
        let lengths: Vec<usize> = text
            .split("content-length: ")
            .skip(1)
            .map(|rest| {
                rest.split("\r\n")
                    .next()
                    .expect("a line")
                    .parse()
                    .expect("a number")
            })
            .collect();
        let expected: Vec<usize> = (0..200).chain([262_125]).collect();
        assert_eq!(lengths, expected);
        assert!(answers.ends_with(b"dog. "));
        drop(client);
        rig.assert_nothing_open().await;
    }
}

async fn stopping_lets_open_connections_finish(kind: Kind) {
    let rig = Rig::in_process(kind).await;
    let mut client = rig.connect().await;
    client
        .write_all(b"GET /delay/300 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .expect("written");
    rig.wait_for_bytes_to_origin(1).await;
    rig.stop_host();
    rig.stop_plugin();
    let mut answer = String::new();
    client
        .read_to_string(&mut answer)
        .await
        .expect("a clean end");
    assert!(answer.ends_with("ok"), "{answer}");
    tokio::time::timeout(Duration::from_secs(20), rig.ended())
        .await
        .expect("both end");
}
