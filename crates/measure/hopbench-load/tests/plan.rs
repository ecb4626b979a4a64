//! Goal: a load as data sends what it says, counts it by kind, and checks each answer by its own
//! expectation. Method: the program itself against a server in this process that answers by target.

#[path = "support/child.rs"]
mod child;
#[path = "support/run.rs"]
mod run;
mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use assert_cmd::cargo::cargo_bin_cmd;
use run::{WATCHDOG, load};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Requests that have arrived: their heads, and how often each came.
type Seen = Arc<Mutex<BTreeMap<String, u64>>>;

/// Answers every request; '/denied' with 403, all others with the length of their target.
fn server() -> (String, Seen) {
    let seen = Seen::default();
    let of_server = Arc::clone(&seen);
    let url = support::server(move |mut client| while serve(&mut client, &of_server) {});
    (url, seen)
}

fn serve(client: &mut TcpStream, seen: &Seen) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a number"));
    client.read_exact(&mut vec![0; length]).expect("a body");
    let target = head.split(' ').nth(1).expect("a target").to_owned();
    *seen.lock().expect("fine").entry(head).or_default() += 1;
    let status = if target == "/denied" {
        "403 no"
    } else {
        "200 ok"
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nx-kind: own\r\ncontent-length: {}\r\n\r\n{target}",
        target.len()
    );
    client.write_all(answer.as_bytes()).is_ok()
}

fn plan(plan: &Value) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    serde_json::to_writer(&file, plan).expect("written");
    file
}

fn run_plan(url: &str, value: &Value, options: &[&str]) -> Value {
    let file = plan(value);
    let plan = format!("--plan={}", file.path().display());
    let common = ["--concurrency=4", "--duration-ms=10000", plan.as_str()];
    load(url, &[&common[..], options].concat())
}

fn request(name: &str, targets: &[&str], weight: u32, expect: Value) -> Value {
    json!({
        "name": name, "method": "GET", "targets": targets, "weight": weight, "body": null,
        "expect": expect,
    })
}

#[test]
fn a_mix_has_figures_for_each_kind() {
    let (url, seen) = server();
    let mut named = request(
        "named",
        &["/a", "/bb"],
        3,
        json!([
            {"status": 200, "length": 2, "sha256": null},
            {"status": 200, "length": 3, "sha256": null, "headers": [["x-kind", "own"]]},
        ]),
    );
    named["headers"] = json!([["x-tenant", "t1"], ["x-tenant", "t2"], ["host", "a.test"]]);
    let denied = request(
        "denied",
        &["/denied"],
        1,
        json!([
            {"status": 403, "length": null, "sha256": null, "headers": [["x-kind", null]]},
        ]),
    );
    let mix = json!({"requests": [named, denied]});
    let result = run_plan(&url, &mix, &["--requests=400"]);
    assert_eq!(
        (&result["requests"], &result["good"]),
        (&json!(400), &json!(400)),
        "{result}"
    );
    assert_eq!(result["wrong"], json!({}));
    let kinds = result["by_request"].as_array().expect("a list");
    let counts: Vec<_> = kinds
        .iter()
        .map(|kind| (&kind["name"], &kind["good"]))
        .collect();
    assert_eq!(
        counts,
        [
            (&json!("named"), &json!(300)),
            (&json!("denied"), &json!(100))
        ]
    );
    assert!(
        kinds[1]["latency"]["p50_us"].as_f64() > Some(0.0),
        "{result}"
    );
    let seen = seen.lock().expect("fine");
    let of = |target: &str| {
        let heads = seen
            .iter()
            .filter(|(head, _)| head.starts_with(&format!("get {target} ")));
        heads.map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!([of("/a"), of("/bb"), of("/denied")], [150, 150, 100]);
    let head = seen
        .keys()
        .find(|head| head.starts_with("get /a "))
        .expect("asked");
    assert!(head.contains("x-tenant: t1\r\nx-tenant: t2\r\n"), "{head}");
    assert!(
        head.contains("host: a.test\r\n") && head.matches("host:").count() == 1,
        "{head}"
    );
}

#[test]
fn wrong_answers_are_counted_by_kind() {
    let (url, _) = server();
    let cases = [
        (
            json!({"status": 403, "length": null, "sha256": null}),
            "status 200 instead of 403",
        ),
        (
            json!({"status": 200, "length": 9, "sha256": null}),
            "2 bytes instead of 9",
        ),
        (
            json!({"status": 200, "length": 2, "sha256": "00"}),
            "body differs from the expected one",
        ),
        (
            json!({"status": 200, "length": 2, "sha256": null, "headers": [["x-kind", "other"]]}),
            "header 'x-kind' is not 'other'",
        ),
        (
            json!({"status": 200, "length": 2, "sha256": null, "headers": [["x-no", null]]}),
            "no header 'x-no'",
        ),
    ];
    for (expect, said) in cases {
        let mix = json!({"requests": [request("one", &["/a"], 1, json!([expect]))]});
        let result = run_plan(&url, &mix, &["--requests=8"]);
        assert_eq!(result["good"], 0, "{result}");
        assert_eq!(result["wrong"][said], 8, "{result}");
        assert_eq!(result["by_request"], Value::Null, "there is one kind");
    }
}

#[test]
fn wrong_answers_of_a_mix_name_their_kind() {
    let (url, _) = server();
    let ok = json!([{"status": 200, "length": null, "sha256": null}]);
    let mix = json!({"requests": [
        request("good", &["/a"], 3, ok.clone()), request("bad", &["/denied"], 1, ok),
    ]});
    let result = run_plan(&url, &mix, &["--requests=40"]);
    assert_eq!(
        result["wrong"],
        json!({"'bad': status 403 instead of 200": 10}),
        "{result}"
    );
    assert_eq!(
        result["by_request"][1]["wrong"],
        json!({"status 403 instead of 200": 10}),
        "{result}"
    );
}

#[test]
fn a_number_of_requests_is_sent_once_each_by_every_client() {
    let ok = json!([{"status": 200, "length": null, "sha256": null}]);
    for options in [
        &["--requests=100", "--threads=3"][..],
        &["--requests=100", "--rate=1000"],
        &["--requests=100", "--no-keepalive"],
    ] {
        let (url, seen) = server();
        let targets: Vec<String> = (0..100).map(|n| format!("/item/{n}")).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let result = run_plan(
            &url,
            &json!({"requests": [request("item", &targets, 1, ok.clone())]}),
            options,
        );
        assert_eq!(result["good"], 100, "{options:?}: {result}");
        let seen = seen.lock().expect("fine");
        assert_eq!(seen.len(), 100, "{options:?}: {seen:?}");
        assert!(
            seen.values().all(|count| *count == 1),
            "{options:?}: {seen:?}"
        );
    }
}

#[test]
fn stages_have_figures_of_their_own_and_seconds_add_up() {
    let (url, _) = server();
    let ok = json!([{"status": 200, "length": null, "sha256": null}]);
    let requests = json!([request("one", &["/a"], 1, ok)]);
    let stages = json!([
        {"duration_ms": 500, "from": 100.0, "to": 100.0},
        {"duration_ms": 1000, "from": 100.0, "to": 300.0},
    ]);
    let open = run_plan(
        &url,
        &json!({"requests": requests, "stages": stages}),
        &["--open-loop"],
    );
    let good = |of: &Value| of["good"].as_u64().expect("a number");
    let dropped = |of: &Value| of["dropped"].as_u64().expect("a number");
    let stages_of = open["stages"].as_array().expect("a list");
    let due: Vec<u64> = stages_of.iter().map(|it| good(it) + dropped(it)).collect();
    // 100/s for 0.5 s, and from 100/s to 300/s in 1 s.
    assert_eq!(due, [50, 200], "{open}");
    let seconds = open["seconds"].as_array().expect("a list");
    assert!(seconds.len() >= 2, "{open}");
    assert_eq!(seconds.iter().map(good).sum::<u64>(), good(&open));

    let closed = json!({"requests": requests, "stages": [
        {"duration_ms": 200, "from": 1.0, "to": 1.0}, {"duration_ms": 200, "from": 1.0, "to": 4.0},
    ]});
    let closed = run_plan(&url, &closed, &[]);
    let stages_of = closed["stages"].as_array().expect("a list");
    assert!(stages_of.iter().all(|it| good(it) > 0), "{closed}");
    assert_eq!(stages_of.iter().map(good).sum::<u64>(), good(&closed));
}

#[test]
fn a_connection_that_thinks_asks_less_often() {
    let (url, _) = server();
    let ok = json!([{"status": 200, "length": null, "sha256": null}]);
    let requests = json!([request("one", &["/a"], 1, ok)]);
    let thinking = json!({"requests": requests, "think_time_ms": 50});
    let file = plan(&thinking);
    let plan = format!("--plan={}", file.path().display());
    let result = load(&url, &["--concurrency=2", "--duration-ms=300", &plan]);
    // Two connections, and at most one request each in 50 ms, besides the first.
    let good = result["good"].as_u64().expect("a number");
    assert!((2..=2 * 7).contains(&good), "{result}");
}

#[test]
fn mistakes_in_a_plan_are_named() {
    let ok = json!([{"status": 200, "length": null, "sha256": null}]);
    let cases = [
        (json!({"requests": []}), "the weights add up to 0"),
        (
            json!({"requests": [request("a", &[], 1, ok.clone())]}),
            "request 'a': expected a target",
        ),
        (
            json!({"requests": [request("a", &["/1", "/2", "/3"], 1, json!([ok[0], ok[0]]))]}),
            "request 'a': 2 expected answers for 3 targets",
        ),
        (
            json!({"requests": [request("a", &["/"], 1, ok.clone())], "stages": [
            {"duration_ms": 0, "from": 1.0, "to": 1.0}]}),
            "a stage of 0 ms",
        ),
        (json!({"requests": [], "more": 1}), "unknown field `more`"),
    ];
    for (value, said) in cases {
        let file = plan(&value);
        let output = cargo_bin_cmd!("hopbench-load")
            .args([
                "--url=http://127.0.0.1:1/",
                "--concurrency=1",
                "--duration-ms=10",
            ])
            .arg(format!("--plan={}", file.path().display()))
            .timeout(WATCHDOG)
            .output()
            .expect("runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
}
