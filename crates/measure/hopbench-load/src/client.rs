//! The generator's own client: open loops, which send requests at a rate whether or not earlier
//! ones are answered, and the closed loops that oha has no options for.
//!
//! | module | purpose |
//! |---|---|
//! | [`schedule`], [`mod@profile`] | decide which request starts when; no clock, no I/O |
//! | [`worker`] | one thread: a timer, and one task per connection |
//! | [`connection`] | one connection and the request under way on it, in one task |
//! | [`record`] | what a thread measures |
//! | [`pacer`], [`lead`], [`deadline`] | clock and timers |
//! | [`sleep`] | records when a thread waited for the path |
//! | [`own_wakes`] | keeps a task from waking itself |
//! | [`link`], [`stream`], [`mod@tls`] | an open connection, in HTTP/1.1 or HTTP/2, and its bytes |
//! | [`front`], [`address`] | the server's address, and how it is asked |
//!
//! In an open loop, a latency begins when its request was due. If the request starts later, because
//! every connection is busy or because this program is late, that delay is part of the latency. So
//! a stall can't hide the requests that it held up (coordinated omission).

pub(crate) mod address;
pub(crate) mod connection;
mod deadline;
pub(crate) mod front;
mod lead;
mod link;
mod own_wakes;
mod pacer;
mod profile;
mod record;
mod schedule;
mod sleep;
mod stream;
mod tls;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, LocalOptions};

use self::{
    front::Front,
    pacer::now_ns,
    profile::Profile,
    record::{Figures, Record},
    schedule::{Pace, Share, Timing},
    sleep::Sleeps,
    worker::Worker,
};
use crate::{
    Options, connections,
    cpu::{Usage, connections_after, say_over},
    latency::{Latency, quantile_us},
    plan::{LoadPlan, Stage},
    requests::Requests,
    result::{LoadResult, OfRequest, OfSecond, OfStage, OpenLoop, Outcome, Parts},
    tally::Tally,
};

/// Time from the start signal until the first request is due: enough for every thread to be ready.
const LEAD: Duration = Duration::from_millis(10);

/// Maximum number of connections to one address: there are no more local ports.
const CONNECTIONS_MAX: usize = 65_535;

/// A load, before its threads run.
#[derive(Debug)]
struct Load<'a> {
    options: &'a Options,
    front: Front,
    requests: Arc<Requests>,
    timing: Timing,
    /// Levels of the stages; `None` for a load that stays the same.
    stages: Option<Profile>,
    think_time: Duration,
    /// Number of the next request of a closed loop.
    numbers: Arc<AtomicU64>,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options, plan: Option<&LoadPlan>) -> anyhow::Result<Self> {
        let (front, target) = Front::of(options)?;
        let requests = Requests::of(options, plan, &front.address.host, target)?;
        let stages = plan.map_or(&[][..], |plan| &plan.stages);
        let stages = (!stages.is_empty()).then(|| profile(stages));
        Ok(Self {
            timing: timing(options, stages.as_ref()),
            options,
            front,
            requests: Arc::new(requests),
            stages,
            think_time: Duration::from_millis(plan.map_or(0, |plan| plan.think_time_ms)),
            numbers: Arc::default(),
        })
    }

    fn is_open(&self) -> bool {
        matches!(self.timing.pace, Pace::Even(_) | Pace::Rates(_))
    }

    /// Returns the number of threads.
    fn threads(&self) -> anyhow::Result<usize> {
        let threads = match (self.is_open(), self.options.threads) {
            (true, None) => 1,
            _ => threads(self.options)?,
        };
        Ok(threads.clamp(1, self.options.concurrency.get()))
    }
}

/// Channels that keep a thread in step with the others.
struct Signals {
    /// Gets a message when the thread's connections are open.
    ready: SyncSender<()>,
    /// Delivers the start of the load, in nanoseconds of the pacer's clock.
    start: Receiver<u64>,
    /// Dropped when the thread's last request has ended.
    done: SyncSender<()>,
}

/// Returns the number of threads of a closed loop: unless the options say so, one for each physical
/// core, as far as this process may use so many.
pub(crate) fn threads(options: &Options) -> anyhow::Result<usize> {
    let own = || Ok(num_cpus::get_physical().min(thread::available_parallelism()?.get()));
    options
        .threads
        .map_or_else(own, |threads| Ok(threads.get()))
}

/// Runs the load.
pub(crate) fn run(options: &Options, plan: Option<&LoadPlan>) -> anyhow::Result<LoadResult> {
    let connections = options.concurrency.get();
    anyhow::ensure!(
        connections <= CONNECTIONS_MAX,
        "'--concurrency={connections}' is more than the {CONNECTIONS_MAX} connections that one \
         address can have"
    );
    let load = Load::new(options, plan)?;
    let is_open = load.is_open();
    let scheduled = load.timing.arrivals();
    anyhow::ensure!(
        scheduled > 0,
        "'--rate={}' is less than one request in '--duration-ms={}'; raise one of them",
        options.rate.unwrap_or_default(),
        load.timing.duration_ms
    );
    let threads = load.threads()?;
    let (all, usage, connections_opened) = run_threads(&load, threads, say_over)?;
    let end_us = all.end_ns as f64 / 1e3;
    let Figures { tally, errors, .. } = all.together(&load.requests)?;
    LoadResult::of(Outcome {
        generator: match is_open {
            true => concat!("hopbench-load ", env!("CARGO_PKG_VERSION"), ", open loop"),
            false => concat!("hopbench-load ", env!("CARGO_PKG_VERSION"), ", closed loop"),
        },
        elapsed_us: match options.requests {
            Some(_) => end_us,
            None => end_us.max(load.timing.duration_ms as f64 * 1e3),
        },
        tls: load.front.tls.is_some(),
        protocol: load.front.protocol,
        tally,
        errors,
        connect_us_max: all.connect_ns_max.map(|ns| ns as f64 / 1e3),
        connections_opened: Some(connections_opened),
        usage,
        threads,
        open_loop: is_open.then(|| open_loop(scheduled, &all)),
        parts: Parts {
            by_request: by_request(&load.requests, &all)?,
            stages: by_stage(&all)?,
            seconds: by_second(&all)?,
        },
    })
}

/// Runs a load whose answers alone matter. Returns them, and the errors.
pub(crate) fn compare(options: &Options) -> anyhow::Result<(Tally, BTreeMap<String, u64>)> {
    let load = Load::new(options, None)?;
    let (all, ..) = run_threads(&load, load.threads()?, || Ok(()))?;
    let Figures { tally, errors, .. } = all.together(&load.requests)?;
    Ok((tally, errors))
}

fn open_loop(scheduled: u64, record: &Record) -> OpenLoop {
    OpenLoop {
        scheduled,
        dropped: record.dropped,
        dropped_late: record.dropped_late,
        late_us_p50: quantile_us(&record.late, 0.5),
        late_us_p99: quantile_us(&record.late, 0.99),
        late_us_max: quantile_us(&record.late, 1.0),
    }
}

fn profile(stages: &[Stage]) -> Profile {
    let stages = stages.iter();
    Profile::new(stages.map(|stage| (stage.duration_ms, stage.from, stage.to)))
}

fn timing(options: &Options, stages: Option<&Profile>) -> Timing {
    let pace = match (options.rate, options.open_loop, stages) {
        (Some(rate_rps), ..) => Pace::Even(rate_rps),
        (None, true, Some(stages)) => Pace::Rates(stages.clone()),
        (None, _, Some(stages)) => Pace::Connections(stages.clone()),
        (None, _, None) => Pace::WhenFree,
    };
    let duration_ms = match (options.rate, options.requests) {
        // The last one is due before the end.
        (Some(rate_rps), Some(requests)) => (requests * 1_000).div_ceil(rate_rps.into()),
        _ => options.duration_ms,
    };
    Timing {
        pace,
        tick_us: options.tick_us,
        duration_ms: stages.map_or(duration_ms, Profile::duration_ms),
        requests_max: options.requests,
    }
}

/// Returns the figures of each kind of request; none if there is only one kind.
fn by_request(requests: &Requests, record: &Record) -> anyhow::Result<Vec<OfRequest>> {
    if requests.names().len() == 1 {
        return Ok(Vec::new());
    }
    let kinds = requests.names().zip(&record.kinds);
    let figures = kinds.map(|(name, figures)| {
        Ok(OfRequest {
            name: name.to_owned(),
            requests: figures.requests(),
            good: figures.tally.good,
            wrong: figures.tally.wrong.clone(),
            errors: figures.errors.clone(),
            dropped: figures.dropped,
            body_bytes: figures.tally.body_bytes,
            latency: Latency::of(&figures.tally)?,
        })
    });
    figures.collect()
}

fn by_stage(record: &Record) -> anyhow::Result<Vec<OfStage>> {
    let stages = record.stages.iter().map(|figures| {
        Ok(OfStage {
            requests: figures.requests(),
            good: figures.tally.good,
            dropped: figures.dropped,
            latency: Latency::of(&figures.tally)?,
        })
    });
    stages.collect()
}

fn by_second(record: &Record) -> anyhow::Result<Vec<OfSecond>> {
    let seconds = record.seconds.iter().map(|second| {
        Ok(OfSecond {
            due: second.due,
            good: second.good,
            errors: second.errors.clone(),
            p50_us: quantile_us(&second.latencies, 0.5),
            p95_us: quantile_us(&second.latencies, 0.95),
            p99_us: quantile_us(&second.latencies, 0.99),
            histogram: Latency::written(&second.latencies)?,
        })
    });
    seconds.collect()
}

/// Runs the threads, and calls `say_over` when the last request has ended. Returns their record,
/// the usage of the process from the start to the last answer, and the number of connections
/// opened meanwhile.
fn run_threads(
    load: &Load<'_>,
    threads: usize,
    say_over: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<(Record, Usage, u64)> {
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
            let work = move || run_thread(load, share, signals);
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
            open = connections_after(
                LEAD + Duration::from_millis(load.timing.duration_ms) / 2,
                &done,
            )?;
            while done.recv().is_ok() {}
        }
        let usage = Usage {
            connections: open,
            ..Usage::until_now()?.since(before)
        };
        let opened = connections::opened() - opened_before;
        say_over()?;
        drop(starts);
        let mut all = Record::new(&load.requests, load.stages.as_ref())?;
        for thread in running {
            let record = thread.join();
            let record = record.map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
            if let Some(record) = record {
                all.add(record)?;
            }
        }
        Ok((all, usage, opened))
    })
}

/// Runs one thread's part of the load. Returns `None` if the load was called off because another
/// thread failed.
fn run_thread(load: &Load<'_>, share: Share, signals: Signals) -> anyhow::Result<Option<Record>> {
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
    let worker = runtime.block_on(Worker::open(load, share, sleeps))?;
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
