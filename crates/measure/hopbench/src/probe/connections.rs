//! Long-lived connections beside active ones: what each takes, and what the active ones notice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Fault, Session,
    client::Connection,
    hop::{Parts, RunningHop, available, origin},
    poll, proxied,
};
use crate::{
    catalog::ProbeHop,
    observe::{machine, usage::Held},
};

/// Words of a configuration in which the PROXY protocol is off.
pub(super) const PLAIN: [(&str, &str); 2] = [("accept", "accept-off"), ("send", "send-off")];

/// Time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Time that a hop may take to close what its clients have closed.
const CLOSE_MAX: Duration = Duration::from_secs(10);

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
    let cycles = session.cycles();
    for size in sizes(session)? {
        session.say(&format!("{size} connections, {cycles} times"));
        for cycle in 1..=cycles {
            for hop in &hops {
                session.go_on()?;
                observe_hop(session, cycle, hop, size)?;
            }
        }
    }
    for hop in &hops {
        proxied::observe(session, hop)?;
    }
    Ok(())
}

/// Returns the numbers of connections, as far as the limit of open files goes.
fn sizes(session: &mut Session<'_>) -> anyhow::Result<Vec<u32>> {
    let limit = machine::open_files_max();
    let most = limit.saturating_sub(SPARE) / DESCRIPTORS;
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let sizes = session.sizes();
    if let Some(size) = sizes.iter().find(|size| **size > most) {
        session.note(format!(
            "{most} connections in place of {size}: a process may open {limit} files"
        ))?;
    }
    Ok(sizes.into_iter().map(|size| size.min(most)).collect())
}

fn observe_hop(
    session: &mut Session<'_>,
    cycle: u32,
    hop: &ProbeHop,
    size: u32,
) -> anyhow::Result<()> {
    let origin = origin(session)?;
    let parts = Parts {
        origin: origin.front().port(),
        words: &PLAIN,
        ..Parts::default()
    };
    let running = RunningHop::start(session, hop, &parts, crate::process::Output::Log)?;
    let (front, pid) = (running.front(), running.pid());
    let subject = format!("{}, {size} connections", hop.name);
    let alone = format!("{}, alone", hop.name);
    // What is taken once, by the first connections, is not a connection's.
    for time in active(front)? {
        session.add_time(cycle, &alone, "answer_us", time)?;
    }
    let before = Held::by(pid)?;
    let mut idle = Vec::new();
    for _ in 0..size {
        let begin = Instant::now();
        idle.push(open(front)?);
        session.add_time(cycle, &subject, "connect_us", begin.elapsed())?;
    }
    let held = Held::by(pid)?;
    let of_each = |value: f64| value / f64::from(size);
    let bytes = of_each(held.rss_kib.saturating_sub(before.rss_kib) as f64 * 1024.0);
    session.add(cycle, &subject, "connection_bytes", bytes)?;
    let descriptors = held.descriptors.saturating_sub(before.descriptors);
    session.add(cycle, &subject, "descriptors", descriptors as f64)?;
    for time in active(front)? {
        session.add_time(cycle, &subject, "answer_us", time)?;
    }
    // Every one of them still works.
    let dead = idle
        .iter_mut()
        .filter_map(|it| it.get("l4.example", "/small", "").err());
    let dead = dead.count();
    session.add_count(cycle, &subject, "dead_connections", dead)?;
    let kept = match session.has_fault(Fault::LeakedDescriptors) {
        true => idle.split_off(idle.len().saturating_sub(LEAKED)),
        false => Vec::new(),
    };
    drop(idle);
    let left = left_over(pid, before.descriptors)?;
    session.add(cycle, &subject, "leaked_descriptors", left as f64)?;
    drop(kept);
    running.stop();
    origin.stop();
    Ok(())
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
    let pause = Duration::from_millis(10);
    poll(CLOSE_MAX, pause, || {
        let now = Held::by(pid).ok()?;
        (now.descriptors <= before).then_some(())
    });
    Ok(Held::by(pid)?.descriptors.saturating_sub(before))
}
