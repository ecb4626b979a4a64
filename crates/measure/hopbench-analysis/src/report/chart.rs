//! `overview-SCENARIO.svg`: each path's share of the reference's RPS, as bars.
//!
//! A plain picture without script: it opens from disk and shows in a README.

use maud::{Markup, html};

use super::{
    lead,
    plot::{Scale, across, at, down},
    sentences::{self, shortfall},
    text::{percent, tenths, xml},
};
use crate::{
    metrics::Metric,
    record::Manifest,
    summary::{CellSummary, ScenarioSummary, Table},
};

/// Okabe and Ito's palette (2008), which can be told apart with any colour vision.
const COLOURS: [&str; 8] = [
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
/// Height of the line at the bottom.
const FOOTER_HEIGHT: f64 = 22.0;
/// Largest share that the axis is made for. A longer bar is cut, and its metric still says how long
/// it is.
const SHARE_MAX: f64 = 2.0;

/// Returns the picture, with one panel per table and one group of bars per concurrency. Empty
/// without a path to compare.
pub fn overview(manifest: &Manifest, scenario: &ScenarioSummary<'_>) -> String {
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
    let bottom = top + tables.len() as f64 * PANEL_PITCH;
    // Pasted somewhere, the picture still says what was measured, when and where.
    let origin = format!(
        "hopbench {}, {} · {} · {}",
        manifest.hopbench,
        scenario.info.name,
        sentences::started(manifest),
        sentences::processor(manifest),
    );
    let heading = format!(
        "Requests per second, as a share of '{}', over {} blocks (whiskers: interval; grey: A/A \
         control)",
        scenario.info.reference, scenario.blocks,
    );
    let body = html! {
        @for (index, path) in paths.iter().enumerate() {
            (key(
                LEFT + (index % LEGEND_COLUMNS) as f64 * (WIDTH - LEFT) / LEGEND_COLUMNS as f64,
                38.0 + (index / LEGEND_COLUMNS) as f64 * LEGEND_PITCH,
                index,
                &named(manifest, scenario, path),
            ))
        }
        @for (index, table) in tables.iter().enumerate() {
            (panel(table, &paths, top + index as f64 * PANEL_PITCH))
        }
        text x=(at(LEFT)) y=(at(bottom + 10.0)) font-size="11" fill="#666" { (origin) } "\n"
    };
    picture(
        &scenario.info.question,
        &heading,
        LEFT,
        bottom + FOOTER_HEIGHT,
        &body,
    )
}

/// Names a path with its version; with two builds, which may differ in it, only the build.
fn named(manifest: &Manifest, scenario: &ScenarioSummary<'_>, path: &str) -> String {
    match manifest.builds.is_empty() {
        true => lead::named(manifest, scenario.info, path),
        false => path.to_owned(),
    }
}

/// Returns a file with a picture.
pub(super) fn picture(title: &str, heading: &str, left: f64, height: f64, body: &Markup) -> String {
    xml(html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (height) }
            width=(WIDTH) height=(height) font-family="sans-serif" font-size="12" fill="#222"
            role="img" {
            "\n" title { (title.trim()) } "\n"
            rect width="100%" height="100%" fill="#fff" {} "\n"
            text x=(at(left)) y="24" font-size="15" font-weight="bold" { (heading) } "\n"
            (body)
        }
        "\n"
    })
}

/// Returns the colour of the path with this index.
pub(super) fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Returns a path's colour with its name.
pub(super) fn key(x: f64, y: f64, index: usize, path: &str) -> Markup {
    html! {
        rect x=(at(x)) y=(at(y)) width="12" height="12" fill=(colour(index)) {}
        text x=(at(x + 18.0)) y=(at(y + 11.0)) { (path) } "\n"
    }
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

fn panel(table: &Table<'_>, paths: &[String], top: f64) -> Markup {
    let axis = Axis::new(table, top + 30.0);
    let load = |row: &CellSummary<'_>| (row.cell.rate_rps, row.cell.concurrency);
    let mut loads: Vec<_> = table.rows.iter().map(load).collect();
    loads.sort_unstable();
    loads.dedup();
    let pitch = (WIDTH - LEFT) / loads.len() as f64;
    let width = 0.9 * pitch;
    let bar_width = width / paths.len() as f64;
    let groups = loads.iter().enumerate().map(|(group, of_group)| {
        let left = LEFT + (group as f64 + 0.05) * pitch;
        let rows = table.rows.iter().filter(|row| load(row) == *of_group);
        (left, rows.collect::<Vec<_>>())
    });
    let groups: Vec<_> = groups.collect();
    html! {
        text x=(at(LEFT)) y=(at(top + 20.0)) font-weight="bold" {
            (table.endpoint) (table.setting())
        }
        "\n"
        @for (left, rows) in &groups {
            @if let Some(noise_floor) = rows.iter().find_map(|row| row.noise_floor(Metric::Rps)) {
                (axis.band(noise_floor, *left, width))
            }
        }
        (axis.draw())
        @for (left, rows) in &groups {
            @for (index, path) in paths.iter().enumerate() {
                @if let Some(row) = rows.iter().find(|row| row.cell.path_and_build() == *path) {
                    (bar(&axis, row, left + index as f64 * bar_width, bar_width, colour(index)))
                }
            }
            text x=(at(left + width / 2.0)) y=(at(axis.bottom + 18.0)) text-anchor="middle" {
                "c = " (rows[0].cell.load())
            }
            "\n"
        }
    }
}

fn bar(axis: &Axis, row: &CellSummary<'_>, x: f64, width: f64, colour: &str) -> Markup {
    let middle = at(x + width / 2.0);
    let bad = row.has_failures().then_some("#b00");
    let Some(estimate) = row.ratios[Metric::Rps] else {
        // If nothing failed, the reference is what is missing.
        let text = if bad.is_some() { "failed" } else { "–" };
        return html! {
            text x=(middle) y=(at(axis.bottom - 4.0)) text-anchor="middle" fill=[bad] { (text) }
            "\n"
        };
    };
    let [ratio, low, high] =
        [estimate.ratio, estimate.low, estimate.high].map(|share| tenths(share * 100.0));
    let y = axis.y(estimate.ratio);
    let [bottom, top] = [estimate.low, estimate.high].map(|share| axis.y(share));
    html! {
        rect x=(at(x)) y=(at(y)) width=(at(0.9 * width)) height=(at(axis.bottom - y))
            fill=(colour) {
            title {
                (row.cell.path_and_build()) " c=" (row.cell.load())
                ": " (ratio) " % (" (low) " to " (high) " %)"
                @if let Some(shortfall) = shortfall(row) { ", " (shortfall) }
            }
        }
        path d=(down(x + width / 2.0, bottom, top)) stroke="#222" {}
        text x=(middle) y=(at(top - 4.0)) text-anchor="middle" font-size="10"
            paint-order="stroke" stroke="#fff" stroke-width="3" fill=[bad] {
            (format!("{:.0}", estimate.ratio * 100.0)) @if bad.is_some() { " !" }
        }
        "\n"
    }
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
        let scale = Scale::Linear {
            least: 0.0,
            most: self.share_max,
        };
        self.bottom - PANEL_HEIGHT * scale.share(share)
    }

    /// Returns a band around 100 %: the noise floor.
    fn band(&self, noise_floor: f64, x: f64, width: f64) -> Markup {
        let (above, below) = (self.y(noise_floor), self.y(1.0 / noise_floor));
        html! {
            rect x=(at(x)) y=(at(above)) width=(at(width)) height=(at(below - above))
                fill="#ddd" {
                title { "A/A control: up to " (percent(noise_floor - 1.0)) }
            }
            "\n"
        }
    }

    /// Returns the lines and labels of the scale.
    fn draw(&self) -> Markup {
        let shares = (0_u32..).map(|step| (step, f64::from(step) / 4.0));
        html! {
            @for (step, share) in shares.take_while(|(_, share)| *share <= self.share_max) {
                path d=(across(self.y(share), LEFT, WIDTH))
                    stroke=(if step == 4 { "#222" } else { "#ccc" }) {}
                text x=(at(LEFT - 6.0)) y=(at(self.y(share) + 4.0)) text-anchor="end" {
                    (step * 25) " %"
                }
                "\n"
            }
        }
    }
}
