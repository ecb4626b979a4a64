//! Two builds side by side, as tables and as JSON.

use serde_json::{Value, json};

use super::{
    compare::{by_endpoint, counted, estimate_json, identity, reliance},
    sheet::{Entry, Medium, Tone},
    tables::Section,
    text::{marks, part, thousands, with_interval},
};
use crate::{
    ab::{Duel, Pair, Trials},
    estimate::{Estimate, Shift},
    figures::Figure,
    told::Told,
};

/// Tables for people, with their columns under one another.
pub fn terminal(duel: &Duel<'_>) -> String {
    text(duel, Medium::Terminal)
}

/// Who they are, and one table per scenario and endpoint.
pub fn markdown(duel: &Duel<'_>) -> String {
    text(duel, Medium::Markdown)
}

fn text(duel: &Duel<'_>, medium: Medium) -> String {
    let mut out = format!("\n{}\n", duel.builds());
    out.extend(sections(duel).iter().map(|section| section.text(medium)));
    out + &format!("\n{}\n", explanation(duel))
}

/// The tables alone.
pub(super) fn sections(duel: &Duel<'_>) -> Vec<Section> {
    let mut columns = vec!["Transport", "Concurrency", "RPS of a"];
    columns.extend(Figure::ALL.map(Figure::title));
    columns.extend([
        "growth of RSS",
        "A/A of RPS",
        "Not answered, a, b",
        "Trials failed, a, b",
    ]);
    let rows = duel.cells.iter().map(|pair| (&pair.cell, row(pair)));
    by_endpoint(&columns, rows)
}

fn row(pair: &Pair<'_>) -> Vec<Entry> {
    let unknown = || Entry::from("–");
    let rps = pair.of_a(Figure::Rps).map(thousands);
    let mut row = vec![
        pair.cell.path.clone().into(),
        pair.cell.load().into(),
        rps.map_or_else(unknown, Entry::from),
    ];
    row.extend(Figure::ALL.map(|figure| change(pair, figure)));
    let growth = pair.growth;
    let growth = growth.map(|it| Entry::told(&mebibytes(&it), growth_told(pair, &it)));
    let control = pair.control[Figure::Rps].map(|control| with_interval(&control));
    let [of_a, of_b] = [&pair.a, &pair.b].map(|trials| trials.failures().count());
    let tone = match of_a + of_b {
        0 => Tone::Plain,
        _ => Tone::Bad,
    };
    row.extend([
        growth.unwrap_or_else(unknown),
        control.map_or_else(unknown, Entry::from),
        not_answered(pair),
        Entry::new(format!("{of_a}, {of_b}"), tone),
    ]);
    row
}

fn change(pair: &Pair<'_>, figure: Figure) -> Entry {
    match (&pair.changes[figure], pair.told(figure)) {
        (Some(estimate), Some(told)) => Entry::told(&with_interval(estimate), told),
        _ => "–".into(),
    }
}

/// Requests that got no right answer, and of how many that were due.
fn lost(trials: &Trials<'_>) -> (u64, u64) {
    let loads = trials.all.iter().filter_map(|trial| trial.measured());
    loads.fold((0, 0), |(lost, due), load| {
        (lost + load.lost(), due + load.due())
    })
}

fn not_answered(pair: &Pair<'_>) -> Entry {
    let [of_a, of_b] = [lost(&pair.a), lost(&pair.b)];
    let tone = match of_a.0 + of_b.0 {
        0 => Tone::Plain,
        _ => Tone::Bad,
    };
    let [of_a, of_b] = [of_a, of_b].map(|(lost, due)| part(lost, due));
    Entry::new(format!("{of_a}, {of_b}"), tone)
}

fn growth_told(pair: &Pair<'_>, growth: &Shift) -> Told {
    let floor = pair.growth_control.map_or(0.0, |control| control.reach());
    Told::of_shift(growth, floor)
}

fn mebibytes(shift: &Shift) -> String {
    let [by, low, high] = [shift.by, shift.low, shift.high].map(|mib| format!("{mib:+.1}"));
    match low == high {
        true => format!("{by} MiB"),
        false => format!("{by} MiB ({low} to {high})"),
    }
}

/// What is compared, and what the marks say.
pub(super) fn explanation(duel: &Duel<'_>) -> String {
    let figures = duel
        .cells
        .iter()
        .flat_map(|pair| Figure::ALL.map(|figure| (pair, figure)));
    let known = figures.filter_map(|(pair, figure)| {
        let estimate = pair.changes[figure]?;
        Some((estimate, pair.told(figure)?))
    });
    let (shown, told): (Vec<Estimate>, Vec<Told>) = known.unzip();
    let mut out = format!(
        "{} A ratio is b over a within a block, where a was measured twice; of the growth of \
         memory under load it is the difference, which is never called equal. {}",
        counted(&told),
        marks()
    );
    let unknown = told.iter().filter(|it| **it == Told::TooFewBlocks).count();
    out.extend(duel.disturbed().map(|disturbed| format!(" {disturbed}.")));
    out += &reliance(unknown, shown.into_iter(), "runs");
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
        let change = pair.changes[figure].zip(pair.told(figure));
        let change = change.map(|(estimate, told)| {
            let mut json = estimate_json(&estimate, told);
            json["floor"] = json!(pair.floor(figure));
            json
        });
        fields.insert(figure.key().to_owned(), json!(change));
    }
    for (side, trials) in [("a", &pair.a), ("b", &pair.b)] {
        let (lost, due) = lost(trials);
        let counts = json!({
            "trials": trials.all.len(), "failed_trials": trials.failures().count(),
            "due": due, "unanswered_requests": lost,
        });
        fields.insert(side.to_owned(), counts);
    }
    let growth = pair.growth.map(|shift| {
        json!({
            "by": shift.by, "low": shift.low, "high": shift.high,
            "confidence": shift.confidence, "p": shift.p, "blocks": shift.blocks,
            "floor": pair.growth_control.map(|control| control.reach()),
            "differs": growth_told(pair, &shift).is_different(),
            "told": growth_told(pair, &shift).key(),
        })
    });
    fields.insert("rss_growth_mib".to_owned(), json!(growth));
    Value::Object(fields)
}
