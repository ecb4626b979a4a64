//! The charts of a scenario and of a comparison.

use super::legend::{Legend, role_class};
use crate::{
    compare::{Compared, Comparison},
    metrics::Metric,
    record::{Cell, Knee},
    report::{
        lead::holds,
        plot::{Axis, Lines, Mark, Point, Row, Rows, Scale, Series, short},
        sentences::shortfall,
        text::{bound, latency, milliseconds, percent, short_ratio, tenths, thousands},
    },
    summary::{CellSummary, Quantile, ScenarioSummary, Table},
    told::Told,
};

/// Groups the rows of a table by their load, with a name for each load.
fn by_load<'t, 'a>(table: &'t Table<'a>) -> Vec<(String, Vec<&'t CellSummary<'a>>)> {
    let mut groups: Vec<(String, Vec<&CellSummary<'a>>)> = Vec::new();
    for row in &table.rows {
        let load = row.cell.load();
        match groups.last_mut() {
            Some((last, rows)) if *last == load => rows.push(row),
            _ => groups.push((load, vec![row])),
        }
    }
    groups
}

fn title(table: &Table<'_>, load: &str) -> String {
    format!("{}{}, c = {load}", table.endpoint, table.setting())
}

/// Returns a panel for each table and load in whose rows `draw` finds something.
pub(super) fn panels(
    scenario: &ScenarioSummary<'_>,
    draw: impl Fn(&Table<'_>, String, &[&CellSummary<'_>]) -> Option<Rows>,
) -> Vec<Rows> {
    let mut panels = Vec::new();
    for table in &scenario.tables {
        for (load, rows) in by_load(table) {
            panels.extend(draw(table, title(table, &load), &rows));
        }
    }
    panels
}

/// Returns the share of the reference that each path has: RPS, and at a fixed rate p99. All panels
/// of a kind have the same axis, linear if it needn't be long.
pub(super) fn shares(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Rows> {
    let metric_of = |table: &Table<'_>| match table.is_fixed_rate {
        true => Metric::P99,
        false => Metric::Rps,
    };
    let scale_of = |is_fixed_rate: bool| {
        let tables = scenario.tables.iter();
        let alike = tables.filter(|table| table.is_fixed_rate == is_fixed_rate);
        let ends = alike.flat_map(|table| {
            let others = table.rows.iter().filter(|row| !row.is_reference);
            others.flat_map(|row| share_ends(row, metric_of(table)))
        });
        Scale::of_shares(ends.chain([1.0]).map(|share| share * 100.0))
    };
    panels(scenario, |table, title, rows| {
        let metric = metric_of(table);
        let others = || rows.iter().filter(|row| !row.is_reference);
        others().next()?;
        let noise_floor = rows.iter().find_map(|row| row.noise_floor(metric));
        Some(Rows {
            title,
            unit: match table.is_fixed_rate {
                true => "% of the reference's p99 (lower is better)",
                false => "% of the reference's requests per second",
            },
            scale: scale_of(table.is_fixed_rate),
            band: noise_floor.map(|noise_floor| (100.0 / noise_floor, 100.0 * noise_floor)),
            reference: Some(100.0),
            rows: others().map(|row| share_row(row, metric, legend)).collect(),
        })
    })
}

/// Returns all values that a row of shares shows: the interval and the blocks.
fn share_ends(row: &CellSummary<'_>, metric: Metric) -> Vec<f64> {
    let interval = row.ratios[metric].map(|it| [it.low, it.high]);
    let blocks = row.series[metric].iter().copied();
    interval.into_iter().flatten().chain(blocks).collect()
}

fn share_row(row: &CellSummary<'_>, metric: Metric, legend: &Legend) -> Row {
    let label = row.cell.path_and_build();
    let class = legend.class(&row.cell);
    let Some(estimate) = row.ratios[metric] else {
        return Row {
            class,
            label,
            marks: Vec::new(),
            value: if row.has_failures() { "failed" } else { "–" }.to_owned(),
            is_faint: false,
        };
    };
    let told = row.told(metric);
    let bound = bound(row.bounds[metric]);
    let but = shortfall(row).map_or_else(String::new, |it| format!(", {it}"));
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high];
    let mut marks = vec![Mark::Interval {
        from: low * 100.0,
        to: high * 100.0,
    }];
    marks.push(Mark::Point {
        at: ratio * 100.0,
        title: format!(
            "{label}: {bound}{} ({} to {}){but}",
            percent(ratio),
            percent(low),
            percent(high)
        ),
    });
    // The estimate leaves out the other values, too.
    let blocks = row.series[metric]
        .iter()
        .filter(|it| it.is_finite() && **it > 0.0);
    marks.extend(blocks.map(|share| Mark::Dot {
        at: share * 100.0,
        title: format!("{label}, one block: {}", percent(*share)),
    }));
    Row {
        class,
        value: short_ratio(told, &format!("{bound}{}", percent(ratio)))
            + if but.is_empty() { "" } else { " !" },
        is_faint: told != Some(Told::Different),
        label,
        marks,
    }
}

/// Returns CPU time per request, by role.
pub(super) fn cpu(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Rows> {
    panels(scenario, |_, title, rows| {
        let total = |row: &CellSummary<'_>| -> f64 {
            let roles = row.cpu_us_per_request.values();
            roles.map(|spread| spread.median).sum()
        };
        rows.iter().find(|row| total(row) > 0.0)?;
        let stack = |row: &CellSummary<'_>| {
            let mut from = 0.0;
            let mut marks = Vec::new();
            for role in &scenario.roles {
                let Some(spread) = row.cpu_us_per_request.get(role) else {
                    continue;
                };
                let to = from + spread.median;
                marks.push(Mark::Bar {
                    from,
                    to,
                    class: role_class(scenario, role),
                    title: format!(
                        "{}: {role} {:.1} µs",
                        row.cell.path_and_build(),
                        spread.median
                    ),
                });
                from = to;
            }
            Row {
                class: legend.class(&row.cell),
                label: row.cell.path_and_build(),
                value: if marks.is_empty() {
                    "–".to_owned()
                } else {
                    tenths(from)
                },
                marks,
                is_faint: false,
            }
        };
        Some(Rows {
            title,
            unit: "CPU time per request, µs (sum of medians)",
            scale: Scale::from_zero(rows.iter().map(|row| total(row))),
            band: None,
            reference: None,
            rows: rows.iter().map(|row| stack(row)).collect(),
        })
    })
}

/// Returns resident memory before the warm-up, and at its peak.
pub(super) fn memory(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Rows> {
    panels(scenario, |_, title, rows| {
        let peak = |row: &CellSummary<'_>| Some(row.rss_peak_kib?.median / 1024.0);
        rows.iter().find_map(|row| peak(row))?;
        let bars = |row: &CellSummary<'_>| {
            let label = row.cell.path_and_build();
            let before = row.rss_before_kib.map_or(0.0, |kib| kib.median / 1024.0);
            let bar = |from, to, class, what| Mark::Bar {
                from,
                to,
                class,
                title: format!("{label}: {to:.1} MiB {what}"),
            };
            let marks = peak(row).map(|peak| {
                vec![
                    bar(0.0, before, "before", "before the load"),
                    bar(before, peak, "grown", "at the peak"),
                ]
            });
            Row {
                class: legend.class(&row.cell),
                marks: marks.unwrap_or_default(),
                value: peak(row).map_or_else(|| "–".to_owned(), tenths),
                label,
                is_faint: false,
            }
        };
        Some(Rows {
            title,
            unit: "resident memory of all servers, MiB (medians)",
            scale: Scale::from_zero(rows.iter().filter_map(|row| peak(row))),
            band: None,
            reference: None,
            rows: rows.iter().map(|row| bars(row)).collect(),
        })
    })
}

/// Returns RPS over concurrency, with a panel for each table that has more than one.
pub(super) fn throughput(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Lines> {
    let tables = scenario.tables.iter().filter(|table| !table.is_fixed_rate);
    let panel = |table: &Table<'_>| {
        let loads: Vec<u32> = by_load(table)
            .iter()
            .map(|(_, rows)| rows[0].cell.concurrency)
            .collect();
        if loads.len() < 2 {
            return None;
        }
        let rows = || table.rows.iter();
        let place = |row: &CellSummary<'_>| {
            let rps = row.rps?.median;
            Some(Point {
                x: row.cell.concurrency.into(),
                y: rps,
                title: format!("{}: {} per second", row.cell, thousands(rps)),
                is_hollow: row.has_failures(),
                is_marked: true,
            })
        };
        rows().find_map(&place)?;
        let scale = Scale::log(loads.iter().map(|load| f64::from(*load)));
        Some(Lines {
            title: format!("{}{}", table.endpoint, table.setting()),
            x: Axis {
                title: "connections (logarithmic)".to_owned(),
                scale,
                ticks: loads
                    .iter()
                    .map(|load| (f64::from(*load), load.to_string()))
                    .collect(),
            },
            y: Axis::new(
                "requests per second (logarithmic)",
                Scale::log(rows().filter_map(|row| Some(row.rps?.median))),
                short,
            ),
            series: series(rows(), legend, place),
        })
    };
    tables.filter_map(panel).collect()
}

/// Returns p99 over the rate, with a panel for each endpoint and number of connections.
pub(super) fn rates(scenario: &ScenarioSummary<'_>, knees: &[Knee], legend: &Legend) -> Vec<Lines> {
    let mut panels = Vec::new();
    for table in scenario.tables.iter().filter(|table| table.is_fixed_rate) {
        let mut connections: Vec<u32> = table.rows.iter().map(|row| row.cell.concurrency).collect();
        connections.sort_unstable();
        connections.dedup();
        for concurrency in connections {
            panels.extend(rates_panel(scenario, table, concurrency, knees, legend));
        }
    }
    panels
}

fn rates_panel(
    scenario: &ScenarioSummary<'_>,
    table: &Table<'_>,
    concurrency: u32,
    knees: &[Knee],
    legend: &Legend,
) -> Option<Lines> {
    let rows = || {
        let rows = table.rows.iter();
        rows.filter(move |row| row.cell.concurrency == concurrency && !row.cell.staged)
    };
    let p99 = |row: &CellSummary<'_>| row.merged?.p99_us;
    let p99_ms = |row: &CellSummary<'_>| Some(p99(row)?.us / 1e3);
    let rate = |row: &CellSummary<'_>| f64::from(row.cell.rate_rps.unwrap_or_default());
    let place = |row: &CellSummary<'_>| {
        Some(Point {
            x: rate(row),
            y: p99_ms(row)?,
            title: format!(
                "{}: p99 {} ms{}",
                row.cell,
                latency(p99(row)?),
                shortfall(row).map_or_else(String::new, |it| format!(", {it}"))
            ),
            is_hollow: row.has_failures(),
            is_marked: true,
        })
    };
    let knee_of = |path: &str| {
        let knee = knees.iter().find(|knee| {
            knee.scenario == scenario.info.name
                && knee.endpoint == table.endpoint
                && knee.concurrency == concurrency
                && knee.path == path
        });
        let title = |knee: &Knee| format!("{path} holds {}/s", knee.rate(thousands));
        Some((f64::from(knee?.rate_rps?), title(knee?)))
    };
    rows().find_map(p99_ms)?;
    let mut series = series(rows(), legend, place);
    for line in &mut series {
        line.limit = knee_of(&line.label);
    }
    let limits = series.iter().filter_map(|line| line.limit.as_ref());
    let limits: Vec<f64> = limits.map(|(rate, _)| *rate).collect();
    Some(Lines {
        title: format!(
            "{}{}, {concurrency} connections",
            table.endpoint,
            table.setting()
        ),
        x: Axis::new(
            "offered rate, requests per second (logarithmic)",
            Scale::log(rows().map(rate).chain(limits)),
            short,
        ),
        y: Axis::new(
            "p99, ms (logarithmic)",
            Scale::log(rows().filter_map(p99_ms)),
            short,
        ),
        series,
    })
}

/// Returns latency over the share of answers that took no longer, with a panel for each load.
pub(super) fn percentiles(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Lines> {
    let mut panels = Vec::new();
    for table in &scenario.tables {
        for (load, mut rows) in by_load(table) {
            rows.retain(|row| !is_selection(row));
            panels.extend(percentiles_panel(title(table, &load), &rows, legend));
        }
    }
    panels
}

/// Returns whether the latencies are a selection: those of trials that didn't fail, or of the
/// answers that came. At a fixed rate, requests without an answer count with their time.
fn is_selection(row: &CellSummary<'_>) -> bool {
    match row.cell.rate_rps {
        None => !holds(row),
        Some(_) => !row.failures.is_empty(),
    }
}

/// Names the cells that the charts of latencies leave out. `None` if there are none.
pub(super) fn left_out(scenario: &ScenarioSummary<'_>) -> Option<String> {
    let rows = scenario.rows().filter(|row| !row.curve.is_empty());
    let names = rows
        .filter(|row| is_selection(row))
        .map(|row| row.cell.to_string());
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| {
        format!(
            " Left out, since trials failed or requests were not answered, so that the answers \
             that came are a selection: {}.",
            names.join(", ")
        )
    })
}

fn percentiles_panel(title: String, rows: &[&CellSummary<'_>], legend: &Legend) -> Option<Lines> {
    let points = || rows.iter().flat_map(|row| &row.curve);
    let farthest = points().map(beyond).fold(2.0, f64::max);
    if farthest <= 2.0 {
        return None;
    }
    let lines = rows.iter().filter(|row| !row.curve.is_empty());
    let series = lines.map(|row| Series {
        class: legend.class(&row.cell),
        label: row.cell.path_and_build(),
        points: row
            .curve
            .iter()
            .map(|it| Some(quantile_point(&row.cell, it)))
            .collect(),
        shape: legend.shape(&row.cell),
        limit: None,
    });
    let nines = [
        (2.0, "50 %"),
        (10.0, "90 %"),
        (100.0, "99 %"),
        (1e3, "99.9 %"),
        (1e4, "99.99 %"),
        (1e5, "99.999 %"),
    ];
    let ticks = nines
        .into_iter()
        .filter(|(at, _)| *at <= farthest * ROUNDED);
    Some(Lines {
        title,
        x: Axis {
            title: "share of answers that took no longer".to_owned(),
            scale: Scale::Log {
                least: 2.0,
                most: farthest,
            },
            ticks: ticks.map(|(at, label)| (at, label.to_owned())).collect(),
        },
        y: Axis::new(
            "latency, ms (logarithmic)",
            Scale::log(points().map(|it| it.latency_us / 1e3)),
            short,
        ),
        series: series.collect(),
    })
}

/// Factor that makes room for the errors of binary fractions.
const ROUNDED: f64 = 1.001;

/// Returns how many answers there are for each one that takes longer.
fn beyond(it: &Quantile) -> f64 {
    1.0 / (1.0 - it.quantile)
}

/// Returns a point of a curve, with a marker at the median and at each further nine.
fn quantile_point(cell: &Cell, it: &Quantile) -> Point {
    let nines = beyond(it).log10();
    let is_nine = nines > 0.5 && (nines - nines.round()).abs() < 1e-6;
    Point {
        x: beyond(it),
        y: it.latency_us / 1e3,
        title: format!(
            "{cell}: {} % within {} ms",
            short(it.quantile * 100.0),
            milliseconds(it.latency_us)
        ),
        is_hollow: false,
        is_marked: is_nine || it.quantile <= 0.5,
    }
}

/// Returns a line for each path, through the points that `place` finds for its rows.
fn series<'t, 'a: 't>(
    rows: impl Iterator<Item = &'t CellSummary<'a>>,
    legend: &Legend,
    place: impl Fn(&CellSummary<'a>) -> Option<Point>,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for row in rows {
        let label = row.cell.path_and_build();
        let point = place(row);
        match all.iter_mut().find(|series| series.label == label) {
            Some(series) => series.points.push(point),
            None => all.push(Series {
                class: legend.class(&row.cell),
                label,
                points: vec![point],
                shape: legend.shape(&row.cell),
                limit: None,
            }),
        }
    }
    all
}

/// Returns the ratio of head to base, with a panel for each metric and endpoint.
pub(super) fn changes(comparison: &Comparison<'_>) -> Vec<Rows> {
    let mut keys: Vec<(&str, &str, String)> = Vec::new();
    for compared in &comparison.cells {
        let cell = &compared.head.cell;
        let key = (
            cell.scenario.as_str(),
            cell.endpoint.as_str(),
            cell.setting(),
        );
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let metrics = [Metric::Rps, Metric::P99, Metric::Cpu];
    let panels = keys
        .into_iter()
        .flat_map(|key| metrics.map(|metric| (key.clone(), metric)));
    panels
        .filter_map(|((scenario, endpoint, setting), metric)| {
            let cells = comparison.cells.iter().filter(|compared| {
                let cell = &compared.head.cell;
                cell.scenario == scenario && cell.endpoint == endpoint && cell.setting() == setting
            });
            let rows: Vec<Row> = cells.filter_map(|it| change_row(it, metric)).collect();
            let ends = rows.iter().flat_map(|row| &row.marks);
            let ends = ends.flat_map(|mark| match mark {
                Mark::Interval { from, to } => [*from, *to],
                _ => [100.0; 2],
            });
            let scale = Scale::log(ends.chain([80.0, 125.0]));
            (!rows.is_empty()).then(|| Rows {
                title: format!("{} of {scenario} {endpoint}{}", metric.title(), setting),
                unit: "head over base, %",
                scale,
                band: None,
                reference: Some(100.0),
                rows,
            })
        })
        .collect()
}

fn change_row(compared: &Compared<'_>, metric: Metric) -> Option<Row> {
    let estimate = compared.changes[metric]?;
    let told = compared.told(metric);
    let is_different = told == Some(Told::Different);
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high];
    let cell = &compared.head.cell;
    let bound = bound(compared.bounds[metric]);
    let label = format!("{} c={}", cell.path_and_build(), cell.load());
    let marks = vec![
        Mark::Interval {
            from: low * 100.0,
            to: high * 100.0,
        },
        Mark::Point {
            at: ratio * 100.0,
            title: format!(
                "{label}: {bound}{} ({} to {})",
                percent(ratio),
                percent(low),
                percent(high)
            ),
        },
    ];
    Some(Row {
        class: if is_different { "s2" } else { "s8" }.to_owned(),
        label,
        marks,
        value: short_ratio(told, &format!("{bound}{}", percent(ratio)))
            + if compared.has_failures() { " !" } else { "" },
        is_faint: !is_different,
    })
}
