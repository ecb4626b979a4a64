//! The charts of loads in stages, over time.

use super::legend::Legend;
use crate::{
    record::{LoadSecond, Trial, UsageSecond},
    report::plot::{Axis, Lines, Point, Scale, Series, short},
    statistics::median,
    summary::{ScenarioSummary, Table},
    timeline::errors,
};

/// The value of each second that a chart shows.
#[derive(Clone, Copy)]
enum Shown {
    Load(fn(&LoadSecond) -> Option<f64>),
    Usage(fn(&UsageSecond) -> Option<f64>),
}

/// Charts of each table, with their titles.
const SHOWN: [(&str, Shown); 5] = [
    (
        "correct answers per second",
        Shown::Load(|it| Some(it.good as f64)),
    ),
    ("p95 (ms)", Shown::Load(|it| Some(it.p95_us? / 1e3))),
    (
        "failed or wrong per second",
        Shown::Load(|it| Some(errors(it) as f64)),
    ),
    (
        "RSS of the path (MiB)",
        Shown::Usage(|it| Some(it.rss_kib as f64 / 1024.0)),
    ),
    (
        "CPU of the path (cores)",
        Shown::Usage(|it| Some(it.cpu_us.values().sum::<f64>() / it.elapsed_us)),
    ),
];

/// Ticks of the time axis.
const TICKS: u64 = 5;

/// Returns the charts; none for loads that stay the same.
pub(super) fn charts(
    scenario: &ScenarioSummary<'_>,
    trials: &[Trial],
    legend: &Legend,
) -> Vec<Lines> {
    let of_scenario = trials.iter().filter(|trial| {
        let planned = &trial.planned;
        planned.cell.scenario == scenario.info.name && !planned.stages.is_empty()
    });
    let of_scenario: Vec<&Trial> = of_scenario.filter(|trial| trial.load.is_some()).collect();
    let mut charts = Vec::new();
    for table in &scenario.tables {
        let mut loads: Vec<String> = table.rows.iter().map(|row| row.cell.load()).collect();
        loads.dedup();
        for load in loads {
            for (what, shown) in SHOWN {
                charts.extend(chart(table, &load, what, shown, &of_scenario, legend));
            }
        }
    }
    charts
}

fn chart(
    table: &Table<'_>,
    load: &str,
    what: &str,
    shown: Shown,
    trials: &[&Trial],
    legend: &Legend,
) -> Option<Lines> {
    let rows = table.rows.iter().filter(|row| row.cell.load() == load);
    let series: Vec<Series> = rows
        .filter_map(|row| {
            let of_cell = trials.iter().filter(|trial| trial.planned.cell == row.cell);
            let of_cell: Vec<&Trial> = of_cell.copied().collect();
            let label = row.cell.path_and_build();
            Some(Series {
                class: legend.class(&row.cell),
                points: points(&of_cell, shown, &label)?,
                shape: legend.shape(&row.cell),
                limit: None,
                label,
            })
        })
        .collect();
    let values = || series.iter().flat_map(|it| it.points.iter().flatten());
    let last = values().map(|point| point.x).fold(0.0, f64::max);
    let scale = Scale::from_zero(values().map(|point| point.y));
    (last > 0.0).then(|| Lines {
        title: format!("{}{}, c = {load}", table.endpoint, table.setting()),
        x: Axis {
            title: "seconds since the start of the load".to_owned(),
            scale: Scale::Linear {
                least: 0.0,
                most: last,
            },
            ticks: (0..=TICKS)
                .map(|tick| {
                    let at = (last * tick as f64 / TICKS as f64).round();
                    (at, format!("{at:.0}"))
                })
                .collect(),
        },
        y: Axis {
            title: what.to_owned(),
            ticks: scale
                .ticks()
                .into_iter()
                .map(|at| (at, short(at)))
                .collect(),
            scale,
        },
        series,
    })
}

/// Returns a point for each second: the median over the blocks. `None` without any.
fn points(trials: &[&Trial], shown: Shown, label: &str) -> Option<Vec<Option<Point>>> {
    let of_trial = |trial: &Trial| -> Vec<Option<f64>> {
        match shown {
            Shown::Usage(of) => trial.seconds.iter().map(of).collect(),
            Shown::Load(of) => {
                let seconds = trial.load.as_ref().map_or(&[][..], |load| &load.seconds);
                // After the end there are only answers to what was asked before.
                let whole = usize::try_from(trial.planned.duration_ms.div_ceil(1_000));
                seconds
                    .iter()
                    .take(whole.unwrap_or(usize::MAX))
                    .map(of)
                    .collect()
            }
        }
    };
    let blocks: Vec<Vec<Option<f64>>> = trials.iter().map(|trial| of_trial(trial)).collect();
    let seconds = blocks
        .iter()
        .map(Vec::len)
        .max()
        .filter(|seconds| *seconds > 0)?;
    let points = (0..seconds).map(|second| {
        let values = blocks.iter().filter_map(|block| *block.get(second)?);
        let y = median(&values.collect::<Vec<_>>())?;
        Some(Point {
            x: second as f64,
            y,
            title: format!("{label}, second {second}: {}", short(y)),
            is_hollow: false,
            is_marked: seconds <= 60,
        })
    });
    Some(points.collect())
}
