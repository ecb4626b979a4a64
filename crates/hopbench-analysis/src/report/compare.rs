//! Two runs side by side, as tables and as JSON.

use serde_json::{Map, Value, json};

use super::{
    markdown::{connection, mark, percent, share, with_interval},
    terminal::align,
};
use crate::{
    compare::{Compared, Comparison},
    estimate::Estimate,
    figures::Figure,
    record::Cell,
};

/// Tables for people, with their columns under one another.
pub fn terminal(comparison: &Comparison<'_>) -> String {
    align(&markdown(comparison))
}

/// One table per scenario and endpoint.
pub fn markdown(comparison: &Comparison<'_>) -> String {
    let mut out = String::new();
    let mut columns = vec!["Transport", "Concurrency", "RPS vs Baseline, base", "head"];
    columns.extend(Figure::ALL.map(Figure::title));
    let mut before = None;
    for compared in &comparison.cells {
        let cell = &compared.head.cell;
        out += &heading(before.replace(cell), cell, &columns);
        out += &row(compared);
    }
    for (which, cells) in [
        ("base", &comparison.only_base),
        ("head", &comparison.only_head),
    ] {
        if !cells.is_empty() {
            let names: Vec<String> = cells.iter().map(|cell| cell.full_name()).collect();
            out += &format!("\nOnly in {which}: {}\n", names.join(", "));
        }
    }
    out + &explanation(comparison)
}

fn row(compared: &Compared<'_>) -> String {
    let cell = &compared.head.cell;
    let mut out = format!("| {} | {} |", cell.path_and_build(), cell.load());
    for row in [compared.base, compared.head] {
        let ratio = row.ratios[Figure::Rps].map(|it| percent(it.ratio));
        out += &match ratio {
            Some(ratio) => format!(" {ratio} |"),
            None => format!(" {} |", share(row, Figure::Rps)),
        };
    }
    out.extend(Figure::ALL.map(|figure| format!(" {} |", change(compared, figure))));
    out + "\n"
}

fn change(compared: &Compared<'_>, figure: Figure) -> String {
    match &compared.changes[figure] {
        None => "–".to_owned(),
        Some(estimate) => format!(
            "{}{}",
            mark(compared.differs(figure)),
            with_interval(estimate)
        ),
    }
}

fn explanation(comparison: &Comparison<'_>) -> String {
    let cells = || {
        let all = comparison.cells.iter();
        all.filter(|cell| !cell.head.is_reference)
    };
    let count = |is: Option<bool>| {
        let figures = cells().flat_map(|cell| Figure::ALL.map(|figure| (cell, figure)));
        figures
            .filter(|(cell, figure)| cell.changes[*figure].is_some() && cell.differs(*figure) == is)
            .count()
    };
    let [differing, alike, unknown] = [Some(true), Some(false), None].map(count);
    let mut out = format!(
        "\n{differing} of {} figures differ. What is compared is each run's ratio to its own \
         reference, head over base; of the reference, its figures as they are. ≈ is no difference: \
         100 % is within the interval, or a run's reference differs as much from itself.",
        differing + alike + unknown
    );
    let cells = comparison.cells.iter();
    let shown = cells.flat_map(|cell| Figure::ALL.map(|figure| cell.changes[figure]));
    out += &reliance(unknown, shown.flatten(), "comparisons");
    out
}

/// How far figures can be relied on: for how many there are too few blocks, and how often intervals
/// are right.
pub(super) fn reliance(
    unknown: usize,
    shown: impl Iterator<Item = Estimate>,
    times: &str,
) -> String {
    let mut out = String::new();
    if unknown > 0 {
        out += &format!(" ? is too few blocks to tell, which are {unknown} figures.");
    }
    if let Some(least) = shown.map(|it| it.confidence).reduce(f64::min) {
        out += &format!(
            " An interval covers the true ratio in at least {:.0} of 100 {times}.",
            (least * 100.0).floor()
        );
    }
    out + "\n"
}

/// A change, for machines.
pub(super) fn estimate_json(estimate: &Estimate, differs: Option<bool>) -> Value {
    json!({
        "ratio": estimate.ratio, "low": estimate.low, "high": estimate.high,
        "confidence": estimate.confidence, "p": estimate.p, "blocks": estimate.blocks,
        "differs": differs,
    })
}

/// The heading of a cell's table, if the one before was in another: scenario, endpoint and what
/// `columns` there are, of which the first are names.
pub(super) fn heading(before: Option<&Cell>, cell: &Cell, columns: &[&str]) -> String {
    let table = |cell: &Cell| {
        (
            cell.scenario.clone(),
            cell.endpoint.clone(),
            cell.keep_alive,
        )
    };
    if before.is_some_and(|before| table(before) == table(cell)) {
        return String::new();
    }
    let connection = connection(cell.keep_alive);
    format!(
        "\n### {} {}{connection}\n\n| {} |\n|---|{}\n",
        cell.scenario,
        cell.endpoint,
        columns.join(" | "),
        "---:|".repeat(columns.len() - 1)
    )
}

/// What a cell's JSON object begins with.
pub(super) fn identity(cell: &Cell) -> Map<String, Value> {
    Map::from_iter([
        ("scenario".to_owned(), json!(cell.scenario)),
        ("endpoint".to_owned(), json!(cell.endpoint)),
        ("path".to_owned(), json!(cell.path)),
        ("concurrency".to_owned(), json!(cell.concurrency)),
        ("keep_alive".to_owned(), json!(cell.keep_alive)),
        ("rate_rps".to_owned(), json!(cell.rate_rps)),
    ])
}

/// The cells as JSON objects; missing figures are null.
pub fn cells(comparison: &Comparison<'_>) -> Vec<Value> {
    comparison.cells.iter().map(cell).collect()
}

fn cell(compared: &Compared<'_>) -> Value {
    let cell = &compared.head.cell;
    let [base, head] =
        [compared.base, compared.head].map(|row| row.ratios[Figure::Rps].map(|it| it.ratio));
    let mut fields = identity(cell);
    fields.extend([
        ("build".to_owned(), json!(cell.build)),
        ("is_reference".to_owned(), json!(compared.head.is_reference)),
        ("base_rps_ratio".to_owned(), json!(base)),
        ("head_rps_ratio".to_owned(), json!(head)),
    ]);
    for figure in Figure::ALL {
        let change = compared.changes[figure]
            .map(|estimate| estimate_json(&estimate, compared.differs(figure)));
        fields.insert(figure.key().to_owned(), json!(change));
    }
    Value::Object(fields)
}
