//! The beginning of a report on two builds: a sentence for each path and endpoint, and a small
//! table. Both are about the highest load at which both builds have figures; at fixed rates, the
//! highest that both held. The other loads are named with what was found there.

use super::{change, lost, not_answered, trials_failed};
use crate::{
    ab::{AbComparison, Pair, Trials},
    metrics::Metric,
    report::{
        lead::LOST_SHARE_MAX,
        markdown,
        sheet::{Entry, Medium, Table},
        text::{interval, thousands, with_interval},
    },
    told::Told,
};

/// Returns the answer as text: what the builds are, the sentences, and the table.
pub(in crate::report) fn text(comparison: &AbComparison<'_>, medium: Medium) -> String {
    let mut out = format!("\n{}\n", comparison.builds());
    let said = sentences(comparison);
    if said.is_empty() {
        return out + "\nNothing measured.\n";
    }
    out += &format!("\n{}", markdown::list(&said, medium));
    out + &format!("\n{}\n{}\n", sheet(comparison).text(medium), EXPLANATION)
}

/// Explains the table.
pub(in crate::report) const EXPLANATION: &str = "Each path at the highest load at which both \
builds have figures; at fixed rates, at the highest that both held. Figures are b over a in the \
same block, with the interval in brackets.";

/// Returns a sentence for each path and endpoint.
pub(in crate::report) fn sentences(comparison: &AbComparison<'_>) -> Vec<String> {
    let has_more = comparison.manifest.scenarios.len() > 1;
    let said = groups(comparison).into_iter().map(|group| {
        let cell = &group[0].cell;
        let scenario = match has_more {
            true => format!("{} ", cell.scenario),
            false => String::new(),
        };
        let name = format!(
            "{scenario}{} on {}{}",
            cell.path,
            cell.endpoint,
            cell.setting()
        );
        format!("{name}: {}", sentence(&group))
    });
    said.collect()
}

/// Returns the table of the leading loads.
pub(in crate::report) fn sheet(comparison: &AbComparison<'_>) -> Table {
    let columns = [
        "Path",
        "Load",
        "RPS",
        "server CPU",
        "p99",
        "Not answered (a, b)",
        "Trials failed (a, b)",
    ];
    let mut sheet = Table::new(2, columns);
    for group in groups(comparison) {
        let pair = leading(&group).unwrap_or(group[0]);
        let cell = &pair.cell;
        let sum = |of: fn(&Trials<'_>) -> u64| of(&pair.a) + of(&pair.b);
        let shown = |metric| match metric {
            Metric::Rps if cell.rate_rps.is_some() => "–".into(),
            Metric::P99 if !holds(pair) => "–".into(),
            _ => change(pair, metric),
        };
        sheet.push(vec![
            cell.path.clone().into(),
            format!("{}{} c={}", cell.endpoint, cell.setting(), cell.load()).into(),
            shown(Metric::Rps),
            shown(Metric::Cpu),
            shown(Metric::P99),
            if_any(sum(|trials| lost(trials).0), not_answered(pair)),
            if_any(
                sum(|trials| trials.failures().count() as u64),
                trials_failed(pair),
            ),
        ]);
    }
    sheet
}

/// Returns an entry about what went wrong; an empty one if nothing did.
fn if_any(count: u64, entry: Entry) -> Entry {
    match count {
        0 => "".into(),
        _ => entry,
    }
}

/// Groups the cells by scenario, path, endpoint and kind of load. The cells of a group are in the
/// order of their loads.
fn groups<'c>(comparison: &'c AbComparison<'c>) -> Vec<Vec<&'c Pair<'c>>> {
    let key = |pair: &Pair<'_>| {
        let cell = &pair.cell;
        let of = (
            cell.scenario.clone(),
            cell.path.clone(),
            cell.endpoint.clone(),
        );
        (of, cell.setting(), cell.rate_rps.is_some())
    };
    let mut groups: Vec<Vec<&Pair<'_>>> = Vec::new();
    for pair in &comparison.cells {
        match groups.iter_mut().find(|group| key(group[0]) == key(pair)) {
            Some(group) => group.push(pair),
            None => groups.push(vec![pair]),
        }
    }
    groups
}

/// Finds the pair whose load leads. `None` if there is no load at which both have figures.
fn leading<'c>(group: &[&'c Pair<'c>]) -> Option<&'c Pair<'c>> {
    let known = || {
        let pairs = group.iter().rev();
        pairs.filter(|pair| pair.changes[Metric::Rps].is_some())
    };
    let held = known().find(|pair| pair.cell.rate_rps.is_none() || holds(pair));
    held.or_else(|| known().next_back()).copied()
}

/// Returns whether both builds answered all but a few of the requests that were due.
fn holds(pair: &Pair<'_>) -> bool {
    [&pair.a, &pair.b].into_iter().all(|trials| {
        let (lost, due) = lost(trials);
        trials.failures().next().is_none() && lost as f64 <= LOST_SHARE_MAX * due as f64
    })
}

fn sentence(group: &[&Pair<'_>]) -> String {
    let Some(leading) = leading(group) else {
        return match troubles(group).as_slice() {
            [] => "no load at which both have figures".to_owned(),
            troubles => troubles.join("; "),
        };
    };
    let main = main_metric(leading);
    let mut said = vec![headline(leading, main) + &format!(" at {}", load(leading))];
    for metric in [Metric::Cpu, Metric::P99] {
        let is_shown = metric != main && (metric != Metric::P99 || holds(leading));
        if is_shown && leading.told(metric) == Some(Told::Different) {
            let ratio = leading.changes[metric].as_ref().map(with_interval);
            said[0] += &format!(", {} {}", metric.title(), ratio.unwrap_or_default());
        }
    }
    let others = group.iter().filter(|pair| pair.cell != leading.cell);
    let mut untold: Vec<String> = Vec::new();
    let mut equal: Vec<String> = Vec::new();
    for pair in others {
        match (pair.told(main), &pair.changes[main]) {
            (Some(Told::NotToldApart), _) => untold.push(load(pair)),
            (Some(Told::Equal), _) => equal.push(load(pair)),
            (Some(_), Some(ratio)) => {
                said.push(format!("{} at {}", with_interval(ratio), load(pair)));
            }
            _ => {}
        }
    }
    for (what, loads) in [("equal", equal), ("can't tell", untold)] {
        if !loads.is_empty() {
            said.push(format!("{what} at {}", loads.join(", ")));
        }
    }
    said.extend(troubles(group));
    said.join("; ")
}

/// Returns the metric that a sentence is about: at a fixed rate, RPS are given.
fn main_metric(pair: &Pair<'_>) -> Metric {
    match (pair.cell.rate_rps, pair.changes[Metric::P99]) {
        (None, _) => Metric::Rps,
        (Some(_), Some(_)) if holds(pair) => Metric::P99,
        (Some(_), _) => Metric::Cpu,
    }
}

/// Says how b compares with a.
fn headline(pair: &Pair<'_>, metric: Metric) -> String {
    let name = metric.title();
    let (Some(ratio), Some(told)) = (&pair.changes[metric], pair.told(metric)) else {
        return format!("no {name} of both");
    };
    match told {
        Told::Different => format!("b has {} of a's {name}", with_interval(ratio)),
        Told::Equal => format!("b equals a in {name} ({})", interval(ratio)),
        Told::NotToldApart => format!("can't tell b from a in {name} ({})", interval(ratio)),
        Told::TooFewBlocks => format!(
            "b has {} of a's {name}, with too few blocks to be sure ({}),",
            with_interval(ratio),
            ratio.blocks
        ),
    }
}

/// Says where trials failed or requests were not answered.
fn troubles(group: &[&Pair<'_>]) -> Vec<String> {
    let mut said = Vec::new();
    for pair in group {
        let sides = [("a", &pair.a), ("b", &pair.b)];
        for (name, trials) in sides {
            let (failed, of) = (trials.failures().count(), trials.all.len());
            if failed > 0 {
                said.push(format!(
                    "{failed} of {of} trials of {name} failed at {}",
                    load(pair)
                ));
            }
            let (lost, due) = lost(trials);
            if lost > 0 {
                let [lost, due] = [lost, due].map(|count| thousands(count as f64));
                said.push(format!(
                    "{name} did not answer {lost} of {due} at {}",
                    load(pair)
                ));
            }
        }
    }
    said
}

fn load(pair: &Pair<'_>) -> String {
    format!("c={}", pair.cell.load())
}
