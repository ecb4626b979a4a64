//! Goal: the forwarder keeps its limits, drains, and names mistakes. Method: the real program
//! between sockets of the test.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use nix::sys::signal::Signal;
use processes::{bin, command, until};
use support::{echo, forwarder, read_all, target};
use tempfile::TempDir;

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
    let forwarder = forwarder(target(echo), "");
    let mut client = TcpStream::connect(forwarder.address).expect("connected");
    client.write_all(b"first").expect("written");
    // A client that nobody has accepted yet would be reset.
    client.read_exact(&mut [0; 5]).expect("echoed");
    forwarder.running.signal(Signal::SIGTERM);
    let address = forwarder.address;
    until("it refuses new clients", || {
        TcpStream::connect(address).is_err()
    });
    client.write_all(b"last words").expect("written");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_all(&client), b"last words");
    let (status, printed, _) = forwarder.running.wait();
    assert!(status.success());
    assert!(printed.contains("\"forwarder_bytes_up\":15"), "{printed}");
}

#[test]
fn every_example_is_valid() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut examples = 0;
    for file in std::fs::read_dir(directory).expect("a directory") {
        let path = file.expect("a file").path();
        let config = format!("--config={}", path.display());
        let checked = command(bin("forwarder")).args(["check", &config]).output();
        let checked = checked.expect("runs");
        assert!(checked.status.success(), "{config}: {checked:?}");
        examples += 1;
    }
    assert!(examples > 0);
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
