//! Goal: at a fixed rate every request that was due is accounted for, and a latency begins when its
//! request was due. Method: the program itself against servers in this process. Times are checked
//! only from below: a busy machine makes everything later.

#[path = "support/child.rs"]
mod child;
#[path = "support/run.rs"]
mod run;
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use assert_cmd::cargo::{cargo_bin, cargo_bin_cmd};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use run::{WATCHDOG, load};
use serde_json::{Value, json};
use support::{OK, answer, request, server};

/// Delays a server's answer. The delay is part of the test, not a way to wait for something.
#[expect(clippy::disallowed_methods, reason = "the delay is what is measured")]
fn hold(delay: Duration) {
    std::thread::sleep(delay);
}

fn count(result: &Value, what: &str) -> u64 {
    match &result[what] {
        Value::Object(counts) => counts.values().filter_map(Value::as_u64).sum(),
        number => number.as_u64().expect("a number"),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Asserts that every request that was due is accounted for.
fn assert_complete(result: &Value, scheduled: u64) {
    let open_loop = &result["open_loop"];
    assert_eq!(open_loop["scheduled"], scheduled, "{result}");
    let ended = ["good", "wrong", "errors"].map(|what| count(result, what));
    assert_eq!(ended.iter().sum::<u64>(), count(result, "requests"));
    let dropped = count(open_loop, "dropped");
    assert_eq!(count(result, "requests") + dropped, scheduled, "{result}");
}

#[test]
fn every_request_that_was_due_is_answered() {
    let url = server(|client| drop(answer(client, OK)));
    for options in [
        &["--threads=1"][..],
        &["--threads=3"],
        &["--no-keepalive"],
        &["--method=POST", "--body=Cargo.toml"],
    ] {
        let load_options = [
            "--rate=500",
            "--concurrency=8",
            "--duration-ms=400",
            "--expect-length=2",
        ];
        let result = load(&url, &[&load_options, options].concat());
        assert_complete(&result, 200);
        // If the machine stalls, connections may run out.
        let dropped = count(&result["open_loop"], "dropped");
        assert_eq!(count(&result, "good") + dropped, 200, "{result}");
        assert_eq!(count(&result, "body_bytes"), 2 * count(&result, "good"));
        assert_eq!(result["errors"], json!({}));
        assert!(number(&result["elapsed_us"]) >= 400e3, "{result}");
        assert!(number(&result["cpu_us"]) > 0.0);
        assert!(number(&result["connect_us_max"]) > 0.0);
        assert!(number(&result["open_loop"]["late_us_max"]) >= 0.0);
        let generator = result["generator"].as_str().expect("a text");
        assert!(generator.ends_with(", open loop"), "{generator}");
    }
}

#[test]
fn a_closed_loop_has_no_schedule() {
    let url = server(|client| drop(answer(client, OK)));
    let result = load(&url, &["--concurrency=1", "--duration-ms=50"]);
    assert!(result.get("open_loop").is_none(), "{result}");
}

#[test]
fn a_stall_is_part_of_the_latency_of_all_that_it_holds_up() {
    // There is one connection: while its request is held, all others wait.
    let requests = AtomicU64::new(0);
    let url = server(move |mut client| {
        while request(&mut client) {
            if requests.fetch_add(1, Relaxed) == 20 {
                hold(Duration::from_millis(300));
            }
            if client.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let options = ["--rate=100", "--concurrency=1", "--duration-ms=1000"];
    let result = load(&url, &options);
    assert_complete(&result, 100);
    let latency = &result["latency"];
    assert!(number(&latency["p999_us"]) >= 299e3, "{latency}");
    // The 30 requests due during the stall waited for its end: the tenth of them for 200 ms.
    assert!(number(&latency["p90_us"]) >= 190e3, "{latency}");
    assert!(number(&result["open_loop"]["late_us_max"]) >= 280e3);
}

#[test]
fn wrong_answers_are_told_apart() {
    let requests = AtomicU64::new(0);
    let url = server(move |mut client| {
        while request(&mut client) {
            let answer = match requests.fetch_add(1, Relaxed) % 2 {
                0 => "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nok",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
            };
            if client.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let options = ["--rate=200", "--concurrency=4", "--duration-ms=200"];
    let result = load(&url, &[&options[..], &["--expect-length=2"]].concat());
    assert_complete(&result, 40);
    assert_eq!(result["good"], 0);
    assert!(
        count(&result["wrong"], "status 500 instead of 200") > 0,
        "{result}"
    );
    assert!(
        count(&result["wrong"], "3 bytes instead of 2") > 0,
        "{result}"
    );
    assert_eq!(result["errors"], json!({}));
    assert_eq!(result["latency"]["p50_us"], Value::Null);
}

#[test]
fn a_server_that_says_nothing_is_a_time_out_and_the_rest_is_dropped() {
    let url = server(|mut client: TcpStream| drop(client.read_to_end(&mut Vec::new())));
    let options = ["--rate=100", "--concurrency=2", "--duration-ms=300"];
    let result = load(&url, &[&options[..], &["--timeout-ms=2000"]].concat());
    assert_complete(&result, 30);
    assert_eq!(result["errors"], json!({"timeout": 2}));
    assert_eq!(result["open_loop"]["dropped"], 28);
    assert!(number(&result["elapsed_us"]) >= 2_000e3, "waited for them");
    // Each request waited at least from the end of the schedule until the first time-out.
    let latency = &result["latency"];
    assert_eq!(latency["censored"], 30, "{result}");
    assert!(number(&latency["min_us"]) >= 1_690e3, "{result}");
    assert!(number(&latency["p50_us"]) >= 1_800e3, "{result}");
}

#[test]
fn requests_that_a_slow_path_drops_are_in_the_percentiles_and_are_its_fault() {
    // One connection manages 10 of the 50 requests that are due.
    let url = server(|mut client| {
        while request(&mut client) {
            hold(Duration::from_millis(50));
            if client.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let options = ["--rate=100", "--concurrency=1", "--duration-ms=500"];
    let result = load(&url, &options);
    assert_complete(&result, 50);
    let open_loop = &result["open_loop"];
    let dropped = count(open_loop, "dropped");
    assert!(dropped >= 38, "{result}");
    // If the machine stalls, the generator may be late for some.
    assert!(2 * count(open_loop, "dropped_late") <= dropped, "{result}");
    assert_eq!(result["latency"]["censored"], dropped, "{result}");
    assert_eq!(result["errors"], json!({}));
    // At most twelve were answered. They are the first ones, and most of them waited less.
    assert!(number(&result["latency"]["p50_us"]) >= 150e3, "{result}");
}

#[test]
fn requests_that_fail_are_in_the_percentiles_with_the_time_that_they_took() {
    let url = server(|mut client| {
        request(&mut client);
        hold(Duration::from_millis(200));
        // The connection is closed without an answer.
    });
    let options = ["--rate=50", "--concurrency=10", "--duration-ms=200"];
    let result = load(&url, &options);
    assert_complete(&result, 10);
    assert_eq!(result["good"], 0, "{result}");
    let failed = count(&result, "errors") + count(&result["open_loop"], "dropped");
    assert_eq!(result["latency"]["censored"], failed, "{result}");
    assert!(number(&result["latency"]["min_us"]) >= 199e3, "{result}");
}

/// The generator is stopped until its schedule is over. The path is not at fault for the requests
/// that the generator could not send.
#[test]
fn requests_that_a_stopped_generator_drops_are_its_own_fault() {
    let (seen_in, seen) = mpsc::channel();
    let url = server(move |mut client| {
        while request(&mut client) {
            if seen_in.send(()).is_err() || client.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let arguments = ["--rate=100", "--concurrency=1", "--duration-ms=1000"];
    let program = child::start(
        cargo_bin!("hopbench-load"),
        &[&["--url", &url], &arguments[..]].concat(),
    );
    for _ in 0..10 {
        seen.recv_timeout(WATCHDOG).expect("requests");
    }
    let pid = Pid::from_raw(program.id().try_into().expect("a process number"));
    kill(pid, Signal::SIGSTOP).expect("it runs");
    hold(Duration::from_millis(1_500));
    kill(pid, Signal::SIGCONT).expect("it is stopped");
    let output = program.wait_with_output().expect("ends");
    let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_complete(&result, 100);
    let dropped = count(&result["open_loop"], "dropped");
    let late = count(&result["open_loop"], "dropped_late");
    assert!(dropped >= 50, "{result}");
    // One request may have been under way, with its answer unread.
    assert!(10 * late >= 9 * dropped, "{result}");
    assert_eq!(result["latency"]["censored"], dropped, "{result}");
}

#[test]
fn after_a_time_out_the_connection_is_opened_anew() {
    let connections = AtomicU64::new(0);
    let url = server(move |mut client| {
        match connections.fetch_add(1, Relaxed) {
            0 => drop(client.read_to_end(&mut Vec::new())),
            _ => drop(answer(client, OK)),
        };
    });
    let options = ["--rate=100", "--concurrency=1", "--duration-ms=2000"];
    let result = load(&url, &[&options[..], &["--timeout-ms=500"]].concat());
    assert_complete(&result, 200);
    assert!(count(&result["errors"], "timeout") >= 1, "{result}");
    assert!(count(&result, "good") > 0, "{result}");
    // Requests waited for the one that got no answer.
    assert!(number(&result["latency"]["max_us"]) >= 480e3, "{result}");
}

/// At the lower rate a connection is idle when it closes; at the higher the next request is due.
#[test]
fn a_connection_that_is_closed_is_opened_anew() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nends with the connection",
    ] {
        for rate_rps in [200, 20_000] {
            let url = server(move |mut client| {
                request(&mut client);
                drop(client.write_all(answer.as_bytes()));
            });
            let rate = format!("--rate={rate_rps}");
            let result = load(&url, &[&rate, "--concurrency=3", "--duration-ms=300"]);
            assert_complete(&result, rate_rps * 3 / 10);
            assert_eq!(result["errors"], json!({}), "{rate_rps}");
            assert!(count(&result, "good") > 0, "{result}");
        }
    }
}

#[test]
fn a_connection_closed_without_a_word_loses_no_request() {
    let url = server(|mut client| {
        request(&mut client);
        drop(client.write_all(OK.as_bytes()));
    });
    let options = ["--rate=100", "--concurrency=10", "--duration-ms=300"];
    let result = load(&url, &options);
    // A request may be sent while the connection closes. That is an error, and counted.
    assert_complete(&result, 30);
    assert!(count(&result, "good") >= 10, "{result}");
}

#[test]
fn bodies_in_chunks_are_added_up() {
    let url = server(|client| {
        drop(answer(
            client,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
        ));
    });
    let options = ["--rate=200", "--concurrency=8", "--duration-ms=200"];
    let result = load(&url, &[&options[..], &["--expect-length=7"]].concat());
    assert_complete(&result, 40);
    assert_eq!(result["wrong"], json!({}));
    assert_eq!(count(&result, "body_bytes"), 7 * count(&result, "good"));
}

#[test]
fn what_is_not_http_is_called_so() {
    for answer_text in [
        "HTPP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ] {
        let url = server(move |client| drop(answer(client, answer_text)));
        let options = ["--rate=50", "--concurrency=2", "--duration-ms=100"];
        let result = load(&url, &options);
        assert_complete(&result, 5);
        let errors = result["errors"].as_object().expect("counts");
        let invalid = errors.keys().all(|text| text.starts_with("invalid HTTP"));
        assert!(invalid && !errors.is_empty(), "{result}");
    }
}

#[test]
fn nobody_there_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    drop(listener);
    let options = ["--rate=100", "--concurrency=2", "--duration-ms=100"];
    let result = load(&url, &options);
    assert_complete(&result, 10);
    let refused = count(&result["errors"], "Connection refused (os error 111)");
    assert_eq!(refused, count(&result, "requests"));
    assert_eq!(result["connect_us_max"], Value::Null);
}

#[test]
fn mistakes_are_named() {
    let url = "http://127.0.0.1:1/";
    for (code, arguments, said) in [
        (
            4,
            ["--rate=1", "--duration-ms=10", "--url", url],
            "'--rate=1'",
        ),
        (
            4,
            ["--rate=9", "--duration-ms=999", "--url", "x y"],
            "'--url=x y'",
        ),
        (
            4,
            ["--rate=9", "--duration-ms=999", "--url", "ftp://localhost/"],
            "http://",
        ),
        (2, ["--rate=0", "--duration-ms=10", "--url", url], "--rate"),
        (
            2,
            ["--rate=1000001", "--duration-ms=10", "--url", url],
            "--rate",
        ),
        (
            2,
            ["--tick-us=0", "--duration-ms=10", "--url", url],
            "--tick-us",
        ),
        (
            2,
            ["--tick-us=9", "--duration-ms=10", "--url", url],
            "--rate",
        ),
    ] {
        let output = cargo_bin_cmd!("hopbench-load")
            .arg("--concurrency=1")
            .args(arguments)
            .timeout(WATCHDOG)
            .output()
            .expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
}
