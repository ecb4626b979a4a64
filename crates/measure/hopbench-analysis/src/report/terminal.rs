//! The tables of the report for a terminal, with aligned columns.

use super::{markdown, overview, sentences, sheet::Medium, tables};
use crate::summary::Summary;

/// Returns the tables and pathologies of every scenario.
pub fn render(summary: &Summary<'_>) -> String {
    let mut out = String::new();
    for scenario in &summary.scenarios {
        out += &format!(
            "\n## {}: {}\n",
            scenario.info.name,
            scenario.info.question.trim()
        );
        out.extend(sentences::explanation(scenario).map(|text| format!("\n{text}\n")));
        out += &tables::all(scenario, Medium::Terminal);
        out += &overview::section(scenario, Medium::Terminal);
        out += &markdown::pathologies(scenario, Medium::Terminal);
    }
    out
}

/// Pads the cells of every table in `text` to the width of their column.
pub(super) fn align(text: &str) -> String {
    let mut out = String::new();
    let mut table: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().chain([""]) {
        if let Some(row) = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
        {
            table.push(row.split('|').map(str::trim).collect());
            continue;
        }
        out += &pad(&table);
        table.clear();
        out += line;
        out += "\n";
    }
    out
}

fn pad(table: &[Vec<&str>]) -> String {
    let width = |column: usize| {
        let cells = table
            .iter()
            .filter(|row| !is_rule(row))
            .filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let mut out = String::new();
    for row in table {
        out += "|";
        for (column, cell) in row.iter().enumerate() {
            let padding = width(column).saturating_sub(cell.chars().count());
            match (is_rule(row), column) {
                (true, _) => out += &format!("{}|", "-".repeat(width(column) + 2)),
                // The first column holds names, the others metrics.
                (false, 0) => out += &format!(" {cell}{} |", " ".repeat(padding)),
                (false, _) => out += &format!(" {}{cell} |", " ".repeat(padding)),
            }
        }
        out += "\n";
    }
    out
}

fn is_rule(row: &[&str]) -> bool {
    row.iter()
        .all(|cell| cell.trim_matches(['-', ':']).is_empty())
}
