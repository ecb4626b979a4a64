//! The words for places and for failures in the sentences of a report's head.

use std::collections::BTreeSet;

use crate::{
    record::Warning,
    report::text::{part, plural, thousands},
    summary::{CellSummary, ScenarioSummary},
};

/// Says at which load, and on which endpoint if there are several: `on /small at c=64`.
pub(super) fn place(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    places(scenario, &[row])
}

/// Names the loads of rows of one table, and the endpoint if there are several.
pub(super) fn places(scenario: &ScenarioSummary<'_>, rows: &[&CellSummary<'_>]) -> String {
    let loads: Vec<String> = rows.iter().map(|row| load(row)).collect();
    let loads = loads.join(", ");
    match (scenario.tables.len(), rows.first()) {
        (2.., Some(row)) => format!("on {}{} at {loads}", row.cell.endpoint, row.cell.setting()),
        _ => format!("at {loads}"),
    }
}

/// Says where a fixed rate was offered, without the rate: `on /small, c=64`.
pub(super) fn connections(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let cell = &row.cell;
    match scenario.tables.len() {
        1 => format!("c={}", cell.concurrency),
        _ => format!(
            "on {}{}, c={}",
            cell.endpoint,
            cell.setting(),
            cell.concurrency
        ),
    }
}

/// Writes a fixed rate: `2,000/s`, or `up to 2,000/s` for a load in stages.
pub(super) fn rate(row: &CellSummary<'_>) -> String {
    let up_to = if row.cell.staged { "up to " } else { "" };
    let rate_rps = row.cell.rate_rps.unwrap_or_default();
    format!("{up_to}{}/s", thousands(f64::from(rate_rps)))
}

fn load(row: &CellSummary<'_>) -> String {
    match row.cell.rate_rps {
        None => format!("c={}", row.cell.load()),
        Some(_) => format!("c={}, {}", row.cell.concurrency, rate(row)),
    }
}

/// Says how many trials of these rows failed, and how; of those in which none failed, how many
/// requests were not answered. Empty if all is well.
pub(super) fn failures(scenario: &ScenarioSummary<'_>, rows: &[&CellSummary<'_>]) -> Vec<String> {
    let (failed, others): (Vec<&CellSummary<'_>>, Vec<&CellSummary<'_>>) =
        rows.iter().partition(|row| !row.failures.is_empty());
    let lost: Vec<&CellSummary<'_>> = others
        .into_iter()
        .filter(|row| row.totals.lost() > 0)
        .collect();
    let mut said = Vec::new();
    if let Some(trials) = failed_trials(&failed) {
        said.push(format!("{trials} {}", places(scenario, &failed)));
    }
    if !lost.is_empty() {
        let sum = |of: fn(&CellSummary<'_>) -> u64| lost.iter().map(|row| of(row)).sum();
        let share = part(sum(|row| row.totals.lost()), sum(|row| row.totals.due()));
        said.push(format!("{share} not answered {}", places(scenario, &lost)));
    }
    said
}

/// Says how many trials failed, and how: `2 of 6 trials failed (crash, hang)`. `None` if none did.
pub(super) fn failed_trials(rows: &[&CellSummary<'_>]) -> Option<String> {
    let failures = || rows.iter().flat_map(|row| &row.failures);
    let kinds: BTreeSet<String> = failures().map(|it| it.kind.to_string()).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    let trials = rows.iter().map(|row| row.trials).sum();
    let failed = failures().count();
    (failed > 0).then(|| {
        let trials = plural(trials, "trial");
        format!("{failed} of {trials} failed ({})", kinds.join(", "))
    })
}

/// Says what a path did not do at a fixed rate: `284 of 2,000 never sent`.
pub(super) fn not_held(row: &CellSummary<'_>) -> String {
    let due = thousands(row.totals.due() as f64);
    let of_due = |count: u64, what: &str| match count {
        0 => None,
        _ => Some(format!("{} of {due} {what}", thousands(count as f64))),
    };
    let parts = [
        failed_trials(&[row]),
        of_due(row.totals.dropped_by_path, "never sent"),
        of_due(row.failed_requests(), "not answered"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Says why there are no figures of CPU time. `None` if no process went away from its server.
pub(super) fn no_cpu(rows: [&CellSummary<'_>; 2]) -> Option<String> {
    let mut warnings = rows.into_iter().flat_map(|row| &row.warnings);
    warnings.find_map(|warning| match warning {
        Warning::Strayed { process } => Some(format!(
            "no CPU figures, because '{process}' left its process group"
        )),
        _ => None,
    })
}
