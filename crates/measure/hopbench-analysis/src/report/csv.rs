//! `summary.csv`: one line per cell, for spreadsheets and scripts.

use serde_json::Value;

use super::text::probability;
use crate::{
    metrics::Metric,
    statistics::Spread,
    summary::{CellSummary, Percentile, Summary},
    told::{Bound, Told},
};

/// Columns that come first in every line.
const CELL_COLUMNS: [&str; 20] = [
    "scenario",
    "endpoint",
    "path",
    "concurrency",
    "keep_alive",
    "rate_rps",
    "staged",
    "placement",
    "build",
    "trials",
    "failed_trials",
    "requests",
    "good",
    "failed_requests",
    "dropped_requests",
    "dropped_late_requests",
    "unanswered_requests",
    "rps_median",
    "rps_min",
    "rps_max",
];

/// Columns with names that somebody chose. They are texts, whatever they look like.
const NAMES: [&str; 4] = ["scenario", "endpoint", "path", "build"];

/// Endings of the columns that come second: those of each [`Metric`]. CPU time by role comes last.
const RATIO_ENDINGS: [&str; 6] = ["", "_low", "_high", "_p", "_floor", "_told"];

const OTHER_COLUMNS: [&str; 17] = [
    "blocks",
    "ratio_confidence",
    "latency_us_p50",
    "latency_us_p90",
    "latency_us_p95",
    "latency_us_p99",
    "latency_us_p99_min",
    "latency_us_p99_max",
    "merged_latency_us_mean",
    "merged_latency_us_p50",
    "merged_latency_us_p95",
    "merged_latency_us_p99",
    "merged_latency_us_p999",
    "merged_latency_us_max",
    "context_switches_per_request",
    "rss_peak_kib",
    "body_bytes",
];

/// Returns the table with a heading line. Missing metrics are empty.
pub fn render(summary: &Summary<'_>) -> String {
    let (heading, rows) = table(summary);
    [heading]
        .iter()
        .chain(&rows)
        .map(|fields| line(fields))
        .collect()
}

/// Returns the same cells as JSON objects; missing metrics are null.
pub fn cells(summary: &Summary<'_>) -> Vec<Value> {
    let (heading, rows) = table(summary);
    let value = |column: &str, text: &str| match text {
        "" => Value::Null,
        name if NAMES.contains(&column) => name.into(),
        text => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    let cell = |row: &Vec<String>| {
        let fields = heading.iter().zip(row);
        let fields = fields.map(|(column, text)| (column.clone(), value(column, text)));
        fields.collect()
    };
    rows.iter().map(cell).collect()
}

fn table(summary: &Summary<'_>) -> (Vec<String>, Vec<Vec<String>>) {
    let mut roles: Vec<&str> = summary
        .scenarios
        .iter()
        .flat_map(|scenario| &scenario.roles)
        .map(String::as_str)
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let mut heading: Vec<String> = CELL_COLUMNS.map(str::to_owned).into();
    for metric in Metric::ALL {
        heading.extend(RATIO_ENDINGS.map(|ending| format!("{}_ratio{ending}", metric.key())));
    }
    heading.extend(OTHER_COLUMNS.map(str::to_owned));
    let counters = counters(summary);
    for counter in &counters {
        let is_taken = heading.iter().any(|column| column == counter);
        heading.push(format!(
            "{}{counter}",
            if is_taken { "counter_" } else { "" }
        ));
    }
    heading.extend(
        roles
            .iter()
            .map(|role| format!("cpu_us_per_request_{role}")),
    );
    heading.push("cpu_us_per_request_server".to_owned());
    let rows = summary.rows();
    let rows = rows.map(|row| fields(row, &counters, &roles));
    (heading, rows.collect())
}

/// Returns the names of the counters that the run's paths declare, each once.
pub(super) fn counters<'a>(summary: &Summary<'a>) -> Vec<&'a str> {
    let scenarios = summary.scenarios.iter();
    let mut names: Vec<&str> = Vec::new();
    for counter in scenarios.flat_map(|scenario| &scenario.counters) {
        if !names.contains(&counter.name.as_str()) {
            names.push(&counter.name);
        }
    }
    names
}

fn fields(row: &CellSummary<'_>, counters: &[&str], roles: &[&str]) -> Vec<String> {
    let CellSummary { cell, totals, .. } = row;
    let median = |spread: Option<Spread>| number(spread.map(|spread| spread.median));
    let min = |spread: Option<Spread>| number(spread.map(|spread| spread.min));
    let max = |spread: Option<Spread>| number(spread.map(|spread| spread.max));
    let mut fields = vec![
        cell.scenario.clone(),
        cell.endpoint.clone(),
        cell.path.clone(),
        cell.concurrency.to_string(),
        cell.keep_alive.to_string(),
        cell.rate_rps
            .map_or_else(String::new, |rate| rate.to_string()),
        cell.staged.to_string(),
        cell.placement.to_string(),
        cell.build
            .map_or_else(String::new, |build| build.to_string()),
        row.trials.to_string(),
        row.failures.len().to_string(),
        totals.requests.to_string(),
        totals.good.to_string(),
        row.failed_requests().to_string(),
        totals.dropped_by_path.to_string(),
        totals.dropped_late.to_string(),
        totals.lost().to_string(),
        median(row.rps),
        min(row.rps),
        max(row.rps),
    ];
    fields.extend(
        Metric::ALL
            .into_iter()
            .flat_map(|metric| ratio(row, metric)),
    );
    let rps = row.ratios[Metric::Rps];
    fields.push(rps.map_or_else(String::new, |ratio| ratio.blocks.to_string()));
    fields.push(number(rps.map(|ratio| ratio.confidence)));
    fields.extend(latencies(row));
    fields.extend([
        median(row.context_switches_per_request),
        median(row.rss_peak_kib),
        totals.body_bytes.to_string(),
    ]);
    let counter = |name: &&str| totals.counters.get(*name).map(u64::to_string);
    let counters = counters.iter().map(counter);
    fields.extend(counters.map(Option::unwrap_or_default));
    let cpu = roles
        .iter()
        .map(|role| median(row.cpu_us_per_request.get(*role).copied()));
    fields.extend(cpu);
    fields.push(median(row.cpu_us_per_request_server));
    fields
}

/// Returns the fields that [`RATIO_ENDINGS`] name.
fn ratio(row: &CellSummary<'_>, metric: Metric) -> [String; RATIO_ENDINGS.len()] {
    let ratio = row.ratios[metric];
    let bound = ratio.map_or("", |_| at(row.bounds[metric]));
    let told = row.told(metric).map_or("", Told::key);
    [
        bound.to_owned() + &number(ratio.map(|ratio| ratio.ratio)),
        number(ratio.map(|ratio| ratio.low)),
        number(ratio.map(|ratio| ratio.high)),
        ratio.map_or_else(String::new, |ratio| probability(ratio.p, 4)),
        number(row.noise_floor(metric)),
        told.to_owned(),
    ]
}

/// Returns the latencies over the blocks, and those of all blocks together, in microseconds.
fn latencies(row: &CellSummary<'_>) -> [String; 12] {
    let merged = row.merged;
    [
        latency(row.p50_us.map(|it| it.median)),
        latency(row.p90_us.map(|it| it.median)),
        latency(row.p95_us.map(|it| it.median)),
        latency(row.p99_us.map(|it| it.median)),
        latency(row.p99_us.map(|it| it.min)),
        latency(row.p99_us.map(|it| it.max)),
        latency(merged.map(|merged| merged.mean_us)),
        latency(merged.and_then(|merged| merged.p50_us)),
        latency(merged.and_then(|merged| merged.p95_us)),
        latency(merged.and_then(|merged| merged.p99_us)),
        latency(merged.and_then(|merged| merged.p999_us)),
        latency(merged.map(|merged| merged.max_us)),
    ]
}

/// Writes a latency. A bound begins with `>=`, so that nothing reads it as a plain number.
fn latency(percentile: Option<Percentile>) -> String {
    let at = match percentile {
        Some(Percentile {
            is_at_least: true, ..
        }) => ">=",
        _ => "",
    };
    at.to_owned() + &number(percentile.map(|it| it.us))
}

fn at(bound: Bound) -> &'static str {
    match bound {
        Bound::Exact | Bound::Unknown => "",
        Bound::AtLeast => ">=",
        Bound::AtMost => "<=",
    }
}

fn number(number: Option<f64>) -> String {
    // A ten-thousandth is finer than anything measured here.
    number.map_or_else(String::new, |number| format!("{number:.4}"))
}

/// Writes a line of CSV (RFC 4180).
pub(super) fn line(fields: &[String]) -> String {
    let quoted: Vec<String> = fields
        .iter()
        .map(|field| match field.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field.clone(),
        })
        .collect();
    quoted.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{manifest, trials};

    #[test]
    fn a_name_that_looks_like_json_stays_a_text() {
        for name in ["1.10", "1.1", "null", "true", "[]"] {
            let mut manifest = manifest();
            let renamed = manifest.paths.iter_mut().find(|it| it.name == "fast");
            renamed.expect("there").name = name.to_owned();
            let mut trials = trials();
            for trial in &mut trials {
                if trial.planned.cell.path == "fast" {
                    trial.planned.cell.path = name.to_owned();
                }
            }
            let summary = Summary::new(&manifest, &trials).expect("valid records");
            let cells = cells(&summary);
            let mut paths = cells.iter().map(|cell| &cell["path"]);
            assert!(paths.any(|path| path == name), "{name}: {cells:?}");
            assert!(cells.iter().all(|cell| cell["concurrency"].is_number()));
        }
    }
}
