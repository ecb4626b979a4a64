//! The load generators, in a process of their own: a closed loop (oha 1.16.0 as a library), and an
//! open loop at a fixed rate.
//!
//! oha prints summaries, but a benchmark needs the records. oha can store every request in SQLite;
//! here it does so in memory, and [`records`] reads them back. So goodput is counted from status
//! and length, and percentiles are computed from every latency.
//!
//! At a fixed rate, oha starts a request when a timer with 1 ms resolution fires, and measures from
//! then on, so the generator's own delay is part of no latency. The client here ([`client`]) is our
//! own: a latency of an open loop begins when its request was due. It also runs the closed loops
//! that oha can't: several kinds of requests, a number of requests, stages.
#![forbid(unsafe_code)]

mod client;
mod compare;
mod connections;
mod cpu;
mod digest;
mod latency;
mod load;
mod plan;
mod records;
mod requests;
mod result;
mod tally;

use std::{
    io::Read,
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use client::front::Protocol;
use plan::LoadPlan;
use tally::Expected;

/// Put an HTTP load on one URL and print the result as one JSON object. An empty line is printed
/// before it, as soon as the last request has ended. The load is a closed loop, or an open loop
/// with --rate.
#[derive(Clone, Debug, Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " (oha 1.16.0)"))]
struct Options {
    /// URL to request
    #[arg(long)]
    url: String,
    /// Protocol by which the URL is requested, by our own client if it isn't HTTP/1.1. Over TLS, no
    /// other is accepted
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// PEM file with the certificate of the authority that must have signed the server's, for a URL
    /// that begins with 'https://'. Such a URL is requested by our own client
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// HTTP method
    #[arg(long, default_value = "GET")]
    method: String,
    /// File to send as the request body
    #[arg(long, value_name = "FILE")]
    body: Option<std::path::PathBuf>,
    /// Number of connections, each with one request at a time
    #[arg(long, value_name = "N")]
    concurrency: NonZeroUsize,
    /// Requests per second (open loop). Requests are due at even intervals, whether or not earlier
    /// ones are answered, and a latency begins when its request was due [default: a closed loop, in
    /// which each connection sends its next request when it has its answer]
    #[arg(long, value_name = "RPS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// With --rate, interval in microseconds at whose multiples requests are due, all requests of
    /// an interval together. Fewer wake-ups, but bursts [default: requests are due at even
    /// intervals]
    #[arg(long, value_name = "US", requires = "rate")]
    tick_us: Option<NonZeroU32>,
    /// Number of requests after which the load ends. A closed loop also ends after --duration-ms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    requests: Option<u64>,
    /// JSON file with the requests and the stages of the load, instead of one request
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "body", "expect_status",
        "expect_length", "expect_sha256", "sample"])]
    plan: Option<std::path::PathBuf>,
    /// With --plan, take the levels of its stages as rates [default: as numbers of connections]
    #[arg(long, requires = "plan", conflicts_with = "rate")]
    open_loop: bool,
    /// In a closed loop, use the client of the open loop instead of oha
    #[arg(long)]
    own_client: bool,
    /// Time during which to start new requests, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    duration_ms: u64,
    /// Time after which a request counts as timed out, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout_ms: u64,
    /// Open a new connection for every request
    #[arg(long)]
    no_keepalive: bool,
    /// Threads that send requests [default: one per physical core; with --rate, 1]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Status of a correct answer
    #[arg(long, default_value_t = 200)]
    expect_status: u16,
    /// Length of a correct answer's body, in bytes
    #[arg(long, value_name = "BYTES")]
    expect_length: Option<u64>,
    /// SHA-256 of a correct answer's body, in hexadecimal. Our own client compares every body. oha
    /// doesn't give out its own, so it needs --sample
    #[arg(long, value_name = "HEX")]
    expect_sha256: Option<String>,
    /// After a closed loop of oha, go on for a while with our own client, and compare every body
    #[arg(long, value_enum, requires = "expect_sha256")]
    sample: Option<Sample>,
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
}

/// When bodies are compared after a closed loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Sample {
    /// At once
    After,
    /// Once a line has arrived on stdin
    AfterLine,
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
fn main() -> ExitCode {
    let options = Options::parse();
    let (line_in, line) = mpsc::channel();
    if options.exit_with_stdin || options.sample == Some(Sample::AfterLine) {
        let exit = options.exit_with_stdin;
        let read = move || read_stdin(&line_in, exit);
        if let Err(error) = thread::Builder::new().spawn(read) {
            eprintln!("error: could not start a thread that reads stdin: {error}");
            return ExitCode::from(4);
        }
    }
    match run(&options, &line) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(4)
        }
    }
}

/// Runs the load and returns the result as JSON.
fn run(options: &Options, line: &Receiver<()>) -> anyhow::Result<String> {
    connections::count()?;
    let plan = options.plan.as_deref().map(LoadPlan::read).transpose()?;
    let is_plain = options.protocol.is_http1() && !options.url.starts_with("https:");
    let needs_own_client =
        options.rate.is_some() || options.requests.is_some() || plan.is_some() || !is_plain;
    let result = match needs_own_client || options.own_client {
        true => client::run(options, plan.as_ref())?,
        false => load::run(options, line)?,
    };
    Ok(serde_json::to_string(&result)?)
}

impl Options {
    fn expected(&self) -> Expected {
        Expected {
            status: self.expect_status,
            length: self.expect_length,
            sha256: self.expect_sha256.clone(),
            headers: Vec::new(),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }
}

/// Sends a message to `line` whenever stdin has data. The end of stdin means that the parent
/// process is gone; if `exit` is set, the load must end with it.
#[expect(
    clippy::exit,
    reason = "nothing to clean up, and oha's threads can't be stopped"
)]
fn read_stdin(line: &Sender<()>, exit: bool) {
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(n) if n > 0) {
        // The receiver may be gone.
        line.send(()).ok();
    }
    if exit {
        std::process::exit(4);
    }
}
