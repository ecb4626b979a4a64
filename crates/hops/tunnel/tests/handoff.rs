//! Goal: on handoff the host keeps nothing of a client, and whatever keeps a client from being
//! passed costs nobody else anything.
//! Method: real processes. A plugin is suspended, killed, or has too few open files.

mod process;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use process::{
    Running, after, bin, command, get,
    traffic::{answer, connect},
    tunnel::{LOG, Tunnel, host_command, plugin_command, start_host, start_plugin},
    until,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tempfile::TempDir;

const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n";
const IN_PROCESS: &str = "--origin=in-process";
const RELAY_HOST: &str = "--relay=host";

/// A user who has no rights on most systems.
const NOBODY: u32 = 65_534;

fn start(host_options: &[&str]) -> Tunnel {
    let host_options = [host_options, &[LOG]].concat();
    let tunnel = Tunnel::start_with("handoff", &host_options, &[IN_PROCESS, LOG]);
    asked(&tunnel.front);
    tunnel
}

/// Connects, and has one request answered.
fn asked(front: &str) -> TcpStream {
    let mut client = connect(front);
    client.write_all(REQUEST).expect("taken");
    assert_eq!(answer(&mut client).expect("answered"), b"ok");
    client
}

/// Connects many clients, each of which sends a request.
fn asking(front: &str, count: usize) -> Vec<TcpStream> {
    let ask = |_| {
        let mut client = connect(front);
        client.write_all(REQUEST).expect("taken");
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn the_host_keeps_nothing_of_a_client_and_does_nothing_for_a_request() {
    let tunnel = start(&[]);
    tunnel.until_idle("host");
    let before = tunnel.host.descriptors();
    let mut clients: Vec<TcpStream> = (0..50).map(|_| asked(&tunnel.front)).collect();
    until("the host has closed all of them", || {
        // One that read the counters may still have been open before.
        tunnel.host.descriptors() <= before
    });
    let counted = || tunnel.status("host").expect("it runs")["counters"].clone();
    let before = counted();
    assert_eq!(before["tunnel_tunnels_open"], 50);
    for _ in 0..20 {
        for client in &mut clients {
            client.write_all(REQUEST).expect("taken");
            assert_eq!(answer(client).expect("answered"), b"ok");
        }
    }
    assert_eq!(counted(), before);
    drop(clients);
    tunnel.until_idle("host");
    assert_eq!(tunnel.counter("host", "tunnel_tunnels_failed"), 0);
    assert_eq!(tunnel.counter("plugin", "tunnel_tunnels_failed"), 0);
}

#[test]
fn where_the_host_relays_the_plugin_keeps_nothing_and_does_nothing_for_a_request() {
    let server = Running::start(command(bin("http_baseline")).arg("--listen=127.0.0.1:0"));
    let upstream = format!("--upstream={}", server.line("listening on "));
    let tunnel = Tunnel::start_with("handoff", &[RELAY_HOST, LOG], &[RELAY_HOST, &upstream, LOG]);
    drop(asked(&tunnel.front));
    tunnel.until_idle("plugin");
    let before = tunnel.plugin.descriptors();
    let mut clients: Vec<TcpStream> = (0..50).map(|_| asked(&tunnel.front)).collect();
    until("the plugin has closed all of them", || {
        tunnel.plugin.descriptors() <= before
    });
    let counted = || tunnel.status("plugin").expect("it runs")["counters"].clone();
    let before = counted();
    assert_eq!(before["tunnel_tunnels_open"], 50);
    assert!(before["tunnel_bytes_in"].is_null(), "it doesn't see them");
    let bytes_before = tunnel.counter("host", "tunnel_bytes_in");
    for _ in 0..20 {
        for client in &mut clients {
            client.write_all(REQUEST).expect("taken");
            assert_eq!(answer(client).expect("answered"), b"ok");
        }
    }
    assert_eq!(counted(), before);
    let bytes = tunnel.counter("host", "tunnel_bytes_in") - bytes_before;
    assert_eq!(bytes, 20 * 50 * REQUEST.len() as u64);
    drop(clients);
    tunnel.until_idle("plugin");
    assert_eq!(tunnel.counter("host", "tunnel_tunnels_failed"), 0);
    assert_eq!(tunnel.counter("plugin", "tunnel_tunnels_failed"), 0);
}

/// The drain of either side, and its death, mean the same whoever has the sockets.
#[test]
fn where_the_host_relays_either_may_stop_or_die() {
    let server = Running::start(command(bin("http_baseline")).arg("--listen=127.0.0.1:0"));
    let upstream = format!("--upstream={}", server.line("listening on "));
    for (stopping, signal, is_answered) in [
        ("host", Signal::SIGTERM, true),
        ("plugin", Signal::SIGTERM, true),
        ("host", Signal::SIGKILL, false),
        ("plugin", Signal::SIGKILL, false),
    ] {
        let options = [RELAY_HOST, &upstream, LOG];
        let tunnel = Tunnel::start_with("handoff", &[RELAY_HOST, LOG], &options);
        let mut client = asked(&tunnel.front);
        let delay_ms = if is_answered { 300 } else { 60_000 };
        let request =
            format!("GET /delay/{delay_ms} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).expect("taken");
        let asked_bytes = (REQUEST.len() + request.len()) as u64;
        until("it is asked", || {
            tunnel.counter("host", "tunnel_bytes_in") == asked_bytes
        });
        tunnel.program(stopping).signal(signal);
        let mut rest = Vec::new();
        let ended = client.read_to_end(&mut rest).map_err(|error| error.kind());
        match is_answered {
            true => assert!(rest.ends_with(b"ok"), "{stopping}, {signal}: {ended:?}"),
            false => assert_eq!(
                ended,
                Err(ErrorKind::ConnectionReset),
                "{stopping}, {signal}"
            ),
        }
    }
}

/// A client that gives up has a place in the plugin until that has an upstream for it or has none.
#[test]
fn clients_that_give_up_while_they_wait_for_an_upstream_cost_no_place() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("upstream");
    // Its backlog has room for few, and nobody accepts yet.
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    let address = SocketAddrUnix::new(&path).expect("a path");
    rustix::net::bind(&socket, &address).expect("a free path");
    rustix::net::listen(&socket, 0).expect("bound");
    rustix::io::ioctl_fionbio(&socket, true).expect("a socket");
    let upstream = format!("--upstream=unix:{}", path.display());
    for relay in [RELAY_HOST, "--relay=plugin"] {
        let host = [relay, "--max-connections=4", LOG];
        let plugin = [relay, &upstream, "--connect-timeout-ms=300", LOG];
        let tunnel = Tunnel::start_with("handoff", &host, &plugin);
        tunnel.until_counted("host", "tunnel_sessions", |sessions| sessions > 0);
        for _ in 0..20 {
            let client = connect(&tunnel.front);
            sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("TCP");
        }
        let mut next = connect(&tunnel.front);
        next.write_all(b"a").expect("taken");
        // Either all that wait get an upstream, or they are told that there is none.
        until("nobody waits", || {
            next.set_nonblocking(true).expect("a socket");
            let told = next.read(&mut [0]).map_err(|error| error.kind());
            while let Ok(accepted) = rustix::net::accept_with(&socket, SocketFlags::NONBLOCK) {
                drop(accepted);
            }
            told != Err(ErrorKind::WouldBlock)
        });
        tunnel.until_idle("host");
        assert_eq!(tunnel.counter("host", "tunnel_sessions"), 1, "{relay}");
        assert_eq!(tunnel.counter("plugin", "tunnel_sessions"), 1, "{relay}");
        tunnel.until_idle("plugin");
    }
}

#[test]
fn idle_clients_of_an_upstream_are_reset_whoever_relays() {
    let server = Running::start(command(bin("http_baseline")).arg("--listen=127.0.0.1:0"));
    let upstream = format!("--upstream={}", server.line("listening on "));
    for relay in [RELAY_HOST, "--relay=plugin"] {
        let host = [relay, "--idle-timeout-ms=300", LOG];
        let tunnel = Tunnel::start_with("handoff", &host, &[relay, &upstream, LOG]);
        let started = Instant::now();
        let mut client = asked(&tunnel.front);
        let told = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(told, Err(ErrorKind::ConnectionReset), "{relay}");
        assert!(
            started.elapsed() >= Duration::from_millis(300),
            "{relay}: too early"
        );
        tunnel.until_idle("host");
        tunnel.until_idle("plugin");
    }
}

#[test]
fn a_plugin_that_would_leave_the_relaying_to_nobody_is_refused_by_name() {
    let directory = TempDir::new().expect("a directory");
    let host = start_host("handoff", directory.path(), &[LOG]);
    host.line("listening on ");
    let options = [RELAY_HOST, "--origin-port=0"];
    let (status, _, errors) = start_plugin("handoff", directory.path(), &options).wait();
    assert_eq!(status.code(), Some(4), "{errors}");
    let expected = "the plugin has --relay=host, the host --relay=plugin";
    assert!(errors.contains(expected), "{errors}");
}

/// The socket between the two has room for some clients. With more, the host accepts no more.
#[test]
fn clients_wait_for_a_suspended_plugin_and_are_served_when_it_goes_on() {
    const CLIENTS: usize = 600;
    let tunnel = start(&[]);
    tunnel.until_idle("host");
    tunnel.plugin.signal(Signal::SIGSTOP);
    let mut clients = asking(&tunnel.front, CLIENTS);
    tunnel.until_counted("host", "tunnel_ring_full_stalls", |stalls| stalls > 0);
    assert!(tunnel.counter("host", "tunnel_tunnels_open") < CLIENTS as u64);
    tunnel.plugin.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(answer(client).expect("answered"), b"ok");
    }
    assert_eq!(tunnel.counter("host", "tunnel_clients_refused"), 0);
}

#[test]
fn clients_on_their_way_to_a_plugin_that_is_killed_are_told() {
    let mut tunnel = start(&[]);
    tunnel.until_idle("host");
    tunnel.plugin.signal(Signal::SIGSTOP);
    // More than there is room for: one waits in the host, others in its backlog.
    let clients = asking(&tunnel.front, 600);
    tunnel.until_counted("host", "tunnel_ring_full_stalls", |stalls| stalls > 0);
    tunnel.plugin.kill();
    for mut client in clients {
        let told = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(told, Err(ErrorKind::ConnectionReset));
    }
    tunnel.plugin = start_plugin("handoff", tunnel.directory.path(), &[IN_PROCESS]);
    until("the next plugin serves", || {
        get(&tunnel.front, "/small").is_ok_and(|answer| answer.ends_with("ok"))
    });
    tunnel.until_idle("host");
}

/// The end of the drain is the end of the session: whoever has the sockets.
#[test]
fn what_is_open_when_the_drain_ends_is_reset() {
    for stopping in ["host", "plugin"] {
        let directory = TempDir::new().expect("a directory");
        let options = ["--drain-ms=200", LOG];
        let host = start_host("handoff", directory.path(), &options);
        let front = host.line("listening on ");
        let options = ["--drain-ms=200", IN_PROCESS, LOG];
        let plugin = start_plugin("handoff", directory.path(), &options);
        let mut slow = asked(&front);
        slow.write_all(b"GET /delay/60000 HTTP/1.1\r\nhost: x\r\n\r\n")
            .expect("taken");
        let (stopped, other) = match stopping {
            "host" => (host, plugin),
            _ => (plugin, host),
        };
        stopped.signal(Signal::SIGTERM);
        let told = slow.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(told, Err(ErrorKind::ConnectionReset), "{stopping}");
        let (status, _, errors) = stopped.wait();
        assert!(status.success(), "{stopping}: {status}: {errors}");
        let left = match stopping {
            "host" => "the host left",
            _ => "plugin left",
        };
        other.error_line(left);
    }
}

#[test]
fn a_plugin_without_open_files_for_a_client_says_so_and_goes_on() {
    const CLIENTS: usize = 60;
    let tunnel = Tunnel::start_with_open_files("handoff", [1024, 40], IN_PROCESS);
    tunnel.plugin.error_line("attached to the host");
    let mut clients = asking(&tunnel.front, CLIENTS);
    let answered = clients
        .iter_mut()
        .map(|client| client.read(&mut [0; 500]).map_err(|error| error.kind()))
        .filter(|read| match read {
            Ok(count) => *count > 0,
            Err(kind) => {
                assert_eq!(*kind, ErrorKind::ConnectionReset);
                false
            }
        })
        .count();
    assert!((1..CLIENTS).contains(&answered), "{answered} were answered");
    let line = tunnel.plugin.error_line("could not take a client");
    assert!(line.contains("ulimit -n"), "{line}");
    drop(clients);
    tunnel.until_idle("host");
    asked(&tunnel.front);
}

/// Runs a program as a user whom the kernel's limits hold, from a copy that this user can reach.
fn unprivileged(program: &Command, name: &str, directory: &Path) -> Command {
    let copy = directory.join(name);
    fs::copy(bin(name), &copy).expect("room");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o777)).expect("ours");
    let mut unprivileged = command(copy);
    unprivileged.args(program.get_args());
    unprivileged
}

/// A user may have only so many descriptors on their way from process to process.
#[test]
fn too_many_descriptors_on_their_way_are_waited_for() {
    const CLIENTS: usize = 60;
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let host = host_command("handoff", path, &[LOG]);
    let plugin = plugin_command("handoff", path, &[IN_PROCESS, LOG]);
    let is_root = rustix::process::geteuid().is_root();
    let (host, plugin) = match is_root {
        // The limit doesn't hold for root.
        true => {
            let everybody = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, everybody).expect("ours");
            let programs = [(host, "http-tunnel-host"), (plugin, "http-tunnel-plugin")];
            programs
                .map(|(program, name)| unprivileged(&program, name, path))
                .into()
        }
        false => (host, plugin),
    };
    // The kernel compares with the limit of the process that passes.
    let mut host = after("ulimit -n 30", &host);
    let mut plugin = after("true", &plugin);
    if is_root {
        for program in [&mut host, &mut plugin] {
            program.uid(NOBODY).gid(NOBODY).current_dir("/");
        }
    }
    let host = Running::start(&mut host);
    let front = host.line("listening on ");
    let plugin = Running::start(&mut plugin);
    drop(asked(&front));
    plugin.signal(Signal::SIGSTOP);
    let mut clients = asking(&front, CLIENTS);
    let line = host.error_line("the peer has yet to take earlier sockets");
    assert!(line.contains("ulimit -n"), "{line}");
    plugin.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(answer(client).expect("answered"), b"ok");
    }
}
