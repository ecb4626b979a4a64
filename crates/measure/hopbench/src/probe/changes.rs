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
    hop::{Parts, RunningHop, available},
    poll,
    server::Server,
};
use crate::{catalog::ProbeHop, process::Output};

/// A change counts as over once the old configuration was not seen for this long.
const QUIET: Duration = Duration::from_millis(300);

/// Time that a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(20);

/// Pause between two looks at the answers.
const LOOK: Duration = Duration::from_millis(10);

/// Observes every hop with every number of routes.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let hops = available(session)?;
    for routes in session.sizes() {
        for hop in &hops {
            session.go_on()?;
            observe_hop(session, hop, routes)?;
        }
    }
    Ok(())
}

fn observe_hop(session: &mut Session<'_>, hop: &ProbeHop, routes: u32) -> anyhow::Result<()> {
    let origins = [Server::answering("even")?, Server::answering("odd")?];
    let parts = |generation: u32| Parts {
        routes,
        origin: origins[generation as usize % 2].port(),
        generation,
        ..Parts::default()
    };
    let subject = format!("{}, {routes} routes", hop.name);
    let running = RunningHop::start(session, hop, &parts(0), Output::Log)?;
    let watch = Watch::start(running.front(), routes, session.definition.rate_rps);
    let first = poll(CHANGE_MAX, LOOK, || watch.last_good());
    if first.is_none() {
        bail!("'{subject}' gives no right answer: {}", watch.trouble());
    }
    let cycles = session.cycles();
    session.say(&format!("{subject}: {cycles} changes"));
    for cycle in 1..=cycles {
        session.go_on()?;
        let begin = Instant::now();
        running.change(&parts(cycle))?;
        if session.has_fault(Fault::DroppedRequest) {
            watch.drop_one();
        }
        let new = if cycle % 2 == 0 { "even" } else { "odd" };
        let is_over = poll(CHANGE_MAX, LOOK, || {
            watch.is_settled(begin, new, QUIET).then_some(())
        });
        let seen = watch.take(begin, new);
        keep(session, cycle, &subject, &seen, is_over.is_some())?;
        if is_over.is_none() {
            session.note(format!(
                "'{subject}', cycle {cycle}: the change was not seen within {} s: {}",
                CHANGE_MAX.as_secs(),
                running.last_lines()
            ))?;
            break;
        }
    }
    drop(watch);
    running.stop();
    Ok(())
}

fn keep(
    session: &mut Session<'_>,
    cycle: u32,
    subject: &str,
    seen: &Seen,
    is_over: bool,
) -> anyhow::Result<()> {
    if let Some(first_new) = seen.first_new {
        session.add_time(cycle, subject, "first_new_us", first_new)?;
    }
    session.add_time(cycle, subject, "last_old_us", seen.last_old)?;
    let counts = [
        ("dropped_requests", seen.dropped),
        ("failed_requests", seen.failed),
        ("reverted_answers", seen.reverted),
        ("unfinished_changes", usize::from(!is_over)),
        ("answers", seen.answers),
    ];
    for (measure, count) in counts {
        session.add_count(cycle, subject, measure, count)?;
    }
    Ok(())
}
