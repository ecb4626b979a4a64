//! Checks that the open loop measures the truth. A server in this process delays its answers by
//! known times, and the load generator's metrics are printed beside them:
//!
//! ```text
//! cargo build --release -p hopbench-load
//! cargo run --release -p hopbench-load --example injected
//! ```
//!
//! 1. Delays of a known distribution: the measured percentiles against the injected ones.
//! 2. One stall of 500 ms: what the open loop and the closed loop report.
//! 3. CPU time per request of the open loop, against oha at the same rate: at even intervals, and
//!    at oha's ticks.
//!
//! It takes about a minute and a half, and needs an otherwise idle machine.
#![expect(clippy::print_stdout, reason = "the metrics are this program's output")]

#[path = "../tests/support/child.rs"]
mod child;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env,
    io::Write,
    net::TcpStream,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::Value;
use support::{OK, answer, request, server};

/// More connections than the delays keep busy: 5,000/s × 4 ms = 20.
const CONNECTIONS: u32 = 64;
const RATE_RPS: u32 = 5_000;
const SEED: u64 = 20_260_801;

/// A delay is this plus an exponentially distributed time with the mean `DELAY_MORE_US`.
const DELAY_LEAST_US: f64 = 1_000.0;
const DELAY_MORE_US: f64 = 3_000.0;

/// Tolerance for a percentile: 3 % or 50 µs, whichever is more. Loopback and wake-ups take time
/// that the server can't see.
const OFF_SHARE: f64 = 0.03;
const OFF_US: f64 = 50.0;

const STALL_AT: Duration = Duration::from_millis(2_500);
const STALL: Duration = Duration::from_millis(500);

/// Rounds of the comparison of CPU time.
const ROUNDS: usize = 3;

/// Interval at which oha wakes up, in microseconds.
const OHA_TICK_US: u32 = 1_000;

/// Makes this program run oha. As a child, its CPU time can be told apart.
const AS_OHA: &str = "--as-oha";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    if arguments.get(1).is_some_and(|first| first == AS_OHA) {
        return as_oha(&arguments[2..]);
    }
    let this = env::current_exe()?;
    let program = load_generator(&this)?;
    known_delays(&program)?;
    one_stall(&program)?;
    cpu_per_request(&program, &this)
}

/// Finds the load generator, which is one directory above the examples.
fn load_generator(this: &Path) -> anyhow::Result<PathBuf> {
    let target = this.ancestors().nth(2).context("not in a directory")?;
    let program = target.join("hopbench-load");
    anyhow::ensure!(
        program.exists(),
        "'{}' is missing; run 'cargo build --release -p hopbench-load'",
        program.display()
    );
    Ok(program)
}

/// Returns the arguments of a load on this server: a closed loop if `rate_rps` is `None`.
fn load(url: &str, seconds: u32, rate_rps: Option<u32>) -> Vec<String> {
    let mut arguments = vec![
        format!("--url={url}"),
        format!("--concurrency={CONNECTIONS}"),
        format!("--duration-ms={}", seconds * 1_000),
        "--expect-length=2".to_owned(),
    ];
    arguments.extend(rate_rps.map(|rate| format!("--rate={rate}")));
    arguments
}

/// Returns a number from a result; NaN if it is missing.
fn metric(result: &Value, of: &str, name: &str) -> f64 {
    result[of][name].as_f64().unwrap_or(f64::NAN)
}

fn known_delays(program: &Path) -> anyhow::Result<()> {
    // The server can't see the way to itself and back.
    let url = server(|client| drop(answer(client, OK)));
    let (result, _) = child::run(program, &load(&url, 5, Some(RATE_RPS)))?;
    let way_us = metric(&result, "latency", "p50_us");
    let held = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let (record, requests) = (Arc::clone(&held), AtomicU64::new(0));
    let url = server(move |mut client| {
        precise_sleeps();
        while request(&mut client) {
            let read = Instant::now();
            sleep(delay(requests.fetch_add(1, Relaxed)));
            let held = read.elapsed();
            if client.write_all(OK.as_bytes()).is_err() {
                return;
            }
            let ns = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
            record.lock().expect("no panic").record(ns).ok();
        }
    });
    let (result, _) = child::run(program, &load(&url, 10, Some(RATE_RPS)))?;
    let held = held.lock().expect("no panic");
    println!("1. known delays: {RATE_RPS}/s for 10 s over {CONNECTIONS} connections");
    println!("   without delays p50 {way_us:.1} µs: the round trip, with its wake-ups");
    println!("         injected     measured   difference            less the trip");
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
        let injected_us = held.value_at_quantile(quantile) as f64 / 1e3;
        let measured_us = metric(&result, "latency", &format!("{name}_us"));
        let off_us = measured_us - injected_us;
        let within = off_us.abs() <= OFF_US.max(OFF_SHARE * injected_us);
        println!(
            "   {name:5} {injected_us:9.1} µs {measured_us:9.1} µs {off_us:+7.1} µs {:+6.2} % \
             {:+7.1} µs  {}",
            off_us / injected_us * 100.0,
            off_us - way_us,
            if within { "within" } else { "TOO FAR OFF" }
        );
    }
    println!("   {}\n", schedule_kept(&result));
    Ok(())
}

/// Describes how well the schedule was kept.
fn schedule_kept(result: &Value) -> String {
    let late = |name| metric(result, "open_loop", name);
    format!(
        "good {} of {}, dropped {}; started late by p50 {:.1} µs, p99 {:.1} µs, max {:.1} µs",
        result["good"],
        result["open_loop"]["scheduled"],
        result["open_loop"]["dropped"],
        late("late_us_p50"),
        late("late_us_p99"),
        late("late_us_max")
    )
}

/// Returns the delay of a request, the same in every run.
fn delay(request: u64) -> Duration {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut bits = SEED.wrapping_add(request.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // In (0, 1]; a float has 53 bits.
    let uniform = ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64((DELAY_LEAST_US - DELAY_MORE_US * uniform.ln()) / 1e6)
}

fn one_stall(program: &Path) -> anyhow::Result<()> {
    println!("2. one stall of {} ms in 5 s", STALL.as_millis());
    for (name, rate_rps) in [("open loop", Some(RATE_RPS)), ("closed loop", None)] {
        let url = stalling_server();
        let (result, _) = child::run(program, &load(&url, 5, rate_rps))?;
        println!(
            "   {name:11}: p99.9 {:9.1} µs, max {:9.1} µs, of {} requests",
            metric(&result, "latency", "p999_us"),
            metric(&result, "latency", "max_us"),
            result["good"]
        );
    }
    println!();
    Ok(())
}

/// Starts a server that answers nothing during the stall.
fn stalling_server() -> String {
    let first = OnceLock::new();
    server(move |mut client: TcpStream| {
        precise_sleeps();
        while request(&mut client) {
            let elapsed = first.get_or_init(Instant::now).elapsed();
            if elapsed >= STALL_AT {
                sleep((STALL_AT + STALL).saturating_sub(elapsed));
            }
            if client.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn cpu_per_request(program: &Path, this: &Path) -> anyhow::Result<()> {
    let url = server(|client| drop(answer(client, OK)));
    println!("3. CPU time of the whole process, 3 s, {ROUNDS} times in turn");
    // oha wakes up a thousand times per second at any rate: once per request at the first of these
    // rates, once per five requests at the second. So it is compared with an open loop that has as
    // many wake-ups, too.
    for rate_rps in [1_000, RATE_RPS] {
        let oha = |threads: &[String]| {
            let options = ["--no-tui", "--output-format=json", "-z3s"].map(str::to_owned);
            let of_load = [format!("-q{rate_rps}"), format!("-c{CONNECTIONS}")];
            [
                &[AS_OHA.to_owned()],
                &options[..],
                &of_load,
                threads,
                std::slice::from_ref(&url),
            ]
            .concat()
        };
        let mut in_ticks = load(&url, 3, Some(rate_rps));
        in_ticks.push(format!("--tick-us={OHA_TICK_US}"));
        let generators = [
            ("open loop", program, load(&url, 3, Some(rate_rps))),
            ("open loop, ticks", program, in_ticks),
            ("oha -q", this, oha(&[])),
            (
                "oha -q, one thread",
                this,
                oha(&["--worker-threads=1".to_owned()]),
            ),
        ];
        let mut spent_us = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for ((_, program, arguments), spent_us) in generators.iter().zip(&mut spent_us) {
                let (result, cpu_us) = child::run(program, arguments)?;
                spent_us.push(cpu_us / answered(&result));
            }
        }
        for ((name, ..), mut spent_us) in generators.into_iter().zip(spent_us) {
            spent_us.sort_by(f64::total_cmp);
            println!(
                "   {rate_rps}/s {name:18}: {:5.1} µs/request (from {:.1} to {:.1})",
                spent_us[ROUNDS / 2],
                spent_us[0],
                spent_us[ROUNDS - 1]
            );
        }
    }
    Ok(())
}

/// Reads the number of answers from the output of either generator.
fn answered(result: &Value) -> f64 {
    let by_status = result["statusCodeDistribution"].as_object();
    let oha = by_status.map(|counts| counts.values().filter_map(Value::as_f64).sum());
    oha.or_else(|| result["good"].as_f64()).unwrap_or(f64::NAN)
}

fn as_oha(arguments: &[String]) -> anyhow::Result<()> {
    let arguments = [&["oha".to_owned()], arguments].concat();
    let options = oha::Opts::try_parse_from(arguments)?;
    // oha starts its own workers; this runtime only waits for them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(oha::run(options))
}

/// Removes the 50 µs by which the kernel may prolong this thread's sleeps.
fn precise_sleeps() {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).expect("allowed to everyone");
}

#[expect(clippy::disallowed_methods, reason = "the delay is what is measured")]
fn sleep(time: Duration) {
    thread::sleep(time);
}
