//! Goal: a peer that is killed, at whatever step, costs its own connections and nothing else:
//! clients are told, nothing is left behind, and the next peer is served.
//! Method: the upstream is the test itself, which therefore decides how far a connection is when
//! kill(2) comes. Real processes, every transport.

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use nix::sys::signal::Signal;
use support::{Running, WATCHDOG, bin, command, get, until};
use tempfile::TempDir;

const TRANSPORTS: [&str; 3] = ["stream", "shm", "ring"];

/// After so many in vain, everything on the way is taken to be full.
const IDLE_LOOKS: u32 = 10;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody has connected.
    Attached,
    /// The upstream has accepted.
    Opened,
    /// A request is there, and no answer.
    Asked,
    /// A part of the answer has arrived.
    Answering,
    /// The client has sent its end, and gets more.
    HalfClosed,
    /// The client doesn't read: all memory on the way is full.
    Full,
    /// Both ends have closed.
    Closed,
}

const STEPS: [Step; 7] = [
    Step::Attached,
    Step::Opened,
    Step::Asked,
    Step::Answering,
    Step::HalfClosed,
    Step::Full,
    Step::Closed,
];

fn start_host(transport: &str, directory: &Path) -> Running {
    let mut host = command(bin("http-tunnel-host"));
    host.arg(format!("--transport={transport}"));
    host.arg(format!("--addr={}", directory.join("tunnel").display()));
    host.args(["--listen=127.0.0.1:0", "--threads=2", "--log=tunnel=debug"]);
    Running::start(&mut host)
}

fn start_plugin(transport: &str, directory: &Path, upstream: &str) -> Running {
    let mut plugin = command(bin("http-tunnel-plugin"));
    plugin.arg(format!("--transport={transport}"));
    plugin.arg(format!("--addr={}", directory.join("tunnel").display()));
    plugin.arg(format!("--upstream={upstream}"));
    plugin.args(["--log=tunnel=debug", "--peer-timeout-ms=30000"]);
    Running::start(&mut plugin)
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    socket
}

fn accept(upstream: &TcpListener) -> TcpStream {
    let (socket, _) = upstream.accept().expect("a connection");
    socket.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    socket
}

/// Brings a connection to a step; its two ends.
fn bring_to(step: Step, front: &str, upstream: &TcpListener) -> Option<(TcpStream, TcpStream)> {
    if step == Step::Attached {
        return None;
    }
    let mut client = connect(front);
    client.write_all(b"a").expect("the host reads");
    let mut server = accept(upstream);
    server.read_exact(&mut [0]).expect("the first byte");
    match step {
        Step::Attached | Step::Opened => {}
        Step::Asked => client.write_all(&[1; 100_000]).expect("the host reads"),
        Step::Answering | Step::HalfClosed => {
            if step == Step::HalfClosed {
                client.shutdown(Shutdown::Write).expect("open");
                let end = server.read(&mut [0]).expect("the client's end");
                assert_eq!(end, 0, "the client's end");
            }
            server.write_all(&[2; 100_000]).expect("the plugin reads");
            client.read_exact(&mut [0; 1000]).expect("the answer");
        }
        Step::Full => {
            server.set_nonblocking(true).expect("a socket");
            let mut idle_looks = 0;
            until("nothing moves", || {
                match server.write(&[3; 65536]) {
                    Ok(_) => idle_looks = 0,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => idle_looks += 1,
                    Err(error) => panic!("{error}"),
                }
                idle_looks == IDLE_LOOKS
            });
            server.set_nonblocking(false).expect("a socket");
        }
        Step::Closed => {
            drop(server);
            let end = client.read(&mut [0]).expect("the server's end");
            assert_eq!(end, 0, "the server's end");
            return None;
        }
    }
    Some((client, server))
}

/// Reads until there is no more, whichever way it ends.
fn drain(mut socket: TcpStream) {
    let mut bytes = [0; 65536];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, ErrorKind::ConnectionReset, "{error}");
                return;
            }
        }
    }
}

/// A request and its answer go through.
fn serves(front: &str, upstream: &TcpListener) {
    let mut server = None;
    let mut client = None;
    upstream.set_nonblocking(true).expect("a socket");
    // A host without a plugin resets its clients.
    until("a connection goes through", || {
        let Ok(mut socket) = TcpStream::connect(front) else {
            return false;
        };
        if socket.write_all(b"a").is_err() {
            return false;
        }
        socket.set_nonblocking(true).expect("a socket");
        let mut found = None;
        until("it is accepted or reset", || {
            found = upstream.accept().ok();
            let read = socket.read(&mut [0]).map_err(|error| error.kind());
            found.is_some() || read != Err(ErrorKind::WouldBlock)
        });
        server = found.map(|(socket, _)| socket);
        client = Some(socket);
        server.is_some()
    });
    upstream.set_nonblocking(false).expect("a socket");
    let (mut client, mut server) = client.zip(server).expect("both");
    for socket in [&client, &server] {
        socket.set_nonblocking(false).expect("a socket");
        socket.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    }
    server.read_exact(&mut [0]).expect("asked");
    server.write_all(b"answer").expect("the plugin reads");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answered");
    assert_eq!(answer, "answer");
}

/// Descriptors that a process has open.
fn descriptors(program: &Running) -> usize {
    let directory = format!("/proc/{}/fd", program.pid());
    std::fs::read_dir(directory).expect("it runs").count()
}

fn open_tunnels(directory: &Path, program: &str) -> Option<u64> {
    let admin = directory.join(format!("tunnel.{program}-admin"));
    let answer = get(&format!("unix:{}", admin.display()), "/_admin/status").ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    status["counters"]["tunnel_tunnels_open"].as_u64()
}

/// Nothing of what was there is left.
fn comes_to_rest(directory: &Path, name: &str, program: &Running, descriptors_before: usize) {
    until("its tunnels are closed", || {
        open_tunnels(directory, name) == Some(0)
    });
    until("its descriptors are as before", || {
        descriptors(program) <= descriptors_before
    });
}

#[test]
fn a_plugin_may_be_killed_at_any_step() {
    for transport in TRANSPORTS {
        let directory = TempDir::new().expect("a directory");
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound").to_string();
        let host = start_host(transport, directory.path());
        let front = host.line("listening on ");
        let mut plugin = start_plugin(transport, directory.path(), &address);
        serves(&front, &upstream);
        let before = descriptors(&host);
        for step in STEPS {
            eprintln!("{transport}: {step:?}");
            let ends = bring_to(step, &front, &upstream);
            plugin.signal(Signal::SIGKILL);
            drop(plugin.wait());
            if let Some((client, server)) = ends {
                drain(client);
                drain(server);
            }
            plugin = start_plugin(transport, directory.path(), &address);
            serves(&front, &upstream);
            comes_to_rest(directory.path(), "host", &host, before);
        }
    }
}

#[test]
fn a_host_may_be_killed_at_any_step() {
    for transport in TRANSPORTS {
        let directory = TempDir::new().expect("a directory");
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound").to_string();
        let mut host = start_host(transport, directory.path());
        let mut front = host.line("listening on ");
        let plugin = start_plugin(transport, directory.path(), &address);
        serves(&front, &upstream);
        let before = descriptors(&plugin);
        for step in STEPS {
            eprintln!("{transport}: {step:?}");
            let ends = bring_to(step, &front, &upstream);
            host.signal(Signal::SIGKILL);
            drop(host.wait());
            if let Some((client, server)) = ends {
                drain(client);
                drain(server);
            }
            host = start_host(transport, directory.path());
            front = host.line("listening on ");
            serves(&front, &upstream);
            comes_to_rest(directory.path(), "plugin", &plugin, before);
        }
    }
}

/// A peer that says only the beginning of what it must.
#[test]
fn a_plugin_may_be_gone_at_any_step_of_the_handshake() {
    for transport in TRANSPORTS {
        let directory = TempDir::new().expect("a directory");
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound").to_string();
        let host = start_host(transport, directory.path());
        let front = host.line("listening on ");
        let plugin = start_plugin(transport, directory.path(), &address);
        serves(&front, &upstream);
        let before = descriptors(&host);
        drop(plugin);
        let hello = format!(
            "{{\"protocol\":3,\"build\":\"0.1.0\",\"transport\":\"{transport}\",\
             \"window_bytes\":1048576,\"arena_bytes\":1048576,\"pipes\":2}}\n"
        );
        for length in [0, 1, hello.len() / 2, hello.len() - 1, hello.len()] {
            let mut peer = UnixStream::connect(directory.path().join("tunnel")).expect("listening");
            peer.write_all(&hello.as_bytes()[..length])
                .expect("the host reads");
            if length == hello.len() {
                // Its answer has come, and what the host waits for never will.
                let mut answer = [0; 10];
                peer.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"{\"welcome\"");
            }
        }
        let _plugin = start_plugin(transport, directory.path(), &address);
        serves(&front, &upstream);
        comes_to_rest(directory.path(), "host", &host, before);
    }
}
