//! Two runs side by side, as tables and as JSON.

use serde_json::{Map, Value, json};

use super::{
    markdown::{connection, mark, percent, share, with_interval},
    terminal::align,
};
use crate::{
    compare::{Compared, Comparison},
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
    let mut table = None;
    for compared in &comparison.cells {
        let Cell {
            scenario,
            endpoint,
            keep_alive,
            ..
        } = &compared.head.cell;
        if table.replace((scenario, endpoint, keep_alive)) != Some((scenario, endpoint, keep_alive))
        {
            out += &format!("\n### {scenario} {endpoint}{}\n\n", connection(*keep_alive));
            out += "| Transport | Concurrency | RPS vs Baseline, base | head |";
            out.extend(Figure::ALL.map(|figure| format!(" {} |", figure.title())));
            out += &format!("\n|---|{}\n", "---:|".repeat(3 + Figure::ALL.len()));
        }
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
    let mut out = format!("| {} | {} |", cell.path, cell.concurrency);
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
    if unknown > 0 {
        out += &format!(" ? is too few blocks to tell, which are {unknown} figures.");
    }
    let shown = comparison
        .cells
        .iter()
        .flat_map(|cell| Figure::ALL.map(|figure| cell.changes[figure]));
    let least = shown
        .flatten()
        .min_by(|one, other| one.confidence.total_cmp(&other.confidence));
    if let Some(least) = least {
        out += &format!(
            " An interval covers the true ratio in at least {:.0} of 100 comparisons.",
            (least.confidence * 100.0).floor()
        );
    }
    out + "\n"
}

/// The cells as JSON objects; missing figures are null.
pub fn cells(comparison: &Comparison<'_>) -> Vec<Value> {
    comparison.cells.iter().map(cell).collect()
}

fn cell(compared: &Compared<'_>) -> Value {
    let cell = &compared.head.cell;
    let [base, head] =
        [compared.base, compared.head].map(|row| row.ratios[Figure::Rps].map(|it| it.ratio));
    let mut fields = Map::from_iter([
        ("scenario".to_owned(), json!(cell.scenario)),
        ("endpoint".to_owned(), json!(cell.endpoint)),
        ("path".to_owned(), json!(cell.path)),
        ("concurrency".to_owned(), json!(cell.concurrency)),
        ("keep_alive".to_owned(), json!(cell.keep_alive)),
        ("is_reference".to_owned(), json!(compared.head.is_reference)),
        ("base_rps_ratio".to_owned(), json!(base)),
        ("head_rps_ratio".to_owned(), json!(head)),
    ]);
    for figure in Figure::ALL {
        let change = compared.changes[figure].map(|estimate| {
            json!({
                "ratio": estimate.ratio,
                "low": estimate.low,
                "high": estimate.high,
                "confidence": estimate.confidence,
                "p": estimate.p,
                "blocks": estimate.blocks,
                "differs": compared.differs(figure),
            })
        });
        fields.insert(figure.key().to_owned(), json!(change));
    }
    Value::Object(fields)
}
