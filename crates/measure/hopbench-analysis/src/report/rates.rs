//! Tables of loads at a fixed rate. There the rate is given, and the result is the latency.

use super::{
    sheet::{Entry, Medium, Table, Tone},
    tables::{self, Section},
    text::{latency, part, spread, thousands},
};
use crate::{
    metrics::Metric,
    record::Knee,
    summary::{CellSummary, ScenarioSummary, Table as Cells},
};

/// Returns a table with one row per path and rate.
pub(super) fn sheet(scenario: &ScenarioSummary<'_>, table: &Cells<'_>) -> Table {
    let metrics = [
        "Path",
        "Connections",
        "Offered rate (1/s)",
        "answered (1/s)",
        "p50 (ms)",
        "p99 (ms)",
        "p99.9 (ms)",
        "p50 vs reference",
        "p99 vs reference",
        "Not answered",
        "Dropped",
        "Late",
        "Errors",
    ];
    let columns = metrics.map(str::to_owned).into_iter();
    let mut sheet = Table::new(1, columns.chain(tables::cpu_columns(scenario))).with_keys(3);
    for row in &table.rows {
        let mut entries: Vec<Entry> = vec![
            row.cell.path_and_build().into(),
            row.cell.concurrency.to_string().into(),
            offered(row).into(),
            spread(row.rps, thousands).into(),
            tables::percentile(row, row.p50_us),
            tables::percentile(row, row.p99_us),
            p999(row).into(),
            tables::share(row, Metric::P50),
            tables::share(row, Metric::P99),
            bad_share(row, row.totals.lost()),
            bad_share(row, row.totals.dropped_by_path),
            of_due(row, row.totals.dropped_late).into(),
            tables::failed(row),
        ];
        entries.extend(tables::cpu(scenario, row));
        sheet.push(entries);
    }
    sheet
}

/// Returns the rate; of a load in stages, the highest.
fn offered(row: &CellSummary<'_>) -> String {
    let up_to = if row.cell.staged { "up to " } else { "" };
    let rate_rps = row.cell.rate_rps.unwrap_or_default();
    format!("{up_to}{}", thousands(f64::from(rate_rps)))
}

/// Returns the p99.9 of all blocks together, in milliseconds.
fn p999(row: &CellSummary<'_>) -> String {
    match row.merged.map(|merged| merged.p999_us) {
        None => "–".to_owned(),
        Some(None) => "n/a".to_owned(),
        Some(Some(p999_us)) => latency(p999_us),
    }
}

/// Writes requests as a share of those that were due.
fn of_due(row: &CellSummary<'_>, requests: u64) -> String {
    part(requests, row.totals.due())
}

fn bad_share(row: &CellSummary<'_>, requests: u64) -> Entry {
    let tone = if requests == 0 {
        Tone::Plain
    } else {
        Tone::Bad
    };
    Entry::new(of_due(row, requests), tone)
}

/// Returns the knees of the paths of a scenario as a section; empty if none were looked for.
pub fn knees(knees: &[Knee], scenario: &str) -> String {
    match knees_section(knees, scenario) {
        Some(section) => section.text(Medium::Markdown),
        None => String::new(),
    }
}

/// Returns the knees of a scenario. `None` if none were looked for.
pub(super) fn knees_section(knees: &[Knee], scenario: &str) -> Option<Section> {
    let of_scenario = || knees.iter().filter(|knee| knee.scenario == scenario);
    let first = of_scenario().next()?;
    let mut sheet = Table::new(
        2,
        [
            "Path",
            "Endpoint",
            "Connections",
            "holds (1/s)",
            "closed loop (1/s)",
            "probes",
        ],
    );
    for knee in of_scenario() {
        let closed_loop = knee.closed_loop_rps.map(thousands);
        sheet.push(vec![
            knee.path.clone().into(),
            knee.endpoint.clone().into(),
            knee.concurrency.to_string().into(),
            knee.rate(thousands).into(),
            match closed_loop {
                Some(rps) => rps.into(),
                None => Entry::new("failed", Tone::Bad),
            },
            knee.probes.to_string().into(),
        ]);
    }
    let text = format!(
        "The largest rate that each path holds: nothing fails, nothing is dropped but what waits \
         as the load ends, and p99 is at most {} ms, in two of at most three probes. ≥: at a \
         higher rate, the load generator or the machine was the limit. For comparison: the rate \
         that a closed loop reaches.",
        first.p99_ms_max
    );
    Some(Section {
        heading: "Knees".to_owned(),
        text: Some(text),
        sheet,
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        record::{OpenLoop, Trial},
        report::{lines, markdown, tests},
        summary::Summary,
    };

    use super::*;

    /// Returns trials of a path that holds both rates, and of one that drops a tenth at the higher
    /// one.
    fn trials() -> Vec<Trial> {
        let mut trials = Vec::new();
        for block in 1..=3 {
            for (path, rate, p99_us, dropped) in [
                ("plain", 1_000, 100, 0),
                ("plain", 5_000, 150, 0),
                ("slow", 1_000, 400, 0),
                ("slow", 5_000, 90_000, 500),
            ] {
                let answered = u64::from(rate) - dropped;
                let mut trial = tests::trial(path, 8, block, 0, answered, p99_us);
                trial.planned.cell.rate_rps = Some(rate);
                if let Some(load) = &mut trial.load {
                    load.open_loop = Some(OpenLoop {
                        scheduled: rate.into(),
                        dropped,
                        ..OpenLoop::default()
                    });
                }
                trials.push(trial);
            }
        }
        trials
    }

    #[test]
    fn latency_is_what_a_fixed_rate_shows() {
        let mut manifest = tests::manifest();
        manifest.knees = vec![Knee {
            scenario: "matrix".to_owned(),
            endpoint: "/small".to_owned(),
            path: "slow".to_owned(),
            concurrency: 8,
            p99_ms_max: 10.0,
            rate_rps: None,
            closed_loop_rps: Some(4_321.0),
            generator_bound: false,
            probes: 7,
        }];
        let trials = trials();
        let summary = Summary::new(&manifest, &trials).expect("readable");
        insta::assert_snapshot!(
            "fixed_rates",
            markdown::report(&summary, &trials, trials.len())
        );
        let picture = lines::latency(&summary.scenarios[0]);
        insta::assert_snapshot!("latency_over_rate", picture);
        let kinds: Vec<&str> = markdown::pictures(&manifest, &summary.scenarios[0])
            .map(|(kind, ..)| kind)
            .collect();
        assert_eq!(kinds, ["latency"]);
    }
}
