//! The origin on a TCP or Unix listener: the direct path.
#![forbid(unsafe_code)]

mod inject;

use std::{num::NonZeroUsize, process::ExitCode, time::Duration};

use clap::Parser;
use origin::{process, server};

/// Serves the origin directly: what a hop is compared with
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to listen: HOST:PORT or unix:PATH. Port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:4000", value_name = "ADDR")]
    listen: server::Address,
    /// Threads that serve; default: one per core
    #[arg(long, value_name = "N", value_parser = process::threads)]
    threads: Option<NonZeroUsize>,
    /// How long open requests may take to finish after SIGTERM or SIGINT
    #[arg(long, default_value_t = 2_000, value_name = "MS")]
    drain_ms: u64,
    /// Stop when stdin reaches its end
    #[arg(long)]
    exit_with_stdin: bool,
    /// What to log on stderr: a level, or a filter such as 'origin=debug'
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
    /// Print what the endpoints (or these targets) answer, as JSON, and exit
    #[arg(long, num_args = 0.., value_name = "TARGET")]
    describe: Option<Vec<String>>,
    #[command(flatten)]
    inject: inject::Inject,
}

fn main() -> ExitCode {
    process::exit_code(run(Options::parse()))
}

fn run(options: Options) -> anyhow::Result<()> {
    process::log_to_stderr(&options.log)?;
    if let Some(targets) = options.describe {
        let expectations = origin::describe_all(&targets)?;
        process::say(&serde_json::to_string_pretty(&expectations)?);
        return Ok(());
    }
    process::raise_open_files_limit();
    process::runtime("origin", options.threads)?.block_on(async {
        let stop = process::stop_requested(options.exit_with_stdin)?;
        let listener = server::Listener::bind(&options.listen)?;
        process::say(&format!("listening on {}", listener.address()?));
        let drain = Duration::from_millis(options.drain_ms);
        let router = options.inject.announced().add_to(origin::router());
        let accepted = server::serve(listener, router, stop, drain).await?;
        process::say(&format!("{{\"connections_accepted\":{accepted}}}"));
        Ok(())
    })
}
