//! A hop's log at full rate, to readers of all kinds: what it costs the clients, which lines are
//! lost, and how soon a line can be read.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;

use super::{
    Fault, Session,
    client::Connection,
    hop::{Parts, RunningHop, available, origin},
    poll,
    tail::{MARK, Sink, Tail},
    wait_until,
};
use crate::{
    catalog::ProbeHop,
    observe::{http::Client, usage::Held},
    process::{Command, Output, capture},
};

/// Duration of each load.
const LOAD: Duration = Duration::from_secs(2);

/// Time that the last lines may take once everything may be read.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Number of the load's connections.
const CONNECTIONS: u32 = 16;

/// Pause between two marked requests.
const MARK_PAUSE: Duration = Duration::from_millis(10);

/// Observes every hop with every reader, in a random order that differs from cycle to cycle.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let hops = available(session)?;
    let with = |hop: &ProbeHop| match hop.lost_lines {
        Some(_) => Sink::ALL.map(Some).to_vec(),
        None => vec![None],
    };
    let mut cases: Vec<(ProbeHop, Option<Sink>)> = hops
        .iter()
        .flat_map(|hop| with(hop).into_iter().map(|sink| (hop.clone(), sink)))
        .collect();
    let order: Vec<String> = cases
        .iter()
        .map(|(hop, sink)| subject(hop, *sink))
        .collect();
    let cycles = session.cycles();
    session.say(&format!("{} logs, {cycles} loads each", cases.len()));
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut cases);
        for (hop, sink) in &cases {
            session.go_on()?;
            observe_log(session, cycle, hop, *sink)?;
        }
    }
    session.probed.observations.sort_by_key(|one| {
        let place = order.iter().position(|subject| *subject == one.subject);
        (place, one.cycle)
    });
    Ok(())
}

fn subject(hop: &ProbeHop, sink: Option<Sink>) -> String {
    match sink {
        Some(sink) => format!("{}, {}", hop.name, sink.name()),
        None => hop.name.clone(),
    }
}

fn observe_log(
    session: &mut Session<'_>,
    cycle: u32,
    hop: &ProbeHop,
    sink: Option<Sink>,
) -> anyhow::Result<()> {
    let subject = subject(hop, sink);
    let origin = origin(session)?;
    let parts = Parts {
        origin: origin.front().port(),
        ..Parts::default()
    };
    let place = tempfile::Builder::new().prefix("hopbench-").tempdir()?;
    let loses = session.has_fault(Fault::LostLines);
    let opened = sink.map(|sink| sink.open(&place.path().join("access.log"), loses));
    let (end, tail) = opened.transpose()?.unzip();
    let running = RunningHop::start(session, hop, &parts, |log| match end {
        Some(end) => Output::Into(end, log),
        None => Output::Log(log),
    })?;
    let front = running.front();
    let marks = thread::spawn(move || mark(front));
    let result = load(session, front)?;
    let marks = marks
        .join()
        .map_err(|_| anyhow::anyhow!("a client panicked"))?;
    let good = result["good"]
        .as_u64()
        .context("no count of good answers")?;
    let p99_us = result["latency"]["p99_us"].as_f64().context("no p99")?;
    session.add(cycle, &subject, "answer_p99_us", p99_us)?;
    session.add(cycle, &subject, "answers", good as f64)?;
    session.add(
        cycle,
        &subject,
        "peak_rss_kib",
        Held::by(running.pid())?.peak_kib as f64,
    )?;
    if let (Some(tail), Some(counter)) = (&tail, &hop.lost_lines) {
        let answered = good + marks.answered.len() as u64;
        let lost = account(&running, tail, counter, answered)?;
        session.add(cycle, &subject, "lines", tail.lines() as f64)?;
        session.add(cycle, &subject, "dropped_and_counted", lost.counted as f64)?;
        session.add(cycle, &subject, "lost_silently", lost.silently as f64)?;
        if sink == Some(Sink::File) {
            keep_lags(session, cycle, &subject, &marks, tail)?;
        }
    }
    running.stop();
    drop(tail);
    origin.stop();
    Ok(())
}

/// Lines that are missing.
struct Lost {
    counted: u64,
    silently: u64,
}

/// Lets the reader read what is left, until all lines are there or counted as dropped.
fn account(
    running: &RunningHop,
    tail: &Tail,
    counter: &str,
    answered: u64,
) -> anyhow::Result<Lost> {
    tail.free();
    let client = Client::new()?;
    let pause = Duration::from_millis(20);
    let mut failed = None;
    let mut counted = 0;
    poll(DRAIN_MAX, pause, || {
        match running.counter(&client, counter) {
            Ok(dropped) => counted = dropped,
            Err(error) => failed = Some(error),
        }
        (failed.is_some() || tail.lines() + counted >= answered).then_some(())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(Lost {
        counted,
        silently: answered.saturating_sub(tail.lines() + counted),
    })
}

/// Marked requests beside the load.
struct Marks {
    begin: Instant,
    /// When each was answered, by its number.
    answered: Vec<(u64, Instant)>,
}

/// Sends a marked request now and then, for as long as the load lasts.
fn mark(front: SocketAddr) -> Marks {
    let begin = Instant::now();
    let mut answered = Vec::new();
    let mut connection = None;
    for number in 0.. {
        if begin.elapsed() >= LOAD {
            break;
        }
        let open = || Connection::open(front, LOAD).ok();
        if let Some(mut open) = connection.take().or_else(open) {
            let target = format!("/small?{MARK}{number}");
            if open
                .get("log.example", &target, "")
                .is_ok_and(|reply| reply.status == 200)
            {
                answered.push((number, Instant::now()));
                connection = Some(open);
            }
        }
        wait_until(Instant::now() + MARK_PAUSE);
    }
    Marks { begin, answered }
}

/// Keeps how long the first line and those of the marked requests took to be read.
fn keep_lags(
    session: &mut Session<'_>,
    cycle: u32,
    subject: &str,
    marks: &Marks,
    tail: &Tail,
) -> anyhow::Result<()> {
    if let Some(first) = tail.first() {
        let since = first.saturating_duration_since(marks.begin);
        session.add_time(cycle, subject, "first_line_us", since)?;
    }
    let read = tail.marked();
    for (number, answered) in &marks.answered {
        if let Some(at) = read.get(number) {
            let lag = at.saturating_duration_since(*answered);
            session.add_time(cycle, subject, "lag_us", lag)?;
        }
    }
    Ok(())
}

/// Puts a load on the hop, as fast as it answers.
fn load(session: &Session<'_>, front: SocketAddr) -> anyhow::Result<Value> {
    let arguments = [
        format!("--url=http://{front}/small"),
        format!("--concurrency={CONNECTIONS}"),
        format!("--duration-ms={}", LOAD.as_millis()),
        "--timeout-ms=1000".to_owned(),
    ];
    let command = Command {
        program: session.toolbox.bin("hopbench-load")?,
        arguments: arguments.to_vec(),
        directory: None,
        stops_with_stdin: true,
    };
    let printed = capture(&command)?;
    serde_json::from_str(printed.trim()).context("could not read the load's result")
}
