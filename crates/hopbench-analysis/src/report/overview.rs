//! The one table to look at first: each path's share of the reference.

use std::collections::BTreeMap;

use super::markdown::{connection, errors, mark, percent};
use crate::{figures::Figure, summary::ScenarioSummary};

/// The overview as a section; empty if there is nothing to compare.
pub fn section(scenario: &ScenarioSummary<'_>) -> String {
    match tables(scenario) {
        none if none.is_empty() => none,
        tables => format!("\n### At a glance\n\n{tables}"),
    }
}

/// What the paths have over the reference, in a table for each kind of load: RPS, and at fixed
/// rates p99. Failed cells are named.
pub fn tables(scenario: &ScenarioSummary<'_>) -> String {
    let tables = [(false, Figure::Rps), (true, Figure::P99)]
        .map(|(is_fixed_rate, figure)| of_kind(scenario, is_fixed_rate, figure));
    let tables: Vec<String> = tables.into_iter().filter(|it| !it.is_empty()).collect();
    tables.join("\n")
}

/// Empty without a path to compare.
fn of_kind(scenario: &ScenarioSummary<'_>, is_fixed_rate: bool, figure: Figure) -> String {
    let tables = scenario.tables.iter();
    let alike = tables.filter(|table| table.is_fixed_rate == is_fixed_rate);
    let mut columns = Vec::new();
    let mut shares: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    let mut paths: Vec<String> = Vec::new();
    for row in alike.flat_map(|table| &table.rows) {
        let endpoint = format!("{}{}", row.cell.endpoint, connection(row.cell.keep_alive));
        let column = (endpoint, row.cell.load());
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
        let share = match row.ratios[figure] {
            Some(ratio) => mark(row.differs(figure)).to_owned() + &percent(ratio.ratio),
            // Nothing failed, but there is no reference yet.
            None if row.failures.is_empty() => "–".to_owned(),
            None => errors(row),
        };
        shares.entry(path).or_default().insert(index, share);
    }
    if paths.is_empty() {
        return String::new();
    }
    let heading = columns
        .iter()
        .map(|(endpoint, load)| format!(" {endpoint} c={load} |"));
    let mut out = format!("| {} vs {} |", figure.title(), scenario.info.reference);
    out.extend(heading);
    out += &format!("\n|---|{}\n", "---:|".repeat(columns.len()));
    for path in paths {
        out += &format!("| {path} |");
        for index in 0..columns.len() {
            let share = shares[&path].get(&index).map_or("–", String::as_str);
            out += &format!(" {share} |");
        }
        out += "\n";
    }
    out
}
