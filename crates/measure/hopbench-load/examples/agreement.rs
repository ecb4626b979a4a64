//! Compares the two clients of closed loops, oha and our own, on the same work. The server is
//! `http_baseline`, and clients take turns in blocks:
//!
//! ```text
//! cargo build --release
//! cargo run --release -p hopbench-load --example agreement
//! ```
//!
//! For each target and number of connections, it prints our own client's requests per second, CPU
//! time per request and the server's CPU time per request, as shares of those with oha, with the
//! interval of the signed-rank test over the blocks. It takes about four minutes, and needs an
//! otherwise idle machine.
#![expect(clippy::print_stdout, reason = "the metrics are this program's output")]

#[path = "../tests/support/child.rs"]
mod child;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::Context;
use hopbench_analysis::estimate::Estimate;
use serde_json::Value;

const TARGETS: [(&str, u64); 2] = [("/small", 2), ("/bytes/262144", 262_144)];
const CONNECTIONS: [u32; 3] = [1, 8, 64];
const BLOCKS: usize = 10;
const DURATION_MS: u32 = 1_500;

/// Ticks per second of the times in `/proc/PID/stat`.
const TICKS: f64 = 100.0;

/// Requests per second of one load, and its costs per request.
#[derive(Clone, Copy)]
struct Cost {
    rps: f64,
    client_us: f64,
    server_us: f64,
}

/// A server that is killed when this ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn main() -> anyhow::Result<()> {
    let this = env::current_exe()?;
    let directory = this.ancestors().nth(2).context("not in a directory")?;
    let (mut server, url) = start(&program(directory, "http_baseline")?)?;
    let generator = program(directory, "hopbench-load")?;
    println!("own client over oha, {BLOCKS} blocks of {DURATION_MS} ms");
    println!(
        "target          c  requests/s               client CPU/request       server CPU/request"
    );
    for (target, length) in TARGETS {
        for connections in CONNECTIONS {
            let mut ratios = [const { Vec::new() }; 3];
            for block in 0..BLOCKS {
                let mut costs = [None; 2];
                // Whoever is first in one block is second in the next.
                for turn in 0..2 {
                    let own = (block + turn) % 2;
                    let mut options = vec![
                        format!("--url={url}{target}"),
                        format!("--concurrency={connections}"),
                        format!("--duration-ms={DURATION_MS}"),
                        format!("--expect-length={length}"),
                    ];
                    options.extend((own == 1).then(|| "--own-client".to_owned()));
                    costs[own] = Some(cost(&generator, &options, &server)?);
                }
                let [Some(oha), Some(own)] = costs else {
                    anyhow::bail!("a client had no turn");
                };
                ratios[0].push(own.rps / oha.rps);
                ratios[1].push(own.client_us / oha.client_us);
                ratios[2].push(own.server_us / oha.server_us);
            }
            let told = ratios.map(|ratios| {
                let estimate = Estimate::of(ratios.iter().copied());
                estimate.map_or_else(String::new, |it| {
                    let [ratio, low, high] = [it.ratio, it.low, it.high].map(|it| it * 100.0);
                    format!("{ratio:5.1} % ({low:.1}–{high:.1})")
                })
            });
            println!(
                "{target:<13} {connections:>3}  {:<24} {:<24} {}",
                told[0], told[1], told[2]
            );
        }
    }
    server.0.kill().ok();
    Ok(())
}

/// Finds a program, which is one directory above the examples.
fn program(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let program = directory.join(name);
    anyhow::ensure!(
        program.exists(),
        "'{}' is missing; run 'cargo build --release'",
        program.display()
    );
    Ok(program)
}

/// Starts the origin; returns its URL.
fn start(program: &Path) -> anyhow::Result<(Server, String)> {
    let mut server = Server(child::start(program, &["--listen=127.0.0.1:0"]));
    let output = server.0.stdout.take().context("the output is captured")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on ");
    let address = address.with_context(|| format!("the server said '{line}'"))?;
    Ok((server, format!("http://{address}")))
}

fn cost(generator: &Path, options: &[String], server: &Server) -> anyhow::Result<Cost> {
    let before_us = cpu_us(server.0.id())?;
    let (result, _) = child::run(generator, options)?;
    let server_us = cpu_us(server.0.id())? - before_us;
    let number = |name: &str| result[name].as_f64().context("a number is missing");
    let good = number("good")?;
    let is_right = result["wrong"] == Value::Object(Default::default());
    anyhow::ensure!(
        is_right && good > 0.0,
        "not all answers were right: {result}"
    );
    Ok(Cost {
        rps: good / number("elapsed_us")? * 1e6,
        client_us: number("cpu_us")? / good,
        server_us: server_us / good,
    })
}

/// Returns the CPU time of a process so far, in microseconds (proc_pid_stat(5), fields 14 and 15).
fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("'stat' has no name")?;
    let times = after_name.split_whitespace().skip(11).take(2);
    let ticks: f64 = times.map(|it| it.parse::<f64>().unwrap_or(f64::NAN)).sum();
    Ok(ticks / TICKS * 1e6)
}
