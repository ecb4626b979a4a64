//! Goal: a TCP route carries every byte, and passes on how each side ends. Method: the real program
//! between sockets of the test.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use processes::{Running, bin, command, until};
use tempfile::TempDir;

/// A forwarder with one route to `target`, and the address of that route.
struct Forwarder {
    running: Running,
    address: SocketAddr,
    _directory: TempDir,
}

fn forwarder(target: SocketAddr, more: &str) -> Forwarder {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("forwarder.toml");
    let config = format!(
        "listen_addr = '127.0.0.1'\nlisten_port = 0\ntarget_addr = '127.0.0.1'\n\
         target_port = {}\n{more}",
        target.port()
    );
    std::fs::write(&file, config).expect("written");
    let mut start = command(bin("forwarder"));
    start.arg(format!("--config={}", file.display()));
    let running = Running::start(start.args(["--exit-with-stdin", "--threads=2"]));
    let line = running.line("listening on ");
    let address = line.split(' ').next().expect("an address");
    Forwarder {
        address: address.parse().expect("an address"),
        running,
        _directory: directory,
    }
}

/// Serves each connection on a thread of its own.
fn target(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(client));
        }
    });
    address
}

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    bytes
}

/// Numbers, so that a piece that is lost, repeated or out of order is noticed.
fn numbers(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(u64::to_be_bytes).take(length).collect()
}

#[test]
fn bytes_arrive_in_both_directions_and_the_ends_are_passed_on() {
    let echo = target(|client| {
        // It answers only when the client has ended: the other direction must stay open.
        let bytes = read_all(&client);
        (&client).write_all(&bytes).expect("written");
    });
    let forwarder = forwarder(echo, "");
    let clients = (0..8).map(|index| {
        let address = forwarder.address;
        thread::spawn(move || {
            let client = TcpStream::connect(address).expect("connected");
            let sent = numbers(index * 1_000_003);
            let writer = client.try_clone().expect("cloned");
            let bytes = sent.clone();
            let writing = thread::spawn(move || {
                (&writer).write_all(&bytes).expect("written");
                writer.shutdown(Shutdown::Write).expect("open");
            });
            assert!(read_all(&client) == sent, "client {index}");
            writing.join().expect("fine");
        })
    });
    let clients: Vec<_> = clients.collect();
    clients
        .into_iter()
        .for_each(|client| client.join().expect("fine"));
}

#[test]
fn a_slow_reader_holds_back_the_writer_and_loses_nothing() {
    let length = 32 << 20;
    let target = target(move |mut client| client.write_all(&numbers(length)).expect("written"));
    let forwarder = forwarder(target, "buffer_size_kb = 4\n");
    let client = TcpStream::connect(forwarder.address).expect("connected");
    let mut other = TcpStream::connect(forwarder.address).expect("connected");
    // Another client of the same workers is served meanwhile.
    let mut first = [0; 8];
    other.read_exact(&mut first).expect("served");
    assert_eq!(read_all(&client).len(), length);
}

#[test]
fn a_target_that_is_not_there_resets_the_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let forwarder = forwarder(address, "");
    let mut client = TcpStream::connect(forwarder.address).expect("connected");
    let error = client.read(&mut [0]).expect_err("no end, but a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = forwarder.running.error_line("could not reach");
    assert!(line.contains("route 'main'"), "{line}");
}

#[test]
fn a_reset_is_passed_on() {
    let target = target(|client| {
        // Closing with unread data resets.
        (&client).write_all(b"partial").expect("written");
        let mut byte = [0];
        (&client).read_exact(&mut byte).expect("asked");
        let socket = socket_with_linger(client);
        drop(socket);
    });
    let forwarder = forwarder(target, "");
    let mut client = TcpStream::connect(forwarder.address).expect("connected");
    client.write_all(b"go").expect("written");
    let mut bytes = Vec::new();
    let error = client
        .read_to_end(&mut bytes)
        .expect_err("an end would look whole");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Returns the socket so that its close is a reset.
fn socket_with_linger(stream: TcpStream) -> TcpStream {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    stream
}

#[test]
fn more_clients_than_allowed_wait() {
    let target = target(|client| drop(read_all(&client)));
    let forwarder = forwarder(target, "max_connections = 1\n");
    let echo = |stream: &TcpStream| {
        stream.shutdown(Shutdown::Write).expect("open");
        read_all(stream)
    };
    let first = TcpStream::connect(forwarder.address).expect("connected");
    let second = TcpStream::connect(forwarder.address).expect("in the backlog");
    assert!(echo(&first).is_empty());
    drop(first);
    assert!(echo(&second).is_empty());
}

#[test]
fn it_drains_and_prints_its_counters() {
    let target = target(|client| {
        let bytes = read_all(&client);
        (&client).write_all(&bytes).expect("written");
    });
    let forwarder = forwarder(target, "");
    let mut client = TcpStream::connect(forwarder.address).expect("connected");
    client.write_all(b"last words").expect("written");
    forwarder.running.signal(Signal::SIGTERM);
    let address = forwarder.address;
    until("it refuses new clients", || {
        TcpStream::connect(address).is_err()
    });
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_all(&client), b"last words");
    let (status, printed, _) = forwarder.running.wait();
    assert!(status.success());
    assert!(printed.contains("\"forwarder_bytes_up\":10"), "{printed}");
}

#[test]
fn mistakes_end_it_with_their_name() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("bad.toml");
    let run = |arguments: &[&str]| {
        let output = command(bin("forwarder"))
            .args(arguments)
            .output()
            .expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    std::fs::write(&file, "listen_prt = 3\n").expect("written");
    let config = format!("--config={}", file.display());
    let (code, said) = run(&["check", &config]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("bad.toml") && said.contains("listen_prt"),
        "{said}"
    );
    let (code, said) = run(&["start", "--config=/no/such/file.toml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("'/no/such/file.toml'"), "{said}");
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let (code, said) = run(&["--exit-with-stdin", &format!("--listen-port={port}")]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("{port}")), "{said}");
}
