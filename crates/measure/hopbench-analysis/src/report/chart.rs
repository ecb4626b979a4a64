//! `overview-SCENARIO.svg`: each path's share of the reference's RPS, as bars.
//!
//! A plain picture without script: it opens from disk and shows in a README.

use std::fmt::Write;

use super::{
    sentences::shortfall,
    text::{connection, percent},
};
use crate::{
    estimate::Estimate,
    metrics::Metric,
    summary::{CellSummary, ScenarioSummary, Table},
};

/// Okabe and Ito's palette (2008), which can be told apart with any colour vision.
pub(super) const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442", "#666666",
];

pub(super) const WIDTH: f64 = 960.0;
/// Width of the axis labels, left of the bars.
const LEFT: f64 = 56.0;
const PANEL_HEIGHT: f64 = 190.0;
/// Height of a panel with its heading and the labels below it.
const PANEL_PITCH: f64 = PANEL_HEIGHT + 66.0;
const LEGEND_COLUMNS: usize = 3;
const LEGEND_PITCH: f64 = 20.0;
/// Largest share that the axis is made for. A longer bar is cut, and its metric still says how long
/// it is.
const SHARE_MAX: f64 = 2.0;

/// Returns the picture, with one panel per table and one group of bars per concurrency. Empty
/// without a path to compare.
pub fn overview(scenario: &ScenarioSummary<'_>) -> String {
    let tables: Vec<&Table<'_>> = scenario
        .tables
        .iter()
        .filter(|table| !table.is_fixed_rate)
        .collect();
    let paths = compared_paths(&tables);
    if paths.is_empty() {
        return String::new();
    }
    let legend_rows = paths.len().div_ceil(LEGEND_COLUMNS) as f64;
    let top = 44.0 + legend_rows * LEGEND_PITCH;
    let height = top + tables.len() as f64 * PANEL_PITCH;
    let heading = format!(
        "Requests per second, as a share of '{}', over {} blocks (whiskers: interval; grey: A/A \
         control)",
        scenario.info.reference, scenario.blocks,
    );
    let mut out = begin(&scenario.info.question, &heading, LEFT, height);
    for (index, path) in paths.iter().enumerate() {
        let x = LEFT + (index % LEGEND_COLUMNS) as f64 * (WIDTH - LEFT) / LEGEND_COLUMNS as f64;
        let y = 38.0 + (index / LEGEND_COLUMNS) as f64 * LEGEND_PITCH;
        let colour = COLOURS[index % COLOURS.len()];
        out += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            x + 18.0,
            y + 11.0,
            escape(path)
        );
    }
    for (index, table) in tables.iter().enumerate() {
        out += &panel(table, &paths, top + index as f64 * PANEL_PITCH);
    }
    out += "</svg>\n";
    out
}

/// Returns the beginning of a picture.
pub(super) fn begin(title: &str, heading: &str, left: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"#222\" role=\"img\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escape(title),
        escape(heading)
    )
}

/// Returns the paths in the order of the tables, without the reference.
fn compared_paths(tables: &[&Table<'_>]) -> Vec<String> {
    let mut paths = Vec::new();
    for row in tables.iter().flat_map(|table| &table.rows) {
        let path = row.cell.path_and_build();
        if !row.is_reference && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

fn panel(table: &Table<'_>, paths: &[String], top: f64) -> String {
    let axis = Axis::new(table, top + 30.0);
    let mut out = format!(
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}{}</text>\n",
        top + 20.0,
        escape(&table.endpoint),
        connection(table.keep_alive)
    );
    let load = |row: &CellSummary<'_>| (row.cell.rate_rps, row.cell.concurrency);
    let mut loads: Vec<_> = table.rows.iter().map(load).collect();
    loads.sort_unstable();
    loads.dedup();
    let group_width = (WIDTH - LEFT) / loads.len() as f64;
    let bar_width = 0.9 * group_width / paths.len() as f64;
    for (group, of_group) in loads.iter().enumerate() {
        let left = LEFT + (group as f64 + 0.05) * group_width;
        let mut of_group = table.rows.iter().filter(|row| load(row) == *of_group);
        if let Some(noise_floor) = of_group.find_map(|row| row.noise_floor(Metric::Rps)) {
            out += &axis.band(noise_floor, left, 0.9 * group_width);
        }
    }
    out += &axis.draw();
    for (group, of_group) in loads.iter().enumerate() {
        let left = LEFT + (group as f64 + 0.05) * group_width;
        let of_group = || table.rows.iter().filter(|row| load(row) == *of_group);
        for (index, path) in paths.iter().enumerate() {
            let row = of_group().find(|row| row.cell.path_and_build() == *path);
            let x = left + index as f64 * bar_width;
            if let Some(row) = row {
                out += &bar(&axis, row, x, bar_width, COLOURS[index % COLOURS.len()]);
            }
        }
        let label = of_group().next().map(|row| row.cell.load());
        out += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">c = {}</text>\n",
            left + 0.45 * group_width,
            axis.bottom + 18.0,
            label.unwrap_or_default(),
        );
    }
    out
}

fn bar(axis: &Axis, row: &CellSummary<'_>, x: f64, width: f64, colour: &str) -> String {
    let middle = x + width / 2.0;
    let Some(Estimate {
        ratio, low, high, ..
    }) = row.ratios[Metric::Rps]
    else {
        // If nothing failed, the reference is what is missing.
        let (colour, text) = match row.has_failures() {
            false => ("#222", "–"),
            true => ("#b00", "failed"),
        };
        return format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{colour}\">{text}\
             </text>\n",
            axis.bottom - 4.0
        );
    };
    let y = axis.y(ratio);
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\">\
         <title>{} c={}: {:.1} % ({:.1} to {:.1} %){}</title></rect>\
         <path d=\"M{middle:.1} {:.1}V{:.1}\" stroke=\"#222\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" \
         paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"3\"{}>{:.0}{}</text>\n",
        0.9 * width,
        axis.bottom - y,
        escape(&row.cell.path_and_build()),
        row.cell.load(),
        ratio * 100.0,
        low * 100.0,
        high * 100.0,
        shortfall(row).map_or_else(String::new, |it| format!(", {it}")),
        axis.y(low),
        axis.y(high),
        axis.y(high) - 4.0,
        if row.has_failures() {
            " fill=\"#b00\""
        } else {
            ""
        },
        ratio * 100.0,
        if row.has_failures() { " !" } else { "" },
    )
}

/// A vertical axis, from no share at the bottom to the largest at the top.
struct Axis {
    bottom: f64,
    share_max: f64,
}

impl Axis {
    fn new(table: &Table<'_>, top: f64) -> Self {
        let shares = table.rows.iter().filter_map(|row| row.ratios[Metric::Rps]);
        let largest = shares.map(|share| share.high).fold(1.0, f64::max);
        Self {
            bottom: top + PANEL_HEIGHT,
            // This leaves room for a metric above the highest bar.
            share_max: (largest.min(SHARE_MAX) * 1.1 * 4.0).ceil() / 4.0,
        }
    }

    fn y(&self, share: f64) -> f64 {
        self.bottom - PANEL_HEIGHT * share.clamp(0.0, self.share_max) / self.share_max
    }

    /// Returns a band around 100 %: the noise floor.
    fn band(&self, noise_floor: f64, x: f64, width: f64) -> String {
        let (above, below) = (self.y(noise_floor), self.y(1.0 / noise_floor));
        format!(
            "<rect x=\"{x:.1}\" y=\"{above:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"#ddd\"><title>A/A control: up to {}</title></rect>\n",
            below - above,
            percent(noise_floor - 1.0)
        )
    }

    /// Returns the lines and labels of the scale.
    fn draw(&self) -> String {
        let mut out = String::new();
        let shares = (0_u32..).map(|step| (step, f64::from(step) / 4.0));
        for (step, share) in shares.take_while(|(_, share)| *share <= self.share_max) {
            let y = self.y(share);
            let stroke = if step == 4 { "#222" } else { "#ccc" };
            writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{WIDTH}\" stroke=\"{stroke}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
                LEFT - 6.0,
                y + 4.0,
                share * 100.0
            )
            .expect("a string grows");
        }
        out
    }
}

pub(super) fn escape(text: &str) -> String {
    text.trim()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
