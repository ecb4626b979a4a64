//! A history as a table and as JSON.

use serde_json::{Value, json};

use super::terminal::align;
use crate::{
    figures::Figure,
    history::{Change, ROWS_MIN, Row, Trend, trends},
};

/// For people.
pub fn terminal(rows: &[Row]) -> String {
    align(&markdown(rows))
}

/// A row per cell and figure.
pub fn markdown(rows: &[Row]) -> String {
    let trends = trends(rows);
    let alike = trends.iter().map(|trend| trend.points.len()).max();
    let (alike, all) = (alike.unwrap_or_default(), rows.len());
    let mut out = format!("{all} row(s), {alike} made under the conditions of the last one\n");
    if alike < ROWS_MIN {
        out += &format!("changes are looked for from {ROWS_MIN} on\n");
    }
    out += "\n| cell | figure | rows | first | last | changes |\n|---|---|---:|---:|---:|---|\n";
    for trend in &trends {
        let [first, last] = [trend.points.first(), trend.points.last()];
        let value = |it: Option<&_>| it.map_or_else(String::new, |it| point(trend, it));
        let changes: Vec<String> = trend
            .changes
            .iter()
            .map(|change| describe(trend, change))
            .collect();
        out += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            trend.cell.full_name(),
            trend.figure.title(),
            trend.points.len(),
            value(first),
            value(last),
            changes.join("; ")
        );
    }
    out
}

fn point(trend: &Trend<'_>, point: &crate::history::Point<'_>) -> String {
    number(trend, point.value)
}

/// A ratio, or of the reference its own figure.
fn number(trend: &Trend<'_>, value: f64) -> String {
    match trend.is_ratio {
        true => format!("{:.1} %", value * 100.0),
        false if trend.figure == Figure::Cpu => format!("{value:.1} µs"),
        false => format!("{value:.1}"),
    }
}

fn describe(trend: &Trend<'_>, change: &Change) -> String {
    let row = trend.points[change.index].row;
    let revision = row.revision.get(..12).unwrap_or(&row.revision);
    format!(
        "{} to {} at {revision} ({})",
        number(trend, change.before),
        number(trend, change.after),
        row.started
    )
}

/// The same for machines.
pub fn json(rows: &[Row]) -> Value {
    let trend = |trend: &Trend<'_>| {
        let changes = trend.changes.iter().map(|change| {
            let row = trend.points[change.index].row;
            json!({
                "index": change.index, "before": change.before, "after": change.after,
                "p": change.p, "revision": row.revision, "started": row.started,
            })
        });
        let values = trend.points.iter().map(|point| point.value);
        json!({
            "cell": trend.cell, "figure": trend.figure.key(), "is_ratio": trend.is_ratio,
            "values": values.collect::<Vec<_>>(), "changes": changes.collect::<Vec<_>>(),
        })
    };
    json!({
        "rows": rows.len(),
        "trends": trends(rows).iter().map(trend).collect::<Vec<_>>(),
    })
}
