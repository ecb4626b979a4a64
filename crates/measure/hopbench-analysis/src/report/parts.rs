//! Tables of what a load is made of: kinds of requests, stages, disruptions, slopes.

use serde_json::{Value, json};

use super::{
    sheet::{Entry, Table, Tone},
    tables::Section,
    text::{hundredths, latencies, part, spread, tenths, thousands},
};
use crate::{
    statistics::{Spread, median},
    summary::{CellSummary, PartSummary, Percentiles, ScenarioSummary, Summary},
    timeline::{Slopes, slope::Slope},
};

/// Returns the sections that the scenario has something for.
pub(super) fn sections(scenario: &ScenarioSummary<'_>) -> Vec<Section> {
    let sections = [
        figures(scenario, "Requests", "Request", |row| &row.by_request),
        figures(scenario, "Stages", "Stage", |row| &row.by_stage),
        errors(scenario),
        recovery(scenario),
        slopes(scenario),
    ];
    sections.into_iter().flatten().collect()
}

/// Most kinds of errors that are named for a cell.
const KINDS_MAX: usize = 5;

/// Returns what was wrong with the requests that got no correct answer, the most frequent first.
fn errors(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let columns = ["Path", "Endpoint", "Concurrency", "Errors"];
    let mut sheet = Table::new(2, columns).with_keys(3).with_notes(1);
    for row in scenario.rows() {
        let mut kinds: Vec<(&String, &u64)> = row.totals.errors.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let more = kinds.len().saturating_sub(KINDS_MAX);
        let named = kinds.iter().take(KINDS_MAX);
        let mut named: Vec<String> = named
            .map(|(what, count)| format!("{} × {what}", thousands(**count as f64)))
            .collect();
        if more > 0 {
            named.push(format!("{more} more kinds"));
        }
        if !named.is_empty() {
            sheet.push(vec![
                row.cell.path_and_build().into(),
                row.cell.endpoint.clone().into(),
                row.cell.load().into(),
                named.join(", ").into(),
            ]);
        }
    }
    (!sheet.is_empty()).then(|| Section {
        heading: "Errors".to_owned(),
        text: None,
        sheet,
    })
}

fn figures(
    scenario: &ScenarioSummary<'_>,
    heading: &str,
    what: &str,
    of: for<'r> fn(&'r CellSummary<'_>) -> &'r [PartSummary],
) -> Option<Section> {
    let columns = [
        "Path",
        "Concurrency",
        what,
        "RPS",
        "p50 (ms)",
        "p95 (ms)",
        "p99 (ms)",
        "Not answered",
    ];
    let mut sheet = Table::new(3, columns);
    for row in scenario.rows() {
        for part_of in of(row) {
            let percentile = |it: Option<Percentiles>| {
                Entry::from(it.map_or_else(|| "n/a".to_owned(), latencies))
            };
            sheet.push(vec![
                row.cell.path_and_build().into(),
                row.cell.load().into(),
                part_of.name.clone().into(),
                spread(part_of.rps, thousands).into(),
                percentile(part_of.p50_us),
                percentile(part_of.p95_us),
                percentile(part_of.p99_us),
                lost(part_of),
            ]);
        }
    }
    let text = match what {
        "Stage" => {
            "Each request belongs to the stage in which it was due. Not answered: requests that \
             got no answer, or were never sent."
        }
        _ => "Each kind of request by itself, in the same load.",
    };
    section(sheet, heading, text)
}

fn lost(part_of: &PartSummary) -> Entry {
    let tone = if part_of.lost > 0 {
        Tone::Bad
    } else {
        Tone::Plain
    };
    Entry::new(part(part_of.lost, part_of.due), tone)
}

fn recovery(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let rule = scenario.info.recovery.as_ref()?;
    let columns = [
        "Path",
        "Concurrency",
        "Disruptions",
        "Longest (s)",
        "Not recovered (blocks)",
        "Failed requests",
    ];
    let mut sheet = Table::new(1, columns).with_keys(2);
    for row in scenario.rows().filter(|row| !row.disruptions.is_empty()) {
        let blocks = &row.disruptions;
        let longest = blocks.iter().filter_map(|it| it.longest_s());
        let longest = Spread::of(longest.map(|seconds| seconds as f64));
        let stuck = blocks.iter().filter(|it| it.longest_s().is_none()).count();
        let tone = if stuck > 0 { Tone::Bad } else { Tone::Plain };
        let count: usize = blocks.iter().map(|it| it.all.len()).sum();
        let errors: u64 = blocks.iter().map(|it| it.errors()).sum();
        sheet.push(vec![
            row.cell.path_and_build().into(),
            row.cell.load().into(),
            count.to_string().into(),
            spread(longest, |seconds| format!("{seconds:.0}")).into(),
            Entry::new(format!("{stuck} of {}", blocks.len()), tone),
            errors.to_string().into(),
        ]);
    }
    let text = format!(
        "A second is good if there are answers, their p95 is at most {} times the median of those \
         in stage '{}', and at most 1 % more of the requests fail. A disruption lasts from a bad \
         second after that stage to the first of {} good ones in a row, or of those that are good \
         until the end; a path whose last second is bad has not recovered. Disruptions and failed \
         requests are those of all blocks.",
        rule.p95_factor, rule.baseline, rule.seconds
    );
    section(sheet, "Recovery", &text)
}

fn slopes(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let columns = [
        "Path",
        "Concurrency",
        "RSS (MiB/min)",
        "descriptors (1/min)",
        "p99 (ms/min)",
    ];
    let mut sheet = Table::new(1, columns).with_keys(2);
    for row in scenario.rows().filter(|row| has_slope(row)) {
        let slope = |of: fn(&Slopes) -> Option<Slope>, factor: f64, text: fn(f64) -> String| {
            Entry::from(over_blocks(row, of).map_or_else(
                || "–".to_owned(),
                |slope| {
                    let slope = slope.times(factor);
                    format!(
                        "{} ({} to {})",
                        text(slope.slope),
                        text(slope.low),
                        text(slope.high)
                    )
                },
            ))
        };
        sheet.push(vec![
            row.cell.path_and_build().into(),
            row.cell.load().into(),
            slope(|it| it.rss_kib, 60.0 / 1024.0, hundredths),
            slope(|it| it.descriptors, 60.0, tenths),
            slope(|it| it.p99_us, 60.0 / 1e3, hundredths),
        ]);
    }
    section(
        sheet,
        "Slopes",
        "How fast something grows over the seconds of a load: the Theil-Sen slope with Sen's \
         interval of 95 %, and of several blocks the medians. Memory and descriptors are those of \
         the path's processes together; the p99 is that of each second.",
    )
}

fn has_slope(row: &CellSummary<'_>) -> bool {
    row.slopes.iter().any(|slopes| *slopes != Slopes::default())
}

/// Returns the medians of the blocks' slopes and of their ends.
pub(super) fn over_blocks(
    row: &CellSummary<'_>,
    of: fn(&Slopes) -> Option<Slope>,
) -> Option<Slope> {
    let blocks: Vec<Slope> = row.slopes.iter().filter_map(of).collect();
    let middle = |end: fn(&Slope) -> f64| median(&blocks.iter().map(end).collect::<Vec<_>>());
    Some(Slope {
        slope: middle(|it| it.slope)?,
        low: middle(|it| it.low)?,
        high: middle(|it| it.high)?,
    })
}

fn section(sheet: Table, heading: &str, text: &str) -> Option<Section> {
    (!sheet.is_empty()).then(|| Section {
        heading: heading.to_owned(),
        text: Some(text.to_owned()),
        sheet,
    })
}

/// Returns the parts of all cells as JSON objects; missing metrics are null.
pub fn parts(summary: &Summary<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for row in summary.scenarios.iter().flat_map(ScenarioSummary::rows) {
        for (kind, parts) in [("request", &row.by_request), ("stage", &row.by_stage)] {
            let cell = serde_json::to_value(&row.cell).unwrap_or_default();
            all.extend(parts.iter().map(|part| {
                let us = |it: Option<Percentiles>| it.map(|it| it.median.us);
                let mut value = json!({
                    "part": kind, "name": part.name, "due": part.due, "unanswered": part.lost,
                    "rps_median": part.rps.map(|rps| rps.median), "latency_us_p50": us(part.p50_us),
                    "latency_us_p95": us(part.p95_us), "latency_us_p99": us(part.p99_us),
                });
                if let (Some(value), Some(cell)) = (value.as_object_mut(), cell.as_object()) {
                    value.extend(cell.clone());
                }
                value
            }));
        }
    }
    all
}

/// Returns the disruptions and slopes of all cells with stages as JSON objects.
pub fn timelines(summary: &Summary<'_>) -> Vec<Value> {
    let rows = summary.scenarios.iter().flat_map(ScenarioSummary::rows);
    let rows = rows.filter(|row| has_slope(row) || !row.disruptions.is_empty());
    let rows = rows.map(|row| {
        let slope = |of| over_blocks(row, of).map(|it: Slope| json!([it.slope, it.low, it.high]));
        let blocks = row.disruptions.iter().map(|block| {
            let all = block.all.iter().map(
                |it| json!({"from_s": it.from_s, "lasted_s": it.lasted_s, "errors": it.errors}),
            );
            all.collect::<Vec<_>>()
        });
        json!({
            "cell": row.cell, "disruptions": blocks.collect::<Vec<_>>(),
            "rss_kib_per_s": slope(|it| it.rss_kib),
            "descriptors_per_s": slope(|it| it.descriptors),
            "p99_us_per_s": slope(|it| it.p99_us),
        })
    });
    rows.collect()
}
