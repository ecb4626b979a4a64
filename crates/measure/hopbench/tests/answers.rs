//! Goal: a path that is wrong only under load, or only in bytes without a request, is found out.
//! Method: servers that answer a single request correctly.

mod support;

use std::fs;

use serde_json::Value;
use support::{
    bench::{Bench, failure, run_short, shell_path, short, trials},
    text,
};

/// Writes a path with a Python server that answers `ok` to everything, in the way of `more`.
fn server(bench: &Bench, more: &str) -> String {
    server_with_queue(bench, more, 100, "pass")
}

/// Writes such a path whose listen queue holds `backlog` connections, and that does what
/// `before_accept` says before it takes one from there.
fn server_with_queue(bench: &Bench, more: &str, backlog: u32, before_accept: &str) -> String {
    let server = format!(
        "import socket, sys, threading, time\n\
         head = b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n'\n\
         answers = 0\n\
         kept = dict()\n\
         def serve(c):\n\
         \x20   global answers\n\
         \x20   while True:\n\
         \x20       q = c.recv(4096)\n\
         \x20       if not q: return\n\
         \x20       body = b'ok'\n\
         \x20       answers += 1\n\
         \x20       {more}\n\
         def run(c):\n\
         \x20   try: serve(c)\n\
         \x20   except OSError: pass\n\
         \x20   finally: c.close()\n\
         s = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog={backlog})\n\
         while True:\n\
         \x20   {before_accept}\n\
         \x20   c, _ = s.accept()\n\
         \x20   threading.Thread(target=run, args=(c,), daemon=True).start()\n"
    );
    let file = bench.directory.path().join("server.py");
    fs::write(&file, server).expect("writable");
    let script = format!("exec python3 {} {{{{port:front}}}}", file.display());
    shell_path(bench, "odd.toml", &script)
}

fn warnings<'a>(trial: &'a Value, kind: &str) -> Vec<&'a Value> {
    let warnings = trial["warnings"].as_array().expect("a list");
    warnings.iter().filter_map(|it| it.get(kind)).collect()
}

#[test]
fn a_wrong_bit_in_one_of_a_hundred_answers_fails_the_trial() {
    // Also if there is no warm-up to find it.
    for warm_up in ["50", "0"] {
        let bench = Bench::new();
        let path = server(
            &bench,
            "c.sendall(head + (b'oj' if answers % 100 == 99 else body))",
        );
        let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
        let warm_up = format!("--warm-up-ms={warm_up}");
        let how = [
            "--concurrency=2",
            "--duration-ms=100",
            "--blocks=1",
            &warm_up,
        ];
        let run = bench.run(&[&what[..], &how].concat());
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        let trials = bench.trials();
        let odd = trials.iter().find(|trial| trial["path"] == "odd");
        let failure = &odd.expect("run")["outcome"]["failed"];
        assert_eq!(failure["kind"], "wrong-answer", "{failure}");
        let cause = failure["cause"].as_str().expect("text");
        assert!(cause.contains("wrong answers, besides"), "{failure}");
        let said = "body differs from the expected one";
        assert!(cause.contains(said), "{failure}");
    }
}

#[test]
fn a_server_that_compresses_fails_when_it_is_verified_and_is_told_why() {
    let bench = Bench::new();
    let path = server(
        &bench,
        "fields = b'content-encoding: gzip\\r\\ncontent-length: 3\\r\\n\\r\\n'\n\
         \x20       zip = b'HTTP/1.1 200 OK\\r\\n' + fields + b'zip'\n\
         \x20       c.sendall(zip if b'gzip' in q else head + body)",
    );
    let said = "3 bytes instead of 2 (content-encoding: gzip; requests accept compressed answers";
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "wrong-answer", "{failure}");
    let cause = failure["cause"].as_str().expect("text");
    assert!(cause.contains(said), "{failure}");
    let verified = bench.run(&["verify", "smoke", "--endpoint=/small", "--path", &path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let told = text(&verified.stdout);
    assert!(told.contains(said), "{told}");
}

#[test]
fn verification_warm_up_load_and_comparison_ask_with_the_same_headers() {
    let bench = Bench::new();
    let asked = bench.directory.path().join("asked");
    let path = server(
        &bench,
        &format!(
            "open('{}', 'ab').write(q)\n\x20       c.sendall(head + body)",
            asked.display()
        ),
    );
    run_short(&bench, &path);
    let asked = fs::read_to_string(asked).expect("written");
    let requests = asked.split("\r\n\r\n");
    let small = requests.filter(|request| request.starts_with("GET /small "));
    let mut kinds = std::collections::BTreeSet::new();
    let mut clients = std::collections::BTreeSet::new();
    for request in small {
        let mut fields: Vec<String> = request.lines().skip(1).map(str::to_lowercase).collect();
        fields.retain(|field| !field.starts_with("host:") && !field.starts_with("connection:"));
        clients.extend(
            fields
                .iter()
                .find(|it| it.starts_with("user-agent:"))
                .cloned(),
        );
        fields.retain(|field| !field.starts_with("user-agent:"));
        fields.sort_unstable();
        kinds.insert(fields);
    }
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    // That of verification, our own client, and oha.
    assert_eq!(clients.len(), 3, "{clients:?}");
}

#[test]
fn a_connection_that_is_closed_is_not_a_hang() {
    let bench = Bench::new();
    let path = server(
        &bench,
        "if b'/health' not in q: return\n\x20       c.sendall(head + body)",
    );
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "no-answer", "{failure}");
}

#[test]
fn an_answer_that_the_generator_can_not_read_is_not_the_path_s_error() {
    let bench = Bench::new();
    let path = server(
        &bench,
        "c.sendall(head[:-2] + b'x: y\\r\\n' * 120 + b'\\r\\n' + body)",
    );
    let failure = failure(&bench, &path);
    assert_eq!(failure["source"], "load-generator", "{failure}");
    let cause = failure["cause"].as_str().expect("text");
    let expected = "has 121 header fields, but the load generator reads at most 100";
    assert!(cause.contains(expected), "{failure}");
}

#[test]
fn each_answer_twice_fails_the_trial_in_both_loops_and_is_not_verified() {
    let bench = Bench::new();
    // It is correct if the request asks it to close the connection, as verification does.
    let path = server(
        &bench,
        "c.sendall((head + body) * (1 if b'close' in q else 2))\n\
         \x20       if b'close' in q: return",
    );
    for rate in [&[][..], &["--rate=200"]] {
        let run = bench.run(&[&short(&path)[..], rate, &["--out=runs"]].concat());
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        let runs = bench.directory.path().join("runs");
        let newest = fs::read_dir(runs)
            .expect("runs")
            .map(|run| run.expect("one").path());
        let newest = newest.max_by_key(|run| run.file_name().map(ToOwned::to_owned));
        let trials = trials(&newest.expect("a run"));
        let odd = trials
            .iter()
            .find(|trial| trial["path"] == "odd")
            .expect("run");
        let failure = &odd["outcome"]["failed"];
        assert_eq!(failure["kind"], "wrong-answer", "{odd}");
        let cause = failure["cause"].as_str().expect("text");
        assert!(cause.contains("answer without a request"), "{failure}");
    }
    let twice = server(&bench, "c.sendall((head + body) * 2)");
    let verified = bench.run(&["verify", "smoke", "--endpoint=/small", "--path", &twice]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let told = text(&verified.stdout);
    assert!(told.contains("answer without a request"), "{told}");
}

#[test]
fn connections_that_do_not_stay_open_are_said_with_how_many() {
    let bench = Bench::new();
    // The server announces the close. Otherwise a request sent at that moment would be lost.
    let path = server(
        &bench,
        "is_last = answers % 5 == 4\n\
         \x20       last = head.replace(b'\\r\\n', b'\\r\\nconnection: close\\r\\n', 1)\n\
         \x20       c.sendall((last if is_last else head) + body)\n\
         \x20       if is_last: return",
    );
    run_short(&bench, &path);
    for trial in bench.trials() {
        let (load, is_odd) = (&trial["load"], trial["path"] != "direct");
        let said = warnings(&trial, "reconnects");
        assert_eq!(said.len(), usize::from(is_odd), "{trial}");
        if let Some(said) = said.first() {
            assert_eq!(said["opened"], load["connections_opened"], "{trial}");
            assert!(said["opened"].as_u64() > Some(2), "{trial}");
        } else {
            assert_eq!(load["connections_opened"], 2, "{trial}");
        }
        assert!(load["digests_checked"].as_u64() > Some(10), "{trial}");
        assert_eq!(warnings(&trial, "unchecked").len(), 0, "{trial}");
    }
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    assert!(report.contains("connections were opened for"), "{report}");
    let shown = bench.run(&["report"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
}

#[test]
fn without_a_warm_up_and_at_a_fixed_rate_bodies_are_compared_too() {
    for more in [&["--warm-up-ms=0"][..], &["--rate=200"]] {
        let bench = Bench::new();
        let what = ["run", "http-tunnel", "--endpoint=/small", "--path=direct"];
        let how = ["--concurrency=2", "--duration-ms=200", "--blocks=1"];
        let result = bench.run(&[&what[..], &how, more].concat());
        assert!(result.status.success(), "{}", text(&result.stderr));
        for trial in bench.trials() {
            let load = &trial["load"];
            assert!(load["digests_checked"].as_u64() >= Some(20), "{trial}");
            assert_eq!(warnings(&trial, "reconnects").len(), 0, "{trial}");
        }
    }
}

/// Measures a server that keeps descriptors as `more` says; returns the pathologies of the report.
fn pathologies(more: &str) -> String {
    let bench = Bench::new();
    let path = server(&bench, more);
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
    let how = [
        "--concurrency=2",
        "--duration-ms=300",
        "--warm-up-ms=50",
        "--blocks=1",
        "--repeat-disturbed=0%",
    ];
    let run = bench.run(&[&what[..], &how].concat());
    assert!(run.status.success(), "{run:?}");
    let trials = bench.trials();
    let counted = trials.iter().flat_map(|trial| {
        let processes = trial["processes"].as_array().expect("a list");
        processes.iter().map(|it| it["descriptors_after"].as_u64())
    });
    assert!(counted.into_iter().all(|it| it > Some(0)), "{trials:?}");
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    let (_, found) = report.split_once("### Pathologies").expect("a section");
    let (found, _) = found.split_once("\n#").expect("another section");
    found.to_owned()
}

#[test]
fn a_server_that_leaks_a_descriptor_with_each_request_is_named() {
    let found = pathologies("c.sendall(head + body); kept[answers] = socket.socket()");
    assert!(
        found.contains("leaking descriptors: odd /small c=2: "),
        "{found}"
    );
}

#[test]
fn a_server_with_a_process_for_each_connection_is_measured_as_a_whole() {
    let bench = Bench::new();
    // Children end with their connections, and nobody waits for them.
    let path = server_with_queue(
        &bench,
        "c.sendall(head + body)",
        100,
        "import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
         \x20   c, _ = s.accept()\n\
         \x20   if os.fork() == 0: s.close(); run(c); os._exit(0)\n\
         \x20   c.close(); continue",
    );
    // On a busy machine, the last fifth of a short load may pass before workers are looked at.
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
    let how = ["--concurrency=2", "--duration-ms=1500", "--blocks=1"];
    let more = ["--warm-up-ms=50", "--repeat-disturbed=0%"];
    let run = bench.run(&[&what[..], &how, &more].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let trials = bench.trials();
    let odd = trials.iter().find(|trial| trial["path"] == "odd");
    let odd = odd.expect("run");
    let process = &odd["processes"][0];
    let count = |value: &Value| value.as_u64().expect("a number");
    assert!(count(&process["threads"]) >= 2, "{odd}");
    let (before, after) = (&process["rss_before_kib"], &process["rss_after_kib"]);
    assert!(count(after) < count(before) + 4 * 1024, "{odd}");
    assert!(count(&process["rss_peak_kib"]) > count(after), "{odd}");
    let switches = count(&process["context_switches_voluntary"]);
    assert!(10 * switches > count(&odd["load"]["good"]), "{odd}");
}

#[test]
fn a_server_whose_listen_queue_is_too_short_is_named() {
    let bench = Bench::new();
    let path = server_with_queue(&bench, "c.sendall(head + body)", 1, "time.sleep(0.01)");
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
    let how = ["--concurrency=64", "--duration-ms=300", "--blocks=1"];
    let more = ["--warm-up-ms=0", "--repeat-disturbed=0%"];
    let run = bench.run(&[&what[..], &how, &more].concat());
    assert!(run.status.code().is_some_and(|code| code <= 1), "{run:?}");
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    let said = "full listen queue: odd /small c=64: the kernel turned connections away in 1 of 1";
    assert!(report.contains(said), "{report}");
    assert!(report.contains("('backlog')"), "{report}");
}

#[test]
fn a_server_that_keeps_a_descriptor_for_each_connection_is_in_order() {
    let found = pathologies("c.sendall(head + body); kept[c] = kept.get(c) or socket.socket()");
    assert!(!found.contains("leaking"), "{found}");
}
