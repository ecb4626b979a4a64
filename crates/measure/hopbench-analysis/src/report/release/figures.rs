//! The figures of a scenario: a short table, and all cells.

use super::{Measured, Section, paragraph};
use crate::{
    report::{
        sentences::{self, errors},
        sheet::{Entry, Medium, Table},
        text::{escape, plural, tenths, thousands},
    },
    summary::{CellSummary, Percentiles, ScenarioSummary},
};

/// Most cells that are shown at once. With more, a short table comes first.
const ALL_MAX: usize = 24;

/// Most rows of a short table that has two loads of each path; with more, it has one.
const SHORT_MAX: usize = 32;

/// Shown in place of what is not known.
const NONE: &str = "-";

pub(super) fn section(run: &Measured<'_>, scenario: &ScenarioSummary<'_>) -> Section {
    let info = scenario.info;
    let mut body = paragraph(&format!("**{}**", escape(info.question.trim())));
    body += "\n";
    body += &paragraph(&totals(run, scenario));
    let all: Vec<&CellSummary<'_>> = scenario.rows().collect();
    let table = |rows: &[&CellSummary<'_>]| sheet(rows).text(Medium::Markdown);
    if all.len() <= ALL_MAX {
        body += &format!("\n{}", table(&all));
    } else {
        let (short, which) = short(scenario);
        body += &format!("\n{which}:\n\n{}", table(&short));
        body += &format!(
            "\n<details>\n<summary>All {} cells</summary>\n\n{}\n</details>\n",
            all.len(),
            table(&all)
        );
    }
    Section {
        heading: info.name.clone(),
        body,
    }
}

/// Sums up the requests and the trials of a scenario.
fn totals(run: &Measured<'_>, scenario: &ScenarioSummary<'_>) -> String {
    let sum = |of: fn(&CellSummary<'_>) -> u64| -> String {
        let sum: u64 = scenario.rows().map(of).sum();
        thousands(sum as f64)
    };
    let trials: usize = scenario.rows().map(|row| row.trials).sum();
    let failed: usize = scenario.rows().map(|row| row.failures.len()).sum();
    let dropped = match scenario.rows().any(|row| row.cell.rate_rps.is_some()) {
        true => format!(
            "; {} more were dropped",
            sum(|row| row.totals.dropped_by_path)
        ),
        false => String::new(),
    };
    format!(
        "Revision {}, {}, reference path {}. {} requests, {} of them without a correct \
         answer{dropped}. {trials} trials, {failed} failed.",
        escape(&sentences::revision(run.summary.manifest)),
        plural(scenario.blocks, "block"),
        escape(&scenario.info.reference),
        sum(|row| row.totals.requests),
        sum(|row| row.failed_requests()),
    )
}

/// Chooses the cells of the short table: the lowest and the middle load of each path, or only the
/// middle one; of the first endpoint, if it would be too long otherwise. Says which it chose.
fn short<'s, 'a>(scenario: &'s ScenarioSummary<'a>) -> (Vec<&'s CellSummary<'a>>, &'static str) {
    let tables = scenario.tables.iter();
    let of_tables: Vec<[Vec<&CellSummary<'_>>; 2]> = tables
        .map(|table| {
            let load = |row: &&CellSummary<'_>| {
                let path = row.cell.path_and_build();
                let mut loads = table.rows.iter();
                let loads: Vec<&CellSummary<'_>> = loads
                    .by_ref()
                    .filter(|it| it.cell.path_and_build() == path)
                    .collect();
                let index = loads.iter().position(|it| it.cell == row.cell);
                (index.unwrap_or_default(), loads.len() / 2)
            };
            let is_middle = |row: &&CellSummary<'_>| load(row).0 == load(row).1;
            let is_lowest = |row: &&CellSummary<'_>| load(row).0 == 0;
            let either = table
                .rows
                .iter()
                .filter(|it| is_middle(it) || is_lowest(it));
            let middle = table.rows.iter().filter(is_middle);
            [either.collect(), middle.collect()]
        })
        .collect();
    let all = |which: usize| {
        of_tables
            .iter()
            .flat_map(move |it| it[which].iter().copied())
    };
    if all(0).count() <= SHORT_MAX {
        return (
            all(0).collect(),
            "The lowest and the middle load of each path",
        );
    }
    let first = of_tables.first().map_or_else(Vec::new, |it| it[1].clone());
    match all(1).count() <= SHORT_MAX {
        true => (all(1).collect(), "The middle load of each path"),
        false => (first, "The middle load of each path, at the first endpoint"),
    }
}

fn sheet(rows: &[&CellSummary<'_>]) -> Table {
    let columns = [
        "path",
        "endpoint",
        "load",
        "RPS",
        "p50 (µs)",
        "p95 (µs)",
        "p99 (µs)",
        "max RSS (MiB)",
        "CPU (µs/req)",
        "failed",
        "dropped",
    ];
    let mut sheet = Table::new(3, columns);
    for row in rows {
        let cpu_us = row.cpu_us_per_request_server;
        let mut entries = names(row).to_vec();
        entries.extend([
            known(row.rps.map(|rps| thousands(rps.median))),
            latency(row.p50_us),
            latency(row.p95_us),
            latency(row.p99_us),
            known(row.rss_peak_kib.map(|kib| tenths(kib.max / 1024.0))),
            known(cpu_us.map(|us| tenths(us.median))),
            match errors(row) {
                none if none == "no requests" => NONE.to_owned(),
                errors => errors,
            },
            dropped(row),
        ]);
        sheet.push(entries.into_iter().map(Entry::from).collect());
    }
    sheet
}

/// Returns path, endpoint and load of a cell.
pub(super) fn names(row: &CellSummary<'_>) -> [String; 3] {
    let cell = &row.cell;
    let endpoint = format!("{}{}", cell.endpoint, cell.setting());
    [cell.path_and_build(), endpoint, cell.load()]
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.to_owned())
}

fn latency(percentiles: Option<Percentiles>) -> String {
    known(percentiles.map(|it| {
        let at_least = if it.median.is_at_least { "≥ " } else { "" };
        format!("{at_least}{}", thousands(it.median.us))
    }))
}

/// Returns the requests that were never sent, and how many more the generator was too late for;
/// none of a closed loop.
fn dropped(row: &CellSummary<'_>) -> String {
    let totals = &row.totals;
    let [by_path, late] = [totals.dropped_by_path, totals.dropped_late].map(|it| it as f64);
    let is_counted = row.cell.rate_rps.is_some() && totals.trials > 0;
    known(is_counted.then(|| match totals.dropped_late {
        0 => thousands(by_path),
        _ => format!("{}, {} late", thousands(by_path), thousands(late)),
    }))
}
