//! Two runs side by side, as tables and as JSON.

use serde_json::{Value, json};

use super::{
    markdown::{connection, percent},
    terminal::align,
};
use crate::{
    compare::{Compared, Comparison},
    estimate::Estimate,
    record::Cell,
    summary::Figure,
};

/// The figures that are compared: names, and where they are.
const FIGURES: [(&str, Figure); 5] = [
    ("RPS", |ratios| ratios.rps),
    ("p95", |ratios| ratios.p95),
    ("p99", |ratios| ratios.p99),
    ("server CPU", |ratios| ratios.cpu),
    ("peak RSS", |ratios| ratios.rss),
];

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
            out.extend(FIGURES.map(|(name, _)| format!(" {name} |")));
            out += &format!("\n|---|{}\n", "---:|".repeat(3 + FIGURES.len()));
        }
        out += &row(compared);
    }
    for (which, cells) in [
        ("base", &comparison.only_base),
        ("head", &comparison.only_head),
    ] {
        if !cells.is_empty() {
            let names: Vec<String> = cells.iter().map(|cell| cell.to_string()).collect();
            out += &format!("\nOnly in {which}: {}\n", names.join(", "));
        }
    }
    out + &explanation(comparison)
}

fn row(compared: &Compared<'_>) -> String {
    let cell = &compared.head.cell;
    let shares = [compared.base, compared.head].map(|row| match compared.is_reference {
        true => "the reference".to_owned(),
        false => share(row.ratios.rps),
    });
    let mut out = format!("| {} | {} |", cell.path, cell.concurrency);
    out.extend(shares.map(|share| format!(" {share} |")));
    out.extend(FIGURES.map(|(_, figure)| format!(" {} |", change(compared, figure))));
    out + "\n"
}

fn share(ratio: Option<Estimate>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| percent(ratio.ratio))
}

fn change(compared: &Compared<'_>, figure: Figure) -> String {
    let Some(estimate) = figure(&compared.changes) else {
        return "–".to_owned();
    };
    let like = match compared.differs(figure) {
        Some(true) => "",
        _ => "≈ ",
    };
    format!(
        "{like}{} ({}–{})",
        percent(estimate.ratio),
        percent(estimate.low),
        percent(estimate.high)
    )
}

fn explanation(comparison: &Comparison<'_>) -> String {
    let changes = || {
        let cells = comparison.cells.iter().filter(|cell| !cell.is_reference);
        cells.flat_map(|cell| FIGURES.map(|(_, figure)| cell.differs(figure)))
    };
    let compared = changes().flatten().count();
    let differences = changes().filter(|differs| *differs == Some(true)).count();
    let mut out = format!(
        "\n{differences} of {compared} figures differ. What is compared is each run's ratio to its \
         own reference, head over base; of the reference, its figures as they are. ≈ is no \
         difference: 100 % is within the interval, or a run's reference differs as much from \
         itself.\n",
    );
    let estimates = comparison.cells.iter().filter_map(|cell| cell.changes.rps);
    if let Some(estimate) = estimates.min_by_key(|estimate| estimate.blocks) {
        out += &format!(
            "With {} blocks, an interval covers the true ratio in at least {:.0} of 100 \
             comparisons.\n",
            estimate.blocks,
            (estimate.confidence * 100.0).floor()
        );
    }
    out
}

/// The cells as JSON objects; missing figures are null.
pub fn cells(comparison: &Comparison<'_>) -> Vec<Value> {
    let cells = comparison.cells.iter().map(|compared| {
        let cell = &compared.head.cell;
        let figure = |ratio: Figure| {
            ratio(&compared.changes).map(|estimate| {
                json!({
                    "ratio": estimate.ratio,
                    "low": estimate.low,
                    "high": estimate.high,
                    "confidence": estimate.confidence,
                    "p": estimate.p,
                    "blocks": estimate.blocks,
                    "differs": compared.differs(ratio),
                })
            })
        };
        json!({
            "scenario": cell.scenario,
            "endpoint": cell.endpoint,
            "path": cell.path,
            "concurrency": cell.concurrency,
            "keep_alive": cell.keep_alive,
            "is_reference": compared.is_reference,
            "base_rps_ratio": compared.base.ratios.rps.map(|ratio| ratio.ratio),
            "head_rps_ratio": compared.head.ratios.rps.map(|ratio| ratio.ratio),
            "rps": figure(|ratios| ratios.rps),
            "p95": figure(|ratios| ratios.p95),
            "p99": figure(|ratios| ratios.p99),
            "cpu": figure(|ratios| ratios.cpu),
            "rss": figure(|ratios| ratios.rss),
        })
    });
    cells.collect()
}
