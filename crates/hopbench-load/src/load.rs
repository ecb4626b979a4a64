//! The closed loop: runs oha and puts together what it measured.

use std::{collections::BTreeMap, fs::File, io::Read, os::fd::AsRawFd, time::Instant};

use anyhow::Context;
use clap::Parser;
use serde::Deserialize;

use crate::{
    Options, cpu,
    records::Database,
    result::{LoadResult, Outcome},
};

/// What is read of oha's own output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OhaOutput {
    summary: Summary,
    error_distribution: BTreeMap<String, u64>,
    details: Details,
}

#[derive(Debug, Deserialize)]
struct Summary {
    /// Seconds.
    total: f64,
}

#[derive(Debug, Deserialize)]
struct Details {
    #[serde(rename = "DNSDialup")]
    dial_up: DialUp,
}

#[derive(Debug, Deserialize)]
struct DialUp {
    /// Seconds; absent if no connection came about.
    slowest: Option<f64>,
}

/// Runs the load.
pub(crate) fn run(options: &Options) -> anyhow::Result<LoadResult> {
    // In memory, as the records are: nothing is left on a disk, however this process ends.
    let output = rustix::fs::memfd_create("oha.json", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut output = File::from(output);
    let output_path = format!("/proc/self/fd/{}", output.as_raw_fd());
    let database = Database::open()?;
    let oha_options = oha_options(options, &output_path, database.url())?;
    let threads = oha_options.worker_threads.get();

    // oha starts its workers by itself; this runtime only waits for them. It is made here so that
    // its thread is never taken for one of them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("wait")
        .enable_all()
        .build()?;
    let usage = cpu::measure(options.duration(), || {
        let started = Instant::now();
        runtime.block_on(oha::run(oha_options))?;
        anyhow::ensure!(
            started.elapsed() >= options.duration(),
            "oha was interrupted"
        );
        Ok(())
    })?;

    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("oha wrote no result")?;
    let output: OhaOutput = serde_json::from_str(&text).context("oha's result has changed")?;
    LoadResult::of(Outcome {
        generator: "oha 1.16.0",
        elapsed_us: output.summary.total * 1e6,
        tally: database.tally(options.expected())?,
        errors: output.error_distribution,
        connect_us_max: output.details.dial_up.slowest.map(|seconds| seconds * 1e6),
        usage,
        threads,
        open_loop: None,
    })
}

/// oha takes its options from a command line only.
fn oha_options(options: &Options, output: &str, database: &str) -> anyhow::Result<oha::Opts> {
    let mut arguments = vec![
        "oha".to_owned(),
        "--no-tui".to_owned(),
        // Requests under way at the end are waited for: aborting them would drop the slowest.
        "-w".to_owned(),
        format!("-z{}ms", options.duration_ms),
        format!("-t{}ms", options.timeout_ms),
        format!("-c{}", options.concurrency),
        format!("-m{}", options.method),
        "--output-format=json".to_owned(),
        format!("--output={output}"),
        format!("--db-url={database}"),
    ];
    if options.no_keepalive {
        arguments.push("--disable-keepalive".to_owned());
    }
    if let Some(threads) = options.threads {
        arguments.push(format!("--worker-threads={threads}"));
    }
    if let Some(body) = &options.body {
        arguments.push(format!("-D{}", body.display()));
    }
    arguments.push(options.url.clone());
    oha::Opts::try_parse_from(arguments).map_err(|error| anyhow::anyhow!("oha: {error}"))
}
