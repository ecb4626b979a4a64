//! Goal: the tunnel's programs work as their users use them, with programs that others have made.
//! Method: real processes on loopback and free ports, everything for every transport.

mod process;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Stdio,
    thread,
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use process::{
    Running, bin, command, get, installed, output, text,
    tunnel::{LOG, TRANSPORTS, Tunnel, start_host, start_plugin},
    until,
};
use tempfile::TempDir;

#[test]
fn either_may_be_started_first() {
    for transport in TRANSPORTS {
        for plugin_first in [false, true] {
            let directory = TempDir::new().expect("a directory");
            let early = plugin_first
                .then(|| start_plugin(transport, directory.path(), &["--origin-port=0", LOG]));
            let host = start_host(transport, directory.path(), &[LOG]);
            let front = host.line("listening on ");
            let _plugin = early.unwrap_or_else(|| {
                start_plugin(transport, directory.path(), &["--origin-port=0", LOG])
            });
            let answer = get(&front, "/small").expect("answered");
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"),
                "{answer}"
            );
        }
    }
}

#[test]
fn sigterm_drains_prints_the_counters_and_leaves_nothing() {
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        let front = tunnel.front.clone();
        let slow = thread::spawn(move || get(&front, "/delay/200").expect("answered"));
        tunnel.until_counted("plugin", "tunnel_bytes_out", |bytes| bytes > 0);
        tunnel.host.signal(Signal::SIGTERM);
        tunnel.plugin.signal(Signal::SIGTERM);
        assert!(
            slow.join().expect("no panic").ends_with("ok"),
            "open requests are finished"
        );
        for (name, program) in [("host", tunnel.host), ("plugin", tunnel.plugin)] {
            let (status, out, errors) = program.wait();
            assert!(status.success(), "{status}: {errors}");
            let counters: serde_json::Value =
                serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
            match counters["tunnel_bytes_in"].as_u64() {
                Some(bytes) => assert!(bytes > 0, "{counters}"),
                // Only a host on handoff doesn't see them, and says nothing of them.
                None => assert_eq!((transport, name), ("handoff", "host"), "{counters}"),
            }
            assert_eq!(counters["tunnel_tunnels_open"], 0, "{counters}");
        }
        let left: Vec<_> = std::fs::read_dir(tunnel.directory.path())
            .expect("ours")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_end_of_stdin_stops_who_was_told_so() {
    let directory = TempDir::new().expect("a directory");
    let addr = format!("--addr={}", directory.path().join("tunnel").display());
    let mut host = command(bin("http-tunnel-host"));
    let host = host.args([&addr, "--listen=127.0.0.1:0", "--exit-with-stdin"]);
    let mut plugin = command(bin("http-tunnel-plugin"));
    let plugin = plugin.args([&addr, "--origin=in-process", "--exit-with-stdin"]);
    let mut baseline = command(bin("http_baseline"));
    let baseline = baseline.args(["--listen=127.0.0.1:0", "--exit-with-stdin"]);
    let programs = [host, plugin, baseline].map(Running::start);
    for mut program in programs {
        program.close_stdin();
        let (status, _, errors) = program.wait();
        assert!(status.success(), "{status}: {errors}");
    }
}

#[test]
fn a_killed_plugin_is_replaced_and_its_clients_are_told() {
    for transport in TRANSPORTS {
        let mut tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        get(&tunnel.front, "/small").expect("answered");
        let mut client = TcpStream::connect(&tunnel.front).expect("the host listens");
        client
            .write_all(b"GET /delay/60000 HTTP/1.1\r\nhost: a\r\n\r\n")
            .expect("written");
        tunnel.until_counted("host", "tunnel_tunnels_open", |open| open == 1);
        tunnel.plugin.signal(Signal::SIGKILL);
        let ended = client.read(&mut [0; 10]).map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        tunnel.plugin = start_plugin(
            transport,
            tunnel.directory.path(),
            &["--origin=in-process", LOG],
        );
        until("the new plugin is attached", || {
            get(&tunnel.front, "/small").is_ok()
        });
    }
}

#[test]
fn counters_are_served_as_json_and_for_prometheus() {
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        let answer = get(&tunnel.front, "/large").expect("answered");
        let status = tunnel.status("plugin").expect("served");
        assert_eq!(status["program"], "http-tunnel-plugin");
        assert_eq!(status["transport"], transport);
        let counter = |name: &str| status["counters"][name].as_u64().expect(name);
        assert_eq!(counter("tunnel_bytes_in"), answer.len() as u64);
        let (copied, length) = (counter("tunnel_copied_bytes"), answer.len() as u64);
        match transport {
            // Answers are copied into frames, and on shm into slots, too. Requests come on top.
            "stream" => assert!(copied >= length),
            "shm" => assert!(copied >= 2 * length),
            // The plugin has the client's own socket.
            "handoff" => assert_eq!((copied, counter("tunnel_zero_copy_bytes")), (0, 0)),
            // Only the heads of the request and of the answer are copied.
            _ => assert!(copied < 1000 && counter("tunnel_zero_copy_bytes") == 262_125),
        }
        if transport == "shm" {
            assert!(counter("tunnel_slots_allocated") > 64);
            assert_eq!(counter("tunnel_slots_failed"), 0);
        }
        let admin = tunnel.directory.path().join("tunnel.host-admin");
        let metrics = get(&format!("unix:{}", admin.display()), "/metrics").expect("served");
        let expected = "# TYPE tunnel_zero_copy_bytes counter\n";
        // On handoff the host doesn't see them, and a 0 would be wrong.
        assert_eq!(
            metrics.contains(expected),
            transport != "handoff",
            "{metrics}"
        );
    }
}

#[test]
fn curl_speaks_http_2_with_prior_knowledge() {
    let Some(curl) = installed("curl") else {
        return;
    };
    for transport in TRANSPORTS {
        for origin in ["--origin=tcp", "--origin=in-process"] {
            let mut options = vec![origin];
            options.extend((origin == "--origin=tcp").then_some("--origin-port=0"));
            let tunnel = Tunnel::start(transport, &options);
            for (target, size) in [
                ("/small", 2),
                ("/large", 262_125),
                ("/bytes/3000000", 3_000_000),
            ] {
                // One request per curl, since curl 7.88 loses a connection that it uses again.
                let mut curl = command(&curl);
                curl.args(["-sS", "--http2-prior-knowledge", "--max-time", "50"]);
                curl.args([
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_version} %{http_code} %{size_download}",
                ]);
                let result = output(curl.arg(format!("http://{}{target}", tunnel.front)));
                assert!(result.status.success(), "{}", text(&result.stderr));
                assert_eq!(text(&result.stdout), format!("2 200 {size}"));
            }
        }
    }
}

#[test]
fn http_2_streams_share_a_tunnel() {
    use http_body_util::{BodyExt, Empty};
    use hyper::{Request, body::Bytes, client::conn::http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&tunnel.front)
                .await
                .expect("listens");
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            let mut answers = tokio::task::JoinSet::new();
            for n in 0..32_usize {
                let mut sender = sender.clone();
                answers.spawn(async move {
                    let uri = format!("http://test/bytes/{}", n * 10_000);
                    let request = Request::get(uri)
                        .body(Empty::<Bytes>::new())
                        .expect("valid");
                    let answer = sender.send_request(request).await.expect("answered");
                    let body = answer.into_body().collect().await.expect("a whole body");
                    assert_eq!(body.to_bytes().len(), n * 10_000);
                });
            }
            while let Some(answer) = answers.join_next().await {
                answer.expect("no panic");
            }
        });
    }
}

#[test]
fn redis_benchmark_finds_a_redis_behind_the_tunnel() {
    let (Some(server), Some(benchmark)) = (installed("redis-server"), installed("redis-benchmark"))
    else {
        return;
    };
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("redis.sock");
    let mut redis = command(server);
    redis.args([
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--unixsocket",
    ]);
    redis.arg(&socket).arg("--dir").arg(directory.path());
    let _redis = Running::start(&mut redis);
    until("redis listens", || socket.exists());
    let upstream = format!("--upstream=unix:{}", socket.display());
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &[&upstream]);
        let port = tunnel.front.rsplit(':').next().expect("a port");
        let mut benchmark = command(&benchmark);
        // Requests are pipelined, values are larger than a slot, and answers have many kilobytes.
        benchmark.args([
            "-p", port, "-n", "2000", "-c", "20", "-P", "8", "-d", "5000", "--csv",
        ]);
        benchmark.args(["-t", "ping,set,get,incr,lpush,lrange_100"]);
        let result = output(&mut benchmark);
        let (out, errors) = (text(&result.stdout), text(&result.stderr));
        assert!(
            result.status.success() && !errors.contains("rror"),
            "{out}\n{errors}"
        );
        for test in ["PING_INLINE", "SET", "GET", "INCR", "LPUSH", "LRANGE_100"] {
            assert!(
                out.contains(&format!("\"{test}")),
                "{test} is missing: {out}"
            );
        }
    }
}

#[test]
fn nc_half_closes_and_gets_its_answer() {
    let Some(nc) = installed("nc") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let upstream = format!("--upstream={}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut question = String::new();
            // Answers only once the question has ended.
            client.read_to_string(&mut question).expect("a clean end");
            client
                .write_all(question.to_uppercase().as_bytes())
                .expect("written");
        }
    });
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &[&upstream]);
        let (host, port) = tunnel.front.split_once(':').expect("HOST:PORT");
        let mut nc = command(&nc);
        // -N: half-close at the end of stdin.
        let nc = nc.args(["-N", "-w", "50", host, port]);
        let mut nc = nc
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = nc.stdin.take().expect("piped");
        stdin
            .write_all("a question ".repeat(10_000).as_bytes())
            .expect("written");
        drop(stdin);
        let result = nc.wait_with_output().expect("ended");
        assert_eq!(text(&result.stdout), "A QUESTION ".repeat(10_000));
    }
}

#[test]
fn a_websocket_client_talks_to_a_websocket_server() {
    use tokio_tungstenite::tungstenite::{Message, accept, client};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let upstream = format!("--upstream={}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut socket = accept(client.expect("a client")).expect("a WebSocket");
            // The server speaks first, after the upgrade.
            socket.send(Message::text("welcome")).expect("sent");
            while let Ok(message) = socket.read() {
                if message.is_binary() || message.is_text() {
                    socket.send(message).expect("sent");
                }
            }
        }
    });
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &[&upstream]);
        let stream = TcpStream::connect(&tunnel.front).expect("the host listens");
        let (mut socket, _) = client("ws://test/", stream).expect("upgraded");
        assert_eq!(socket.read().expect("a message"), Message::text("welcome"));
        for size in [0, 1, 125, 126, 70_000, 1_000_000] {
            let message = Message::binary(vec![7; size]);
            socket.send(message.clone()).expect("sent");
            assert_eq!(socket.read().expect("a message"), message);
        }
        socket.close(None).expect("closed");
        while socket.read().is_ok() {}
    }
}

#[test]
fn an_address_in_use_is_an_error_and_not_somebody_elses_data() {
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        get(&tunnel.front, "/small").expect("answered");
        let (status, _, errors) = start_host(transport, tunnel.directory.path(), &[LOG]).wait();
        assert_eq!(status.code(), Some(4));
        assert!(errors.contains("address in use"), "{errors}");
        let options = ["--origin=in-process", "--admin=none"];
        let second = start_plugin(transport, tunnel.directory.path(), &options);
        let (status, _, errors) = second.wait();
        assert_eq!(status.code(), Some(4));
        assert!(errors.contains("another plugin is attached"), "{errors}");
        // The port is taken by the tunnel's own front.
        let mut baseline = command(bin("http_baseline"));
        let baseline = Running::start(baseline.arg(format!("--listen={}", tunnel.front)));
        let (status, _, errors) = baseline.wait();
        assert_eq!(status.code(), Some(4));
        assert!(errors.contains(&tunnel.front), "{errors}");
        get(&tunnel.front, "/small").expect("the first ones go on");
    }
}

#[test]
fn a_peer_that_never_comes_or_differs_is_named() {
    let directory = TempDir::new().expect("a directory");
    let addr = format!("--addr={}", directory.path().join("tunnel").display());
    for (program, expected) in [
        ("http-tunnel-host", "no plugin connected to"),
        ("http-tunnel-plugin", "no host answered at"),
    ] {
        let mut program = command(bin(program));
        let options: &[&str] = match expected {
            "no plugin connected to" => &["--listen=127.0.0.1:0"],
            _ => &["--origin=in-process"],
        };
        program.args([&addr, "--peer-timeout-ms=100"]).args(options);
        let (status, _, errors) = Running::start(&mut program).wait();
        assert_eq!(status.code(), Some(4));
        assert!(
            errors.contains(expected) && errors.contains("start http-tunnel-"),
            "{errors}"
        );
    }

    let host = start_host("shm", directory.path(), &[LOG]);
    host.line("listening on ");
    for (options, expected) in [
        (
            vec!["--transport=stream"],
            "--transport=stream, the host --transport=shm",
        ),
        (
            vec!["--transport=shm", "--shm-slots=128"],
            "differ from the host's 64 × 4096",
        ),
    ] {
        let mut plugin = command(bin("http-tunnel-plugin"));
        plugin.args([&addr, "--origin=in-process"]).args(options);
        let (status, _, errors) = Running::start(&mut plugin).wait();
        assert_eq!(status.code(), Some(4));
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn a_host_of_another_kind_is_named() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("tunnel");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a free path");
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let hello = client.read(&mut [0; 4096]).expect("a hello");
            assert!(hello > 0);
            client
                .write_all(b"220 mail.example.org ready\n")
                .expect("written");
            client.shutdown(Shutdown::Write).expect("half-closed");
        }
    });
    let plugin = start_plugin("stream", directory.path(), &["--origin=in-process", LOG]);
    let (status, _, errors) = plugin.wait();
    assert_eq!(status.code(), Some(4));
    assert!(errors.contains("not the tunnel's protocol"), "{errors}");
}

#[test]
fn a_client_without_a_plugin_gets_a_prompt_end() {
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--origin=in-process"]);
        get(&tunnel.front, "/small").expect("answered");
        tunnel.plugin.signal(Signal::SIGTERM);
        let (status, _, _) = tunnel.plugin.wait();
        assert!(status.success());
        until("clients are turned away", || {
            get(&tunnel.front, "/small").map_or(true, |answer| answer.is_empty())
        });
    }
}

#[test]
fn ring_makes_do_with_the_open_files_there_are() {
    for limits in [[64, 1024], [1024, 64], [64, 64], [150, 150]] {
        let tunnel = Tunnel::start_with_open_files("ring", limits, "--origin-port=0");
        tunnel.plugin.error_line("attached to the host");
        let answer = get(&tunnel.front, "/large").expect("an answer");
        assert!(answer.len() > 256_000, "{limits:?}: {} bytes", answer.len());
    }
}

/// Returns the CPU time of the host's helpers, in nanoseconds.
fn helped_ns(host: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{host}/task")).expect("it runs");
    let of_task = |task: std::path::PathBuf| -> Option<u64> {
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let used = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let used_ns = used.split(' ').next()?.parse().ok()?;
        (name.trim() == "relay-helper").then_some(used_ns)
    };
    let tasks = tasks.map(|task| task.expect("listed").path());
    tasks.filter_map(of_task).sum()
}

#[test]
fn ring_writes_long_answers_on_the_cores_of_their_clients() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("known");
    let cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).expect("a core"));
    let cores: Vec<usize> = cores.take(2).collect();
    if cores.len() < 2 {
        eprintln!("SKIPPED: with one core, it can't be tested that answers go to the right one");
        return;
    }
    let tunnel = Tunnel::start_with("ring", &["--threads=2"], &["--origin=in-process"]);
    get(&tunnel.front, "/small").expect("answered");
    let host = tunnel.host.pid();
    let before = helped_ns(host);
    // The event loop is on one core at a time, so one of the clients is on another.
    thread::scope(|scope| {
        for core in cores {
            let front = &tunnel.front;
            scope.spawn(move || {
                let mut only = CpuSet::new();
                only.set(core).expect("a core");
                sched_setaffinity(Pid::from_raw(0), &only).expect("allowed");
                until("a helper writes", || {
                    let answer = get(front, "/large").expect("answered");
                    assert!(answer.len() > 256_000, "{} bytes", answer.len());
                    helped_ns(host) > before + 1_000_000
                });
            });
        }
    });
}

/// This must hold whichever file is the one too many, and however many are inherited.
#[test]
fn too_few_open_files_are_named_and_end_a_plugin() {
    let server = Running::start(command(bin("http_baseline")).arg("--listen=127.0.0.1:0"));
    let upstream = &format!("--upstream={}", server.line("listening on "));
    thread::scope(|scope| {
        for of_plugin in 8..28 {
            scope.spawn(move || {
                plugin_with_open_files(of_plugin, "--origin=in-process");
                plugin_with_open_files(of_plugin, upstream);
            });
        }
    });
}

fn plugin_with_open_files(of_plugin: u32, origin: &str) {
    let mut tunnel = Tunnel::start_with_open_files("ring", [1024, of_plugin], origin);
    let mut works = false;
    until("it serves, or says why not", || {
        works = get(&tunnel.front, "/small").is_ok_and(|answer| answer.contains("200 OK"));
        // With no file left for an upstream, the session lasts all the same: a file may be closed
        // later.
        works |= tunnel
            .plugin
            .has_logged(&["could not connect to the upstream", "ulimit -n"]);
        works || tunnel.plugin.has_ended()
    });
    if works {
        return;
    }
    let (status, _, errors) = tunnel.plugin.wait();
    let (last, what) = (errors.lines().last(), format!("{of_plugin}: {errors}"));
    let last = last.unwrap_or_default();
    assert!(
        last.starts_with("error: ") && last.contains("ulimit -n"),
        "{what}"
    );
    assert_eq!(status.code(), Some(4), "{what}");
    // The plugin doesn't retry as fast as it can.
    assert!(errors.lines().count() < 100, "{what}");
    if last.contains("could not attach") {
        let (status, _, errors) = tunnel.host.wait();
        assert_eq!(status.code(), Some(4), "{errors}");
        assert!(errors.contains("error: no plugin c"), "{errors}");
    }
}

#[test]
fn an_upstream_that_refuses_is_named_and_counted_on_both_sides() {
    for transport in TRANSPORTS {
        let tunnel = Tunnel::start(transport, &["--upstream=127.0.0.1:1"]);
        tunnel.plugin.error_line("attached to the host");
        assert!(get(&tunnel.front, "/").map_or(true, |answer| answer.is_empty()));
        let line = tunnel
            .plugin
            .error_line("could not connect to the upstream");
        assert!(line.contains("127.0.0.1:1"), "{transport}: {line}");
        for program in ["host", "plugin"] {
            tunnel.until_counted(program, "tunnel_tunnels_failed", |failed| failed == 1);
        }
    }
}
