//! The closed loop: runs oha and collects its measurements.

use std::{
    collections::BTreeMap, fs::File, io::Read, os::fd::AsRawFd, sync::mpsc::Receiver, time::Instant,
};

use anyhow::Context;
use clap::Parser;
use serde::Deserialize;

use crate::{
    Options, Sample,
    client::{self, address, front::Protocol},
    compare, connections, cpu,
    records::Database,
    result::{LoadResult, Outcome, Parts},
    tally::{Tally, add_counts},
};

/// The part of oha's output that is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OhaOutput {
    summary: Summary,
    error_distribution: BTreeMap<String, u64>,
    details: Details,
}

#[derive(Debug, Deserialize)]
struct Summary {
    /// In seconds.
    total: f64,
}

#[derive(Debug, Deserialize)]
struct Details {
    #[serde(rename = "DNSDialup")]
    dial_up: DialUp,
}

#[derive(Debug, Deserialize)]
struct DialUp {
    /// In seconds; absent if no connection was opened.
    slowest: Option<f64>,
}

/// Runs the load.
pub(crate) fn run(options: &Options, line: &Receiver<()>) -> anyhow::Result<LoadResult> {
    // In memory, like the records: no file remains, however this process ends.
    let output = rustix::fs::memfd_create("oha.json", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut output = File::from(output);
    let output_path = format!("/proc/self/fd/{}", output.as_raw_fd());
    let database = Database::open()?;
    let oha_options = oha_options(options, &output_path, database.url())?;
    let threads = oha_options.worker_threads.get();

    // oha starts its own workers; this runtime only waits for them. It is built here so that its
    // thread is never taken for a worker.
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
    let connections_opened = connections::opened();
    let mut compared = Tally::new()?;
    if let Some(sample) = options.sample {
        if sample == Sample::AfterLine {
            // The parent process must read the servers' usage before another load starts. `recv`
            // fails at the end of stdin.
            line.recv().ok();
        }
        compared = compare::compare(options)?;
    }

    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("oha wrote no result")?;
    let output: OhaOutput = serde_json::from_str(&text).context("could not read oha's result")?;
    let mut tally = database.tally(
        &options.expected(),
        first_requests(options),
        options.duration(),
    )?;
    add_compared(&mut tally, compared);
    LoadResult::of(Outcome {
        generator: "oha 1.16.0",
        tls: false,
        protocol: Protocol::Http1,
        elapsed_us: output.summary.total * 1e6,
        tally,
        errors: output.error_distribution,
        connect_us_max: output.details.dial_up.slowest.map(|seconds| seconds * 1e6),
        connections_opened: Some(connections_opened),
        usage,
        threads,
        open_loop: None,
        parts: Parts::default(),
    })
}

/// Adds what was found after the load. Only wrong answers count: the requests are not part of it.
fn add_compared(tally: &mut Tally, compared: Tally) {
    add_counts(&mut tally.wrong_beside, compared.wrong);
    add_counts(&mut tally.wrong_beside, compared.wrong_beside);
    tally.digests_checked = compared.digests_checked;
}

/// Returns the number of requests that open a connection which later requests reuse.
fn first_requests(options: &Options) -> u64 {
    match options.no_keepalive {
        true => 0,
        false => options.concurrency.get() as u64,
    }
}

/// Builds oha's options. oha accepts them only as a command line.
fn oha_options(options: &Options, output: &str, database: &str) -> anyhow::Result<oha::Opts> {
    let mut arguments = vec![
        "oha".to_owned(),
        "--no-tui".to_owned(),
        // Wait for requests under way at the end: aborting them would drop the slowest.
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
    arguments.push(format!("--worker-threads={}", client::threads(options)?));
    if let Some(body) = &options.body {
        arguments.push(format!("-D{}", body.display()));
    }
    let connect_to = address::connect_to(&options.url)?;
    arguments.extend(connect_to.map(|connect_to| format!("--connect-to={connect_to}")));
    arguments.push(options.url.clone());
    oha::Opts::try_parse_from(arguments).map_err(|error| anyhow::anyhow!("oha: {error}"))
}
