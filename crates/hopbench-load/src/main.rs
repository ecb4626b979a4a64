//! The load generators, in a process of its own: a closed loop (oha 1.16.0 as a library), and an
//! open loop, at a fixed rate.
//!
//! oha prints summaries; a benchmark wants the records. oha can also store every request in SQLite,
//! and here it does so in memory: [`records`] reads them back, so that goodput is counted from
//! status and length, and percentiles from every latency.
//!
//! At a fixed rate oha starts a request when a timer of 1 ms resolution says so, and measures from
//! then on: what the generator itself is late by is nobody's latency. So the open loop is our own
//! ([`open_loop`]), with a latency that begins when the request was due.
#![forbid(unsafe_code)]

mod connections;
mod cpu;
mod digest;
mod latency;
mod load;
mod open_loop;
mod records;
mod result;
mod sampler;
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
use digest::Bodies;
use tally::Expected;

/// Puts an HTTP load on one URL and prints what came of it as one JSON object, and before that an
/// empty line as soon as the last request has ended. The load is a closed loop, or with --rate an
/// open one.
#[derive(Debug, Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " (oha 1.16.0)"))]
struct Options {
    /// What to ask for
    #[arg(long)]
    url: String,
    /// HTTP method
    #[arg(long, default_value = "GET")]
    method: String,
    /// File whose content is sent as the request's body
    #[arg(long, value_name = "FILE")]
    body: Option<std::path::PathBuf>,
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N")]
    concurrency: NonZeroUsize,
    /// Requests per second, whether or not earlier ones are answered: they are due at even
    /// intervals, and a latency begins when its request was due [default: a closed loop, in which
    /// every connection asks again when it has its answer]
    #[arg(long, value_name = "RPS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// With --rate, requests are due at multiples of this, those of one tick together, instead of
    /// at even intervals: fewer wake-ups, and bunches
    #[arg(long, value_name = "US", requires = "rate")]
    tick_us: Option<NonZeroU32>,
    /// How long to start new requests
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    duration_ms: u64,
    /// How long a request may take before it counts as timed out
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout_ms: u64,
    /// A new connection for every request
    #[arg(long)]
    no_keepalive: bool,
    /// Threads that ask [default: one per physical core; with --rate, 1]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The status that a right answer has
    #[arg(long, default_value_t = 200)]
    expect_status: u16,
    /// The length in bytes that a right answer's body has
    #[arg(long, value_name = "BYTES")]
    expect_length: Option<u64>,
    /// The SHA-256 that a right answer's body has, in hexadecimal. With --rate all bodies are
    /// compared; oha's can't be, so a closed loop needs --sample
    #[arg(long, value_name = "HEX")]
    expect_sha256: Option<String>,
    /// In a closed loop, when to ask on a connection of its own and compare the bodies
    #[arg(long, value_enum, requires = "expect_sha256")]
    sample: Option<Sample>,
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
}

/// When bodies are compared in a closed loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Sample {
    /// While the load is on, which it disturbs
    During,
    /// After it, while another short load is on
    After,
    /// The same, but only once a line has come on stdin
    AfterLine,
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
fn main() -> ExitCode {
    let options = Options::parse();
    let (line_in, line) = mpsc::channel();
    if options.exit_with_stdin || options.sample == Some(Sample::AfterLine) {
        let exit = options.exit_with_stdin;
        thread::spawn(move || read_stdin(&line_in, exit));
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

/// The result as JSON.
fn run(options: &Options, line: &Receiver<()>) -> anyhow::Result<String> {
    connections::count()?;
    let result = match options.rate {
        None => load::run(options, line)?,
        Some(rate_rps) => open_loop::run(options, rate_rps)?,
    };
    Ok(serde_json::to_string(&result)?)
}

impl Options {
    fn expected(&self) -> Expected {
        Expected {
            status: self.expect_status,
            length: self.expect_length,
        }
    }

    /// What answers are compared with, if that is known.
    fn bodies(&self) -> Option<Bodies> {
        self.expect_sha256.as_deref().map(Bodies::new)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }
}

/// Passes on that something came. At the end, whoever started this process is gone, and the load
/// must not go on.
#[expect(
    clippy::exit,
    reason = "nothing to clean up, and oha's threads can't be stopped"
)]
fn read_stdin(line: &Sender<()>, exit: bool) {
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(n) if n > 0) {
        // Nobody may wait for it.
        line.send(()).ok();
    }
    if exit {
        std::process::exit(4);
    }
}
