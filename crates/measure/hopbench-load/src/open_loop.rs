//! The open loop: sends requests at a fixed rate, whether or not earlier ones are answered.
//!
//! | module | purpose |
//! |---|---|
//! | [`schedule`] | decides which request starts when, on which connection; no clock, no I/O |
//! | [`worker`] | one thread: a timer, and one task per connection |
//! | [`connection`] | one connection and the request under way on it, in one task |
//! | [`pacer`], [`lead`], [`deadline`] | clock and timers |
//! | [`sleep`] | records when a thread waited for the path |
//! | [`own_wakes`] | keeps a task from waking itself |
//! | [`target`] | the request, and the server's address |
//!
//! A latency begins when its request was due. If the request starts later, because every connection
//! is busy or because this program is late, that delay is part of the latency. So a stall can't
//! hide the requests that it held up (coordinated omission).

pub(crate) mod connection;
mod deadline;
mod lead;
mod own_wakes;
mod pacer;
mod schedule;
mod sleep;
pub(crate) mod target;
mod worker;

use std::{
    num::NonZeroU64,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, LocalOptions};

use crate::{
    Options, connections,
    cpu::{Usage, connections_after, say_over},
    latency::quantile_us,
    result::{LoadResult, OpenLoop, Outcome},
};
use pacer::now_ns;
use schedule::{Share, Timing};
use sleep::Sleeps;
use target::RequestTarget;
use worker::{Record, Worker};

/// Time from the start signal until the first request is due: enough for every thread to be ready.
const LEAD: Duration = Duration::from_millis(10);

/// Maximum number of connections to one address: there are no more local ports.
const CONNECTIONS_MAX: usize = 65_535;

/// Channels that keep a thread in step with the others.
struct Signals {
    /// Gets a message when the thread's connections are open.
    ready: SyncSender<()>,
    /// Delivers the start of the load, in nanoseconds of the pacer's clock.
    start: Receiver<u64>,
    /// Dropped when the thread's last request has ended.
    done: SyncSender<()>,
}

/// Runs the load.
pub(crate) fn run(options: &Options, rate_rps: u32) -> anyhow::Result<LoadResult> {
    let scheduled = schedule::arrivals(rate_rps, options.duration_ms);
    let timing = Timing {
        rate_rps,
        tick_us: options.tick_us,
        duration_ms: options.duration_ms,
    };
    anyhow::ensure!(
        scheduled > 0,
        "'--rate={rate_rps}' is less than one request in '--duration-ms={}'; raise one of them",
        options.duration_ms
    );
    let connections = options.concurrency.get();
    anyhow::ensure!(
        connections <= CONNECTIONS_MAX,
        "'--concurrency={connections}' is more than the {CONNECTIONS_MAX} connections that one \
         address can have"
    );
    let target = RequestTarget::of(options)?;
    let threads = options
        .threads
        .map_or(1, |threads| threads.get().min(connections));
    let (records, usage, connections_opened) = run_threads(options, timing, &target, threads)?;
    let mut all = Record::new()?;
    for record in records {
        all.add(record)?;
    }
    let duration_us = options.duration_ms as f64 * 1e3;
    LoadResult::of(Outcome {
        generator: concat!("hopbench-load ", env!("CARGO_PKG_VERSION"), ", open loop"),
        elapsed_us: duration_us.max(all.end_ns as f64 / 1e3),
        tally: all.tally,
        errors: all.errors,
        connect_us_max: all.connect_ns_max.map(|ns| ns as f64 / 1e3),
        connections_opened: Some(connections_opened),
        usage,
        threads,
        open_loop: Some(OpenLoop {
            scheduled,
            dropped: all.dropped,
            dropped_late: all.dropped_late,
            late_us_p50: quantile_us(&all.late, 0.5),
            late_us_p99: quantile_us(&all.late, 0.99),
            late_us_max: quantile_us(&all.late, 1.0),
        }),
    })
}

/// Runs the threads. Returns the record of each, the usage of the process from the start to the
/// last answer, and the number of connections opened meanwhile.
fn run_threads(
    options: &Options,
    timing: Timing,
    target: &RequestTarget,
    threads: usize,
) -> anyhow::Result<(Vec<Record>, Usage, u64)> {
    thread::scope(|scope| {
        let (ready_in, ready) = mpsc::sync_channel(threads);
        let (done_in, done) = mpsc::sync_channel(threads);
        let (mut starts, mut running) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let (start_in, start) = mpsc::sync_channel(1);
            let signals = Signals {
                ready: ready_in.clone(),
                start,
                done: done_in.clone(),
            };
            let share = Share { thread, threads };
            let work = move || run_thread(options, timing, target.clone(), share, signals);
            let named = thread::Builder::new().name("load".to_owned());
            running.push(named.spawn_scoped(scope, work)?);
            starts.push(start_in);
        }
        // Without these senders, `recv` fails if a thread ends early.
        drop((ready_in, done_in));
        let all_ready = (0..threads).all(|_| ready.recv().is_ok());
        let before = Usage::until_now()?;
        let opened_before = connections::opened();
        let mut open = None;
        if all_ready {
            let lead_ns = u64::try_from(LEAD.as_nanos())?;
            let start_ns = now_ns() + lead_ns;
            for start in &starts {
                // If the thread has failed, joining it returns the error.
                start.send(start_ns).ok();
            }
            open = connections_after(LEAD + options.duration() / 2, &done)?;
            while done.recv().is_ok() {}
        }
        let usage = Usage {
            connections: open,
            ..Usage::until_now()?.since(before)
        };
        let opened = connections::opened() - opened_before;
        say_over()?;
        drop(starts);
        let mut records = Vec::new();
        for thread in running {
            let record = thread.join();
            let record = record.map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
            records.extend(record);
        }
        Ok((records, usage, opened))
    })
}

/// Runs one thread's part of the load. Returns `None` if the load was called off because another
/// thread failed.
fn run_thread(
    options: &Options,
    timing: Timing,
    target: RequestTarget,
    share: Share,
    signals: Signals,
) -> anyhow::Result<Option<Record>> {
    let Signals { ready, start, done } = signals;
    // The smallest slack. It applies to time-outs; the schedule's timer has no slack.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let sleeps = Sleeps::default();
    let (falls_asleep, wakes_up) = (sleeps.clone(), sleeps.clone());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || falls_asleep.begin(now_ns()))
        .on_thread_unpark(move || wakes_up.end(now_ns()))
        .build_local(LocalOptions::default())?;
    let worker = runtime.block_on(Worker::open(options, timing, target, share, sleeps))?;
    ready.send(())?;
    drop(ready);
    let Ok(start_ns) = start.recv() else {
        return Ok(None);
    };
    let record = worker.run(&runtime, start_ns)?;
    drop(done);
    // The connections are closed after this, when the usage has been read.
    Ok(Some(record))
}
