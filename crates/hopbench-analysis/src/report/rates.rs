//! Tables of loads at a fixed rate: there latency is what is measured, and the rate is given.

use super::markdown::{
    connection, errors, milliseconds, percent, share, spread, tenths, thousands,
};
use crate::{
    figures::Figure,
    record::Knee,
    summary::{CellSummary, ScenarioSummary, Table},
};

/// Fewer samples above a percentile make it one of chance.
const TAIL_SAMPLES_MIN: f64 = 20.0;

/// One row per path and rate.
pub(super) fn table(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> String {
    let mut out = format!(
        "\n### {}{}, at fixed rates\n\nLatencies begin when a request was to be asked, not when a \
         connection was free for it.\n\n",
        table.endpoint,
        connection(table.keep_alive)
    );
    out += "| Transport | Connections | Rate (1/s) | answered (1/s) | p50 (ms) | p99 (ms) \
            | p99.9 (ms) | p50 vs Baseline | p99 vs Baseline | Dropped | Errors |";
    for role in &scenario.roles {
        out += &format!(" {role} CPU (µs/req) |");
    }
    out += " server CPU (µs/req) | server CPU vs Baseline |\n";
    out += &format!("|---|{}\n", "---:|".repeat(12 + scenario.roles.len()));
    for row in &table.rows {
        out += &line(scenario, row);
    }
    out
}

fn line(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let p999 = row.merged.map_or_else(
        || "–".to_owned(),
        |merged| match merged.count as f64 * 0.001 < TAIL_SAMPLES_MIN {
            true => "n/a".to_owned(),
            false => milliseconds(merged.p999_us),
        },
    );
    let mut out = format!(
        "| {} | {} | {} | {} | {} | {} | {p999} | {} | {} | {} | {} |",
        row.cell.path_and_build(),
        row.cell.concurrency,
        thousands(f64::from(row.cell.rate_rps.unwrap_or_default())),
        spread(row.rps, thousands),
        spread(row.p50_us, milliseconds),
        spread(row.p99_us, milliseconds),
        share(row, Figure::P50),
        share(row, Figure::P99),
        dropped(row),
        errors(row),
    );
    for role in &scenario.roles {
        let cpu = row.cpu_us_per_request.get(role).copied();
        out += &format!(" {} |", spread(cpu, tenths));
    }
    out += &format!(
        " {} | {} |\n",
        spread(row.cpu_us_per_request_server, tenths),
        share(row, Figure::Cpu)
    );
    out
}

/// Requests that were never asked, as a share of those that were to be.
fn dropped(row: &CellSummary<'_>) -> String {
    match row.totals.dropped {
        0 => "0".to_owned(),
        dropped => percent(dropped as f64 / row.totals.scheduled as f64),
    }
}

/// What rates the paths of a scenario hold; empty if that was not looked for.
pub fn knees(knees: &[Knee], scenario: &str) -> String {
    let of_scenario: Vec<&Knee> = knees
        .iter()
        .filter(|knee| knee.scenario == scenario)
        .collect();
    let Some(first) = of_scenario.first() else {
        return String::new();
    };
    let mut out = format!(
        "\n### Knees\n\nThe largest rate that a path holds: nothing dropped, nothing failed, p99 \
         at most {} ms, in two of at most three probes; ≥ where the load generator could \
         ask no faster. Beside it, what a closed loop gets through.\n\n\
         | Transport | Endpoint | Connections | holds (1/s) | closed loop (1/s) | probes |\n\
         |---|---|---:|---:|---:|---:|\n",
        first.p99_ms_max
    );
    for knee in of_scenario {
        out += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            knee.path,
            knee.endpoint,
            knee.concurrency,
            knee.rate(thousands),
            knee.closed_loop_rps
                .map_or_else(|| "failed".to_owned(), thousands),
            knee.probes
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::{
        record::{OpenLoop, Trial},
        report::{lines, markdown, tests},
        summary::Summary,
    };

    use super::*;

    /// A path that holds its rate, and one that drops a tenth at the higher one.
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
        let kinds: Vec<&str> = markdown::pictures(&summary.scenarios[0])
            .map(|(kind, ..)| kind)
            .collect();
        assert_eq!(kinds, ["latency"]);
    }
}
