//! Goal: nodes count together, and agree again soon after they couldn't reach each other.
//! Method: three real nodes, each of which reaches the others through relays that the test cuts.

mod support;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Node, answers, processes::until, status, to};

/// Passes connections on to an address, unless it is cut.
fn relay(to: SocketAddr, is_cut: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let is_cut = Arc::clone(is_cut);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if is_cut.load(SeqCst) {
                continue;
            }
            let Ok(server) = TcpStream::connect(to) else {
                continue;
            };
            for (mut from, mut to) in [
                (
                    client.try_clone().expect("a socket"),
                    server.try_clone().expect("a socket"),
                ),
                (server, client),
            ] {
                thread::spawn(move || {
                    io::copy(&mut from, &mut to).ok();
                    to.shutdown(std::net::Shutdown::Write).ok();
                });
            }
        }
    });
    address
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// Starts three nodes that share a limit for all clients.
fn nodes(origin: SocketAddr, requests: u32, is_cut: &Arc<AtomicBool>) -> Vec<Node> {
    let addresses = [free_address(), free_address(), free_address()];
    let nodes = (0..3).map(|own| {
        let others = (0..3).filter(|&other| other != own);
        let peers: Vec<_> = others
            .map(|other| format!("'{}'", relay(addresses[other], is_cut)))
            .collect();
        Node::start(&format!(
            "{}[[limit]]\nname = 'all'\nrequests = {requests}\nwindow-ms = 3600000\n\
             scope = 'all'\n\
             [cluster]\nlisten = '{}'\npeers = [{}]\nsecret = '0123456789abcdef'\n\
             interval-ms = 50\n",
            to("app", origin),
            addresses[own],
            peers.join(", "),
        ))
    });
    nodes.collect()
}

#[test]
fn three_nodes_agree_after_a_partition() {
    let origin = answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let is_cut = Arc::new(AtomicBool::new(false));
    let nodes = nodes(origin.address, 30, &is_cut);
    until("all have exchanged", || {
        nodes.iter().all(|node| node.status("edge_exchanges") > 2)
    });
    is_cut.store(true, SeqCst);
    let cut = Instant::now();
    for node in &nodes[..2] {
        for _ in 0..15 {
            assert_eq!(status(&node.get("/", "")), 200);
        }
    }
    // The third knows nothing of them.
    assert_eq!(status(&nodes[2].get("/", "")), 200);
    until("the partition has lasted", || {
        cut.elapsed() >= Duration::from_secs(5)
    });
    is_cut.store(false, SeqCst);
    let healed = Instant::now();
    until("the third refuses what is too much in all", || {
        status(&nodes[2].get("/", "")) == 429
    });
    eprintln!(
        "agreed {} ms after the partition",
        healed.elapsed().as_millis()
    );
    for node in &nodes {
        until("all refuse", || status(&node.get("/", "")) == 429);
        assert_eq!(node.status("edge_counts_refused"), 0);
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[test]
fn strangers_are_not_believed() {
    let origin = answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let own = free_address();
    let node = Node::start(&format!(
        "{}[cluster]\nlisten = '{own}'\nsecret = '0123456789abcdef'\n",
        to("app", origin.address)
    ));
    for body in ["", "x", "EDGE\u{1}\u{0}\u{0}\u{0}\u{0}"] {
        let request = format!(
            "POST /counters HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
             {body}",
            body.len()
        );
        assert_eq!(status(&support::ask(own, request.as_bytes())), 400);
    }
    assert_eq!(node.status("edge_messages_refused"), 3);
    node.stop();
}
