//! Goal: a run keeps what it measures, whatever happens to the paths, to itself and to its files.
//! Method: real runs of a few short trials; answers are asserted, metrics never.

mod support;

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use support::{
    Running,
    bench::{Bench, SHORT, children_of, failure, long, shell_path},
    output, text, until,
};

#[test]
fn a_run_writes_records_and_reports() {
    let bench = Bench::new();
    let mut arguments = vec![
        "run",
        "http-tunnel",
        "--path=rapace-stream,rapace-shm",
        "--seed=7",
    ];
    arguments.extend(SHORT);
    let result = bench.run(&arguments);
    let (out, errors) = (text(&result.stdout), text(&result.stderr));
    assert!(result.status.success(), "{out}\n{errors}");
    // Two endpoints; on each two paths, the reference and its control.
    let trials = bench.trials();
    assert_eq!(trials.len(), 8);
    assert!(errors.contains("[8/8] block 1/1, 0 s left: "), "{errors}");
    for trial in &trials {
        check_record(trial);
    }

    let run_dir = bench.run_dir();
    let report = fs::read_to_string(run_dir.join("REPORT.md")).expect("written");
    let heading = "| Path | Concurrency | RPS | p50 (ms) | p99 (ms) | RPS vs reference |";
    assert_eq!(report.matches(heading).count(), 2, "{report}");
    for part in [
        "| seed | 7 |",
        "A/A control",
        "### Counters per body byte",
        "### Wake-ups and memory",
        "### Pathologies",
    ] {
        assert!(report.contains(part), "'{part}' is missing: {report}");
    }
    let csv = fs::read_to_string(run_dir.join("summary.csv")).expect("written");
    assert_eq!(csv.lines().count(), 1 + 2 * 3, "{csv}");
    assert!(out.contains("run directory: bench_results/"), "{out}");

    // The records alone are enough to write the report again.
    fs::remove_file(run_dir.join("REPORT.md")).expect("there");
    let again = bench.run(&["report"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(
        fs::read_to_string(run_dir.join("REPORT.md")).expect("written"),
        report
    );
    assert_eq!(text(&again.stdout), out);
    let status = text(&bench.run(&["status"]).stdout);
    assert!(
        status.contains("finished: 8 of 8 trials, 0 failed"),
        "{status}"
    );
    let manifest = fs::read_to_string(run_dir.join("manifest.json")).expect("written");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(
        manifest["paths"][1]["receipts"]["host"],
        "http-tunnel-host 0.1.0"
    );
    bench.assert_nothing_left();
}

fn check_record(trial: &Value) {
    assert_eq!(trial["outcome"], "ok", "{trial}");
    let load = &trial["load"];
    assert!(load["good"].as_u64() > Some(0), "{trial}");
    assert_eq!(load["good"], load["requests"], "{trial}");
    assert!(
        load["latency"]["histogram"]
            .as_str()
            .is_some_and(|text| text.len() > 20),
        "{trial}"
    );
    let roles: Vec<&String> = trial["cpu_us"].as_object().expect("a map").keys().collect();
    let tunnelled = trial["path"] != "direct";
    let expected: &[&str] = match tunnelled {
        true => &["client", "host", "origin", "plugin"],
        false => &["client", "origin"],
    };
    assert_eq!(roles, expected, "{trial}");
    for (role, cpu_us) in trial["cpu_us"].as_object().expect("a map") {
        assert!(cpu_us.as_f64() > Some(0.0), "{role}: {trial}");
    }
    assert_eq!(
        trial["counters"].as_object().expect("a map").len(),
        if tunnelled { 2 } else { 0 }
    );
    for process in trial["processes"].as_array().expect("a list") {
        assert!(process["rss_peak_kib"].as_u64() > Some(0), "{trial}");
    }
}

#[test]
fn perf_lines_have_every_key_and_json_is_one_document() {
    let bench = Bench::new();
    let mut arguments = vec![
        "run",
        "http-tunnel",
        "--path=rapace-shm",
        "--endpoint=/small",
    ];
    arguments.extend(SHORT);
    arguments.push("--format=perf");
    let result = bench.run(&arguments);
    let out = text(&result.stdout);
    assert!(result.status.success(), "{}", text(&result.stderr));
    assert_eq!(out.lines().count(), 2, "{out}");
    let keys = "scenario path concurrency requests success errors throughput_rps total_ms \
        latency_avg_ms latency_p50_ms latency_p95_ms latency_p99_ms latency_max_ms \
        response_bytes_total rss_before_kib rss_after_kib rss_delta_kib hwm_after_kib \
        tunnel_zero_copy_bytes tunnel_copied_bytes";
    for line in out.lines() {
        let line = line.strip_prefix("perf_result ").expect(line);
        let found: Vec<&str> = line
            .split(' ')
            .map(|pair| pair.split_once('=').expect(pair).0)
            .collect();
        let expected: Vec<&str> = keys.split_whitespace().collect();
        assert_eq!(found[..expected.len()], expected, "{line}");
    }
    let json = bench.run(&["report", "--format=json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["cells"][1]["path"], "rapace-shm");
    assert!(json["cells"][1]["rps_ratio"].as_f64() > Some(0.0), "{json}");
}

#[test]
fn a_hop_of_ones_own_is_one_file() {
    let bench = Bench::new();
    let hop = bench.write(
        "my-hop.toml",
        r#"
        summary = "a tunnel to a server of its own"
        front = "127.0.0.1:{{port:front}}"

        [[process]]
        name = "server"
        role = "origin"
        command = ["{{bin:http_baseline}}", "--listen=unix:{{socket:server}}"]
        version = ["{{bin:http_baseline}}", "--version"]

        [[process]]
        name = "host"
        role = "hop"
        command = ["{{bin:http-tunnel-host}}", "--addr={{socket:t}}", "--listen=127.0.0.1:{{port:front}}"]
        version = ["{{bin:http-tunnel-host}}", "--version"]

        [[process]]
        name = "plugin"
        role = "hop"
        command = ["{{bin:http-tunnel-plugin}}", "--addr={{socket:t}}", "--upstream=unix:{{socket:server}}"]
        version = ["{{bin:http-tunnel-plugin}}", "--version"]
        "#,
    );
    let mut arguments = vec!["run", "uploads", "--path", &hop];
    arguments.extend(SHORT);
    let result = bench.run(&arguments);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let csv = fs::read_to_string(bench.run_dir().join("summary.csv")).expect("written");
    assert!(
        csv.contains("uploads,/echo:262144,my-hop,2,true,,false,free,,1,0,"),
        "{csv}"
    );
    bench.assert_nothing_left();
}

#[test]
fn a_killed_process_is_a_failed_trial_and_the_run_goes_on() {
    for (victim, cause) in [
        ("http-tunnel-host", "'host' killed by SIGKILL"),
        ("http-tunnel-plugin", "'plugin' killed by SIGKILL"),
    ] {
        let bench = Bench::new();
        let scenario = long(&bench);
        let arguments = ["run", &scenario, "--repeat-disturbed=0%"];
        let running = Running::start(&mut bench.command(&arguments));
        let mut pids = Vec::new();
        until("the load is on", || {
            let load = children_of(running.pid(), "hopbench-load");
            pids = children_of(running.pid(), victim);
            !load.is_empty() && !pids.is_empty()
        });
        kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("it runs");
        let line = running.error_line("FAILED, crash");
        assert!(line.contains(cause), "{line}");
        let (status, out, errors) = running.wait();
        assert_eq!(status.code(), Some(1), "{errors}");
        let trials = bench.trials();
        assert_eq!(trials.len(), 4, "the run went on");
        let failed: Vec<&Value> = trials
            .iter()
            .filter(|trial| trial["outcome"] != "ok")
            .collect();
        assert_eq!(failed.len(), 1, "{errors}");
        let failure = &failed[0]["outcome"]["failed"];
        assert_eq!(
            (&failure["source"], &failure["kind"]),
            (&"subject".into(), &"crash".into())
        );
        assert!(
            out.contains("crash: rapace-stream /small c=2: 1 failed trial:"),
            "{out}"
        );
        bench.assert_nothing_left();
    }
}

#[test]
fn ctrl_c_keeps_what_is_done_and_leaves_nothing_running() {
    let bench = Bench::new();
    let scenario = long(&bench);
    let running = Running::start(&mut bench.command(&["run", &scenario]));
    let pid = running.pid();
    running.error_line("[1/4]");
    until("the second trial is on", || {
        !children_of(pid, "hopbench-load").is_empty()
    });
    let status = text(&bench.run(&["status"]).stdout);
    assert!(
        status.contains("running: 1 of 4 trials") && status.contains("now: trial 2"),
        "{status}"
    );
    let children = children_of(pid, "");
    running.signal(Signal::SIGINT);
    // An interrupted shell may pass the signal on. That is not a second request.
    running.signal(Signal::SIGINT);
    let (status, out, errors) = running.wait();
    assert_eq!(status.code(), Some(130), "{errors}");
    for child in children {
        assert!(
            !Path::new("/proc").join(child.to_string()).exists(),
            "{child} is left"
        );
    }
    assert_eq!(bench.trials().len(), 1);
    assert!(out.contains("run directory"), "{out}");
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    assert!(
        report.contains("1 of 4 trials run") && report.contains("not complete"),
        "{report}"
    );
    let status = text(&bench.run(&["status"]).stdout);
    assert!(status.contains("interrupted: 1 of 4 trials"), "{status}");
    assert!(status.contains(", 3 not run"), "{status}");
    bench.assert_nothing_left();
}

#[test]
fn a_killed_hopbench_takes_its_children_along() {
    let bench = Bench::new();
    // One process watches its stdin, the other must be killed by the kernel. That one has started
    // two more, one of them as a daemon does.
    let script = bench.directory.path().join("script.sh");
    let script = script.display();
    bench.write(
        "script.sh",
        "cd $(dirname $0)\nsleep 100001 & echo $! >worker\nsetsid sleep 100002 & echo $! >daemon\n\
         exec sleep 100000\n",
    );
    let hop = r#"
        summary = "x"
        front = "127.0.0.1:{{port:front}}"
        [[process]]
        name = "server"
        role = "origin"
        command = ["{{bin:http_baseline}}", "--listen=127.0.0.1:{{port:front}}", "--exit-with-stdin"]
        version = ["{{bin:http_baseline}}", "--version"]
        stops-with-stdin = true
        [[process]]
        name = "sleeper"
        role = "hop"
        command = ["{{program:sh}}", "SCRIPT"]
        version = ["{{program:sleep}}", "--version"]
        "#;
    let hop = bench.write("hop.toml", &hop.replace("SCRIPT", &script.to_string()));
    let scenario = long(&bench);
    let running = Running::start(&mut bench.command(&["run", &scenario, "--path", &hop]));
    let mut children = Vec::new();
    until("all three run", || {
        // No port is as long as the number of the sleeper.
        let names = ["http_baseline", "100000", "hopbench-load"];
        let found = names.map(|name| children_of(running.pid(), name));
        children = found.concat();
        found.iter().all(|them| !them.is_empty())
    });
    for name in ["worker", "daemon"] {
        let file = fs::read_to_string(bench.directory.path().join(name)).expect("written");
        children.push(file.trim().parse().expect("a number"));
    }
    running.signal(Signal::SIGKILL);
    drop(running);
    for child in children {
        until("it is gone", || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
    bench.assert_nothing_left();
    let status = text(&bench.run(&["status"]).stdout);
    assert!(status.contains("died: "), "{status}");
}

#[test]
fn two_runs_do_not_measure_each_other() {
    let bench = Bench::new();
    let scenario = long(&bench);
    let running = Running::start(&mut bench.command(&["run", &scenario]));
    until("the first has begun", || !bench.runs().is_empty());
    let second = bench.run(&["run", &scenario]);
    assert_eq!(second.status.code(), Some(4));
    assert!(
        text(&second.stderr).contains("another run"),
        "{}",
        text(&second.stderr)
    );
    // Another output directory makes no difference.
    let elsewhere = bench.run(&["run", &scenario, "--out=elsewhere"]);
    assert_eq!(elsewhere.status.code(), Some(4));
    assert!(
        text(&elsewhere.stderr).contains("another run is under way on this machine"),
        "{}",
        text(&elsewhere.stderr)
    );
    // The run that is in the way is named.
    let holder = format!("(process {}: 'hopbench run {scenario}')", running.pid());
    for refused in [&second, &elsewhere] {
        let errors = text(&refused.stderr);
        assert!(errors.contains(&holder), "{holder}: {errors}");
    }
    // Nor do other temporary files, as of another job of CI.
    let other = Bench::new();
    let mut other_job = bench.command(&["run", &scenario, "--out=elsewhere"]);
    let refused = output(other_job.env("TMPDIR", other.temporary()));
    let errors = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{errors}");
    assert!(
        errors.contains("another run is under way on this machine"),
        "{errors}"
    );
    let warned = bench.run(&["verify", "direct"]);
    assert!(warned.status.success());
    assert!(text(&warned.stderr).contains("warning: another run is under way"));
    running.signal(Signal::SIGINT);
    running.wait();
    let alone = bench.run(&["verify", "direct"]);
    assert!(alone.status.success() && alone.stderr.is_empty());
}

#[test]
fn a_server_that_does_not_start_is_recorded_with_its_last_words() {
    let bench = Bench::new();
    let path = shell_path(
        &bench,
        "dies.toml",
        "echo no such license >&2; exit 7 # {{port:front}}",
    );
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "crash");
    assert!(
        failure["cause"]
            .as_str()
            .expect("text")
            .contains("'server' exited with code 7")
    );
    assert_eq!(failure["log"][0], "server: no such license");
}

#[test]
fn a_wrong_answer_never_yields_a_number() {
    let bench = Bench::new();
    let server = "import http.server as h, sys\n\
        class H(h.BaseHTTPRequestHandler):\n\
        \x20   protocol_version = 'HTTP/1.1'\n\
        \x20   def do_GET(self):\n\
        \x20       self.send_response(200); self.send_header('content-length', '2')\n\
        \x20       self.end_headers(); self.wfile.write(b'no')\n\
        \x20   def log_message(self, *a): pass\n\
        h.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n";
    fs::write(bench.directory.path().join("server.py"), server).expect("writable");
    let script = bench.directory.path().join("server.py");
    let script = format!("exec python3 {} {{{{port:front}}}}", script.display());
    let path = shell_path(&bench, "wrong.toml", &script);
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "wrong-answer", "{failure}");
    assert!(
        failure["cause"]
            .as_str()
            .expect("text")
            .contains("body differs"),
        "{failure}"
    );
    let csv = fs::read_to_string(bench.run_dir().join("summary.csv")).expect("written");
    assert!(
        csv.contains("http-tunnel,/small,wrong,2,true,,false,free,,1,1,0,0,0,0,0,0,,,"),
        "{csv}"
    );
}

#[test]
fn a_server_that_hangs_is_recorded_and_one_that_does_not_stop_is_killed() {
    let bench = Bench::new();
    let server = "import socket, sys, signal, threading\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        def serve(c):\n\
        \x20   while True:\n\
        \x20       q = c.recv(4096)\n\
        \x20       if not q: return\n\
        \x20       if b'/health' in q:\n\
        \x20           c.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n')\n\
        s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        while True:\n\
        \x20   c, _ = s.accept()\n\
        \x20   threading.Thread(target=serve, args=(c,), daemon=True).start()\n";
    fs::write(bench.directory.path().join("server.py"), server).expect("writable");
    let script = bench.directory.path().join("server.py");
    let script = format!("exec python3 {} {{{{port:front}}}}", script.display());
    let path = shell_path(&bench, "deaf.toml", &script);
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "hang", "{failure}");
    let trials = bench.trials();
    let warned = trials
        .iter()
        .any(|trial| trial["warnings"][0]["unstoppable"]["process"] == "server");
    assert!(warned, "{trials:?}");
}

#[test]
fn blocks_are_added_until_intervals_are_narrow_or_time_is_up() {
    let run = |until: &[&str]| {
        let bench = Bench::new();
        let cell = [
            "run",
            "http-tunnel",
            "--path=ring-in-process",
            "--endpoint=/small",
        ];
        let done = bench.run(&[&cell, &SHORT[..], until].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        let blocks = bench
            .trials()
            .into_iter()
            .map(|trial| trial["block"].as_u64());
        let blocks = blocks.max().flatten().expect("a trial");
        let read = |name| fs::read_to_string(bench.run_dir().join(name)).expect("written");
        let plan: Value = serde_json::from_str(&read("plan.json")).expect("JSON");
        let planned = plan["trials"].as_array().expect("a list").len();
        assert_eq!(planned, bench.trials().len());
        (blocks, read("REPORT.md"))
    };
    // With fewer than six blocks there is no interval of 95 %.
    let (blocks, report) = run(&["--until=100%", "--max-time=5m"]);
    assert!(blocks >= 6, "{blocks} blocks");
    assert!(!report.contains("was not reached"), "{report}");
    let (blocks, report) = run(&["--until=0.1%", "--max-time=1s"]);
    assert_eq!(blocks, 1);
    let missed = "- --until 0.1 % was not reached within 1 s (--max-time): the interval \
                  of http-tunnel ring-in-process /small c=2 is still unknown after 1 block";
    assert!(report.contains(missed), "{report}");
}
