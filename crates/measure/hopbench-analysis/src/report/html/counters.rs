//! The chart of a scenario's counters.

use super::{charts::panels, legend::Legend};
use crate::{
    record::{CounterInfo, Per},
    report::plot::{Mark, Row, Rows, Scale},
    summary::{CellSummary, ScenarioSummary},
};

/// Returns the counters that are shown per body byte, stacked.
pub(super) fn charts(scenario: &ScenarioSummary<'_>, legend: &Legend) -> Vec<Rows> {
    let counters = stacked(scenario);
    let values = |row: &CellSummary<'_>| {
        let value = |counter: &&CounterInfo| row.totals.counter(&counter.name, Per::BodyByte);
        let values: Vec<Option<f64>> = counters.iter().map(value).collect();
        values
    };
    let sum = |row: &CellSummary<'_>| values(row).into_iter().flatten().sum::<f64>();
    let bars = |row: &CellSummary<'_>| {
        let label = row.cell.path_and_build();
        let mut to = 0.0;
        let mut marks = Vec::new();
        for (index, value) in values(row).into_iter().enumerate() {
            let (from, value) = (to, value.unwrap_or_default());
            to += value;
            let what = &counters[index].label;
            marks.push(Mark::Bar {
                from,
                to,
                class: counter_class(index),
                title: format!("{label}: {value:.2} {what} per body byte"),
            });
        }
        Row {
            class: legend.class(&row.cell),
            marks,
            label,
            value: format!("{to:.2}"),
            is_faint: false,
        }
    };
    panels(scenario, |_, title, rows| {
        let has_one = |row: &&&CellSummary<'_>| values(row).iter().any(Option::is_some);
        let counted: Vec<_> = rows.iter().filter(has_one).collect();
        counted.first()?;
        Some(Rows {
            title,
            unit: "per body byte; the number is the sum",
            scale: Scale::from_zero(counted.iter().map(|row| sum(row))),
            band: None,
            reference: None,
            rows: counted.iter().map(|row| bars(row)).collect(),
        })
    })
}

/// Returns the counters that are shown per body byte.
pub(super) fn stacked<'a>(scenario: &ScenarioSummary<'a>) -> Vec<&'a CounterInfo> {
    let counters = scenario.counters.iter().copied();
    counters
        .filter(|it| it.per.contains(&Per::BodyByte))
        .collect()
}

/// Returns the CSS class of a counter's bars.
pub(super) fn counter_class(index: usize) -> &'static str {
    // The grey of `r0` is that of "before the load".
    const CLASSES: [&str; 5] = ["r1", "r3", "r2", "r4", "r5"];
    CLASSES[index % CLASSES.len()]
}
