//! Starts: from nothing to a listener, to the first right answer, and from a kill to an answer.

use std::time::Duration;

use anyhow::Context as _;

use super::{Fault, SLOW_START_MS, Session};
use crate::{
    plan::selection::{Overrides, Selection},
    run::trial::{ColdStart, Live},
};

/// Time that one attempt to get an answer may take, by half: the client takes twice that.
const ATTEMPT_MAX: Duration = Duration::from_millis(250);

/// Starts every path once per cycle, in a random order that differs from cycle to cycle.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let selection = select(session)?;
    for path in &selection.paths {
        if let Some(reason) = &path.skipped {
            session.note(format!("'{}' is left out: {reason}", path.definition.name))?;
        }
    }
    let scenario = &selection.scenarios[0];
    let key = (
        scenario.definition.name.clone(),
        scenario.endpoints[0].clone(),
    );
    let mut paths = scenario.paths.clone();
    let late = paths
        .last()
        .cloned()
        .filter(|_| session.has_fault(Fault::SlowStart));
    session.order(paths.iter().cloned())?;
    let logs = session.directory.raw();
    let mut live = Live::new(session.toolbox(), None, &selection, session.interrupt, logs)?;
    // A server that takes a connection and can't answer yet is asked again.
    live.request_timeout = ATTEMPT_MAX;
    let cycles = session.cycles();
    session.say(&format!("{} paths, {cycles} starts each", paths.len()));
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut paths);
        for path in &paths {
            let order = ColdStart {
                path,
                cycle,
                asked: &key,
                delay_ms: (late.as_ref() == Some(path)).then_some(SLOW_START_MS),
            };
            session.attempt(cycle, path, |session| {
                let started = live.cold_start(&order)?;
                for (measure, time) in started.times() {
                    session.add_time(cycle, path, measure, time)?;
                }
                let failure = started.failure.map(|failure| failure.cause);
                failure.map_or(Ok(()), |cause| Err(anyhow::anyhow!(cause)))
            })?;
        }
    }
    Ok(())
}

/// Selects the paths, with one small request.
fn select(session: &Session<'_>) -> anyhow::Result<Selection> {
    let catalog = session.of.catalog;
    let scenario = catalog.scenario_of_everything();
    let reference = catalog.reference();
    let reference = reference.context("the catalog has no reference")?;
    let overrides = Overrides {
        paths: match session.settings.only.as_slice() {
            [] => session.definition().paths.clone(),
            only => only.to_vec(),
        },
        endpoints: vec![reference.ready.parse().map_err(anyhow::Error::msg)?],
        blocks: Some(1),
        parameters: session.settings.parameters.clone(),
        ..Overrides::default()
    };
    let name = scenario.map(|it| it.name.clone()).unwrap_or_default();
    Selection::new(catalog, session.toolbox(), &[name], &overrides)
}
