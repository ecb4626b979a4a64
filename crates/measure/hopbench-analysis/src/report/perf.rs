//! `perf_result` lines: one per cell, `key=value`, for scripts that follow one metric.

use super::csv;
use crate::{
    record::Placement,
    statistics::Spread,
    summary::{CellSummary, Percentile, Summary},
};

/// Returns one line per cell.
pub fn render(summary: &Summary<'_>) -> String {
    let rows = summary
        .scenarios
        .iter()
        .flat_map(|scenario| &scenario.tables)
        .flat_map(|table| &table.rows);
    let counters = csv::counters(summary);
    rows.map(|row| line(row, &counters)).collect()
}

/// Returns the line of a cell. Counts and bytes are sums over the blocks; errors are all requests
/// that the path did not answer rightly, dropped ones included. Latencies are those of all blocks
/// together, and the rest are medians. A missing metric is `nan`.
fn line(row: &CellSummary<'_>, counters: &[&str]) -> String {
    let CellSummary {
        cell,
        totals,
        merged,
        ..
    } = row;
    let ms = |it: Option<Percentile>| match it {
        None => "nan".to_owned(),
        Some(Percentile { us, is_at_least }) => {
            let at_least = if is_at_least { ">=" } else { "" };
            format!("{at_least}{:.4}", us / 1e3)
        }
    };
    let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
    let kib = |kib: f64| {
        if kib.is_nan() {
            "nan".to_owned()
        } else {
            format!("{kib:.0}")
        }
    };
    let (before, after) = (median(row.rss_before_kib), median(row.rss_after_kib));
    let fields = [
        ("scenario", cell.scenario.clone()),
        ("path", cell.path.clone()),
        ("concurrency", cell.concurrency.to_string()),
        ("requests", totals.requests.to_string()),
        ("success", totals.good.to_string()),
        ("errors", totals.lost().to_string()),
        (
            "throughput_rps",
            format!("{:.2}", median(row.rps)).to_lowercase(),
        ),
        ("total_ms", format!("{:.2}", totals.elapsed_us / 1e3)),
        ("latency_avg_ms", ms(merged.map(|merged| merged.mean_us))),
        ("latency_p50_ms", ms(merged.and_then(|it| it.p50_us))),
        ("latency_p95_ms", ms(merged.and_then(|it| it.p95_us))),
        ("latency_p99_ms", ms(merged.and_then(|it| it.p99_us))),
        ("latency_max_ms", ms(merged.map(|merged| merged.max_us))),
        ("response_bytes_total", totals.body_bytes.to_string()),
        ("rss_before_kib", kib(before)),
        ("rss_after_kib", kib(after)),
        ("rss_delta_kib", kib(after - before)),
        ("hwm_after_kib", kib(median(row.rss_peak_kib))),
    ];
    let of_path = counters.iter().map(|name| {
        let value = totals.counters.get(*name);
        (
            *name,
            value.map_or_else(|| "nan".to_owned(), u64::to_string),
        )
    });
    let more = [
        ("endpoint", cell.endpoint.clone()),
        ("keep_alive", cell.keep_alive.to_string()),
        ("failed_trials", row.failures.len().to_string()),
        ("dropped", totals.dropped_by_path.to_string()),
        ("dropped_late", totals.dropped_late.to_string()),
    ];
    let build = cell.build.map(|build| ("build", build.to_string()));
    let fields = fields.into_iter().chain(of_path);
    let is_placed = cell.placement != Placement::Free;
    let placement = is_placed.then(|| ("placement", cell.placement.to_string()));
    let fields = fields.chain(more).chain(placement).chain(build);
    let fields: Vec<String> = fields
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("perf_result {}\n", fields.join(" "))
}
