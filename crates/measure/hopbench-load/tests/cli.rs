//! Goal: the load generator counts correct, wrong and missing answers. Method: the program itself
//! against servers in this process.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use assert_cmd::{Command, cargo::cargo_bin_cmd};
use serde_json::Value;

fn program() -> Command {
    cargo_bin_cmd!("hopbench-load")
}

/// Serves connections in this process until the test ends; returns the URL.
fn server(serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            thread::spawn(move || serve(client));
        }
    });
    format!("http://{address}/")
}

/// Answers every request, which must arrive in one piece.
fn answer(mut client: TcpStream, answer: &str) {
    let mut request = [0; 4096];
    while matches!(client.read(&mut request), Ok(n) if n > 0) {
        if client.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn load(arguments: &[&str]) -> Value {
    let output = program().args(arguments).output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn right_answers_are_counted_with_their_latency() {
    let url = server(|client| answer(client, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let result = load(&[
        "--url",
        &url,
        "--concurrency=3",
        "--duration-ms=200",
        "--expect-length=2",
    ]);
    let good = result["good"].as_u64().expect("a number");
    assert!(good > 0);
    assert_eq!(result["requests"].as_u64(), Some(good));
    assert_eq!(result["body_bytes"].as_u64(), Some(2 * good));
    assert!(result["latency"]["p99_us"].as_f64() >= result["latency"]["p50_us"].as_f64());
    assert!(result["cpu_us"].as_f64() > Some(0.0));
    assert_eq!(result["errors"], serde_json::json!({}));
    // The count includes the load's connections, but no sockets of the generator's own runtimes.
    let connections = result["connections"].as_u64();
    assert!(matches!(connections, Some(1..=3)), "{connections:?}");
}

#[test]
fn the_end_of_the_load_is_told_by_an_empty_line_before_the_result() {
    let url = server(|client| answer(client, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    for rate in ["--rate=100", "--timeout-ms=1000"] {
        let arguments = ["--url", &url, "--concurrency=3", "--duration-ms=200", rate];
        let output = program().args(arguments).output().expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.starts_with("\n{"), "{text}");
    }
}

#[test]
fn wrong_answers_are_not_good() {
    let url = server(|client| answer(client, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"));
    let result = load(&[
        "--url",
        &url,
        "--concurrency=1",
        "--duration-ms=100",
        "--expect-length=2",
    ]);
    assert_eq!(result["good"], 0);
    assert_eq!(result["wrong"]["3 bytes instead of 2"], result["requests"]);
    assert_eq!(result["latency"]["p50_us"], Value::Null);
}

#[test]
fn a_server_that_says_nothing_is_a_time_out() {
    let url = server(|mut client| drop(client.read_to_end(&mut Vec::new())));
    let result = load(&[
        "--url",
        &url,
        "--concurrency=2",
        "--duration-ms=100",
        "--timeout-ms=300",
    ]);
    assert_eq!(result["good"], 0);
    assert_eq!(result["errors"]["timeout"], 2);
}

#[test]
fn nobody_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    drop(listener);
    let result = load(&["--url", &url, "--concurrency=1", "--duration-ms=50"]);
    assert_eq!(result["good"], 0);
    assert_eq!(
        result["errors"]["Connection refused (os error 111)"],
        result["requests"]
    );
}

#[test]
fn mistakes_are_named() {
    let output = program()
        .args(["--url", "x", "--concurrency=0"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--concurrency"));
}
