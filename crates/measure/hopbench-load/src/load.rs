//! The closed loop: runs oha and collects its measurements.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::Receiver,
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::{
    Options, Sample, client, connections, cpu,
    records::Database,
    result::{LoadResult, Outcome, Parts},
    sampler,
    tally::{Tally, add_counts},
};

/// Duration of the load during which bodies are compared. It is repeated until they have been.
const TAIL: Duration = Duration::from_millis(100);

/// No limits, because nothing is measured when bodies are compared during the load.
const DURING: sampler::Limits = sampler::Limits {
    answers: u64::MAX,
    time: Duration::MAX,
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
    let stored = Some(database.url());
    let oha_options = oha_options(options, options.duration(), &output_path, stored)?;
    let threads = oha_options.worker_threads.get();

    // oha starts its own workers; this runtime only waits for them. It is built here so that its
    // thread is never taken for a worker.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("wait")
        .enable_all()
        .build()?;
    let mut sampled = Tally::new()?;
    let is_over = AtomicBool::new(false);
    let (usage, connections_opened) = thread::scope(|scope| {
        let during = (options.sample == Some(Sample::During))
            .then(|| scope.spawn(|| sampler::sample(options, DURING, &is_over)));
        let usage = cpu::measure(options.duration(), || {
            let started = Instant::now();
            runtime.block_on(oha::run(oha_options))?;
            anyhow::ensure!(
                started.elapsed() >= options.duration(),
                "oha was interrupted"
            );
            Ok(())
        });
        is_over.store(true, Relaxed);
        // With a sampler, the count would include the sampler's connections.
        let opened = during.is_none().then(connections::opened);
        if let Some(during) = during {
            sampled = joined(during)?;
        }
        anyhow::Ok((usage?, opened))
    })?;
    if matches!(options.sample, Some(Sample::After | Sample::AfterLine)) {
        if options.sample == Some(Sample::AfterLine) {
            // The parent process must read the servers' usage before another load starts. `recv`
            // fails at the end of stdin.
            line.recv().ok();
        }
        sampled = sample_after(options, &runtime)?;
    }

    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("oha wrote no result")?;
    let output: OhaOutput = serde_json::from_str(&text).context("could not read oha's result")?;
    let mut tally = database.tally(&options.expected(), first_requests(options))?;
    add_sampled(&mut tally, sampled);
    LoadResult::of(Outcome {
        generator: "oha 1.16.0",
        elapsed_us: output.summary.total * 1e6,
        tally,
        errors: output.error_distribution,
        connect_us_max: output.details.dial_up.slowest.map(|seconds| seconds * 1e6),
        connections_opened,
        usage,
        threads,
        open_loop: None,
        parts: Parts::default(),
    })
}

/// Adds what the sampler found. Only its wrong answers count: its requests are not part of the
/// load.
fn add_sampled(tally: &mut Tally, sampled: Tally) {
    add_counts(&mut tally.wrong_beside, sampled.wrong);
    add_counts(&mut tally.wrong_beside, sampled.wrong_beside);
    tally.digests_checked = sampled.digests_checked;
}

/// Returns the number of requests that open a connection which later requests reuse.
fn first_requests(options: &Options) -> u64 {
    match options.no_keepalive {
        true => 0,
        false => options.concurrency.get() as u64,
    }
}

/// Compares bodies during a load of the same kind, which is not measured.
fn sample_after(options: &Options, runtime: &Runtime) -> anyhow::Result<Tally> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| sampler::sample(options, sampler::AFTER, &is_over));
        let mut loaded = Ok(());
        while loaded.is_ok() && !sampler.is_finished() {
            loaded = oha_options(options, TAIL, "/dev/null", None)
                .and_then(|options| runtime.block_on(oha::run(options)));
        }
        is_over.store(true, Relaxed);
        let sampled = joined(sampler);
        loaded?;
        sampled
    })
}

fn joined(sampler: ScopedJoinHandle<'_, anyhow::Result<Tally>>) -> anyhow::Result<Tally> {
    let sampled = sampler.join();
    sampled.map_err(|_| anyhow::anyhow!("the sampler panicked"))?
}

/// Builds oha's options. oha accepts them only as a command line.
fn oha_options(
    options: &Options,
    duration: Duration,
    output: &str,
    database: Option<&str>,
) -> anyhow::Result<oha::Opts> {
    let mut arguments = vec![
        "oha".to_owned(),
        "--no-tui".to_owned(),
        // Wait for requests under way at the end: aborting them would drop the slowest.
        "-w".to_owned(),
        format!("-z{}ms", duration.as_millis()),
        format!("-t{}ms", options.timeout_ms),
        format!("-c{}", options.concurrency),
        format!("-m{}", options.method),
        "--output-format=json".to_owned(),
        format!("--output={output}"),
    ];
    arguments.extend(database.map(|url| format!("--db-url={url}")));
    if options.no_keepalive {
        arguments.push("--disable-keepalive".to_owned());
    }
    arguments.push(format!("--worker-threads={}", client::threads(options)?));
    if let Some(body) = &options.body {
        arguments.push(format!("-D{}", body.display()));
    }
    arguments.push(options.url.clone());
    oha::Opts::try_parse_from(arguments).map_err(|error| anyhow::anyhow!("oha: {error}"))
}
