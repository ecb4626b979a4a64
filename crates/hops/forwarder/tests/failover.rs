//! Goal: what happens to targets and configurations costs no request that could be answered.
//! Method: the real program between clients and two real servers, one of which is killed.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;
mod support;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use processes::{Running, bin, command, until};
use support::{Client, Forwarder};

const CLIENTS: usize = 4;

fn server() -> (Running, SocketAddr) {
    let running = Running::start(
        command(bin("http_baseline")).args(["--listen=127.0.0.1:0", "--exit-with-stdin"]),
    );
    let address = running.line("listening on ").parse().expect("an address");
    (running, address)
}

#[test]
fn a_killed_target_costs_only_requests_that_it_had_begun_to_answer() {
    let ((mut doomed, doomed_address), (_other, other_address)) = (server(), server());
    let forwarder = Forwarder::start(&format!(
        "listen_addr = '127.0.0.1'\n[[routes]]\nname = 'web'\nenabled = true\nmode = 'http'\n\
         listen_port = 0\nlog_level = 'none'\n\
         targets = ['{doomed_address}', '{other_address}']\n"
    ));
    let (good, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let address = forwarder.address;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                // Until well after the kill, which comes at 200.
                while good.load(SeqCst) < 2_000 {
                    match client.get("/small") {
                        Ok((200, body)) if body == b"ok" => good.fetch_add(1, SeqCst),
                        other => {
                            eprintln!("{other:?}");
                            client = Client::connect(address);
                            failed.fetch_add(1, SeqCst)
                        }
                    };
                }
            });
        }
        until("200 answers", || good.load(SeqCst) >= 200);
        doomed.kill();
    });
    // An answer of 2 bytes comes in one piece, so a client can hardly meet half of one.
    let failed = failed.into_inner();
    assert!(failed <= CLIENTS, "{failed} requests failed");
    let counted = forwarder.counted_as("http_");
    assert!(counted("retries") > 0 || counted("upstream_opened") > 0);
    assert_eq!(counted("requests"), (good.into_inner() + failed) as u64);
}

#[test]
fn new_configurations_cost_no_request() {
    let ((_one, one), (_two, two)) = (server(), server());
    let config = |target: SocketAddr, port: u16| {
        format!(
            "listen_addr = '127.0.0.1'\n[[routes]]\nname = 'web'\nenabled = true\nmode = 'http'\n\
             listen_port = {port}\nlog_level = 'none'\ntarget_port = {}\n",
            target.port()
        )
    };
    let forwarder = Forwarder::start(&config(one, 0));
    let (good, stop) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let address = forwarder.address;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while stop.load(SeqCst) == 0 {
                    let (status, _) = client.get("/small").expect("an answer");
                    assert_eq!(status, 200);
                    good.fetch_add(1, SeqCst);
                }
            });
        }
        for swap in 0..50 {
            let before = good.load(SeqCst);
            forwarder.configure(&config(if swap % 2 == 0 { two } else { one }, 0));
            until("answers under the new one", || {
                good.load(SeqCst) >= before + 2 * CLIENTS
            });
        }
        stop.store(1, SeqCst);
    });
    let counted = forwarder.counted_as("");
    assert!(counted("forwarder_reloads") > 0);
    // Those to targets that are gone would be more than a hundred.
    let open = counted("http_upstream_open");
    assert!(open <= 4 * CLIENTS as u64, "{open} connections to targets");
}
