//! A comment on a pull request: short, with the details folded away.

use super::{dead, of_kind, sides, table, verdict};
use crate::{
    gate::{Finding, GateResult, Overall},
    report::{
        sheet::Medium,
        text::{escape, plural},
    },
};

/// Largest number of rows in a table. A comment has at most 65,536 characters, and a row has some
/// two hundred.
const ROWS_MAX: usize = 100;

/// Returns the comment as Markdown.
pub fn markdown(result: &GateResult) -> String {
    let mark = match result.overall() {
        Overall::Passed => "✅",
        Overall::Regressed => "❌",
        Overall::Inconclusive => "❔",
    };
    let mut out = format!("### {mark} {}\n\n", verdict(result));
    out += &format!(
        "**{}** {}.\n",
        escape(&result.question),
        escape(&result.compared)
    );
    for note in &result.notes {
        out += &format!("\n> **Note:** {note}\n");
    }
    let of = |kind| of_kind(result, kind).collect::<Vec<&Finding>>();
    let regressed = of(Overall::Regressed);
    if !regressed.is_empty() {
        out += &format!("\n#### Regressed\n\n{}", rows(&regressed));
    }
    let inconclusive = of(Overall::Inconclusive);
    if !inconclusive.is_empty() {
        let heading = format!("{} inconclusive", inconclusive.len());
        out += &folded(&heading, &rows(&inconclusive));
    }
    let dead_gates = result.dead_gates().count();
    if dead_gates > 0 {
        let heading = format!(
            "{}: the noise floor is larger than the limit",
            plural(dead_gates, "dead gate")
        );
        out += &folded(
            &heading,
            &shortened(&dead(result).text(Medium::Markdown), dead_gates),
        );
    }
    let passed = of(Overall::Passed);
    if !passed.is_empty() {
        out += &folded(&format!("{} passed", passed.len()), &rows(&passed));
    }
    let sides = sides(&result.sides());
    if !sides.is_empty() {
        out += &format!("\n{sides}");
    }
    out
}

fn folded(heading: &str, text: &str) -> String {
    format!("\n<details><summary>{heading}</summary>\n\n{text}\n</details>\n")
}

fn rows(findings: &[&Finding]) -> String {
    shortened(&table(findings).text(Medium::Markdown), findings.len())
}

/// Cuts a table that has too many rows, and says how many more there are.
fn shortened(table: &str, rows: usize) -> String {
    if rows <= ROWS_MAX {
        return table.to_owned();
    }
    let lines: Vec<&str> = table.lines().take(2 + ROWS_MAX).collect();
    format!("{}\n\n… and {} more\n", lines.join("\n"), rows - ROWS_MAX)
}
