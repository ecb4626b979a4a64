//! Goal: a relay of TCP connections is as good as a cable. Method: tests of several crates include
//! this file as a module, and run its list for every kind of relay that they have.
//!
//! They provide a macro `conformance!`, which makes tests of the functions below, a type `Kind`,
//! and a type `Rig`: a relay of that kind, started, with an upstream.

use std::{io::ErrorKind, os::fd::AsFd, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::JoinSet,
};

use super::{
    Kind, Rig,
    streams::{
        assert_receives, echo, fill, flood, noise, reset, send_around_urgent, upstream, watched,
    },
};

conformance! {
    bytes_arrive_unchanged_on_many_connections
    server_may_speak_first
    client_may_half_close
    server_may_half_close
    a_reset_by_the_client_reaches_the_server
    a_reset_by_the_server_reaches_the_client
    an_upstream_that_refuses_ends_the_client
    a_client_that_does_not_read_holds_up_nobody
    pipelined_requests_are_answered_in_order
    stopping_lets_open_connections_finish
    urgent_data_before_the_first_read_holds_up_nothing
    urgent_data_of_a_client_to_a_relay_without_room_holds_up_nothing
    urgent_data_of_a_server_to_a_relay_without_room_holds_up_nothing
    an_answer_to_a_refused_upload_arrives
    the_first_of_two_pipelined_requests_is_answered
    all_that_came_before_a_reset_arrives_after_a_failed_write
    an_orderly_end_stays_one_after_a_failed_write
    the_origin_answers_an_upload_that_it_refuses
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

async fn a_reset_by_the_client_reaches_the_server(kind: Kind) {
    let (report, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut socket: TcpStream| {
        let report = report.clone();
        async move {
            let begun = socket.read_exact(&mut [0; 11]).await;
            report
                .send(begun.map_err(|error| error.kind()))
                .expect("the test waits");
            let ended = socket.read_to_end(&mut Vec::new()).await;
            report
                .send(ended.map_err(|error| error.kind()))
                .expect("the test waits");
        }
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    let mut client = rig.connect().await;
    client.write_all(b"half a ques").await.expect("written");
    assert_eq!(reported.recv().await, Some(Ok(11)));
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

async fn a_client_that_does_not_read_holds_up_nobody(kind: Kind) {
    let serve = |mut socket: TcpStream| async move {
        match socket.read_u8().await {
            Ok(b'f') => flood(socket).await,
            _ => echo(socket).await,
        }
    };
    let rig = Rig::relay(kind, &upstream(serve).await).await;
    // Each takes megabytes into its sockets' buffers.
    let clients = if rig.is_tiny() { 12 } else { 100 };
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

async fn pipelined_requests_are_answered_in_order(kind: Kind) {
    for rig in Rig::origins(kind).await {
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
    for rig in Rig::origins(kind).await {
        let mut client = rig.connect().await;
        client
            .write_all(b"GET /delay/300 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .expect("written");
        rig.until_forwarded(&client, 1).await;
        rig.stop();
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .await
            .expect("a clean end");
        assert!(answer.ends_with("ok"), "{answer}");
        drop(client);
        tokio::time::timeout(Duration::from_secs(20), rig.ended())
            .await
            .expect("it ends");
    }
}

/// The host accepts the second client once the first has left. By then it has sent everything.
async fn urgent_data_before_the_first_read_holds_up_nothing(kind: Kind) {
    let rig = Rig::relay_one(kind, &upstream(echo_pairs).await).await;
    let mut first = rig.connect().await;
    first.write_all(b"ab").await.expect("written");
    assert_receives(&mut first, b"ab").await;
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
    let mut sent = fill(&mut client, |client, sent| {
        rig.unread_of_client(client, sent)
    })
    .await;
    send_around_urgent(client.as_fd());
    sent.extend(b"ab");
    assert_receives(&mut server, &sent).await;
}

async fn urgent_data_of_a_server_to_a_relay_without_room_holds_up_nothing(kind: Kind) {
    let (rig, mut client, mut server) = joined(kind).await;
    let mut sent = fill(&mut server, |server, sent| {
        rig.unread_of_server(server, sent)
    })
    .await;
    send_around_urgent(server.as_fd());
    sent.extend(b"ab");
    assert_receives(&mut client, &sent).await;
}

const ANSWER: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\ntoo large";
pub(crate) const REQUEST: &[u8] = b"GET /first HTTP/1.1\r\nhost: a\r\n\r\n";
pub(crate) const ROUNDS: usize = 100;

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

async fn all_that_came_before_a_reset_arrives_after_a_failed_write(kind: Kind) {
    let (rig, client, server) = joined(kind).await;
    let unread = |server: &_, sent| rig.unread_of_server(server, sent);
    reset_after_all(&rig, client, server, unread).await;
}

/// The server closes with data unread while the relay has no room for the end of what the server
/// has sent. Then the relay has more to write to the server.
///
/// `unread` returns how many bytes of the server the relay has not read.
pub(crate) async fn reset_after_all<S: AsyncRead + AsyncWrite + Unpin>(
    rig: &Rig,
    mut client: TcpStream,
    mut server: S,
    unread: impl Fn(&S, u64) -> u64,
) {
    let sent = fill(&mut server, unread).await;
    client.write_all(b"?").await.expect("written");
    rig.until_forwarded(&client, 1).await;
    drop(server);
    // Less than the smallest window.
    client.write_all(&[0; 500]).await.expect("written");
    rig.until_read(&client, 501).await;
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
    let sent = fill(&mut server, |server, sent| {
        rig.unread_of_server(server, sent)
    })
    .await;
    drop(server);
    // The first write is answered by a reset, and the second one fails. Each fits any frame.
    client.write_all(&[0; 50]).await.expect("written");
    rig.until_forwarded(&client, 50).await;
    client.write_all(&[0; 50]).await.expect("written");
    rig.until_read(&client, 100).await;
    assert_receives(&mut client, &sent).await;
    let ended = client.read(&mut [0; 100]).await;
    assert_eq!(ended.expect("a clean end"), 0);
    drop(client);
    rig.assert_nothing_open().await;
}

async fn the_origin_answers_an_upload_that_it_refuses(kind: Kind) {
    for rig in Rig::origins(kind).await {
        let (upload_bytes, rounds) = if rig.is_tiny() {
            (1 << 20, 1)
        } else {
            (4 << 20, 5)
        };
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
pub(crate) async fn echo_pairs(mut socket: TcpStream) {
    let mut pair = [0; 2];
    while socket.read_exact(&mut pair).await.is_ok() {
        socket.write_all(&pair).await.expect("written");
    }
}

/// Reads the head of a request, answers, and closes with the rest unread.
pub(crate) async fn refuse(mut socket: TcpStream) {
    let mut head = [0; REQUEST.len()];
    socket.read_exact(&mut head).await.expect("a head");
    socket.write_all(ANSWER).await.expect("written");
}

/// Returns how many of [`ROUNDS`] clients that send `request` get the whole answer.
pub(crate) async fn answered(address: impl ToSocketAddrs + Copy, request: &[u8]) -> usize {
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
