//! Goal: paths are asked over TLS and by HTTP/2 as by plain HTTP/1.1: every kind of answer is
//! judged, only the given authority is trusted, only the wanted protocol is spoken. Method: the
//! program itself against servers in this process.

#[path = "support/front.rs"]
mod front;
#[path = "support/run.rs"]
mod run;

use std::{fs, path::Path};

use assert_cmd::cargo::cargo_bin_cmd;
use front::{Authority, Serving};
use run::{WATCHDOG, load};
use serde_json::{Value, json};
use tempfile::TempDir;

/// SHA-256 of the bytes `ok`.
const OK_SHA256: &str = "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df";

/// Servers of all kinds that a client may ask, with the options that it needs.
fn fronts(authority: &Authority) -> Vec<(String, Vec<String>)> {
    let ca = format!("--ca={}", authority.ca().display());
    let h2 = || "--protocol=h2".to_owned();
    vec![
        (Serving::default().start(), Vec::new()),
        (Serving::default().start(), vec![h2()]),
        (authority.serving(&[]).start(), vec![ca.clone()]),
        (
            authority.serving(&["h2", "http/1.1"]).start(),
            vec![ca.clone()],
        ),
        (
            authority.serving(&["h2", "http/1.1"]).start(),
            vec![ca, h2()],
        ),
    ]
}

fn put(url: &str, options: &[String], more: &[&str]) -> Value {
    let options = options.iter().map(String::as_str);
    load(
        url,
        &options.chain(more.iter().copied()).collect::<Vec<_>>(),
    )
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// Makes sure that there were errors of one kind only, and nothing else.
fn assert_only_errors(result: &Value, expected: &str) {
    assert_eq!(result["good"], 0, "{result}");
    let errors = result["errors"].as_object().expect("by kind");
    assert!(!errors.is_empty(), "{result}");
    assert!(errors.keys().all(|it| it.contains(expected)), "{result}");
}

#[test]
fn both_loops_ask_over_tls_and_by_http_2() {
    let authority = Authority::new();
    for (url, options) in fronts(&authority) {
        for loop_kind in ["--own-client", "--rate=400"] {
            let digest = ["--expect-sha256", OK_SHA256, "--expect-length=2"];
            let limits = ["--concurrency=4", "--duration-ms=300", loop_kind];
            let result = put(&url, &options, &[&limits[..], &digest].concat());
            assert!(number(&result["good"]) > 20, "{options:?}: {result}");
            assert_eq!(result["requests"], result["good"], "{options:?}: {result}");
            assert_eq!(result["digests_checked"], result["good"], "{result}");
            assert_eq!(result["connections"], 4, "{options:?}: {result}");
            let is_tls = url.starts_with("https").then_some(true);
            assert_eq!(result["tls"].as_bool(), is_tls, "{result}");
            let protocol = options.contains(&"--protocol=h2".to_owned());
            let protocol = protocol.then_some("h2");
            assert_eq!(result["protocol"].as_str(), protocol, "{result}");
        }
    }
}

/// Writes a plan with a request of each kind; returns its file.
fn plan(directory: &Path) -> String {
    let body = directory.join("body");
    // More than a window of HTTP/2 takes at once.
    fs::write(&body, vec![7; 3 << 20]).expect("writable");
    let request = |name: &str, method: &str, target: &str, status: u16, length: u64| {
        json!({
            "name": name, "method": method, "targets": [target], "weight": 1,
            "headers": [["x-own", "1"], ["connection", "keep-alive"]],
            "body": (target == "/echo").then_some(&body),
            "expect": [{"status": status, "length": length}],
        })
    };
    let plan = json!({"requests": [
        request("get", "GET", "/?a=b", 200, 2),
        request("head", "HEAD", "/", 200, 0),
        request("empty", "GET", "/empty", 204, 0),
        request("trailers", "GET", "/trailers", 200, 2),
        request("echo", "POST", "/echo", 200, 3 << 20),
        request("delete", "DELETE", "/", 200, 2),
        request("wrong status", "GET", "/empty", 200, 0),
        request("wrong length", "GET", "/", 200, 3),
    ]});
    let file = directory.join("plan.json");
    fs::write(&file, plan.to_string()).expect("writable");
    format!("--plan={}", file.display())
}

#[test]
fn every_kind_of_answer_is_judged() {
    let (authority, directory) = (Authority::new(), TempDir::new().expect("a directory"));
    let plan = plan(directory.path());
    for (url, options) in fronts(&authority) {
        let limits = ["--concurrency=2", "--duration-ms=20000", "--requests=48"];
        let result = put(&url, &options, &[&limits[..], &[plan.as_str()]].concat());
        for kind in result["by_request"].as_array().expect("a list") {
            assert_eq!(kind["requests"], 6, "{options:?}: {kind}");
            let wrong = match kind["name"].as_str().expect("text") {
                "wrong status" => json!({"status 204 instead of 200": 6}),
                "wrong length" => json!({"2 bytes instead of 3": 6}),
                _ => json!({}),
            };
            assert_eq!(kind["wrong"], wrong, "{options:?}: {kind}");
            assert_eq!(kind["errors"], json!({}), "{options:?}: {kind}");
        }
    }
}

#[test]
fn wrong_bytes_are_found_by_http_2() {
    let url = Serving::default().start() + "wrong";
    let options = ["--protocol=h2", "--concurrency=2", "--duration-ms=200"];
    let digest = ["--expect-length=2", "--expect-sha256", OK_SHA256];
    let result = load(&url, &[&options[..], &digest].concat());
    let wrong = &result["wrong"]["body differs from the expected one"];
    assert!(number(wrong) > 0, "{result}");
    assert_eq!(result["good"], 0, "{result}");
}

#[test]
fn the_server_is_told_its_host_and_the_version() {
    for (version, options) in [("HTTP/1.1", &[][..]), ("HTTP/2.0", &["--protocol=h2"])] {
        let url = Serving::default().start();
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        let length = format!("--expect-length={}", format!("{version} {host}").len());
        let target = format!("{url}version");
        let limits = [
            "--own-client",
            "--concurrency=1",
            "--duration-ms=100",
            &length,
        ];
        let result = load(&target, &[&limits[..], options].concat());
        assert!(number(&result["good"]) > 0, "{result}");
        assert_eq!(result["wrong"], json!({}), "{result}");
    }
}

/// A server may close a connection in good order at any time: nothing is lost.
#[test]
fn connections_that_the_server_closes_are_opened_again() {
    let authority = Authority::new();
    let ca = format!("--ca={}", authority.ca().display());
    for serving in [Serving::default(), authority.serving(&["h2"])] {
        let is_tls = serving.tls.is_some();
        let serving = Serving {
            requests_max: 10,
            ..serving
        };
        let options = ["--protocol=h2", "--concurrency=2", "--duration-ms=20000"];
        let more: &[&str] = if is_tls { &[&ca] } else { &[] };
        let options = [&options[..], more, &["--requests=300"]].concat();
        let result = load(&serving.start(), &options);
        assert_eq!(result["good"], 300, "{result}");
        assert_eq!(result["errors"], json!({}), "{result}");
        assert!(number(&result["connections_opened"]) >= 20, "{result}");
    }
}

#[test]
fn without_keep_alive_each_request_has_its_own_connection() {
    let authority = Authority::new();
    for (url, options) in fronts(&authority) {
        let limits = ["--no-keepalive", "--own-client", "--concurrency=2"];
        let more = ["--duration-ms=20000", "--requests=20"];
        let result = put(
            &url,
            &options,
            &[limits, [more[0], more[1], "--threads=1"]].concat(),
        );
        assert_eq!(result["good"], 20, "{options:?}: {result}");
        assert_eq!(result["connections_opened"], 20, "{options:?}: {result}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = format!("--ca={}", other.ca().display());
    let limits = ["--concurrency=1", "--duration-ms=100"];
    for protocol in ["--protocol=http1", "--protocol=h2"] {
        let url = authority.serving(&["h2", "http/1.1"]).start();
        let result = load(&url, &[&limits[..], &[&ca, protocol]].concat());
        assert_only_errors(&result, "TLS: the certificate is of another authority");
    }
}

#[test]
fn a_server_without_tls_or_with_another_protocol_is_told() {
    let authority = Authority::new();
    let ca = format!("--ca={}", authority.ca().display());
    let limits = ["--concurrency=1", "--duration-ms=100", &ca];
    let plain = Serving::default().start().replace("http://", "https://");
    let h2 = ["--protocol=h2"];
    let result = load(&plain, &[&limits[..], &h2].concat());
    assert_only_errors(&result, "TLS: ");
    // One refuses, the other doesn't know ALPN.
    for alpn in [&["http/1.1"][..], &[]] {
        let result = load(
            &authority.serving(alpn).start(),
            &[&limits[..], &h2].concat(),
        );
        assert_only_errors(&result, "by ALPN");
    }
    let result = load(&authority.serving(&["h2"]).start(), &limits);
    assert_only_errors(&result, "TLS: the server refused the protocol by ALPN");
}

#[test]
fn mistakes_about_certificates_are_named() {
    let authority = Authority::new();
    let directory = TempDir::new().expect("a directory");
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "no certificate").expect("writable");
    let [good, empty, missing] = [&authority.ca(), &empty, &directory.path().join("missing")]
        .map(|file| format!("--ca={}", file.display()));
    for (url, ca, expected) in [
        ("https://127.0.0.1:1/", None, "expected '--ca=FILE'"),
        (
            "http://127.0.0.1:1/",
            Some(&good),
            "'--ca': expected a '--url' with 'https://'",
        ),
        (
            "https://127.0.0.1:1/",
            Some(&empty),
            "expected a certificate in PEM",
        ),
        ("https://127.0.0.1:1/", Some(&missing), "could not read"),
        ("ftp://127.0.0.1:1/", None, "or the same with 'https'"),
    ] {
        let output = cargo_bin_cmd!("hopbench-load")
            .args([
                "--own-client",
                "--concurrency=1",
                "--duration-ms=1",
                "--url",
                url,
            ])
            .args(ca)
            .timeout(WATCHDOG)
            .output()
            .expect("runs and ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains(expected), "{url} {ca:?}: {said}");
    }
}
