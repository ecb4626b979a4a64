//! Starts: from nothing to a listener, to the first right answer, and from a kill to an answer.

use super::{Fault, SLOW_START_MS, Session};
use crate::{
    plan::selection::{Overrides, Selection},
    process::Interrupted,
    run::trial::{ColdStart, Live},
};

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
    let mut live = Live::new(
        session.toolbox,
        None,
        &selection,
        session.interrupt,
        session.logs(),
    )?;
    let cycles = session.cycles();
    session.say(&format!("{} paths, {cycles} starts each", paths.len()));
    for cycle in 1..=cycles {
        session.rng.shuffle(&mut paths);
        for path in &paths {
            session.go_on()?;
            let order = ColdStart {
                path,
                asked: &key,
                delay_ms: (late.as_ref() == Some(path)).then_some(SLOW_START_MS),
            };
            let started = live.cold_start(&order).map_err(|Interrupted| Interrupted)?;
            for (measure, time) in started.times() {
                session.add_time(cycle, path, measure, time)?;
            }
            let failures = usize::from(started.failure.is_some());
            session.add_count(cycle, path, "failures", failures)?;
            if let Some(failure) = started.failure {
                session.note(format!("'{path}', cycle {cycle}: {}", failure.cause))?;
            }
        }
    }
    let order = &scenario.paths;
    session.probed.observations.sort_by_key(|one| {
        let place = order.iter().position(|path| *path == one.subject);
        (place, one.cycle)
    });
    Ok(())
}

/// Selects the paths, with one small request.
fn select(session: &Session<'_>) -> anyhow::Result<Selection> {
    let catalog = session.catalog;
    let scenario = catalog.scenario_of_everything();
    let reference = &catalog.paths[0];
    let overrides = Overrides {
        paths: match session.settings.only.as_slice() {
            [] => session.definition.paths.clone(),
            only => only.to_vec(),
        },
        endpoints: vec![reference.ready.parse().map_err(anyhow::Error::msg)?],
        blocks: Some(1),
        ..Overrides::default()
    };
    let name = scenario.map(|it| it.name.clone()).unwrap_or_default();
    Selection::new(catalog, session.toolbox, &[name], &overrides)
}
