//! The tables of a scenario.

use super::{
    rates,
    sentences::{self, errors},
    sheet::{Entry, Medium, Table, Tone},
    text::{bound, hundredths, latencies, spread, tenths, thousands, with_interval},
};
use crate::{
    estimate::Estimate,
    metrics::Metric,
    record::{Build, Cell, CounterInfo, Per},
    summary::{CellSummary, Percentiles, ScenarioSummary, Table as Cells},
};

/// A table with its heading and an explanation.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) text: Option<String>,
    pub(super) sheet: Table,
}

impl Section {
    /// Returns the section as text, below an empty line.
    pub(super) fn text(&self, medium: Medium) -> String {
        let text = self.text.as_ref();
        let text = text.map_or_else(String::new, |text| format!("{text}\n\n"));
        format!(
            "\n### {}\n\n{text}{}",
            self.heading,
            self.sheet.text(medium)
        )
    }
}

/// Returns a table per endpoint, each with a sentence on its A/A control.
pub(super) fn all(scenario: &ScenarioSummary<'_>, medium: Medium) -> String {
    let mut out = String::new();
    for table in &scenario.tables {
        out += &cells(scenario, table).text(medium);
        let sentences = [sentences::control, sentences::groups].map(|say| say(scenario, table));
        out.extend(
            sentences
                .into_iter()
                .flatten()
                .map(|said| format!("\n{said}\n")),
        );
    }
    out
}

/// Returns the table of an endpoint, with a row for each cell.
pub(super) fn cells(scenario: &ScenarioSummary<'_>, table: &Cells<'_>) -> Section {
    let heading = format!("{}{}", table.endpoint, table.setting());
    match table.is_fixed_rate {
        true => Section {
            heading: heading + ", at fixed rates",
            text: Some(
                "Latency counts from the moment a request is due, even if no connection is free \
                 then. p50 and p99 are medians over the blocks; p99.9 is over all blocks together. \
                 Unanswered requests count with the time that they had waited. Not answered: \
                 requests that the path answered incorrectly or not at all. Dropped: those of them \
                 that were never sent, because the path kept every connection waiting. Late: \
                 requests that the load generator did not send in time although a connection was \
                 free; they say nothing about the path."
                    .to_owned(),
            ),
            sheet: rates::sheet(scenario, table),
        },
        false => Section {
            heading,
            text: None,
            sheet: closed_loop(scenario, table),
        },
    }
}

fn closed_loop(scenario: &ScenarioSummary<'_>, table: &Cells<'_>) -> Table {
    let metrics = [
        "Path",
        "Concurrency",
        "RPS",
        "p50 (ms)",
        "p99 (ms)",
        "RPS vs reference",
        "p90 (ms)",
        "Errors",
    ];
    let mut sheet = Table::new(
        1,
        metrics
            .map(str::to_owned)
            .into_iter()
            .chain(cpu_columns(scenario)),
    )
    .with_keys(2);
    for row in &table.rows {
        let mut entries = vec![
            row.cell.path_and_build().into(),
            row.cell.load().into(),
            spread(row.rps, thousands).into(),
            percentile(row, row.p50_us),
            percentile(row, row.p99_us),
            share(row, Metric::Rps),
            percentile(row, row.p90_us),
            failed(row),
        ];
        entries.extend(cpu(scenario, row));
        sheet.push(entries);
    }
    sheet
}

/// Returns the headings of the columns that [`cpu`] fills.
pub(super) fn cpu_columns(scenario: &ScenarioSummary<'_>) -> Vec<String> {
    let roles = scenario
        .roles
        .iter()
        .map(|role| format!("{role} CPU (µs/req)"));
    roles
        .chain([
            "server CPU (µs/req)".to_owned(),
            "server CPU vs reference".to_owned(),
        ])
        .collect()
}

/// Returns CPU time by role, that of all servers together, and its ratio to the reference.
pub(super) fn cpu(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> Vec<Entry> {
    let of_role = |role: &String| {
        let cpu = row.cpu_us_per_request.get(role).copied();
        Entry::from(spread(cpu, tenths))
    };
    let mut entries: Vec<Entry> = scenario.roles.iter().map(of_role).collect();
    entries.push(spread(row.cpu_us_per_request_server, tenths).into());
    entries.push(share(row, Metric::Cpu));
    entries
}

/// Returns the ratio of a path to the reference, or the A/A control of the reference itself.
pub(super) fn share(row: &CellSummary<'_>, metric: Metric) -> Entry {
    let is_b = row.cell.build == Some(Build::B);
    let control = || row.control.as_ref().filter(|_| !is_b)?[metric];
    match (row.is_reference, control()) {
        (true, Some(control)) => format!("A/A {}", with_interval(&control)).into(),
        (true, None) if row.series[metric].iter().all(|it| it.is_nan()) => "–".into(),
        (true, None) => "100 %".into(),
        (false, ..) => told(row, metric, with_interval),
    }
}

/// Returns a ratio with its mark. It is n/a if its percentiles have too few samples above them, or
/// if both may be longer.
pub(super) fn told(
    row: &CellSummary<'_>,
    metric: Metric,
    text: impl Fn(&Estimate) -> String,
) -> Entry {
    let (Some(ratio), Some(told)) = (&row.ratios[metric], row.told(metric)) else {
        let is_percentile = matches!(metric, Metric::P50 | Metric::P95 | Metric::P99);
        return match is_percentile && row.rps.is_some() {
            true => "n/a".into(),
            false => "–".into(),
        };
    };
    Entry::told(&(bound(row.bounds[metric]).to_owned() + &text(ratio)), told)
}

/// Returns a percentile. In a row with metrics it is n/a if too few samples lie above it.
pub(super) fn percentile(row: &CellSummary<'_>, percentiles: Option<Percentiles>) -> Entry {
    match percentiles {
        Some(percentiles) => latencies(percentiles).into(),
        None if row.rps.is_some() => "n/a".into(),
        None => "–".into(),
    }
}

/// Returns the requests without a right answer, and the trials that failed.
pub(super) fn failed(row: &CellSummary<'_>) -> Entry {
    let is_fine = row.failures.is_empty() && row.failed_requests() == 0 && row.totals.due() > 0;
    let tone = match is_fine {
        true => Tone::Plain,
        false => Tone::Bad,
    };
    Entry::new(errors(row), tone)
}

/// Returns the counters that the scenario's paths declare: a section for each kind of divisor.
/// Empty without a counter.
pub(super) fn counters(scenario: &ScenarioSummary<'_>) -> Vec<Section> {
    let kinds = [
        (Per::Request, "Counters per request"),
        (Per::BodyByte, "Counters per body byte"),
        (Per::Trial, "Counters per trial"),
    ];
    let sections = kinds.map(|(per, heading)| counters_per(scenario, per, heading));
    sections.into_iter().flatten().collect()
}

fn counters_per(scenario: &ScenarioSummary<'_>, per: Per, heading: &str) -> Option<Section> {
    let counters = scenario.counters.iter();
    let counters: Vec<&CounterInfo> = counters
        .filter(|it| it.per.contains(&per))
        .copied()
        .collect();
    // A counter that no path here has is a column of nothing.
    let is_counted = |counter: &&CounterInfo| {
        let mut rows = scenario.rows();
        rows.any(|row| row.totals.counter(&counter.name, per).is_some())
    };
    let counters: Vec<&CounterInfo> = counters.into_iter().filter(is_counted).collect();
    let has_one = |row: &&CellSummary<'_>| {
        let mut names = counters.iter().map(|counter| &counter.name);
        row.totals.good > 0 && names.any(|name| row.totals.counters.contains_key(name))
    };
    let body_bytes = (per == Per::Request).then_some("body bytes");
    let labels = counters.iter().map(|counter| counter.label.as_str());
    let labels = body_bytes.into_iter().chain(labels);
    let columns = ["Path", "Endpoint", "Concurrency"]
        .into_iter()
        .chain(labels);
    let mut sheet = Table::new(2, columns).with_keys(3);
    for row in scenario.rows().filter(has_one) {
        let totals = &row.totals;
        let body_bytes = totals.body_bytes as f64 / totals.good as f64;
        let body_bytes = (per == Per::Request).then(|| thousands(body_bytes));
        let value = |counter: &&CounterInfo| match totals.counter(&counter.name, per) {
            None => "–".to_owned(),
            Some(value) if value < FEW => hundredths(value),
            Some(value) => thousands(value),
        };
        let values = body_bytes.into_iter().chain(counters.iter().map(value));
        sheet.push(named(&row.cell, values));
    }
    let explained = counters
        .iter()
        .map(|it| format!("{}: {}.", it.label, it.help));
    let explained: Vec<String> = explained.collect();
    (!sheet.is_empty()).then(|| Section {
        heading: heading.to_owned(),
        text: Some(explained.join(" ")),
        sheet,
    })
}

/// Value below which a counter is shown with decimals.
const FEW: f64 = 100.0;

/// Returns context switches and memory. `None` without an answer.
pub(super) fn wake_ups(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let columns = [
        "Path",
        "Endpoint",
        "Concurrency",
        "context switches/req",
        "peak RSS (MiB)",
        "RSS/connection (KiB)",
    ];
    let mut sheet = Table::new(2, columns).with_keys(3);
    for row in scenario.rows().filter(|row| row.totals.good > 0) {
        let metrics = [
            spread(row.context_switches_per_request, hundredths),
            spread(row.rss_peak_kib, |kib| tenths(kib / 1024.0)),
            rss_per_connection(row),
        ];
        sheet.push(named(&row.cell, metrics));
    }
    let text = "Of all processes except the client. Context switches: a thread went to sleep or \
                was preempted. Peak RSS is that of the processes together. RSS/connection is what \
                they have grown by since before the warm-up, over the number of connections.";
    (!sheet.is_empty()).then(|| Section {
        heading: "Wake-ups and memory".to_owned(),
        text: Some(text.to_owned()),
        sheet,
    })
}

fn rss_per_connection(row: &CellSummary<'_>) -> String {
    let grown = row.rss_peak_kib.zip(row.rss_before_kib);
    let grown = grown.map(|(peak, before)| peak.median - before.median);
    let each = grown.map(|kib| kib / f64::from(row.cell.concurrency));
    each.map_or_else(|| "–".to_owned(), tenths)
}

/// Returns a row that names its cell first.
fn named(cell: &Cell, metrics: impl IntoIterator<Item = String>) -> Vec<Entry> {
    let names = [cell.path_and_build(), cell.endpoint.clone(), cell.load()];
    names.into_iter().chain(metrics).map(Entry::from).collect()
}
