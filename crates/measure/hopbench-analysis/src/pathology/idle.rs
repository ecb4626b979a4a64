//! Processes that did nothing for the answers, as one that isn't on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::summary::ScenarioSummary;

/// CPU time of a process for an answer below which it is idle, in microseconds. One call of the
/// kernel for each answer takes longer.
const IDLE_US: f64 = 0.2;

/// Fewest answers in a trial that shows it: fewer would be hidden by what a process does at its
/// start, or in the background.
const ANSWERS_MIN: u64 = 1_000;

/// Mentions processes that were idle in at least a third of the trials of their paths. In the
/// others, a process that isn't on the way may still be starting, if the load leaves it no core.
pub(super) fn remark(scenario: &ScenarioSummary<'_>) -> Option<String> {
    // Number of trials with an idle process, and of all that show it.
    let mut seen: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for row in scenario.rows() {
        for (process, cpu_us, answers) in &row.course.cpu_us {
            if *answers >= ANSWERS_MIN {
                let (idle, of) = seen.entry((process, &row.cell.path)).or_default();
                *idle += usize::from(*cpu_us < IDLE_US * *answers as f64);
                *of += 1;
            }
        }
    }
    seen.retain(|_, (idle, of)| 3 * *idle >= *of);
    let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (process, path) in seen.into_keys() {
        paths.entry(process).or_default().insert(path);
    }
    let named = paths.iter().map(|(process, paths)| {
        let paths: Vec<&str> = paths.iter().copied().collect();
        format!("'{process}' of {}", paths.join(", "))
    });
    let named: Vec<String> = named.collect();
    (!named.is_empty()).then(|| {
        format!(
            "Idle (under {IDLE_US} µs of CPU time for an answer): {}. An idle process has passed \
             its connections on, or another one answers before it; or requests don't come through \
             it, and then the figures don't show what it costs.",
            named.join("; ")
        )
    })
}
