//! The beginning of a report: a sentence for each path, and a small table with intervals.
//!
//! Which load a sentence is about is a rule that looks at no ratio, so that no path is shown at the
//! load that suits it: the highest one at which both the path and the reference have figures. At
//! fixed rates, where the highest one shows how a queue grows, it is the highest one that both
//! held.

mod version;
mod words;

pub(super) use self::version::named;

use self::words::{connections, failed_trials, failures, no_cpu, not_held, place, places, rate};
use super::{
    sentences,
    sheet::{Entry, Table, Tone},
    tables::{self, Section},
    text::{self, bound, part, percent, thousands, with_interval},
};
use crate::{
    estimate::Shift,
    metrics::Metric,
    record::{FrontProtocol, Manifest},
    statistics::samples_min,
    summary::{CellSummary, ScenarioSummary, Table as Cells},
    told::{MARGIN, Told},
};

/// Largest share of requests without a right answer with which a path holds a rate.
pub(super) const LOST_SHARE_MAX: f64 = 0.001;

/// Returns a sentence for each path, the reference first; none without a trial, and none of two
/// builds, which are compared with each other.
pub(super) fn sentences(manifest: &Manifest, scenario: &ScenarioSummary<'_>) -> Vec<String> {
    if !manifest.builds.is_empty() {
        return Vec::new();
    }
    let mut paths: Vec<&str> = Vec::new();
    for row in scenario.rows() {
        if !paths.contains(&row.cell.path.as_str()) {
            paths.push(&row.cell.path);
        }
    }
    paths.sort_by_key(|path| *path != scenario.info.reference);
    let is_plain = |path: &&str| front(manifest, path).is_plain();
    let are_plain = paths.iter().all(is_plain);
    let sentence = |path: &&str| {
        let said = match *path == scenario.info.reference {
            true => of_reference(scenario),
            false => of_path(scenario, path),
        };
        // Where one is asked in another way, a reader must know how the others are.
        let asked = match are_plain {
            true => String::new(),
            false => format!(", asked by {}", front(manifest, path)),
        };
        format!("{}{asked}: {said}", named(manifest, scenario.info, path))
    };
    let measured = paths.iter().map(sentence);
    measured.chain(unmeasured(manifest, &paths)).collect()
}

/// Returns how a path was asked.
fn front(manifest: &Manifest, path: &str) -> FrontProtocol {
    let mut paths = manifest.all_paths();
    let info = paths.find(|info| info.name == path);
    info.map_or_else(Default::default, |info| info.front)
}

/// Returns a sentence for each path that was chosen and has no trial yet. Of several scenarios, no
/// record says which path is whose.
fn unmeasured(manifest: &Manifest, measured: &[&str]) -> Vec<String> {
    let is_missing = |name: &str| manifest.scenarios.len() == 1 && !measured.contains(&name);
    let missing = manifest.paths.iter();
    let missing = missing.filter(move |path| path.skipped.is_none() && is_missing(&path.name));
    missing
        .map(|path| format!("{}: not measured", path.name))
        .collect()
}

/// Returns the table below the sentences: each path at its leading load, with intervals. `None`
/// without a path to compare, and of two builds.
pub(super) fn section(manifest: &Manifest, scenario: &ScenarioSummary<'_>) -> Option<Section> {
    if !manifest.builds.is_empty() {
        return None;
    }
    let reference = &scenario.info.reference;
    let columns = [
        "Path".to_owned(),
        "Load".to_owned(),
        format!("RPS vs {reference}"),
        "CPU (µs/req)".to_owned(),
        "p99 (ms)".to_owned(),
        "Not answered".to_owned(),
    ];
    let mut sheet = Table::new(2, columns);
    for table in &scenario.tables {
        for leading in leading_of(scenario, table) {
            let row = leading.row;
            let lost = sentences::shortfall(row);
            sheet.push(vec![
                row.cell.path_and_build().into(),
                format!(
                    "{}{} c={}",
                    row.cell.endpoint,
                    row.cell.setting(),
                    row.cell.load()
                )
                .into(),
                match table.is_fixed_rate {
                    true => "–".into(),
                    false => rps_entry(row),
                },
                leading.entry(Metric::Cpu),
                leading.entry(Metric::P99),
                lost.map_or_else(|| "".into(), |lost| Entry::new(lost, Tone::Bad)),
            ]);
        }
    }
    let text = format!(
        "Each path at the highest load at which it and '{reference}' have figures; at fixed rates, \
         at the highest that both held. CPU time and p99 are what the path adds to '{reference}' \
         in the same block, with the interval in brackets. There is no p99 where a block has under \
         {} answers, where trials failed, or where over {:.1} % of the requests were not answered.",
        thousands(samples_min(0.99)),
        LOST_SHARE_MAX * 100.0
    );
    (!sheet.is_empty()).then(|| Section {
        heading: "The answer".to_owned(),
        text: Some(text),
        sheet,
    })
}

/// A path's row at the load with which it leads, and the reference's row at the same load.
struct Leading<'s> {
    row: &'s CellSummary<'s>,
    reference: &'s CellSummary<'s>,
}

/// Returns the leading row of each path in a table, in the order of the paths.
fn leading_of<'s>(
    scenario: &'s ScenarioSummary<'s>,
    table: &'s Cells<'s>,
) -> impl Iterator<Item = Leading<'s>> {
    let mut paths: Vec<&str> = Vec::new();
    for row in table.rows.iter().filter(|row| !row.is_reference) {
        if !paths.contains(&row.cell.path.as_str()) {
            paths.push(&row.cell.path);
        }
    }
    let all = paths.into_iter();
    all.filter_map(|path| Leading::of(scenario, table, path))
}

impl<'s> Leading<'s> {
    /// Finds the leading row of a path. Rows are ordered by rate, then by concurrency. `None` if
    /// there is no load at which both the path and the reference have figures.
    fn of(scenario: &ScenarioSummary<'_>, table: &'s Cells<'s>, path: &str) -> Option<Self> {
        let reference_of = |row: &CellSummary<'_>| {
            let mut rows = table.rows.iter();
            rows.find(|it| {
                it.cell.path == scenario.info.reference && it.cell.load() == row.cell.load()
            })
        };
        let rows = table.rows.iter().filter(|row| row.cell.path == path);
        let both = rows.filter_map(|row| {
            let reference = reference_of(row)?;
            let all = [row, reference].iter().all(|it| it.rps.is_some());
            all.then_some(Self { row, reference })
        });
        let mut both: Vec<Self> = both.collect();
        let is_held = |it: &Self| holds(it.row) && holds(it.reference);
        let index = match table.is_fixed_rate {
            true => both.iter().rposition(is_held).unwrap_or(0),
            false => both.len().saturating_sub(1),
        };
        (index < both.len()).then(|| both.swap_remove(index))
    }

    /// Estimates what the path adds to the reference in the same block. `None` if that isn't
    /// known, and for latencies if some answers are missing.
    fn shift(&self, metric: Metric) -> Option<Shift> {
        // The answers that came are a selection of the quick ones.
        if metric == Metric::P99 && ![self.row, self.reference].iter().all(|it| holds(it)) {
            return None;
        }
        let blocks = self.row.blocks.minus(&self.reference.blocks);
        self.row.ratios[metric]?;
        Shift::of(blocks[metric].iter().copied())
    }

    /// Tells whether the path adds something. A difference must show both as a ratio and as a sum.
    fn told(&self, metric: Metric, shift: &Shift) -> Option<Told> {
        let told = self.row.told(metric)?;
        Some(match shift.is_difference(0.0) {
            Some(false) if told == Told::Different => Told::NotToldApart,
            _ => told,
        })
    }

    /// Says in a sentence what the path adds, or that it can't be told.
    fn said(&self, metric: Metric) -> Option<String> {
        let shift = self.shift(metric)?;
        let by = self.signed(metric, shift.by);
        let (before, after) = match metric {
            Metric::Cpu => ("", " µs CPU a request"),
            _ => ("p99 ", " ms"),
        };
        let name = match metric {
            Metric::Cpu => "CPU",
            _ => "p99",
        };
        Some(match self.told(metric, &shift)? {
            Told::Different | Told::TooFewBlocks => {
                let bound = bound(self.row.bounds[metric]);
                format!("{before}{bound}{by}{after}")
            }
            Told::Equal => format!("{name} equal"),
            Told::NotToldApart => format!("{name}: can't tell"),
        })
    }

    /// Says how much CPU time the path adds, or why that isn't known.
    fn cpu(&self) -> Option<String> {
        self.said(Metric::Cpu)
            .or_else(|| no_cpu([self.row, self.reference]))
    }

    /// Writes what the path adds, with its interval.
    fn entry(&self, metric: Metric) -> Entry {
        let Some(shift) = self.shift(metric) else {
            return "–".into();
        };
        let Some(told) = self.told(metric, &shift) else {
            return "–".into();
        };
        let [by, low, high] =
            [shift.by, shift.low, shift.high].map(|value| self.signed(metric, value));
        let bound = bound(self.row.bounds[metric]);
        match told {
            Told::NotToldApart => untold(&format!("{low} to {high}")),
            _ if low == high => Entry::told(&format!("{bound}{by}"), told),
            _ => Entry::told(&format!("{bound}{by} ({low} to {high})"), told),
        }
    }

    fn signed(&self, metric: Metric, value: f64) -> String {
        signed(match metric {
            Metric::Cpu => value,
            _ => value / 1e3,
        })
    }
}

/// Returns the share of the reference's requests per second, with its interval.
fn rps_entry(row: &CellSummary<'_>) -> Entry {
    match (row.told(Metric::Rps), row.ratios[Metric::Rps]) {
        (Some(Told::NotToldApart), Some(ratio)) => untold(&text::interval(&ratio)),
        _ => tables::told(row, Metric::Rps, with_interval),
    }
}

/// Returns an entry that shows an interval alone: an estimate would be taken for an answer.
fn untold(interval: &str) -> Entry {
    Entry::new(format!("can't tell ({interval})"), Tone::Faint)
}

/// Returns whether a path answered all but a few of the requests that were due.
pub(super) fn holds(row: &CellSummary<'_>) -> bool {
    let share = row.totals.lost() as f64 / row.totals.due().max(1) as f64;
    row.failures.is_empty() && share <= LOST_SHARE_MAX
}

/// Writes a difference with its sign and two significant digits, whole numbers in full.
fn signed(value: f64) -> String {
    let decimals = match value.abs() {
        10.0.. => 0,
        1.0.. => 1,
        0.1.. => 2,
        0.01.. => 3,
        _ => 4,
    };
    let text = text::signed(value, decimals);
    match text.trim_start_matches(['+', '−', '0', '.']).is_empty() {
        true => "0".to_owned(),
        false => text,
    }
}

/// Says the absolute figures of the reference at its highest load, of each table; at fixed rates,
/// the highest that it held.
fn of_reference(scenario: &ScenarioSummary<'_>) -> String {
    let figures = |table: &Cells<'_>| {
        let rows = || table.rows.iter().rev();
        let mut known = rows().filter(|row| row.is_reference && row.rps.is_some());
        if !table.is_fixed_rate {
            let row = known.next()?;
            let rps = thousands(row.rps?.median);
            return Some(format!("{rps} requests/s {}", place(scenario, row)));
        }
        let highest = known.next()?;
        Some(
            match [highest].into_iter().chain(known).find(|row| holds(row)) {
                Some(row) => format!("held {} {}", rate(row), at_connections(scenario, row)),
                None => not_held_at(scenario, highest),
            },
        )
    };
    let said: Vec<String> = scenario.tables.iter().filter_map(figures).collect();
    match said.is_empty() {
        true => "no figures".to_owned(),
        false => format!("the reference, {}", said.join("; ")),
    }
}

/// Says what a path costs at its leading load, and what can't be told or failed elsewhere.
fn of_path(scenario: &ScenarioSummary<'_>, path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for table in &scenario.tables {
        let rows = table.rows.iter().filter(|row| row.cell.path == path);
        let rows: Vec<&CellSummary<'_>> = rows.collect();
        if rows.is_empty() {
            continue;
        }
        let is_first = parts.is_empty();
        match (Leading::of(scenario, table, path), table.is_fixed_rate) {
            (None, _) => parts.extend(uncompared(scenario, &rows)),
            (Some(leading), true) => parts.extend(at_rates(scenario, &leading, &rows)),
            (Some(leading), false) => {
                parts.push(headline(scenario, &leading, is_first));
                parts.extend(elsewhere(scenario, &leading, &rows, is_first));
            }
        }
    }
    parts.join("; ")
}

/// Says why a path has no load at which it can be compared.
fn uncompared(scenario: &ScenarioSummary<'_>, rows: &[&CellSummary<'_>]) -> Vec<String> {
    let said = failures(scenario, rows);
    if !said.is_empty() {
        return said;
    }
    let trials: usize = rows.iter().map(|row| row.trials).sum();
    let why = match trials {
        0 => "not measured",
        _ => "measured, but not beside the reference",
    };
    vec![format!("{why} {}", places(scenario, rows))]
}

/// Says what a path costs in a closed loop. The first endpoint leads; of the others, a share is
/// enough.
fn headline(scenario: &ScenarioSummary<'_>, leading: &Leading<'_>, is_first: bool) -> String {
    let row = leading.row;
    let mut parts = vec![format!("{} {}", share(scenario, row), place(scenario, row))];
    if is_first {
        parts.extend(leading.cpu());
        parts.extend(leading.said(Metric::P99));
    }
    let lost = row.totals.lost();
    parts.extend((lost > 0).then(|| format!("{} not answered", part(lost, row.totals.due()))));
    parts.extend(failed_trials(&[row]));
    parts.extend(few_blocks(row, Metric::Rps));
    parts.join(", ")
}

/// Says at which other loads of a closed loop something can't be told or failed.
fn elsewhere(
    scenario: &ScenarioSummary<'_>,
    leading: &Leading<'_>,
    rows: &[&CellSummary<'_>],
    is_first: bool,
) -> Vec<String> {
    let others = rows.iter().filter(|row| row.cell != leading.row.cell);
    let others: Vec<&CellSummary<'_>> = others.copied().collect();
    let untold = others.iter();
    let untold = untold.filter(|row| row.told(Metric::Rps) == Some(Told::NotToldApart));
    let untold: Vec<&CellSummary<'_>> = untold.copied().collect();
    let states = rows.iter().filter(|row| row.groups.is_some());
    let states: Vec<&CellSummary<'_>> = states.copied().collect();
    let mut said = Vec::new();
    if is_first && !untold.is_empty() {
        said.push(format!("can't tell {}", places(scenario, &untold)));
    }
    said.extend(failures(scenario, &others));
    if is_first && !states.is_empty() {
        said.push(format!("two states {}", places(scenario, &states)));
    }
    said
}

/// Says what a path adds at the highest fixed rate that it and the reference held, and which rates
/// it didn't hold.
fn at_rates(
    scenario: &ScenarioSummary<'_>,
    leading: &Leading<'_>,
    rows: &[&CellSummary<'_>],
) -> Vec<String> {
    let mut parts = Vec::new();
    if holds(leading.row) {
        parts.push(added(scenario, leading));
    }
    let missed = rows.iter().filter(|row| !holds(row));
    parts.extend(missed.map(|row| not_held_at(scenario, row)));
    parts
}

/// Says what a path adds to the reference at a fixed rate.
fn added(scenario: &ScenarioSummary<'_>, leading: &Leading<'_>) -> String {
    let row = leading.row;
    let is_added = |metric: &Metric| {
        let shift = leading.shift(*metric);
        let told = shift.and_then(|shift| leading.told(*metric, &shift));
        matches!(told, Some(Told::Different | Told::TooFewBlocks))
    };
    let metrics = [Metric::Cpu, Metric::P99];
    let (differ, others): (Vec<Metric>, Vec<Metric>) = metrics.into_iter().partition(is_added);
    let differ: Vec<String> = differ
        .into_iter()
        .filter_map(|it| leading.said(it))
        .collect();
    let mut said = Vec::new();
    if !differ.is_empty() {
        let reference = &scenario.info.reference;
        said.push(format!("{} over {reference}", differ.join(" and ")));
    }
    for metric in others {
        said.extend(match metric {
            Metric::Cpu => leading.cpu(),
            _ => leading.said(metric),
        });
    }
    if said.is_empty() {
        said.push(format!("held, as by {}", scenario.info.reference));
    }
    said.extend(few_blocks(row, Metric::Cpu));
    let lost = row.totals.lost();
    said.extend((lost > 0).then(|| format!("{} not answered", part(lost, row.totals.due()))));
    let place = match scenario.tables.len() {
        1 => format!(", {}", connections(scenario, row)),
        _ => format!(" {}", connections(scenario, row)),
    };
    format!("at {}{place}, {}", rate(row), said.join(", "))
}

/// Says that a path didn't hold a rate, and why.
fn not_held_at(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let (place, why) = (at_connections(scenario, row), not_held(row));
    format!("{place}, could not hold {} ({why})", rate(row))
}

fn at_connections(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let at = if scenario.tables.len() == 1 {
        "at "
    } else {
        ""
    };
    format!("{at}{}", connections(scenario, row))
}

/// Says that a ratio has too few blocks. `None` if it has enough.
fn few_blocks(row: &CellSummary<'_>, metric: Metric) -> Option<String> {
    let blocks = row.ratios[metric].filter(|_| row.told(metric) == Some(Told::TooFewBlocks))?;
    Some(format!("too few blocks to be sure ({})", blocks.blocks))
}

/// Says how many of the reference's requests per second a path has.
fn share(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let reference = &scenario.info.reference;
    let (Some(ratio), Some(told)) = (row.ratios[Metric::Rps], row.told(Metric::Rps)) else {
        return "no ratio".to_owned();
    };
    let within = (MARGIN - 1.0) * 100.0;
    match told {
        Told::Different | Told::TooFewBlocks => format!("{} of {reference}", percent(ratio.ratio)),
        Told::Equal => format!("equal to {reference} (within {within:.0} %)"),
        Told::NotToldApart => {
            format!("can't tell from {reference} ({})", text::interval(&ratio))
        }
    }
}

#[cfg(test)]
mod tests;
