//! Two runs side by side, as tables and as JSON.

use serde_json::{Map, Value, json};

use super::{
    sheet::{Entry, Medium, Sheet},
    tables::{Section, share},
    text::{connection, percent, with_interval},
};
use crate::{
    compare::{Compared, Comparison},
    estimate::Estimate,
    figures::Figure,
    record::Cell,
};

/// Tables for people, with their columns under one another.
pub fn terminal(comparison: &Comparison<'_>) -> String {
    text(comparison, Medium::Terminal)
}

/// One table per scenario and endpoint.
pub fn markdown(comparison: &Comparison<'_>) -> String {
    text(comparison, Medium::Markdown)
}

fn text(comparison: &Comparison<'_>, medium: Medium) -> String {
    let sections = sections(comparison).into_iter();
    let mut out: String = sections.map(|section| section.text(medium)).collect();
    out.extend(alone(comparison).iter().map(|line| format!("\n{line}\n")));
    out + &format!("\n{}\n", explanation(comparison))
}

/// The same as tables.
pub(super) fn sections(comparison: &Comparison<'_>) -> Vec<Section> {
    let mut columns = vec!["Transport", "Concurrency", "RPS vs Baseline, base", "head"];
    columns.extend(Figure::ALL.map(Figure::title));
    let rows = comparison.cells.iter();
    let rows = rows.map(|compared| (&compared.head.cell, row(compared)));
    by_endpoint(&columns, rows)
}

/// Cells that only one of the runs has.
pub(super) fn alone(comparison: &Comparison<'_>) -> Vec<String> {
    let sides = [
        ("base", &comparison.only_base),
        ("head", &comparison.only_head),
    ];
    let alone = sides.into_iter().filter(|(_, cells)| !cells.is_empty());
    alone
        .map(|(which, cells)| {
            let names: Vec<String> = cells.iter().map(|cell| cell.full_name()).collect();
            format!("Only in {which}: {}", names.join(", "))
        })
        .collect()
}

fn row(compared: &Compared<'_>) -> Vec<Entry> {
    let cell = &compared.head.cell;
    let mut row = vec![cell.path_and_build().into(), cell.load().into()];
    for side in [compared.base, compared.head] {
        let ratio = side.ratios[Figure::Rps].map(|it| percent(it.ratio));
        row.push(ratio.map_or_else(|| share(side, Figure::Rps), Entry::from));
    }
    row.extend(Figure::ALL.map(|figure| change(compared, figure)));
    row
}

fn change(compared: &Compared<'_>, figure: Figure) -> Entry {
    match &compared.changes[figure] {
        None => "–".into(),
        Some(estimate) => Entry::told(&with_interval(estimate), compared.differs(figure)),
    }
}

/// What is compared, and what the marks say.
pub(super) fn explanation(comparison: &Comparison<'_>) -> String {
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
        "{differing} of {} figures differ. What is compared is each run's ratio to its own \
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
    out
}

/// A change, for machines.
pub(super) fn estimate_json(estimate: &Estimate, differs: Option<bool>) -> Value {
    json!({
        "ratio": estimate.ratio, "low": estimate.low, "high": estimate.high,
        "confidence": estimate.confidence, "p": estimate.p, "blocks": estimate.blocks,
        "differs": differs,
    })
}

/// Rows of cells in a table for each scenario and endpoint, in their order. The first column is
/// names.
pub(super) fn by_endpoint<'a>(
    columns: &[&str],
    rows: impl Iterator<Item = (&'a Cell, Vec<Entry>)>,
) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (cell, row) in rows {
        let connection = connection(cell.keep_alive);
        let heading = format!("{} {}{connection}", cell.scenario, cell.endpoint);
        if sections.last().is_none_or(|last| last.heading != heading) {
            sections.push(Section {
                heading,
                text: None,
                sheet: Sheet::new(1, columns.iter().copied()),
            });
        }
        let section = sections.last_mut().expect("there is one");
        section.sheet.push(row);
    }
    sections
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
