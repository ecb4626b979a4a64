//! Goal: the throughput, latency and memory of the main modes: record, replay, and
//! passthrough-cache, cold and warm. Method: an upstream and a proxy in this process, a number of
//! clients, and one line of figures per scenario.
//!
//! ```text
//! cargo test --test performance_harness -- --ignored --nocapture
//! ```
//!
//! `docs/REPLAY.md` explains the variables and the fields. It asserts that every answer is right
//! and comes from where it should, but no figure: those depend on the machine.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use replay_proxy::{Freshness, Mode, Running, Settings, start};
use service::{AdminAddress, Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The size of the load.
#[derive(Clone, Copy)]
struct Load {
    requests: usize,
    concurrency: usize,
    warmup: usize,
    response_bytes: usize,
}

/// The result of one load.
#[derive(Default)]
struct Measured {
    latencies_us: Vec<u64>,
    errors: usize,
    bytes: usize,
    total: Duration,
}

/// One scenario.
struct Scenario {
    name: &'static str,
    mode: Mode,
    warmup: usize,
    /// Expected of `/_admin/status` at its end: hits, misses, requests to the upstream.
    counted: [usize; 3],
}

impl Load {
    fn from_environment() -> Self {
        Self {
            requests: number("REPLAYPROXY_PERF_REQUESTS", 1_000),
            concurrency: number("REPLAYPROXY_PERF_CONCURRENCY", 32).max(1),
            warmup: number("REPLAYPROXY_PERF_WARMUP", 100),
            response_bytes: number("REPLAYPROXY_PERF_RESPONSE_BYTES", 2_048),
        }
    }

    fn scenarios(self) -> [Scenario; 4] {
        let all = self.requests + self.warmup;
        let of = |name, mode, warmup, counted| Scenario {
            name,
            mode,
            warmup,
            counted,
        };
        [
            of("record", Mode::Record, self.warmup, [0, 0, all]),
            of("replay", Mode::Replay, self.warmup, [all, 0, 0]),
            // A cold cache has seen nothing.
            of(
                "passthrough-cache-cold",
                Mode::PassthroughCache,
                0,
                [0, self.requests, self.requests],
            ),
            of(
                "passthrough-cache-warm",
                Mode::PassthroughCache,
                self.warmup,
                [all, 0, 0],
            ),
        ]
    }
}

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: '{text}' is no number")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark: run it with --ignored --nocapture"]
async fn performance_harness() {
    let load = Load::from_environment();
    let upstream = upstream(load.response_bytes).await;
    let directory = tempfile::TempDir::new().expect("a directory");
    for scenario in load.scenarios() {
        // What is replayed was recorded just before; what is warm was cold just before.
        let store = match scenario.mode {
            Mode::Record | Mode::Replay => directory.path().join("recorded"),
            Mode::PassthroughCache => directory.path().join("cached"),
        };
        run(load, &scenario, upstream, &store).await;
    }
}

/// Runs a scenario on a proxy of its own and prints its line.
async fn run(load: Load, scenario: &Scenario, upstream: SocketAddr, store: &Path) {
    let (proxy, admin) = proxy(scenario.mode, upstream, store).await;
    // Warm-ups ask for the same targets in a store that has them, or for others.
    let warm_up = if scenario.mode == Mode::Record {
        "warm-up"
    } else {
        "measured"
    };
    let warmed = ask_all(proxy.address, load, warm_up, scenario.warmup).await;
    assert_eq!(warmed.errors, 0, "{}: in the warm-up", scenario.name);
    let before = memory_kib();
    let measured = ask_all(proxy.address, load, "measured", load.requests).await;
    let after = memory_kib();
    let status = status(&admin).await;
    let totals = [
        "cache_hits_total",
        "cache_misses_total",
        "upstream_requests_total",
    ]
    .map(|name| usize::try_from(status[name].as_u64().expect(name)).expect("small"));
    print_line(
        scenario.name,
        load.requests,
        measured.figures(),
        [before, after],
        totals,
    );
    assert_eq!(measured.errors, 0, "{}: wrong answers", scenario.name);
    assert_eq!(
        totals, scenario.counted,
        "{}: hits, misses, upstream requests",
        scenario.name
    );
    proxy.stop(Duration::from_secs(5)).await;
}

async fn proxy(mode: Mode, upstream: SocketAddr, store: &Path) -> (Running, std::path::PathBuf) {
    let settings = Settings {
        upstream: Some(http_proxy::Place::Address(upstream)),
        freshness: Freshness::Forever,
        ..Settings::new(mode, store.to_owned())
    };
    let registry = Registry::default();
    let listen = "127.0.0.1:0".parse().expect("an address");
    let running = start(settings, &listen, &registry)
        .await
        .expect("it starts");
    let socket = store.with_extension(format!("{}.sock", running.address.port()));
    let admin: AdminAddress = format!("unix:{}", socket.display())
        .parse()
        .expect("an address");
    running.serve_admin(&admin, &registry).expect("a socket");
    (running, socket)
}

/// Starts an upstream whose answers have a length and name their target.
async fn upstream(response_bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("a client");
            client.set_nodelay(true).expect("set");
            let serve = service_fn(move |request: Request<Incoming>| async move {
                let body = payload(request.uri().path(), response_bytes);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(client), serve);
            tokio::spawn(serving);
        }
    });
    address
}

fn payload(path: &str, bytes: usize) -> Vec<u8> {
    path.bytes().cycle().take(bytes).collect()
}

/// Asks for a number of targets that all differ, with a number of clients.
async fn ask_all(address: SocketAddr, load: Load, name: &'static str, count: usize) -> Measured {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..load.concurrency.min(count) {
        let next = Arc::clone(&next);
        clients.spawn(async move {
            let mut measured = Measured::default();
            let mut client = connect(address).await;
            loop {
                let index = next.fetch_add(1, Relaxed);
                if index >= count {
                    return measured;
                }
                let path = format!("/{name}/{index}");
                measured.ask(&mut client, &path, load.response_bytes).await;
            }
        });
    }
    let mut all = Measured::default();
    while let Some(measured) = clients.join_next().await {
        let measured = measured.expect("no panic");
        all.latencies_us.extend(measured.latencies_us);
        all.errors += measured.errors;
        all.bytes += measured.bytes;
    }
    all.total = begin.elapsed();
    all
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("set");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    client
}

impl Measured {
    async fn ask(&mut self, client: &mut SendRequest<Empty<Bytes>>, path: &str, bytes: usize) {
        let request = Request::get(path).header("host", "perf").body(Empty::new());
        let begin = Instant::now();
        client.ready().await.expect("it answers");
        let answered = client.send_request(request.expect("a request")).await;
        let answer = match answered {
            Ok(response) if response.status() == StatusCode::OK => response
                .into_body()
                .collect()
                .await
                .ok()
                .map(|body| body.to_bytes()),
            _ => None,
        };
        let latency_us = u64::try_from(begin.elapsed().as_micros()).expect("short");
        match answer {
            Some(body) if body == payload(path, bytes) => {
                self.latencies_us.push(latency_us);
                self.bytes += body.len();
            }
            _ => self.errors += 1,
        }
    }

    /// Returns the figures of the line, up to the bytes.
    fn figures(&self) -> String {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let success = sorted.len();
        let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1e3;
        let percentile = |percent: usize| {
            let rank = (success * percent).div_ceil(100).max(1) - 1;
            ms(sorted.get(rank).copied().unwrap_or_default())
        };
        let average = ms(sorted.iter().sum::<u64>() / success.max(1) as u64);
        let seconds = self.total.as_secs_f64();
        format!(
            "success={success} errors={} throughput_rps={:.2} total_ms={:.2} \
             latency_avg_ms={average:.3} latency_p50_ms={:.3} latency_p95_ms={:.3} \
             latency_p99_ms={:.3} latency_max_ms={:.3} response_bytes_total={}",
            self.errors,
            success as f64 / seconds,
            seconds * 1e3,
            percentile(50),
            percentile(95),
            percentile(99),
            percentile(100),
            self.bytes,
        )
    }
}

#[expect(clippy::print_stdout, reason = "the harness's output")]
fn print_line(
    scenario: &str,
    requests: usize,
    figures: String,
    memory: [(i64, i64); 2],
    [hits, misses, upstream]: [usize; 3],
) {
    let [(before, _), (after, highest)] = memory;
    println!(
        "perf_result scenario={scenario} requests={requests} {figures} rss_before_kib={before} \
         rss_after_kib={after} rss_delta_kib={} hwm_after_kib={highest} cache_hits_total={hits} \
         cache_misses_total={misses} upstream_requests_total={upstream}",
        after - before,
    );
}

/// Returns the memory of this process and the most that it had, in KiB; 0 where that isn't known.
fn memory_kib() -> (i64, i64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    (value("VmRSS:").unwrap_or(0), value("VmHWM:").unwrap_or(0))
}

async fn status(admin: &Path) -> serde_json::Value {
    let stream = tokio::net::UnixStream::connect(admin)
        .await
        .expect("it listens");
    let (mut client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::get("/_admin/status").header("host", "admin");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    let body = response
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}
