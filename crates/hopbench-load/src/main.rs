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

mod cpu;
mod latency;
mod load;
mod open_loop;
mod records;
mod result;
mod tally;

use std::{
    io::Read,
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Parser;
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
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
fn main() -> ExitCode {
    let options = Options::parse();
    if options.exit_with_stdin {
        thread::spawn(exit_at_end_of_stdin);
    }
    match run(&options) {
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
fn run(options: &Options) -> anyhow::Result<String> {
    let result = match options.rate {
        None => load::run(options)?,
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

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }
}

/// Whoever started this process is gone: the load must not go on.
#[expect(
    clippy::exit,
    reason = "nothing to clean up, and oha's threads can't be stopped"
)]
fn exit_at_end_of_stdin() {
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(n) if n > 0) {}
    std::process::exit(4);
}
