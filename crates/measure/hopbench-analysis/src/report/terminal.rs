//! The tables of the report for a terminal, with aligned columns.

use super::{ab, markdown, marks, overview, parts, sentences, sheet::Medium, tables};
use crate::{ab::AbComparison, record::Trial, summary::Summary};

/// Returns the answer of every scenario, the warnings in one line, then all tables and pathologies.
/// `planned` trials were planned.
pub fn render(summary: &Summary<'_>, trials: &[Trial], planned: usize) -> String {
    let comparison = AbComparison::of(summary.manifest, trials);
    let mut out = String::new();
    if let Some(comparison) = &comparison {
        out += &ab::answer::text(comparison, Medium::Terminal);
    }
    let heads = markdown::answers(summary, Medium::Terminal);
    out += &heads.concat();
    if let Some(line) = sentences::doubts_line(summary, trials, planned) {
        out += &format!("\nRead this first: {line} The report says what to do.\n");
    }
    if let Some(comparison) = &comparison {
        out += &format!(
            "\n## b over a\n{}",
            ab::details(comparison, Medium::Terminal)
        );
    }
    for (scenario, head) in summary.scenarios.iter().zip(&heads) {
        out += &format!(
            "\n## {}: {}\n",
            scenario.info.name,
            scenario.info.question.trim()
        );
        let glance = overview::section(scenario, Medium::Terminal);
        let more = parts::sections(scenario).into_iter();
        let tables = tables::all(scenario, Medium::Terminal)
            + &more
                .map(|section| section.text(Medium::Terminal))
                .collect::<String>();
        let legend = marks::explained_in(&[head, &glance, &tables]);
        let short = sentences::explanation_in_short(scenario);
        let explained: Vec<String> = [short, legend].into_iter().flatten().collect();
        out += &glance;
        if !explained.is_empty() {
            out += &format!("\n{}\n", explained.join(" "));
        }
        out += &tables;
        // If there is nothing, the answer says so.
        if sentences::has_pathologies(scenario) {
            out += &markdown::pathologies(scenario, Medium::Terminal);
        }
    }
    out
}

/// Returns rows with aligned columns.
pub fn columns(rows: &[Vec<String>]) -> String {
    let rows = pad(rows, |_| false);
    let lines = rows.iter().map(|row| row.join("  ").trim_end().to_owned());
    lines.map(|line| line + "\n").collect()
}

/// Pads every cell to the width of its column, on the left where `is_right` says so.
pub(super) fn pad(rows: &[Vec<String>], is_right: impl Fn(usize) -> bool) -> Vec<Vec<String>> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let padded = |(column, cell): (usize, &String)| {
        let width = widths[column];
        match is_right(column) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        }
    };
    let padded = |row: &Vec<String>| row.iter().enumerate().map(padded).collect();
    rows.iter().map(padded).collect()
}
