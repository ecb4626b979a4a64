//! Two builds side by side, as tables and as JSON.

use serde_json::{Value, json};

use super::{
    compare::{estimate_json, heading, identity, reliance},
    markdown::{mark, thousands, with_interval},
    terminal::align,
};
use crate::{
    ab::{Duel, Pair},
    estimate::Shift,
    figures::Figure,
};

/// Tables for people, with their columns under one another.
pub fn terminal(duel: &Duel<'_>) -> String {
    align(&markdown(duel))
}

/// Who they are, and one table per scenario and endpoint.
pub fn markdown(duel: &Duel<'_>) -> String {
    let mut out = format!("\n{}\n", duel.builds());
    let mut columns = vec!["Transport", "Concurrency", "RPS of a"];
    columns.extend(Figure::ALL.map(Figure::title));
    columns.extend(["growth of RSS", "A/A of RPS", "Trials failed, a, b"]);
    let mut before = None;
    for pair in &duel.cells {
        out += &heading(before.replace(&pair.cell), &pair.cell, &columns);
        out += &row(pair);
    }
    out + &explanation(duel)
}

fn row(pair: &Pair<'_>) -> String {
    let rps = pair.of_a(Figure::Rps).map(thousands);
    let mut out = format!(
        "| {} | {} | {} |",
        pair.cell.path,
        pair.cell.load(),
        rps.unwrap_or_else(|| "–".to_owned())
    );
    out.extend(Figure::ALL.map(|figure| format!(" {} |", change(pair, figure))));
    let growth = pair.growth.map(|growth| {
        let mark = mark(pair.growth_differs());
        format!("{mark}{}", mebibytes(&growth))
    });
    let [of_a, of_b] = [&pair.a, &pair.b].map(|trials| trials.failures().count());
    let control = pair.control[Figure::Rps].map(|control| with_interval(&control));
    out += &format!(
        " {} | {} | {of_a}, {of_b} |\n",
        growth.unwrap_or_else(|| "–".to_owned()),
        control.unwrap_or_else(|| "–".to_owned()),
    );
    out
}

fn change(pair: &Pair<'_>, figure: Figure) -> String {
    match &pair.changes[figure] {
        None => "–".to_owned(),
        Some(estimate) => format!("{}{}", mark(pair.differs(figure)), with_interval(estimate)),
    }
}

fn mebibytes(shift: &Shift) -> String {
    let [by, low, high] = [shift.by, shift.low, shift.high].map(|mib| format!("{mib:+.1}"));
    match low == high {
        true => format!("{by} MiB"),
        false => format!("{by} MiB ({low} to {high})"),
    }
}

fn explanation(duel: &Duel<'_>) -> String {
    let estimates = duel.cells.iter().flat_map(|pair| {
        let all = Figure::ALL.map(|figure| (pair.changes[figure], pair.differs(figure)));
        all.into_iter()
    });
    let known: Vec<_> = estimates
        .filter_map(|(estimate, differs)| Some((estimate?, differs)))
        .collect();
    let count = |is| known.iter().filter(|(_, differs)| *differs == is).count();
    let mut out = format!(
        "\n{} of {} figures differ. A ratio is b over a within a block, where a was measured \
         twice; of the growth of memory under load it is the difference. ≈ is no difference: the \
         interval has 100 % in it, or a differs as much from itself (A/A).",
        count(Some(true)),
        known.len()
    );
    out.extend(duel.left_out().map(|left_out| format!(" {left_out}.")));
    let shown = known.iter().map(|(estimate, _)| *estimate);
    out += &reliance(count(None), shown, "runs");
    out
}

/// The cells as JSON objects; missing figures are null.
pub fn cells(duel: &Duel<'_>) -> Vec<Value> {
    duel.cells.iter().map(cell).collect()
}

fn cell(pair: &Pair<'_>) -> Value {
    let cell = &pair.cell;
    let mut fields = identity(cell);
    for figure in Figure::ALL {
        let change = pair.changes[figure].map(|estimate| {
            let mut json = estimate_json(&estimate, pair.differs(figure));
            json["floor"] = json!(pair.floor(figure));
            json
        });
        fields.insert(figure.key().to_owned(), json!(change));
    }
    let growth = pair.growth.map(|shift| {
        json!({
            "by": shift.by, "low": shift.low, "high": shift.high,
            "confidence": shift.confidence, "p": shift.p, "blocks": shift.blocks,
            "floor": pair.growth_control.map(|control| control.reach()),
            "differs": pair.growth_differs(),
        })
    });
    fields.insert("rss_growth_mib".to_owned(), json!(growth));
    Value::Object(fields)
}
