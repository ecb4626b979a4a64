//! The table to look at first: the share of the reference that each path has.

use std::collections::BTreeMap;

use super::{
    sentences::{errors, shortfall},
    sheet::{Entry, Medium, Table, Tone},
    tables,
    text::percent,
};
use crate::{metrics::Metric, summary::ScenarioSummary};

/// Heading of the overview in every report.
pub(super) const HEADING: &str = "At a glance";

/// Returns the overview as a section; empty if there is nothing to compare.
pub(super) fn section(scenario: &ScenarioSummary<'_>, medium: Medium) -> String {
    match text(scenario, medium) {
        none if none.is_empty() => none,
        tables => format!("\n### {HEADING}\n\n{tables}"),
    }
}

/// Returns as Markdown the share of the reference that each path has, in a table for each kind of
/// load: RPS, and at fixed rates p99. Failed cells are named.
pub fn tables(scenario: &ScenarioSummary<'_>) -> String {
    text(scenario, Medium::Markdown)
}

fn text(scenario: &ScenarioSummary<'_>, medium: Medium) -> String {
    let sheets: Vec<String> = sheets(scenario)
        .map(|(_, sheet)| sheet.text(medium))
        .collect();
    sheets.join("\n")
}

/// Returns the tables, each with a title.
pub(super) fn sheets(scenario: &ScenarioSummary<'_>) -> impl Iterator<Item = (String, Table)> {
    let kinds = [(false, Metric::Rps), (true, Metric::P99)];
    kinds.into_iter().filter_map(|(is_fixed_rate, metric)| {
        let sheet = of_kind(scenario, is_fixed_rate, metric)?;
        let title = format!("{} vs {}", metric.title(), scenario.info.reference);
        Some((title, sheet))
    })
}

/// Returns the table of one kind of load. `None` without a path to compare.
fn of_kind(scenario: &ScenarioSummary<'_>, is_fixed_rate: bool, metric: Metric) -> Option<Table> {
    let tables = scenario.tables.iter();
    let alike = tables.filter(|table| table.is_fixed_rate == is_fixed_rate);
    let mut columns = vec![format!("{} vs {}", metric.title(), scenario.info.reference)];
    let mut shares: BTreeMap<String, BTreeMap<usize, Entry>> = BTreeMap::new();
    let mut paths: Vec<String> = Vec::new();
    for row in alike.flat_map(|table| &table.rows) {
        let setting = row.cell.setting();
        let column = format!("{}{setting} c={}", row.cell.endpoint, row.cell.load());
        let index = columns.iter().position(|known| *known == column);
        let index = index.unwrap_or_else(|| {
            columns.push(column);
            columns.len() - 1
        });
        if row.is_reference {
            continue;
        }
        let path = row.cell.path_and_build();
        if !paths.contains(&path) {
            paths.push(path.clone());
        }
        let share = match row.rps {
            // This is a dash if there is no reference yet.
            Some(_) => tables::told(row, metric, |ratio| percent(ratio.ratio)).but(shortfall(row)),
            None => Entry::new(errors(row), Tone::Bad),
        };
        shares.entry(path).or_default().insert(index, share);
    }
    let count = columns.len();
    let mut sheet = Table::new(1, columns);
    for path in paths {
        let mut of_path = shares.remove(&path).unwrap_or_default();
        let metrics = (1..count).map(|index| of_path.remove(&index).unwrap_or_else(|| "–".into()));
        let metrics: Vec<Entry> = metrics.collect();
        let mut row = vec![path.into()];
        row.extend(metrics);
        sheet.push(row);
    }
    (!sheet.is_empty()).then_some(sheet)
}
