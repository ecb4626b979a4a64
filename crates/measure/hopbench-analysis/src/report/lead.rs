//! The beginning of a report: a sentence for each path, and a small table with intervals.
//!
//! Which load a sentence is about is a rule that looks at no ratio, so that no path is shown at the
//! load that suits it: the highest one at which both the path and the reference have figures. At
//! fixed rates, where the highest one shows how a queue grows, it is the highest one that both
//! held.

mod version;

pub(super) use self::version::named;

use super::{
    sentences,
    sheet::{Entry, Table, Tone},
    tables::{self, Section},
    text::{self, bound, percent, with_interval},
};
use crate::{
    estimate::Shift,
    metrics::Metric,
    record::{FrontProtocol, Manifest},
    summary::{CellSummary, ScenarioSummary, Table as Cells},
    told::{MARGIN, Told},
};

/// Largest share of requests without a right answer with which a path holds a rate.
const LOST_SHARE_MAX: f64 = 0.001;

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
    let sentence = |path: &&str| {
        let said = match *path == scenario.info.reference {
            true => of_reference(scenario),
            false => of_path(scenario, path),
        };
        let asked = front(manifest, path).after_path();
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
                lost.map_or_else(|| "–".into(), |lost| Entry::new(lost, Tone::Bad)),
            ]);
        }
    }
    let text = format!(
        "Each path at the highest load at which it and '{reference}' have figures; at fixed rates, \
         at the highest that both held. CPU time and p99 are what the path adds to '{reference}' \
         in the same block, with the interval in brackets; p99 is that of the answers that came."
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
    /// known.
    fn shift(&self, metric: Metric) -> Option<Shift> {
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
fn holds(row: &CellSummary<'_>) -> bool {
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

/// Says the absolute figures of the reference at its highest load, of each table.
fn of_reference(scenario: &ScenarioSummary<'_>) -> String {
    let figures = |table: &Cells<'_>| {
        let mut rows = table.rows.iter().rev();
        let row = rows.find(|row| row.is_reference && row.rps.is_some())?;
        let rps = text::thousands(row.rps?.median);
        Some(format!("{rps} requests/s {}", place(scenario, row)))
    };
    let said: Vec<String> = scenario.tables.iter().filter_map(figures).collect();
    match said.is_empty() {
        true => "no figures".to_owned(),
        false => format!("the reference, {}", said.join("; ")),
    }
}

/// Says what a path costs at its leading load, and what can't be told elsewhere.
fn of_path(scenario: &ScenarioSummary<'_>, path: &str) -> String {
    let mut parts = Vec::new();
    for table in &scenario.tables {
        let rows = || table.rows.iter().filter(|row| row.cell.path == path);
        if rows().next().is_none() {
            continue;
        }
        // The first table leads; of the others, a share is enough.
        let is_first = parts.is_empty();
        let Some(leading) = Leading::of(scenario, table, path) else {
            let loads: Vec<&CellSummary<'_>> = rows().collect();
            parts.push(format!(
                "{} {}",
                uncompared(&loads),
                places(scenario, &loads)
            ));
            continue;
        };
        parts.push(headline(scenario, table, &leading, is_first));
        if !is_first {
            continue;
        }
        let others = || rows().filter(|row| row.cell != leading.row.cell);
        let metric = if table.is_fixed_rate {
            Metric::P99
        } else {
            Metric::Rps
        };
        let untold = |row: &&CellSummary<'_>| row.told(metric) == Some(Told::NotToldApart);
        let elsewhere = [
            ("can't tell", others().filter(untold).collect::<Vec<_>>()),
            (
                "failures",
                others().filter(|row| row.has_failures()).collect(),
            ),
            (
                "two states",
                rows().filter(|row| row.groups.is_some()).collect(),
            ),
        ];
        let named = elsewhere.iter().filter(|(_, rows)| !rows.is_empty());
        parts.extend(named.map(|(what, rows)| format!("{what} {}", places(scenario, rows))));
    }
    parts.join("; ")
}

/// Says why a path has no load at which it can be compared.
fn uncompared(rows: &[&CellSummary<'_>]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    let (mut failed, mut trials) = (0, 0);
    for row in rows {
        failed += row.failures.len();
        trials += row.trials;
        for failure in &row.failures {
            let kind = failure.kind.to_string();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    match (trials, failed) {
        (0, _) => "not measured".to_owned(),
        (_, 0) => "measured, but not beside the reference".to_owned(),
        _ => format!("{failed} of {trials} trials failed: {}", kinds.join(", ")),
    }
}

fn headline(
    scenario: &ScenarioSummary<'_>,
    table: &Cells<'_>,
    leading: &Leading<'_>,
    is_first: bool,
) -> String {
    let row = leading.row;
    let mut parts = Vec::new();
    match table.is_fixed_rate {
        true => parts.push(format!("over {}", scenario.info.reference)),
        false => parts.push(share(scenario, row)),
    }
    parts[0] += &format!(" {}", place(scenario, row));
    if is_first {
        parts.extend(leading.said(Metric::Cpu));
    }
    if is_first || table.is_fixed_rate {
        parts.extend(leading.said(Metric::P99));
    }
    parts.extend(sentences::shortfall(row));
    if row.told(Metric::Rps) == Some(Told::TooFewBlocks) {
        let blocks = row.ratios[Metric::Rps].map_or(0, |ratio| ratio.blocks);
        parts.push(format!("too few blocks to be sure ({blocks})"));
    }
    parts.join(", ")
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

/// Says at which load, and on which endpoint if there are several.
fn place(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    match scenario.tables.len() {
        1 => loads(&[row]),
        _ => format!(
            "on {}{} {}",
            row.cell.endpoint,
            row.cell.setting(),
            loads(&[row])
        ),
    }
}

fn places(scenario: &ScenarioSummary<'_>, rows: &[&CellSummary<'_>]) -> String {
    match (scenario.tables.len(), rows.first()) {
        (2.., Some(row)) => format!(
            "on {}{} {}",
            row.cell.endpoint,
            row.cell.setting(),
            loads(rows)
        ),
        _ => loads(rows),
    }
}

fn loads(rows: &[&CellSummary<'_>]) -> String {
    let loads = rows.iter().map(|row| format!("c={}", row.cell.load()));
    format!("at {}", loads.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
