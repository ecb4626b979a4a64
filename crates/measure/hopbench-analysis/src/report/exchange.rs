//! A run's figures in the formats of other tools.

use std::{fmt::Write as _, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer, V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use serde_json::{Map, Value, json};

use super::csv;
use crate::{
    record::{Cell, LoadSecond, Trial},
    statistics::Spread,
    summary::{CellSummary, Percentiles, Summary},
};

/// Why figures can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A latency histogram can't be read or written.
    #[error("trial {0}: its latencies can't be written as a log: {1}")]
    Histogram(u32, String),
    /// The run has no figures of seconds.
    #[error("no load of this run has figures of each second: only loads in stages have them")]
    NoSeconds,
}

/// Returns the figures in Bencher's format (BMF): benchmarks with measures, each with the median
/// over the blocks and with the lowest and highest. Latencies are in nanoseconds, as Bencher has
/// them.
pub fn bmf(summary: &Summary<'_>) -> Value {
    let rows = summary.rows().map(|row| {
        let mut measures = Map::new();
        let mut add = |name: &str, value: Option<[f64; 3]>| {
            if let Some([value, lower_value, upper_value]) = value {
                let measure = json!({
                    "value": value, "lower_value": lower_value, "upper_value": upper_value,
                });
                measures.insert(name.to_owned(), measure);
            }
        };
        add("throughput", row.rps.map(of_spread));
        for (number, percentiles) in latencies(row) {
            add(
                &format!("latency-p{number}"),
                Some(scaled(percentiles, 1e3)),
            );
        }
        add(
            "server-cpu-us-per-request",
            row.cpu_us_per_request_server.map(of_spread),
        );
        add("peak-rss-kib", row.rss_peak_kib.map(of_spread));
        (row.cell.full_name(), Value::Object(measures))
    });
    Value::Object(rows.collect())
}

/// Returns the figures in the text format of Prometheus, as medians over the blocks.
pub fn prometheus(summary: &Summary<'_>) -> String {
    let mut out = String::new();
    let mut family = |name: &str, help: &str, value: &dyn Fn(&CellSummary<'_>) -> Vec<Sample>| {
        let mut lines = String::new();
        for row in summary.rows() {
            for (label, value) in value(row) {
                let labels = labels(&row.cell, label);
                // Writing to a text can't fail.
                let _ = writeln!(lines, "{name}{{{labels}}} {value}");
            }
        }
        if !lines.is_empty() {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{lines}");
        }
    };
    let alone = |value: Option<f64>| -> Vec<Sample> {
        value.map(|value| (None, value)).into_iter().collect()
    };
    family(
        "hopbench_requests_per_second",
        "Correct answers per second.",
        &|row| alone(row.rps.map(|it| it.median)),
    );
    family(
        "hopbench_latency_seconds",
        "Percentiles of the latencies.",
        &|row| {
            let percentiles = latencies(row).map(|(number, percentiles)| {
                let quantile = (f64::from(number) / 100.0).to_string();
                (Some(("quantile", quantile)), percentiles.median.us / 1e6)
            });
            percentiles.collect()
        },
    );
    family(
        "hopbench_cpu_seconds_per_request",
        "CPU time for each correct answer.",
        &|row| {
            let roles = row.cpu_us_per_request.iter();
            let of_role =
                |(role, cpu): (&String, &Spread)| (Some(("role", role.clone())), cpu.median / 1e6);
            roles.map(of_role).collect()
        },
    );
    family(
        "hopbench_peak_rss_bytes",
        "Peak resident memory of all processes of the path.",
        &|row| alone(row.rss_peak_kib.map(|it| it.median * 1024.0)),
    );
    family(
        "hopbench_unanswered_requests",
        "Requests of all blocks that were not answered correctly, or were dropped.",
        &|row| alone(Some(row.totals.lost() as f64)),
    );
    family("hopbench_failed_trials", "Trials that failed.", &|row| {
        alone(Some(row.failures.len() as f64))
    });
    out
}

/// Returns the latencies of every trial as a log of HdrHistogram (V2), with an interval for each.
/// `start` says when a trial began, since 1970. Values are nanoseconds, and maxima milliseconds.
///
/// # Errors
/// If a histogram can't be read.
pub fn hdr_log(
    trials: &[Trial],
    start: impl Fn(&Trial) -> Duration,
) -> Result<String, ExchangeError> {
    let failed = |trial: u32, error: &dyn std::fmt::Display| {
        ExchangeError::Histogram(trial, error.to_string())
    };
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    {
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut bytes, &mut serializer)
            .map_err(|error| failed(0, &error))?;
        for trial in trials {
            let number = trial.planned.trial;
            let load = trial.load.as_ref();
            let Some(load) = load.filter(|it| !it.latency.histogram.is_empty()) else {
                continue;
            };
            let decoded = BASE64_STANDARD.decode(&load.latency.histogram);
            let decoded = decoded.map_err(|error| failed(number, &error))?;
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut &decoded[..])
                .map_err(|error| failed(number, &error))?;
            let tag = tag(&trial.planned.cell);
            let length = Duration::from_secs_f64(load.elapsed_us.max(0.0) / 1e6);
            log.write_histogram(&histogram, start(trial), length, Tag::new(&tag))
                .map_err(|error| failed(number, &format!("{error:?}")))?;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Columns of the table of seconds.
const SECONDS: [&str; 14] = [
    "scenario",
    "endpoint",
    "path",
    "concurrency",
    "placement",
    "trial",
    "block",
    "second",
    "due",
    "good",
    "errors",
    "p50_us",
    "p95_us",
    "p99_us",
];

/// Returns a line for each second of each load that has them, as CSV.
///
/// # Errors
/// If no load has them.
pub fn seconds(trials: &[Trial]) -> Result<String, ExchangeError> {
    let mut out = csv::line(&SECONDS.map(str::to_owned));
    let heading = out.len();
    for trial in trials {
        let Some(load) = &trial.load else { continue };
        let (planned, cell) = (&trial.planned, &trial.planned.cell);
        for (number, second) in load.seconds.iter().enumerate() {
            let LoadSecond { due, good, .. } = second;
            let errors: u64 = second.errors.values().sum();
            let number = number + 1;
            let names = [&cell.scenario, &cell.endpoint, &cell.path].map(String::clone);
            let load = [cell.concurrency.to_string(), cell.placement.to_string()];
            let trial = [planned.trial, planned.block].map(|it| it.to_string());
            let counts = [number as u64, *due, *good, errors].map(|it| it.to_string());
            let percentiles = [second.p50_us, second.p95_us, second.p99_us];
            let percentiles =
                percentiles.map(|it| it.map_or_else(String::new, |us| format!("{us:.1}")));
            let fields = names.into_iter().chain(load).chain(trial);
            let fields: Vec<String> = fields.chain(counts).chain(percentiles).collect();
            out += &csv::line(&fields);
        }
    }
    match out.len() > heading {
        true => Ok(out),
        false => Err(ExchangeError::NoSeconds),
    }
}

/// A label besides those of the cell, and a value.
type Sample = (Option<(&'static str, String)>, f64);

/// Returns percentiles that are known, by their numbers.
fn latencies(row: &CellSummary<'_>) -> impl Iterator<Item = (u32, Percentiles)> {
    let all = [
        (50, row.p50_us),
        (90, row.p90_us),
        (95, row.p95_us),
        (99, row.p99_us),
    ];
    // A lower bound is no figure.
    let known = |(number, it): (u32, Option<Percentiles>)| {
        Some((number, it.filter(|it| !it.median.is_at_least)?))
    };
    all.into_iter().filter_map(known)
}

fn of_spread(spread: Spread) -> [f64; 3] {
    [spread.median, spread.min, spread.max]
}

fn scaled(percentiles: Percentiles, factor: f64) -> [f64; 3] {
    [percentiles.median, percentiles.min, percentiles.max].map(|it| it.us * factor)
}

/// Returns the labels of a cell in Prometheus' format.
fn labels(cell: &Cell, more: Option<(&'static str, String)>) -> String {
    let rate = cell.rate_rps.map(|rate| ("rate_rps", rate.to_string()));
    let build = cell.build.map(|build| ("build", build.to_string()));
    let own = [
        ("scenario", cell.scenario.clone()),
        ("endpoint", cell.endpoint.clone()),
        ("path", cell.path.clone()),
        ("concurrency", cell.concurrency.to_string()),
        ("keep_alive", cell.keep_alive.to_string()),
        ("placement", cell.placement.to_string()),
    ];
    let all = own.into_iter().chain(rate).chain(build).chain(more);
    let escaped = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        text.replace('\n', "\\n")
    };
    let labels: Vec<String> = all
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(&value)))
        .collect();
    labels.join(",")
}

/// Returns a tag: it may have neither commas nor spaces.
fn tag(cell: &Cell) -> String {
    let name = cell.full_name();
    let is_split = |it: char| it == ',' || it.is_whitespace();
    let words: Vec<&str> = name
        .split(is_split)
        .filter(|word| !word.is_empty())
        .collect();
    words.join("_")
}
