//! A hop's log at full rate, to readers of all kinds: what it costs the clients, which lines are
//! lost, and how soon a line can be read.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hopbench_analysis::record::Load;

use super::{
    Fault, Session,
    client::Connection,
    hop::{OpenStdout, RunningHop, Start, available, origin},
    tail::{MARK, Sink, Tail},
};
use crate::{
    catalog::{ConfigParts, ProbeHop},
    observe::{http::Client, usage::Held},
    process::{Command, ask_until, capture, wait_until},
};

/// Duration of each load.
const LOAD: Duration = Duration::from_secs(2);

/// Time that an answer may take: with a log that nobody reads, there may be none.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Time that the last lines may take once everything may be read, and the pause between two looks.
const DRAIN_MAX: Duration = Duration::from_secs(20);
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// Looks without a new line after which those that are missing don't come any more.
const STILL_LOOKS: u32 = 30;

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
    session.order(cases.iter().map(|(hop, sink)| subject(hop, *sink)))?;
    let cycles = session.cycles();
    session.say(&format!("{} logs, {cycles} loads each", cases.len()));
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut cases);
        for (hop, sink) in &cases {
            let subject = subject(hop, *sink);
            session.attempt(cycle, &subject, |session| {
                observe_log(session, (cycle, &subject), hop, *sink)
            })?;
        }
    }
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
    (cycle, subject): (u32, &str),
    hop: &ProbeHop,
    sink: Option<Sink>,
) -> anyhow::Result<()> {
    let origin = origin(session)?;
    let loses = session.has_fault(Fault::LostLines);
    let mut tail = None;
    let place = &mut tail;
    let stdout = sink.map(|sink| -> OpenStdout<'_> {
        Box::new(move |directory| {
            let (end, tail) = sink.open(&directory.join("access.log"), loses)?;
            *place = Some(tail);
            Ok(end)
        })
    });
    let start = Start {
        config: ConfigParts {
            origin: origin.front().port(),
            ..ConfigParts::default()
        },
        stdout,
        ..Start::default()
    };
    let mut running = RunningHop::start(session, hop, start)?;
    let front = running.front();
    let marks = thread::spawn(move || mark(front));
    let load = load(session, front);
    let marks = marks
        .join()
        .map_err(|_| anyhow::anyhow!("a client panicked"))?;
    let load = load?;
    running.must_run()?;
    if let Some(p99_us) = load.latency.p99_us {
        session.add(cycle, subject, "answer_p99_us", p99_us)?;
    }
    let peak_kib = Held::by(running.pid())?.peak_kib;
    session.add(cycle, subject, "peak_rss_kib", peak_kib as f64)?;
    session.add(cycle, subject, "answers", load.good as f64)?;
    if let (Some(tail), Some(counter)) = (&tail, &hop.lost_lines) {
        let wrong: u64 = load.wrong.values().sum();
        let answered = load.good + wrong + marks.answered.len() as u64;
        let lost = account(session, &running, tail, counter, answered)?;
        session.add(cycle, subject, "lines", tail.lines() as f64)?;
        session.add(cycle, subject, "dropped_and_counted", lost.counted as f64)?;
        session.add(cycle, subject, "lost_silently", lost.silently as f64)?;
        // Their lines may be there in place of others that are lost.
        let unanswered = load.errors.values().sum::<u64>() + marks.unanswered;
        session.add(cycle, subject, "unanswered", unanswered as f64)?;
        if sink == Some(Sink::File) {
            keep_lags(session, cycle, subject, &marks, tail)?;
        }
    }
    running.stop()?;
    drop(tail);
    origin.stop()
}

/// Lines that are missing.
struct Lost {
    counted: u64,
    silently: u64,
}

/// Lets the reader read what is left, until all lines are there or counted as dropped, and no
/// more come.
fn account(
    session: &Session<'_>,
    running: &RunningHop<'_>,
    tail: &Tail,
    counter: &str,
    answered: u64,
) -> anyhow::Result<Lost> {
    tail.free();
    let client = Client::new()?;
    let (mut before, mut still) = (None, 0);
    let done = ask_until(DRAIN_MAX, DRAIN_PAUSE, || {
        let counted = match running.counter(&client, counter) {
            Ok(counted) => counted,
            Err(error) => return Some(Err(error)),
        };
        let now = (tail.lines(), counted);
        still = if before.replace(now) == Some(now) {
            still + 1
        } else {
            0
        };
        let is_complete = now.0 + counted >= answered;
        let is_over = still >= if is_complete { 1 } else { STILL_LOOKS };
        (is_over || session.go_on().is_err()).then_some(Ok(()))
    });
    session.go_on()?;
    done.transpose()?;
    let (lines, counted) = before.unwrap_or_default();
    Ok(Lost {
        counted,
        silently: answered.saturating_sub(lines + counted),
    })
}

/// Marked requests beside the load.
struct Marks {
    begin: Instant,
    /// When each was answered, by its number.
    answered: Vec<(u64, Instant)>,
    unanswered: u64,
}

/// Sends a marked request now and then, for as long as the load lasts.
fn mark(front: SocketAddr) -> Marks {
    let begin = Instant::now();
    let (mut answered, mut unanswered) = (Vec::new(), 0);
    let mut connection = None;
    for number in 0.. {
        if begin.elapsed() >= LOAD {
            break;
        }
        let open = || Connection::open(front, ANSWER_MAX).ok();
        if let Some(mut open) = connection.take().or_else(open) {
            let target = format!("/small?{MARK}{number}");
            if open.get("log.example", &target, "").is_ok() {
                answered.push((number, Instant::now()));
                connection = Some(open);
            } else {
                unanswered += 1;
            }
        }
        wait_until(Instant::now() + MARK_PAUSE);
    }
    Marks {
        begin,
        answered,
        unanswered,
    }
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
fn load(session: &Session<'_>, front: SocketAddr) -> anyhow::Result<Load> {
    let arguments = [
        format!("--url=http://{front}/small"),
        format!("--concurrency={CONNECTIONS}"),
        format!("--duration-ms={}", LOAD.as_millis()),
        format!("--timeout-ms={}", ANSWER_MAX.as_millis()),
    ];
    let command = Command {
        program: session.toolbox().bin("hopbench-load")?,
        arguments: arguments.to_vec(),
        ..Command::default()
    };
    let printed = capture(&command)?;
    Load::read(&printed).context("could not read the load's result")
}
