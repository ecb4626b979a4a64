//! The tables of a scenario.

use super::{
    rates,
    sheet::{Entry, Medium, Sheet, Tone},
    text::{bound, connection, hundredths, latencies, spread, tenths, thousands, with_interval},
    words::{self, errors},
};
use crate::{
    estimate::Estimate,
    figures::Figure,
    record::{Build, Cell},
    summary::{CellSummary, Percentiles, ScenarioSummary, Table},
};

/// A table with its heading and what is to be known of it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) text: Option<String>,
    pub(super) sheet: Sheet,
}

impl Section {
    /// Below an empty line.
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

/// A table per endpoint, with what its control says.
pub(super) fn all(scenario: &ScenarioSummary<'_>, medium: Medium) -> String {
    let mut out = String::new();
    for table in &scenario.tables {
        out += &cells(scenario, table).text(medium);
        out.extend(words::control(scenario, table).map(|control| format!("\n{control}\n")));
    }
    out
}

/// The cells of an endpoint, a row each.
pub(super) fn cells(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> Section {
    let heading = format!("{}{}", table.endpoint, connection(table.keep_alive));
    match table.is_fixed_rate {
        true => Section {
            heading: heading + ", at fixed rates",
            text: Some(
                "Latencies begin when a request was to be asked, not when a connection was free \
                 for it. p50 and p99 are medians of the blocks' own; p99.9 is of all blocks \
                 together. n/a is a percentile that fewer than twenty answers exceed. ≥ is one \
                 that may be longer: requests without an answer count with the time that they had \
                 waited. Not answered are requests that the path answered wrongly or not at all; \
                 of those, dropped are the ones that were never asked, because the path kept \
                 every connection waiting. Late are requests that the load generator itself did \
                 not ask in time, although a connection was free: they say nothing of the path."
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

fn closed_loop(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> Sheet {
    let figures = [
        "Transport",
        "Concurrency",
        "RPS",
        "p50 (ms)",
        "p99 (ms)",
        "RPS vs Baseline",
        "p90 (ms)",
        "Errors",
    ];
    let mut sheet = Sheet::new(
        1,
        figures
            .map(str::to_owned)
            .into_iter()
            .chain(cpu_columns(scenario)),
    );
    for row in &table.rows {
        let mut entries = vec![
            row.cell.path_and_build().into(),
            row.cell.load().into(),
            spread(row.rps, thousands).into(),
            percentile(row, row.p50_us),
            percentile(row, row.p99_us),
            share(row, Figure::Rps),
            percentile(row, row.p90_us),
            failed(row),
        ];
        entries.extend(cpu(scenario, row));
        sheet.push(entries);
    }
    sheet
}

/// What [`cpu`] has in a row.
pub(super) fn cpu_columns(scenario: &ScenarioSummary<'_>) -> Vec<String> {
    let roles = scenario
        .roles
        .iter()
        .map(|role| format!("{role} CPU (µs/req)"));
    roles
        .chain([
            "server CPU (µs/req)".to_owned(),
            "server CPU vs Baseline".to_owned(),
        ])
        .collect()
}

/// CPU time by role, of all servers together, and what that is over the reference's.
pub(super) fn cpu(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> Vec<Entry> {
    let of_role = |role: &String| {
        let cpu = row.cpu_us_per_request.get(role).copied();
        Entry::from(spread(cpu, tenths))
    };
    let mut entries: Vec<Entry> = scenario.roles.iter().map(of_role).collect();
    entries.push(spread(row.cpu_us_per_request_server, tenths).into());
    entries.push(share(row, Figure::Cpu));
    entries
}

/// What a path has over the reference, or the reference over itself.
pub(super) fn share(row: &CellSummary<'_>, figure: Figure) -> Entry {
    let is_b = row.cell.build == Some(Build::B);
    let control = || row.control.as_ref().filter(|_| !is_b)?[figure];
    match (row.is_reference, control()) {
        (true, Some(control)) => format!("A/A {}", with_interval(&control)).into(),
        (true, None) => "100 %".into(),
        (false, ..) => told(row, figure, with_interval),
    }
}

/// A ratio with its mark; n/a is one of percentiles with too few samples above them, or of two that
/// may both be longer.
pub(super) fn told(
    row: &CellSummary<'_>,
    figure: Figure,
    text: impl Fn(&Estimate) -> String,
) -> Entry {
    let (Some(ratio), Some(told)) = (&row.ratios[figure], row.told(figure)) else {
        let is_percentile = matches!(figure, Figure::P50 | Figure::P95 | Figure::P99);
        return match is_percentile && row.rps.is_some() {
            true => "n/a".into(),
            false => "–".into(),
        };
    };
    Entry::told(&(bound(row.bounds[figure]).to_owned() + &text(ratio)), told)
}

/// Of a row with figures, n/a is a percentile with too few samples above it.
pub(super) fn percentile(row: &CellSummary<'_>, percentiles: Option<Percentiles>) -> Entry {
    match percentiles {
        Some(percentiles) => latencies(percentiles).into(),
        None if row.rps.is_some() => "n/a".into(),
        None => "–".into(),
    }
}

/// Requests without a right answer, and trials that failed.
pub(super) fn failed(row: &CellSummary<'_>) -> Entry {
    let is_fine = row.failures.is_empty() && row.failed_requests() == 0 && row.totals.due() > 0;
    let tone = match is_fine {
        true => Tone::Plain,
        false => Tone::Bad,
    };
    Entry::new(errors(row), tone)
}

/// Bytes by reference and bytes copied; `None` without a tunnel that counts them.
pub(super) fn copies(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let columns = [
        "Transport",
        "Endpoint",
        "Concurrency",
        "body bytes/req",
        "zero-copy bytes/req",
        "copied bytes/req",
        "zero-copy per body byte",
        "copied per body byte",
    ];
    let mut sheet = Sheet::new(2, columns);
    let rows = scenario.tables.iter().flat_map(|table| &table.rows);
    for row in rows.filter(|row| row.totals.has_counters && row.totals.good > 0) {
        let totals = &row.totals;
        let requests = totals.good as f64;
        let body = totals.body_bytes as f64;
        let per_body_byte = |bytes: u64| match totals.body_bytes {
            0 => "–".to_owned(),
            _ => format!("{:.2}", bytes as f64 / body),
        };
        let figures = [
            thousands(body / requests),
            thousands(totals.zero_copy_bytes as f64 / requests),
            thousands(totals.copied_bytes as f64 / requests),
            per_body_byte(totals.zero_copy_bytes),
            per_body_byte(totals.copied_bytes),
        ];
        sheet.push(named(&row.cell, figures));
    }
    let text = "Bytes that the tunnel's processes handed over by reference and bytes that they \
                copied in user space, against the bytes of the bodies that the client received. \
                Heads and requests are carried too: with small bodies there is more to carry than \
                body.";
    (!sheet.is_empty()).then(|| Section {
        heading: "Copies per byte".to_owned(),
        text: Some(text.to_owned()),
        sheet,
    })
}

/// Context switches, doorbells and memory; `None` without an answer.
pub(super) fn wake_ups(scenario: &ScenarioSummary<'_>) -> Option<Section> {
    let columns = [
        "Transport",
        "Endpoint",
        "Concurrency",
        "context switches/req",
        "doorbells/req",
        "left out/req",
        "sleeps/req",
        "peak RSS (MiB)",
    ];
    let mut sheet = Sheet::new(2, columns);
    let rows = scenario.tables.iter().flat_map(|table| &table.rows);
    for row in rows.filter(|row| row.totals.good > 0) {
        let totals = &row.totals;
        let per_request = |count: u64| match totals.has_counters {
            true => hundredths(count as f64 / totals.good as f64),
            false => "–".to_owned(),
        };
        let figures = [
            spread(row.context_switches_per_request, hundredths),
            per_request(totals.doorbells_sent),
            per_request(totals.doorbells_suppressed),
            per_request(totals.wake_ups),
            spread(row.rss_peak_kib, |kib| tenths(kib / 1024.0)),
        ];
        sheet.push(named(&row.cell, figures));
    }
    let text = "Per request, of all processes but the client: how often a thread was put to sleep \
                or aside; how often the tunnel rang for its other side, how often it could leave \
                that out because the other was awake, and how often one of its event loops slept. \
                The most memory that the processes had resident, together.";
    (!sheet.is_empty()).then(|| Section {
        heading: "Wake-ups and memory".to_owned(),
        text: Some(text.to_owned()),
        sheet,
    })
}

/// A row that names its cell first.
fn named(cell: &Cell, figures: [String; 5]) -> Vec<Entry> {
    let names = [cell.path_and_build(), cell.endpoint.clone(), cell.load()];
    names.into_iter().chain(figures).map(Entry::from).collect()
}
