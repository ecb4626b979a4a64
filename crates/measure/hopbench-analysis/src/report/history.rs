//! A history as a table and as JSON.

use serde_json::{Value, json};

use super::{
    sheet::{Medium, Table},
    text::{TIMES_MIN, part, percent, plural, probability},
};
use crate::{
    history::{
        Answers, Change, Failing, NEWEST, ROWS_MIN, Recent, Row, Trend, WINDOW_MIN, alike, failing,
        fewest, left_out, trends,
    },
    metrics::Metric,
};

/// Returns the history for a terminal.
pub fn terminal(rows: &[Row]) -> String {
    render(rows, Medium::Terminal)
}

/// Returns the history as Markdown.
pub fn markdown(rows: &[Row]) -> String {
    render(rows, Medium::Markdown)
}

/// Returns the cells that failed, and a row per cell and metric.
fn render(rows: &[Row], medium: Medium) -> String {
    let trends = trends(rows);
    let (alike, all) = (alike(rows).len(), rows.len());
    let mut out = format!(
        "{}, {alike} made under the conditions of the last one\n",
        plural(all, "row")
    );
    for (why, count) in left_out(rows) {
        out += &format!("left out: {}, {why}\n", plural(count, "row"));
    }
    let (least, fewest) = (NEWEST + WINDOW_MIN, fewest(rows));
    if fewest < least {
        out += &format!(
            "testing the newest {NEWEST} rows of a scenario takes at least {least} rows\n"
        );
    }
    if fewest < ROWS_MIN {
        out += &format!("finding changes takes at least {ROWS_MIN} rows of a scenario\n");
    }
    let failing = failing(rows);
    if !failing.is_empty() {
        out += &format!("\n{}", failures(&failing).text(medium));
    }
    let columns = [
        "cell",
        "metric",
        "rows",
        "first",
        "last",
        "newest rows",
        "changes",
    ];
    let mut sheet = Table::new(2, columns).with_notes(2);
    for trend in &trends {
        let value = |it: Option<&_>| it.map_or_else(String::new, |it| point(trend, it));
        let last = trend.points.last().filter(|_| trend.is_in_last);
        let changes: Vec<String> = trend
            .changes
            .iter()
            .map(|change| describe(trend, change))
            .collect();
        let recent = trend.recent.map(|recent| describe_recent(trend, &recent));
        sheet.push(vec![
            trend.cell.full_name().into(),
            match trend.is_ratio {
                true => format!("{} vs reference", trend.metric.title()).into(),
                false => trend.metric.title().into(),
            },
            trend.points.len().to_string().into(),
            value(trend.points.first()).into(),
            last.map_or_else(|| "none".to_owned(), |last| point(trend, last))
                .into(),
            recent.unwrap_or_default().into(),
            changes.join("; ").into(),
        ]);
    }
    out + "\n" + &sheet.text(medium)
}

/// Returns the cells with failures as a table.
fn failures(failing: &[Failing<'_>]) -> Table {
    let trials = |it: &Answers| format!("{} of {}", it.failed_trials, it.trials);
    let lost = |it: &Answers| part(it.unanswered, it.due);
    let columns = [
        "cell",
        "trials failed, last row",
        "rows before",
        "p",
        "not answered, last row",
        "rows before",
    ];
    let mut sheet = Table::new(1, columns);
    for it in failing {
        let last = |text: &dyn Fn(&Answers) -> String| {
            it.last
                .as_ref()
                .map_or_else(|| "not measured".to_owned(), text)
        };
        let p = it.p().map_or_else(String::new, |p| probability(p, 2));
        sheet.push(vec![
            it.cell.full_name().into(),
            last(&trials).into(),
            trials(&it.before).into(),
            p.into(),
            last(&lost).into(),
            lost(&it.before).into(),
        ]);
    }
    sheet
}

fn point(trend: &Trend<'_>, point: &crate::history::Point<'_>) -> String {
    number(trend, point.value)
}

/// Writes a ratio, or the reference's own metric.
fn number(trend: &Trend<'_>, value: f64) -> String {
    match trend.is_ratio {
        true if value >= TIMES_MIN => percent(value),
        true => format!("{:.1} %", value * 100.0),
        false if trend.metric == Metric::Cpu => format!("{value:.1} µs"),
        false if trend.metric == Metric::Rss => format!("{:.1} MiB", value / 1024.0),
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

fn describe_recent(trend: &Trend<'_>, recent: &Recent) -> String {
    format!(
        "{} to {} in the newest {NEWEST} rows",
        number(trend, recent.before),
        number(trend, recent.after)
    )
}

/// Returns the history as JSON.
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
        let recent = trend.recent.map(
            |recent| json!({"index": recent.index, "before": recent.before, "after": recent.after}),
        );
        json!({
            "cell": trend.cell, "metric": trend.metric.key(), "is_ratio": trend.is_ratio,
            "values": values.collect::<Vec<_>>(), "changes": changes.collect::<Vec<_>>(),
            "is_in_last": trend.is_in_last, "recent": recent,
        })
    };
    let failing = failing(rows);
    let failing = failing.iter().map(|it| {
        json!({
            "cell": it.cell, "last": it.last, "before": it.before,
            "rows_before": it.rows_before, "p": it.p(),
        })
    });
    json!({
        "rows": rows.len(),
        "rows_alike": alike(rows).len(),
        "left_out": left_out(rows),
        "failing": failing.collect::<Vec<_>>(),
        "trends": trends(rows).iter().map(trend).collect::<Vec<_>>(),
    })
}
