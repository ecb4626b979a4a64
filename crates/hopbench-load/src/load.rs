//! The closed loop: runs oha and puts together what it measured.

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
    Options, Sample, connections, cpu,
    records::Database,
    result::{LoadResult, Outcome},
    sampler,
    tally::{Tally, add_counts},
};

/// How long the load beside which bodies are compared lasts at least; it is put on again for as
/// long as that takes.
const TAIL: Duration = Duration::from_millis(100);

/// As many answers as there is time for: nothing is measured meanwhile.
const DURING: sampler::Limits = sampler::Limits {
    answers: u64::MAX,
    time: Duration::MAX,
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
pub(crate) fn run(options: &Options, line: &Receiver<()>) -> anyhow::Result<LoadResult> {
    // In memory, as the records are: nothing is left on a disk, however this process ends.
    let output = rustix::fs::memfd_create("oha.json", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut output = File::from(output);
    let output_path = format!("/proc/self/fd/{}", output.as_raw_fd());
    let database = Database::open()?;
    let stored = Some(database.url());
    let oha_options = oha_options(options, options.duration(), &output_path, stored)?;
    let threads = oha_options.worker_threads.get();

    // oha starts its workers by itself; this runtime only waits for them. It is made here so that
    // its thread is never taken for one of them.
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
        // Those of the sampler are counted with the load's.
        let opened = during.is_none().then(connections::opened);
        if let Some(during) = during {
            sampled = joined(during)?;
        }
        anyhow::Ok((usage?, opened))
    })?;
    if matches!(options.sample, Some(Sample::After | Sample::AfterLine)) {
        if options.sample == Some(Sample::AfterLine) {
            // Whoever reads what the servers have used must do so before there is another load. It
            // fails at the end of stdin.
            line.recv().ok();
        }
        sampled = sample_after(options, &runtime)?;
    }

    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("oha wrote no result")?;
    let output: OhaOutput = serde_json::from_str(&text).context("oha's result has changed")?;
    let mut tally = database.tally(options.expected(), first_requests(options))?;
    // Of these only what was wrong: they are not part of what is measured.
    add_counts(&mut tally.wrong_beside, sampled.wrong);
    add_counts(&mut tally.wrong_beside, sampled.wrong_beside);
    tally.digests_checked = sampled.digests_checked;
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
    })
}

/// Requests that open a connection which others are asked on.
fn first_requests(options: &Options) -> u64 {
    match options.no_keepalive {
        true => 0,
        false => options.concurrency.get() as u64,
    }
}

/// Compares bodies under a load of the same kind, which nobody measures.
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

/// oha takes its options from a command line only.
fn oha_options(
    options: &Options,
    duration: Duration,
    output: &str,
    database: Option<&str>,
) -> anyhow::Result<oha::Opts> {
    let mut arguments = vec![
        "oha".to_owned(),
        "--no-tui".to_owned(),
        // Requests under way at the end are waited for: aborting them would drop the slowest.
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
    if let Some(threads) = options.threads {
        arguments.push(format!("--worker-threads={threads}"));
    }
    if let Some(body) = &options.body {
        arguments.push(format!("-D{}", body.display()));
    }
    arguments.push(options.url.clone());
    oha::Opts::try_parse_from(arguments).map_err(|error| anyhow::anyhow!("oha: {error}"))
}
