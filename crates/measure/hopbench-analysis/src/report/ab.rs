//! Two builds side by side, as tables and as JSON.

pub(super) mod answer;

use serde_json::{Value, json};

use super::{
    compare::{by_endpoint, counted, estimate_json, explained, identity, reliance},
    sheet::{Entry, Medium, Tone},
    tables::Section,
    text::{part, signed, thousands, with_interval},
};
use crate::{
    ab::{AbComparison, Pair, Trials},
    estimate::{Estimate, Shift},
    metrics::Metric,
    told::Told,
};

/// Returns the comparison for a terminal, with aligned columns: the answer, then a table per
/// scenario and endpoint.
pub fn terminal(comparison: &AbComparison<'_>) -> String {
    answer::text(comparison, Medium::Terminal) + &details(comparison, Medium::Terminal)
}

/// Returns the comparison as Markdown: the answer, then one table per scenario and endpoint.
pub fn markdown(comparison: &AbComparison<'_>) -> String {
    answer::text(comparison, Medium::Markdown) + &details(comparison, Medium::Markdown)
}

/// Returns the tables with their explanation.
pub(super) fn details(comparison: &AbComparison<'_>, medium: Medium) -> String {
    let sections = sections(comparison);
    let tables = sections.iter().map(|section| section.text(medium));
    tables.collect::<String>() + &format!("\n{}\n", explanation(comparison, &sections))
}

/// Returns the tables alone.
pub(super) fn sections(comparison: &AbComparison<'_>) -> Vec<Section> {
    let mut columns = vec!["Path", "Concurrency", "RPS of a"];
    columns.extend(Metric::ALL.map(Metric::title));
    columns.extend([
        "growth of RSS",
        "A/A control of RPS",
        "Not answered (a, b)",
        "Trials failed (a, b)",
    ]);
    let rows = comparison.cells.iter().map(|pair| (&pair.cell, row(pair)));
    by_endpoint(&columns, rows)
}

fn row(pair: &Pair<'_>) -> Vec<Entry> {
    let unknown = || Entry::from("–");
    let rps = pair.of_a(Metric::Rps).map(thousands);
    let mut row = vec![
        pair.cell.path.clone().into(),
        pair.cell.load().into(),
        rps.map_or_else(unknown, Entry::from),
    ];
    row.extend(Metric::ALL.map(|metric| change(pair, metric)));
    let growth = pair.growth;
    let growth = growth.map(|it| Entry::told(&mebibytes(&it), growth_told(pair, &it)));
    let control = pair.control[Metric::Rps].map(|control| with_interval(&control));
    row.extend([
        growth.unwrap_or_else(unknown),
        control.map_or_else(unknown, Entry::from),
        not_answered(pair),
        trials_failed(pair),
    ]);
    row
}

fn trials_failed(pair: &Pair<'_>) -> Entry {
    let [of_a, of_b] = [&pair.a, &pair.b].map(|trials| trials.failures().count());
    let tone = match of_a + of_b {
        0 => Tone::Plain,
        _ => Tone::Bad,
    };
    Entry::new(format!("{of_a}, {of_b}"), tone)
}

fn change(pair: &Pair<'_>, metric: Metric) -> Entry {
    match (&pair.changes[metric], pair.told(metric)) {
        (Some(estimate), Some(told)) => Entry::told(&with_interval(estimate), told),
        _ => "–".into(),
    }
}

/// Counts the requests that got no right answer, and those that were due.
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
    let noise_floor = pair
        .growth_control
        .map_or(0.0, |control| control.half_width());
    Told::of_shift(growth, noise_floor)
}

fn mebibytes(shift: &Shift) -> String {
    let [by, low, high] = [shift.by, shift.low, shift.high].map(|mib| signed(mib, 1));
    match low == high {
        true => format!("{by} MiB"),
        false => format!("{by} MiB ({low} to {high})"),
    }
}

/// Explains the comparison and the marks.
pub(super) fn explanation(comparison: &AbComparison<'_>, sections: &[Section]) -> String {
    let metrics = comparison
        .cells
        .iter()
        .flat_map(|pair| Metric::ALL.map(|metric| (pair, metric)));
    let known = metrics.filter_map(|(pair, metric)| {
        let estimate = pair.changes[metric]?;
        Some((estimate, pair.told(metric)?))
    });
    let (shown, told): (Vec<Estimate>, Vec<Told>) = known.unzip();
    let mut out = format!(
        "{} Each ratio is b over a within a block, in which a was measured twice. The growth of \
         RSS under load is compared as a difference, which is never called equal.{}",
        counted(&told),
        explained(sections)
    );
    let unknown = told.iter().filter(|it| **it == Told::TooFewBlocks).count();
    out.extend(
        comparison
            .disturbed()
            .map(|disturbed| format!(" {disturbed}.")),
    );
    out += &reliance(unknown, shown.into_iter(), "runs");
    out
}

/// Returns the cells as JSON objects; missing metrics are null.
pub fn cells(comparison: &AbComparison<'_>) -> Vec<Value> {
    comparison.cells.iter().map(cell).collect()
}

fn cell(pair: &Pair<'_>) -> Value {
    let cell = &pair.cell;
    let mut fields = identity(cell);
    for metric in Metric::ALL {
        let change = pair.changes[metric].zip(pair.told(metric));
        let change = change.map(|(estimate, told)| {
            let mut json = estimate_json(&estimate, told);
            json["noise_floor"] = json!(pair.noise_floor(metric));
            json
        });
        fields.insert(metric.key().to_owned(), json!(change));
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
            "noise_floor": pair.growth_control.map(|control| control.half_width()),
            "differs": growth_told(pair, &shift).is_different(),
            "told": growth_told(pair, &shift).key(),
        })
    });
    fields.insert("rss_growth_mib".to_owned(), json!(growth));
    Value::Object(fields)
}
