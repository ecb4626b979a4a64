//! Goal: a peer that is killed, at whatever step, costs its own connections and nothing else:
//! clients are told, nothing is left behind, and the next peer is served.
//! Method: the upstream is the test itself, which therefore decides how far a connection is when
//! kill(2) comes. Real processes, every transport.

mod process;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::{Duration, Instant},
};

use process::{
    WATCHDOG, get,
    tunnel::{LOG, TRANSPORTS, Tunnel, start_host, start_plugin},
    until, until_still,
};
use tempfile::TempDir;

const HOST_OPTIONS: [&str; 2] = ["--threads=2", LOG];

/// A step in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody has connected.
    Attached,
    /// The upstream has accepted.
    Opened,
    /// A request has arrived, and there is no answer yet.
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

/// A tunnel whose upstream is the test.
struct Rig {
    tunnel: Tunnel,
    upstream: TcpListener,
    upstream_option: String,
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Host,
    Plugin,
}

impl Rig {
    fn start(transport: &str) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = upstream.local_addr().expect("bound");
        let upstream_option = format!("--upstream={address}");
        let tunnel = Tunnel::start_with(transport, &HOST_OPTIONS, &[&upstream_option, LOG]);
        let rig = Self {
            tunnel,
            upstream,
            upstream_option,
        };
        rig.serves();
        rig
    }

    /// Kills one side and starts it again.
    fn replace(&mut self, transport: &str, victim: Victim, meanwhile: impl FnOnce()) {
        let directory = self.tunnel.directory.path();
        match victim {
            Victim::Host => {
                self.tunnel.host.kill();
                meanwhile();
                self.tunnel.host = start_host(transport, directory, &HOST_OPTIONS);
                self.tunnel.front = self.tunnel.host.line("listening on ");
            }
            Victim::Plugin => {
                self.tunnel.plugin.kill();
                meanwhile();
                let options = [self.upstream_option.as_str(), LOG];
                self.tunnel.plugin = start_plugin(transport, directory, &options);
            }
        }
    }

    /// Brings a connection to a step. Returns its two ends, if it is still open.
    fn bring_to(&self, step: Step) -> Option<(TcpStream, TcpStream)> {
        if step == Step::Attached {
            return None;
        }
        let mut client = connect(&self.tunnel.front);
        client.write_all(b"a").expect("the host reads");
        let mut server = accept(&self.upstream);
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
                until_still("nothing moves", 10, || match server.write(&[3; 65536]) {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("{error}"),
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

    /// Checks that a request and its answer go through.
    fn serves(&self) {
        let mut server = None;
        let mut client = None;
        self.upstream.set_nonblocking(true).expect("a socket");
        // A host without a plugin resets its clients.
        until("a connection goes through", || {
            let Ok(mut socket) = TcpStream::connect(&self.tunnel.front) else {
                return false;
            };
            if socket.write_all(b"a").is_err() {
                return false;
            }
            socket.set_nonblocking(true).expect("a socket");
            let mut found = None;
            until("it is accepted or reset", || {
                found = self.upstream.accept().ok();
                let read = socket.read(&mut [0]).map_err(|error| error.kind());
                found.is_some() || read != Err(ErrorKind::WouldBlock)
            });
            server = found.map(|(socket, _)| socket);
            client = Some(socket);
            server.is_some()
        });
        self.upstream.set_nonblocking(false).expect("a socket");
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

    /// Waits until the survivor has nothing left over.
    fn comes_to_rest(&self, victim: Victim, descriptors_before: usize) {
        let (name, program) = match victim {
            Victim::Host => ("plugin", &self.tunnel.plugin),
            Victim::Plugin => ("host", &self.tunnel.host),
        };
        self.tunnel.until_idle(name);
        until("its descriptors are as before", || {
            program.descriptors() <= descriptors_before
        });
    }
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

fn may_be_killed_at_any_step(victim: Victim) {
    for transport in TRANSPORTS {
        let mut rig = Rig::start(transport);
        let survivor = match victim {
            Victim::Host => &rig.tunnel.plugin,
            Victim::Plugin => &rig.tunnel.host,
        };
        let before = survivor.descriptors();
        for step in STEPS {
            eprintln!("{transport}, {victim:?}: {step:?}");
            let ends = rig.bring_to(step);
            rig.replace(transport, victim, || {
                if let Some((client, server)) = ends {
                    drain(client);
                    drain(server);
                }
            });
            rig.serves();
            rig.comes_to_rest(victim, before);
        }
    }
}

#[test]
fn a_plugin_may_be_killed_at_any_step() {
    may_be_killed_at_any_step(Victim::Plugin);
}

#[test]
fn a_host_may_be_killed_at_any_step() {
    may_be_killed_at_any_step(Victim::Host);
}

/// The peer sends only a part of its hello, or all of it and nothing more.
#[test]
fn a_plugin_may_be_gone_at_any_step_of_the_handshake() {
    for transport in TRANSPORTS {
        let mut rig = Rig::start(transport);
        let before = rig.tunnel.host.descriptors();
        let address = rig.tunnel.directory.path().join("tunnel");
        let hello = format!(
            "{{\"protocol\":5,\"build\":\"0.1.0\",\"transport\":\"{transport}\",\
             \"window_bytes\":1048576,\"arena_bytes\":1048576}}\n"
        );
        rig.replace(transport, Victim::Plugin, || {
            for length in [0, 1, hello.len() / 2, hello.len() - 1, hello.len()] {
                let mut peer = UnixStream::connect(&address).expect("listening");
                peer.write_all(&hello.as_bytes()[..length])
                    .expect("the host reads");
                if length == hello.len() {
                    // The host's answer has come, and what the host waits for never will.
                    let mut answer = [0; 10];
                    peer.read_exact(&mut answer).expect("an answer");
                    assert_eq!(&answer, b"{\"welcome\"");
                }
            }
        });
        rig.serves();
        rig.comes_to_rest(Victim::Plugin, before);
    }
}

/// Passes on what either end sends, until it ends.
fn join(one: &UnixStream, other: &UnixStream) {
    for (from, to) in [(one, other), (other, one)] {
        let [mut from, mut to] = [from, to].map(|end| end.try_clone().expect("a socket"));
        thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
}

#[test]
fn a_plugin_that_has_served_outlives_a_host_that_spoils_its_sessions() {
    const PATIENCE: Duration = Duration::from_millis(300);
    const WELCOME: &str = "{\"welcome\":{\"window_bytes\":1048576,\"tunnels_max\":8,\
                           \"slots\":null,\"ring\":null}}\n";
    let directory = TempDir::new().expect("a directory");
    let behind = directory.path().join("behind");
    std::fs::create_dir(&behind).expect("a free name");
    let host = start_host("stream", &behind, &[LOG]);
    let front = host.line("listening on ");
    // The plugin takes the test for the host. The test passes sessions on or spoils them.
    let between = UnixListener::bind(directory.path().join("tunnel")).expect("a free name");
    let accept = || between.accept().expect("the plugin").0;
    let patience = format!("--peer-timeout-ms={}", PATIENCE.as_millis());
    let options = ["--origin=in-process", &patience, LOG];
    let plugin = start_plugin("stream", directory.path(), &options);
    let serve = || {
        let plugin = accept();
        let host = UnixStream::connect(behind.join("tunnel")).expect("the host listens");
        join(&plugin, &host);
        until("it is served", || {
            get(&front, "/small").is_ok_and(|answer| answer.ends_with("ok"))
        });
        [plugin, host]
    };

    for end in serve() {
        end.shutdown(Shutdown::Both).expect("open");
    }
    let until_spoiled = Instant::now() + 3 * PATIENCE;
    while Instant::now() < until_spoiled {
        let mut spoiled = accept();
        let hello = spoiled.read(&mut [0; 4096]).expect("a hello");
        assert!(hello > 0);
        // A frame that is never whole.
        let wrong = [WELCOME.as_bytes(), &[64, 0, 0, 0, 0]].concat();
        spoiled.write_all(&wrong).expect("the plugin reads");
        drop(spoiled);
        plugin.error_line("the session with the host failed");
    }
    serve();
}

#[test]
fn a_client_that_does_not_read_keeps_no_new_peer_waiting() {
    for transport in TRANSPORTS {
        for victim in [Victim::Plugin, Victim::Host] {
            let mut rig = Rig::start(transport);
            let survivor = match victim {
                Victim::Host => &rig.tunnel.plugin,
                Victim::Plugin => &rig.tunnel.host,
            };
            let descriptors_before = survivor.descriptors();
            let (client, server) = rig.bring_to(Step::Full).expect("open");
            rig.replace(transport, victim, || {});
            // What the client doesn't read is still on its way.
            rig.serves();
            drain(client);
            drain(server);
            rig.comes_to_rest(victim, descriptors_before);
        }
    }
}
