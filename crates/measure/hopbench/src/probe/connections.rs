//! Long-lived connections beside active ones: what each takes, and what the active ones notice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Fault, Session,
    client::Connection,
    hop::{RunningHop, Start, available, origin},
    proxied,
};
use crate::{
    catalog::{ConfigParts, ProbeHop},
    observe::{machine, usage::Held},
    process::ask_until,
};

/// Time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Time that a hop may take to close what its clients have closed.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks at what the hop holds.
const PAUSE: Duration = Duration::from_millis(50);

/// Most connections: the origin takes no more.
const CONNECTIONS_MAX: u32 = 16_000;

/// Most connections whose opening is timed, in even distances.
const TIMED_MAX: u32 = 1_000;

/// Connections that a hop must have room for besides the idle ones.
const ROOM: u32 = 20;

/// Idle connections that may not work before the others are taken to be dead, too.
const DEAD_MAX: usize = 10;

/// Requests of the active connection.
const REQUESTS: u32 = 200;

/// Connections that the injected fault leaves open.
const LEAKED: usize = 10;

/// Descriptors that a connection of the hop takes: its client's and its upstream's.
const DESCRIPTORS: u64 = 2;

/// Descriptors that a process needs besides.
const SPARE: u64 = 200;

/// Observes every hop with every number of connections, then its headers of the PROXY protocol.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    machine::raise_open_files_limit();
    let hops = available(session)?;
    let sizes = sizes(session)?;
    for hop in &hops {
        let subjects = sizes.iter().map(|size| subject(hop, *size));
        session.order([alone(hop)].into_iter().chain(subjects))?;
    }
    let cycles = session.cycles();
    for size in sizes {
        session.say(&format!("{size} connections, {cycles} times"));
        for cycle in 1..=cycles {
            for hop in &hops {
                let subject = subject(hop, size);
                session.attempt(cycle, &subject, |session| {
                    observe_hop(session, (cycle, &subject), hop, size)
                })?;
            }
        }
    }
    hops.iter()
        .try_for_each(|hop| proxied::observe(session, hop))
}

fn subject(hop: &ProbeHop, size: u32) -> String {
    format!("{}, {size} connections", hop.name)
}

fn alone(hop: &ProbeHop) -> String {
    format!("{}, alone", hop.name)
}

/// Returns the numbers of connections, as far as the limit of open files and the origin go.
fn sizes(session: &mut Session<'_>) -> anyhow::Result<Vec<u32>> {
    let limit = machine::open_files_max();
    let most = u32::try_from(limit.saturating_sub(SPARE) / DESCRIPTORS);
    let most = most.unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX);
    let sizes = session.sizes();
    if let Some(size) = sizes.iter().find(|size| **size > most) {
        session.note(format!(
            "{most} connections in place of {size}: a process may open {limit} files, and the \
             origin takes {CONNECTIONS_MAX} connections"
        ))?;
    }
    let mut sizes: Vec<u32> = sizes.into_iter().map(|size| size.min(most)).collect();
    sizes.dedup();
    Ok(sizes)
}

fn observe_hop(
    session: &mut Session<'_>,
    (cycle, subject): (u32, &str),
    hop: &ProbeHop,
    size: u32,
) -> anyhow::Result<()> {
    let origin = origin(session)?;
    let start = Start {
        config: ConfigParts {
            origin: origin.front().port(),
            connections: size + ROOM,
            words: &proxied::PLAIN,
            ..ConfigParts::default()
        },
        ..Start::default()
    };
    let running = RunningHop::start(session, hop, start)?;
    let (front, pid) = (running.front(), running.pid());
    // What is taken once, by the first connections, is not a connection's.
    for time in active(front)? {
        session.add_time(cycle, &alone(hop), "answer_us", time)?;
    }
    let before = at_rest(pid)?;
    let mut idle = Vec::new();
    for number in 0..size {
        session.go_on()?;
        let begin = Instant::now();
        idle.push(open(front)?);
        // Of thousands, some tell as much as all.
        if number.is_multiple_of(size.div_ceil(TIMED_MAX)) {
            session.add_time(cycle, subject, "connect_us", begin.elapsed())?;
        }
    }
    let held = at_rest(pid)?;
    let of_each = |value: u64| value as f64 / f64::from(size);
    let rss_kib = held.rss_kib.saturating_sub(before.rss_kib);
    session.add(cycle, subject, "memory_bytes", of_each(rss_kib) * 1024.0)?;
    let open_before = descriptors(&before)?;
    let opened = descriptors(&held)?.saturating_sub(open_before);
    session.add(cycle, subject, "descriptors_each", of_each(opened))?;
    for time in active(front)? {
        session.add_time(cycle, subject, "answer_us", time)?;
    }
    let dead = dead(session, &mut idle)?;
    session.add_count(cycle, subject, "dead_connections", dead)?;
    let kept = match session.has_fault(Fault::LeakedDescriptors) {
        true => idle.split_off(idle.len().saturating_sub(LEAKED)),
        false => Vec::new(),
    };
    drop(idle);
    let left = left_over(pid, open_before)?;
    session.add(cycle, subject, "leaked_descriptors", left as f64)?;
    drop(kept);
    running.stop()?;
    origin.stop()
}

/// Uses every idle connection once more; returns how many don't work.
fn dead(session: &Session<'_>, idle: &mut [Connection]) -> anyhow::Result<usize> {
    let mut dead = 0;
    for connection in idle.iter_mut() {
        session.go_on()?;
        if connection.get("l4.example", "/small", "").is_err() {
            dead += 1;
        }
        // Each may take seconds.
        if dead > DEAD_MAX {
            return Ok(idle.len());
        }
    }
    Ok(dead)
}

/// Opens a connection, up to the origin.
fn open(front: SocketAddr) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(front, ANSWER_MAX)?;
    let reply = connection.get("l4.example", "/small", "")?;
    anyhow::ensure!(
        reply.status == 200,
        "status {} instead of 200",
        reply.status
    );
    Ok(connection)
}

/// Returns the times of the answers on one active connection.
fn active(front: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let mut connection = open(front)?;
    let ask = |_| {
        let begin = Instant::now();
        connection.get("l4.example", "/small", "")?;
        Ok(begin.elapsed())
    };
    (0..REQUESTS).map(ask).collect()
}

/// Waits until the hop has closed its descriptors; returns how many it has too many.
fn left_over(pid: u32, before: u64) -> anyhow::Result<u64> {
    let mut left = Ok(before);
    ask_until(CLOSE_MAX, PAUSE, || {
        left = Held::by(pid).and_then(|held| descriptors(&held));
        let is_over = left.as_ref().map_or(true, |now| *now <= before);
        is_over.then_some(())
    });
    Ok(left?.saturating_sub(before))
}

/// Returns what the hop holds, once it has closed what its clients have closed.
fn at_rest(pid: u32) -> anyhow::Result<Held> {
    let mut held = Held::by(pid)?;
    ask_until(CLOSE_MAX, PAUSE, || {
        let now = Held::by(pid).ok()?;
        let is_still = now.descriptors == held.descriptors;
        held = now;
        is_still.then_some(())
    });
    Ok(held)
}

fn descriptors(held: &Held) -> anyhow::Result<u64> {
    held.descriptors.context("its descriptors can't be read")
}
