//! `latency-SCENARIO.svg`: latency over rate, a line for each path.

use maud::{Markup, html};

use super::{
    chart::{WIDTH, colour, key, picture},
    plot::{Scale, across, at, down, route, short},
    sentences::shortfall,
    text,
};
use crate::summary::{CellSummary, Percentile, ScenarioSummary, Table};

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
    let body = html! {
        @for (index, panel) in panels.iter().enumerate() {
            (panel.draw(TOP + index as f64 * PANEL_PITCH))
        }
    };
    picture(&scenario.info.question, heading, LEFT, height, &body)
}

/// The cells of one endpoint and number of connections.
struct Panel<'a> {
    title: String,
    points: Vec<Point<'a>>,
    rate: Scale,
    p99_ms: Scale,
}

/// A cell at a fixed rate.
#[derive(Clone, Copy)]
struct Point<'a> {
    row: &'a CellSummary<'a>,
    rate: f64,
    /// The p99 of all blocks together.
    p99: Percentile,
}

impl<'a> Point<'a> {
    fn of(row: &'a CellSummary<'a>) -> Option<Self> {
        if row.cell.staged {
            return None;
        }
        Some(Self {
            row,
            rate: f64::from(row.cell.rate_rps?),
            p99: row.merged?.p99_us?,
        })
    }

    fn p99_ms(&self) -> f64 {
        self.p99.us / 1e3
    }
}

impl<'a> Panel<'a> {
    fn all(table: &'a Table<'a>) -> Vec<Self> {
        let all: Vec<Point<'_>> = table.rows.iter().filter_map(Point::of).collect();
        let mut connections: Vec<u32> = all.iter().map(|it| it.row.cell.concurrency).collect();
        connections.sort_unstable();
        connections.dedup();
        let panel = |concurrency: u32| {
            let points = all.iter().copied();
            let points = points.filter(|it| it.row.cell.concurrency == concurrency);
            let points: Vec<Point<'_>> = points.collect();
            Self {
                title: format!(
                    "{}{}, {concurrency} connections",
                    table.endpoint,
                    table.setting()
                ),
                rate: Scale::log(points.iter().map(|it| it.rate)),
                p99_ms: Scale::log(points.iter().map(Point::p99_ms)),
                points,
            }
        };
        connections.into_iter().map(panel).collect()
    }

    fn draw(&self, top: f64) -> Markup {
        let (right, bottom) = (WIDTH - RIGHT, top + 30.0 + PANEL_HEIGHT);
        let x = |rate: f64| LEFT + self.rate.share(rate) * (right - LEFT);
        let y = |p99_ms: f64| bottom - self.p99_ms.share(p99_ms) * PANEL_HEIGHT;
        let mut paths: Vec<String> = Vec::new();
        for point in &self.points {
            let path = point.row.cell.path_and_build();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let of = |path: &str| {
            let points = self.points.iter();
            let points = points.filter(|it| it.row.cell.path_and_build() == path);
            let points = points.map(|it| (x(it.rate), y(it.p99_ms()), it));
            points.collect::<Vec<_>>()
        };
        html! {
            text x=(at(LEFT)) y=(at(top + 18.0)) font-weight="bold" { (self.title) } "\n"
            @for tick in self.p99_ms.ticks() {
                path d=(across(y(tick), LEFT, right)) stroke="#ccc" {}
                text x=(at(LEFT - 6.0)) y=(at(y(tick) + 4.0)) text-anchor="end" {
                    (short(tick)) " ms"
                }
                "\n"
            }
            @for tick in self.rate.ticks() {
                path d=(down(x(tick), bottom, bottom - PANEL_HEIGHT)) stroke="#ccc" {}
                text x=(at(x(tick))) y=(at(bottom + 18.0)) text-anchor="middle" {
                    (short(tick)) "/s"
                }
                "\n"
            }
            @for (index, path) in paths.iter().enumerate() {
                (line(path, colour(index), &of(path)))
                (key(right + 14.0, top + 32.0 + index as f64 * 18.0, index, path))
            }
        }
    }
}

/// Returns a path's line with a dot at each point.
fn line(path: &str, colour: &str, points: &[(f64, f64, &Point<'_>)]) -> Markup {
    html! {
        path d=(route(points.iter().map(|(x, y, _)| Some((*x, *y))))) fill="none"
            stroke=(colour) stroke-width="1.5" {}
        "\n"
        @for (x, y, Point { row, rate, p99 }) in points {
            circle cx=(at(*x)) cy=(at(*y)) r="3.5" stroke=(colour)
                fill=(if row.has_failures() { "#fff" } else { colour }) {
                title {
                    (path) " at " (rate) "/s: p99 " (text::latency(*p99)) " ms"
                    @if let Some(shortfall) = shortfall(row) { ", " (shortfall) }
                }
            }
            "\n"
        }
    }
}
