//! Two runs side by side, as tables and as JSON.

use serde_json::{Map, Value, json};

use super::{
    markdown, marks,
    sheet::{Entry, Medium, Table, Tone},
    tables::{Section, share},
    text::{bound, part, percent, plural, probability, thousands, with_interval},
};
use crate::{
    compare::{Compared, Comparison, changed_definitions},
    estimate::Estimate,
    metrics::Metric,
    record::{Cell, Manifest},
    told::Told,
};

/// Returns the comparison for a terminal, with aligned columns.
pub fn terminal(comparison: &Comparison<'_>) -> String {
    text(comparison, Medium::Terminal)
}

/// Says what has changed in the files of the paths, a line each.
pub fn definitions(base: &Manifest, head: &Manifest) -> Vec<String> {
    let changed = changed_definitions(base, head).into_iter();
    let lines = |lines: &[String]| match lines {
        [] => "nothing".to_owned(),
        [first] => format!("'{first}'"),
        [first, others @ ..] => format!("'{first}' and {}", plural(others.len(), "more line")),
    };
    let described = changed.map(|it| {
        format!(
            "the definition of '{}' has changed: {} in base, {} in head",
            it.path,
            lines(&it.only_base),
            lines(&it.only_head)
        )
    });
    described.collect()
}

/// Returns the comparison as Markdown, with one table per scenario and endpoint.
pub fn markdown(comparison: &Comparison<'_>) -> String {
    text(comparison, Medium::Markdown)
}

fn text(comparison: &Comparison<'_>, medium: Medium) -> String {
    let sections = sections(comparison);
    let list = failures(&comparison.cells);
    let mut out = match list.is_empty() {
        true => String::new(),
        false => format!(
            "\n### More failures than before\n\n{}",
            markdown::list(&list, medium)
        ),
    };
    out.extend(sections.iter().map(|section| section.text(medium)));
    out.extend(alone(comparison).iter().map(|line| format!("\n{line}\n")));
    out + &format!("\n{}\n", explanation(comparison, &sections))
}

/// Returns one table per scenario and endpoint.
pub(super) fn sections(comparison: &Comparison<'_>) -> Vec<Section> {
    // A table may be continued below anywhere, so each heading is complete.
    let columns = [
        "Path",
        "Concurrency",
        "RPS vs reference, base",
        "RPS vs reference, head",
        "Not answered, base",
        "Not answered, head",
        "Trials failed, base",
        "Trials failed, head",
    ];
    let changes = Metric::ALL.map(|metric| format!("{}, head / base", metric.title()));
    let columns: Vec<String> = columns
        .map(str::to_owned)
        .into_iter()
        .chain(changes)
        .collect();
    let rows = comparison.cells.iter();
    let rows = rows.map(|compared| (&compared.head.cell, row(compared)));
    by_endpoint(&columns, rows)
}

/// Returns a line for each cell in which head fails more or answers less than base, whatever its
/// metrics say.
pub(super) fn failures<'c>(cells: impl IntoIterator<Item = &'c Compared<'c>>) -> Vec<String> {
    let mut lines = Vec::new();
    for compared in cells {
        let name = compared.head.cell.full_name();
        let rows = [compared.base, compared.head];
        if compared.fails_more() {
            let [base, head] = compared.failed_trials();
            lines.push(format!(
                "{name}: {} of {} trials failed, against {} of {} in base (p {})",
                head.0,
                head.1,
                base.0,
                base.1,
                probability(compared.p_fails_more(), 2)
            ));
        }
        if compared.answers_less() {
            let [base, head] = rows.map(|row| {
                let totals = &row.totals;
                format!(
                    "{} of {}",
                    thousands(totals.lost() as f64),
                    thousands(totals.due() as f64)
                )
            });
            lines.push(format!(
                "{name}: {head} requests were not answered correctly, against {base} in base; the \
                 other metrics cover only the rest"
            ));
        }
    }
    lines
}

/// Returns a line for each run with cells that the other one does not have.
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
        let ratio = side.ratios[Metric::Rps].map(|it| percent(it.ratio));
        row.push(ratio.map_or_else(|| share(side, Metric::Rps), Entry::from));
    }
    for side in [compared.base, compared.head] {
        let (lost, due) = (side.totals.lost(), side.totals.due());
        row.push(match (lost, due) {
            (_, 0) => "–".into(),
            (0, _) => "0".into(),
            _ => Entry::new(part(lost, due), Tone::Bad),
        });
    }
    for (failed, of) in compared.failed_trials() {
        let tone = if failed == 0 { Tone::Plain } else { Tone::Bad };
        row.push(Entry::new(format!("{failed} of {of}"), tone));
    }
    row.extend(Metric::ALL.map(|metric| {
        // A larger RPS is no gain if more requests or trials fail.
        let is_less = metric == Metric::Rps && (compared.fails_more() || compared.answers_less());
        change(compared, metric).but(is_less.then(|| "more failures".to_owned()))
    }));
    row
}

fn change(compared: &Compared<'_>, metric: Metric) -> Entry {
    let (Some(estimate), Some(told)) = (&compared.changes[metric], compared.told(metric)) else {
        return "–".into();
    };
    let text = bound(compared.bounds[metric]).to_owned() + &with_interval(estimate);
    Entry::told(&text, told)
}

/// Explains the comparison and the marks.
pub(super) fn explanation(comparison: &Comparison<'_>, sections: &[Section]) -> String {
    let cells = || {
        let all = comparison.cells.iter();
        all.filter(|cell| !cell.head.is_reference)
    };
    let told: Vec<Told> = cells()
        .flat_map(|cell| Metric::ALL.map(|metric| cell.told(metric)))
        .flatten()
        .collect();
    let mut out = format!(
        "{} Each change is head over base: for a path, of its ratio to the reference of the same \
         run; for the reference, of its own metrics.{}",
        counted(&told),
        explained(sections)
    );
    let unknown = told.iter().filter(|it| **it == Told::TooFewBlocks).count();
    let cells = comparison.cells.iter();
    let shown = cells.flat_map(|cell| Metric::ALL.map(|metric| cell.changes[metric]));
    out += &reliance(unknown, shown.flatten(), "comparisons");
    out
}

/// Explains the marks in the tables, after a space.
pub(super) fn explained(sections: &[Section]) -> String {
    let entries = sections.iter().flat_map(|section| section.sheet.texts());
    marks::explained(entries).map_or_else(String::new, |said| format!(" {said}"))
}

/// Says how many metrics differ, are equal or are not told apart.
pub(super) fn counted(told: &[Told]) -> String {
    let count = |which| told.iter().filter(|it| **it == which).count();
    format!(
        "{} of {} metrics differ, {} are equal, {} cannot be told apart.",
        count(Told::Different),
        told.len(),
        count(Told::Equal),
        count(Told::NotToldApart)
    )
}

/// Says how far the metrics can be relied on: how many have too few blocks, and how often intervals
/// are right.
pub(super) fn reliance(
    unknown: usize,
    shown: impl Iterator<Item = Estimate>,
    times: &str,
) -> String {
    let mut out = String::new();
    if unknown > 0 {
        out += &format!(" {unknown} metrics have too few blocks to tell.");
    }
    // A ratio of too few blocks has no interval.
    let confidences = shown.map(|it| it.confidence).filter(|it| *it > 0.0);
    if let Some(least) = confidences.reduce(f64::min) {
        out += &format!(
            " Each confidence interval covers the true ratio in at least {:.0} of 100 {times}.",
            (least * 100.0).floor()
        );
    }
    out
}

/// Returns a change as JSON.
pub(super) fn estimate_json(estimate: &Estimate, told: Told) -> Value {
    json!({
        "ratio": estimate.ratio, "low": estimate.low, "high": estimate.high,
        "confidence": estimate.confidence, "p": estimate.p, "blocks": estimate.blocks,
        "differs": told.is_different(), "told": told.key(),
    })
}

/// Groups rows of cells into a table for each scenario and endpoint, in their order. The first
/// column holds names.
pub(super) fn by_endpoint<'a>(
    columns: &[impl AsRef<str>],
    rows: impl Iterator<Item = (&'a Cell, Vec<Entry>)>,
) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (cell, row) in rows {
        let setting = cell.setting();
        let heading = format!("{} {}{setting}", cell.scenario, cell.endpoint);
        if sections.last().is_none_or(|last| last.heading != heading) {
            sections.push(Section {
                heading,
                text: None,
                sheet: Table::new(1, columns.iter().map(|it| it.as_ref())).with_keys(2),
            });
        }
        let section = sections.last_mut().expect("there is one");
        section.sheet.push(row);
    }
    sections
}

/// Returns the fields that identify a cell in JSON.
pub(super) fn identity(cell: &Cell) -> Map<String, Value> {
    Map::from_iter([
        ("scenario".to_owned(), json!(cell.scenario)),
        ("endpoint".to_owned(), json!(cell.endpoint)),
        ("path".to_owned(), json!(cell.path)),
        ("concurrency".to_owned(), json!(cell.concurrency)),
        ("keep_alive".to_owned(), json!(cell.keep_alive)),
        ("rate_rps".to_owned(), json!(cell.rate_rps)),
        ("placement".to_owned(), json!(cell.placement)),
    ])
}

/// Returns the cells as JSON objects; missing metrics are null.
pub fn cells(comparison: &Comparison<'_>) -> Vec<Value> {
    comparison.cells.iter().map(cell).collect()
}

fn cell(compared: &Compared<'_>) -> Value {
    let cell = &compared.head.cell;
    let [base, head] =
        [compared.base, compared.head].map(|row| row.ratios[Metric::Rps].map(|it| it.ratio));
    let mut fields = identity(cell);
    fields.extend([
        ("build".to_owned(), json!(cell.build)),
        ("is_reference".to_owned(), json!(compared.head.is_reference)),
        ("base_rps_ratio".to_owned(), json!(base)),
        ("head_rps_ratio".to_owned(), json!(head)),
    ]);
    for (side, row) in [("base", compared.base), ("head", compared.head)] {
        let totals = &row.totals;
        let counts = json!({
            "trials": row.trials, "failed_trials": row.failures.len(), "due": totals.due(),
            "failed_requests": row.failed_requests(),
            "dropped_requests": totals.dropped_by_path,
            "dropped_late_requests": totals.dropped_late, "unanswered_requests": totals.lost(),
        });
        fields.insert(side.to_owned(), counts);
    }
    fields.extend([
        ("fails_more".to_owned(), json!(compared.fails_more())),
        ("p_fails_more".to_owned(), json!(compared.p_fails_more())),
        ("answers_less".to_owned(), json!(compared.answers_less())),
    ]);
    for metric in Metric::ALL {
        let change = compared.changes[metric].zip(compared.told(metric));
        let change = change.map(|(estimate, told)| {
            let mut json = estimate_json(&estimate, told);
            json["bound"] = json!(compared.bounds[metric].key());
            json
        });
        fields.insert(metric.key().to_owned(), json!(change));
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_intervals_that_exist_say_how_often_they_are_right() {
        let estimate = |blocks: usize| {
            let values = std::iter::repeat_n(1.0, blocks);
            Estimate::of(values).expect("values")
        };
        let told = |all: Vec<Estimate>| reliance(1, all.into_iter(), "comparisons");
        let of_both = told(vec![estimate(1), estimate(8)]);
        assert_eq!(of_both, told(vec![estimate(8)]));
        assert!(
            of_both.contains("in at least 96 of 100 comparisons"),
            "{of_both}"
        );
        assert!(!told(vec![estimate(1)]).contains("interval"));
    }
}
