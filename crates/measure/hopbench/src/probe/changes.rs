//! Changes of a hop's routes while it serves: when the new ones are seen, when the old ones were
//! seen last, and what was lost meanwhile.
//!
//! Two upstreams take turns: a change moves all routes from one to the other. So each answer says
//! which configuration it came by.

mod watch;

use std::time::{Duration, Instant};

use anyhow::bail;

use self::watch::{Seen, Watch};
use super::{
    Fault, Session,
    hop::{RunningHop, Start, available},
    server::Server,
};
use crate::{
    catalog::{ConfigParts, ProbeHop},
    process::ask_until,
};

/// A change counts as over once the old configuration was not seen for this long.
const QUIET: Duration = Duration::from_millis(300);

/// Time that a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(20);

/// Time that a hop has served before its first change. HAProxy's master loses a signal that comes
/// while it is starting its first worker.
const SERVED_MIN: Duration = Duration::from_secs(1);

/// Pause between two looks at the answers.
const LOOK: Duration = Duration::from_millis(10);

/// Observes every hop with every number of routes.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let hops = available(session)?;
    for routes in session.sizes() {
        for hop in &hops {
            let subject = format!("{}, {routes} routes", hop.name);
            session.order([subject.clone()])?;
            session.attempt(1, &subject, |session| {
                observe_hop(session, hop, routes, &subject)
            })?;
        }
    }
    Ok(())
}

fn observe_hop(
    session: &mut Session<'_>,
    hop: &ProbeHop,
    routes: u32,
    subject: &str,
) -> anyhow::Result<()> {
    let origins = [Server::answering("even")?, Server::answering("odd")?];
    let parts = |generation: u32| ConfigParts {
        routes,
        origin: origins[generation as usize % 2].port(),
        generation,
        ..ConfigParts::default()
    };
    let start = Start {
        config: parts(0),
        ..Start::default()
    };
    let mut running = RunningHop::start(session, hop, start)?;
    let rate_rps = session.definition().rate_rps;
    let mut watch = Watch::start(running.front(), routes, rate_rps);
    let begin = Instant::now();
    let first = ask_until(CHANGE_MAX, LOOK, || {
        (watch.has_answer() && begin.elapsed() >= SERVED_MIN).then_some(())
    });
    if first.is_none() {
        bail!("there is no right answer: {}", watch.trouble());
    }
    let cycles = session.cycles();
    session.say(&format!("{subject}: {cycles} changes"));
    for cycle in 1..=cycles {
        session.go_on()?;
        running.change(&parts(cycle))?;
        let begin = Instant::now();
        running.read_again();
        if session.has_fault(Fault::DroppedRequest) {
            watch.drop_one();
        }
        let new = if cycle % 2 == 0 { "even" } else { "odd" };
        let mut is_over = false;
        ask_until(CHANGE_MAX, LOOK, || {
            is_over = watch.is_settled(begin, new, QUIET);
            let is_stopped = running.must_run().is_err() || session.go_on().is_err();
            (is_over || is_stopped).then_some(())
        });
        session.go_on()?;
        running.must_run()?;
        let stale = watch::stale(running.front(), routes, new);
        let seen = watch.take(begin, new);
        keep(session, (cycle, subject), &seen, stale, is_over)?;
        if !is_over {
            let within = CHANGE_MAX.as_secs();
            let said = running.last_lines();
            bail!("change {cycle} was not seen within {within} s: {said}");
        }
    }
    drop(watch);
    running.stop()
}

fn keep(
    session: &mut Session<'_>,
    (cycle, subject): (u32, &str),
    seen: &Seen,
    stale: usize,
    is_over: bool,
) -> anyhow::Result<()> {
    if let Some(first_new) = seen.first_new {
        session.add_time(cycle, subject, "first_new_us", first_new)?;
    }
    session.add_time(cycle, subject, "last_old_us", seen.last_old)?;
    let counts = [
        ("requests", seen.requests),
        ("dropped_requests", seen.dropped),
        ("failed_requests", seen.failed),
        ("reverted_answers", seen.reverted),
        ("stale_routes", stale),
        ("unfinished_changes", usize::from(!is_over)),
    ];
    for (measure, count) in counts {
        session.add_count(cycle, subject, measure, count)?;
    }
    Ok(())
}
