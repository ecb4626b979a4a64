//! Goal: besides their status and length, answers are checked for their bytes, their number per
//! request, and the number of connections that they take. Method: the program itself against
//! servers in this process.

#[path = "support/child.rs"]
mod child;
#[path = "support/run.rs"]
mod run;
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use support::{OK, answer, request, server};

/// SHA-256 of the bytes `ok`.
const OK_SHA256: &str = "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df";

const OTHER_BYTES: &str = "body differs from the expected one";

/// Puts a load on a server that answers with two bytes.
fn load(url: &str, arguments: &[&str]) -> Value {
    run::load(url, &[arguments, &["--expect-length=2"]].concat())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// This also pins mio's log messages, which another release may change.
#[test]
fn connections_are_counted_when_they_are_opened() {
    let url = server(|client| drop(answer(client, OK)));
    let once = server(|mut client: TcpStream| {
        request(&mut client);
        drop(client.write_all(OK.as_bytes()));
    });
    let limits = ["--concurrency=3", "--duration-ms=300"];
    let opened = |url: &str, more: &[&str]| {
        let result = load(url, &[&limits, more].concat());
        let opened = result["connections_opened"].as_u64();
        (opened.expect("counted"), number(&result["requests"]))
    };
    assert_eq!(opened(&url, &[]).0, 3);
    assert_eq!(opened(&url, &["--rate=100"]).0, 0, "they are open before");
    for loop_kind in ["--timeout-ms=5000", "--rate=100"] {
        let (opened, requests) = opened(&url, &["--no-keepalive", loop_kind]);
        assert!(opened == requests && requests > 3, "{opened}, {requests}");
    }
    // This server closes each connection after its answer.
    let (opened, requests) = opened(&once, &[]);
    assert!(opened > 3 && opened >= requests / 2, "{opened}, {requests}");
}

/// Starts a server that puts a wrong byte into one of so many answers.
fn faulty_server(one_of: u64) -> String {
    let answers = AtomicU64::new(0);
    server(move |mut client| {
        while request(&mut client) {
            let answer = match answers.fetch_add(1, Relaxed) % one_of + 1 {
                number if number == one_of => OK.replace("\r\n\r\nok", "\r\n\r\noK"),
                _ => OK.to_owned(),
            };
            if client.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn wrong_bytes_of_the_right_length_are_wrong_answers() {
    let options = [
        "--concurrency=4",
        "--duration-ms=400",
        "--expect-sha256",
        OK_SHA256,
    ];
    for loop_kind in ["--rate=500", "--own-client", "--sample=after"] {
        let more: &[&str] = &[loop_kind];
        let right = server(|client| drop(answer(client, OK)));
        let result = load(&right, &[&options[..], more].concat());
        assert!(number(&result["digests_checked"]) >= 20, "{result}");
        assert_eq!(result["wrong"], serde_json::json!({}), "{loop_kind}");
        let result = load(&faulty_server(10), &[&options[..], more].concat());
        assert!(number(&result["wrong"][OTHER_BYTES]) > 0, "{result}");
        assert!(number(&result["good"]) > 0, "{result}");
    }
}

/// Nobody sees them in a closed loop of oha, so there must be enough answers afterwards.
#[test]
fn one_wrong_body_in_a_hundred_is_found() {
    for sample in ["--sample=after", "--own-client"] {
        for concurrency in ["--concurrency=1", "--concurrency=16"] {
            let options = [sample, concurrency, "--duration-ms=300"];
            let digest = ["--expect-sha256", OK_SHA256];
            let result = load(&faulty_server(100), &[&options[..], &digest].concat());
            let checked = number(&result["digests_checked"]);
            let wrong = number(&result["wrong"][OTHER_BYTES]);
            assert!(checked >= 200 && wrong > 0, "{result}");
        }
    }
}

/// A body that is compressed is another one, and the reader must see why.
#[test]
fn an_encoding_is_named() {
    let zipped = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nzip";
    let url = server(move |client| drop(answer(client, zipped)));
    let result = load(
        &url,
        &["--own-client", "--concurrency=1", "--duration-ms=50"],
    );
    let said = "3 bytes instead of 2 (content-encoding: gzip)";
    assert_eq!(result["wrong"][said], result["requests"], "{result}");
}

#[test]
fn at_a_fixed_rate_all_bodies_are_compared() {
    let options = ["--rate=500", "--concurrency=1", "--duration-ms=400"];
    let digest = ["--expect-sha256", OK_SHA256];
    let result = load(&faulty_server(10), &[&options[..], &digest].concat());
    let wrong = number(&result["wrong"][OTHER_BYTES]);
    assert_eq!(result["digests_checked"], result["requests"], "{result}");
    assert_eq!(wrong, number(&result["requests"]) / 10, "{result}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_an_error() {
    let url = server(|client| drop(answer(client, &OK.repeat(2))));
    let options = ["--rate=100", "--concurrency=2", "--duration-ms=400"];
    let result = load(&url, &options);
    let unasked = number(&result["wrong"]["answer without a request"]);
    assert!(unasked > 10, "{result}");
    // They don't count as requests, and every request was answered.
    let scheduled = &result["open_loop"]["scheduled"];
    assert_eq!(
        (&result["requests"], &result["good"]),
        (scheduled, scheduled),
        "{result}"
    );
    let reopened = number(&result["connections_opened"]);
    assert!(reopened > 10, "{result}");
    // In a closed loop, the connection that compares bodies notices them.
    let options = ["--concurrency=2", "--duration-ms=100", "--sample=after"];
    let digest = ["--expect-sha256", OK_SHA256];
    let result = load(&url, &[&options[..], &digest].concat());
    let unasked = number(&result["wrong"]["answer without a request"]);
    assert!(unasked > 0, "{result}");
}

#[test]
fn bodies_are_compared_once_a_line_has_come() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let url = server(move |mut client| {
        while request(&mut client) {
            count.fetch_add(1, Relaxed);
            if client.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let options = [
        "--url",
        &url,
        "--concurrency=2",
        "--duration-ms=100",
        "--sample=after-line",
        "--expect-sha256",
        OK_SHA256,
    ];
    let mut program = child::start_with(cargo_bin!("hopbench-load"), &options, Stdio::piped());
    let mut first = [0];
    let stdout = program.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut first).expect("a line");
    assert_eq!(first, *b"\n");
    // No request is under way now.
    let before = asked.load(Relaxed);
    let mut stdin = program.stdin.take().expect("piped");
    stdin.write_all(b"go on\n").expect("it reads");
    let output = program.wait_with_output().expect("ends");
    let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(result["requests"], before, "{result}");
    let checked = number(&result["digests_checked"]);
    assert!(checked >= 1, "{result}");
    assert!(asked.load(Relaxed) >= before + checked);
}
