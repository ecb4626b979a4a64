//! `latency-SCENARIO.svg`: latency over rate, a line for each path.

use std::fmt::Write;

use super::{
    chart::{COLOURS, WIDTH, begin, escape},
    sentences::shortfall,
    text::{self, connection},
};
use crate::summary::{CellSummary, ScenarioSummary, Table};

/// Width of the axis labels, left of the lines.
const LEFT: f64 = 64.0;
/// Width of the names, right of the lines.
const RIGHT: f64 = 210.0;
const PANEL_HEIGHT: f64 = 300.0;
/// Height of a panel with its heading and the labels below it.
const PANEL_PITCH: f64 = PANEL_HEIGHT + 76.0;
const TOP: f64 = 40.0;

/// Returns the picture, with one panel per table and number of connections. Empty without loads at
/// a fixed rate.
pub fn latency(scenario: &ScenarioSummary<'_>) -> String {
    let panels: Vec<Panel<'_>> = scenario.tables.iter().flat_map(Panel::all).collect();
    if panels.is_empty() {
        return String::new();
    }
    let height = TOP + panels.len() as f64 * PANEL_PITCH;
    let heading = "p99 by offered rate, all blocks together (logarithmic axes; hollow: unanswered \
                   requests or failed trials)";
    let mut out = begin(&scenario.info.question, heading, LEFT, height);
    for (index, panel) in panels.iter().enumerate() {
        out += &panel.draw(TOP + index as f64 * PANEL_PITCH);
    }
    out += "</svg>\n";
    out
}

/// The cells of one endpoint and number of connections.
struct Panel<'a> {
    title: String,
    rows: Vec<&'a CellSummary<'a>>,
    rate: Scale,
    p99_ms: Scale,
}

/// A logarithmic scale from the least value to the most.
struct Scale {
    least: f64,
    most: f64,
}

impl<'a> Panel<'a> {
    fn all(table: &'a Table<'a>) -> Vec<Self> {
        let rows = || table.rows.iter().filter(|row| point(row).is_some());
        let mut connections: Vec<u32> = rows().map(|row| row.cell.concurrency).collect();
        connections.sort_unstable();
        connections.dedup();
        let panel = |concurrency: u32| {
            let rows: Vec<&CellSummary<'_>> = rows()
                .filter(|row| row.cell.concurrency == concurrency)
                .collect();
            let points = || rows.iter().filter_map(|row| point(row));
            Self {
                title: format!(
                    "{}{}, {concurrency} connections",
                    escape(&table.endpoint),
                    connection(table.keep_alive)
                ),
                rate: Scale::of(points().map(|(rate, _)| rate)),
                p99_ms: Scale::of(points().map(|(_, p99_ms)| p99_ms)),
                rows,
            }
        };
        connections.into_iter().map(panel).collect()
    }

    fn draw(&self, top: f64) -> String {
        let bottom = top + 30.0 + PANEL_HEIGHT;
        let x = |rate: f64| LEFT + self.rate.share(rate) * (WIDTH - LEFT - RIGHT);
        let y = |p99_ms: f64| bottom - self.p99_ms.share(p99_ms) * PANEL_HEIGHT;
        let mut out = format!(
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n",
            top + 18.0,
            self.title
        );
        for tick in self.p99_ms.ticks() {
            let at = y(tick);
            writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ccc\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{tick} ms</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            )
            .expect("a string grows");
        }
        for tick in self.rate.ticks() {
            let at = x(tick);
            writeln!(
                out,
                "<path d=\"M{at:.1} {bottom:.1}V{:.1}\" stroke=\"#ccc\"/><text x=\"{at:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{tick}/s</text>",
                bottom - PANEL_HEIGHT,
                bottom + 18.0
            )
            .expect("a string grows");
        }
        let mut paths: Vec<String> = Vec::new();
        for row in &self.rows {
            let path = row.cell.path_and_build();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        for (index, path) in paths.iter().enumerate() {
            let rows = self.rows.iter();
            let rows = rows.filter(|row| row.cell.path_and_build() == *path);
            let label = (WIDTH - RIGHT + 14.0, top + 42.0 + index as f64 * 18.0);
            out += &line(
                path,
                COLOURS[index % COLOURS.len()],
                rows,
                label,
                |rate, p99_ms| (x(rate), y(p99_ms)),
            );
        }
        out
    }
}

/// Returns a path's line with its name.
fn line<'a>(
    path: &str,
    colour: &str,
    rows: impl Iterator<Item = &'a &'a CellSummary<'a>>,
    (label_x, label_y): (f64, f64),
    place: impl Fn(f64, f64) -> (f64, f64),
) -> String {
    let (mut route, mut dots) = (String::new(), String::new());
    for row in rows {
        let Some((rate, p99_ms)) = point(row) else {
            continue;
        };
        let (x, y) = place(rate, p99_ms);
        let step = if route.is_empty() { 'M' } else { 'L' };
        write!(route, "{step}{x:.1} {y:.1}").expect("a string grows");
        let fill = if row.has_failures() { "#fff" } else { colour };
        writeln!(
            dots,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{colour}\">\
             <title>{} at {rate}/s: p99 {} ms{}</title></circle>",
            escape(path),
            row.merged
                .and_then(|it| it.p99_us)
                .map(text::latency)
                .unwrap_or_default(),
            shortfall(row).map_or_else(String::new, |it| format!(", {it}"))
        )
        .expect("a string grows");
    }
    format!(
        "<path d=\"{route}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n{dots}\
         <rect x=\"{label_x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{label_y:.1}\">{}</text>\n",
        label_y - 10.0,
        label_x + 18.0,
        escape(path)
    )
}

/// Returns the rate, and the p99 of all blocks together in milliseconds.
fn point(row: &CellSummary<'_>) -> Option<(f64, f64)> {
    let rate = f64::from(row.cell.rate_rps?);
    Some((rate, row.merged?.p99_us?.us / 1e3))
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        // A single value is put in the middle.
        Self {
            least: least / 1.2,
            most: most * 1.2,
        }
    }

    fn share(&self, value: f64) -> f64 {
        (value / self.least).ln() / (self.most / self.least).ln()
    }

    /// Returns 1, 2 and 5 times the powers of ten within the scale.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        (-6..7)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .filter(|tick| (self.least..=self.most).contains(tick))
            // This removes the errors of binary fractions.
            .map(|tick| (tick * 1e6).round() / 1e6)
    }
}
