//! Scales and coordinates for every picture, and two kinds of charts as inline SVG: rows with marks
//! on a common axis, and lines.
//!
//! The charts' colours come from the page's style sheet, so they follow the theme. A series has the
//! CSS classes of its path: one for its colour, and one by which the page can hide it.

use maud::{Markup, html};

/// Width of a panel. Its unit is a pixel where there is room.
const WIDTH: f64 = 388.0;

/// Fewest ticks of a logarithmic scale: fewer say too little.
const TICKS_MIN: usize = 3;

/// Largest share, in percent, of a linear scale of shares.
const SHARE_MAX: f64 = 150.0;

#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    Linear { least: f64, most: f64 },
    Log { least: f64, most: f64 },
}

/// A chart of rows below one another, each with its marks.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) scale: Scale,
    /// Ends of the noise floor around no difference.
    pub(super) band: Option<(f64, f64)>,
    /// Value of the reference.
    pub(super) reference: Option<f64>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) class: String,
    pub(super) label: String,
    pub(super) marks: Vec<Mark>,
    /// Text at the end of the row.
    pub(super) value: String,
    pub(super) is_faint: bool,
}

#[derive(Debug)]
pub(super) enum Mark {
    /// The value of one block.
    Dot {
        at: f64,
        title: String,
    },
    Interval {
        from: f64,
        to: f64,
    },
    Point {
        at: f64,
        title: String,
    },
    Bar {
        from: f64,
        to: f64,
        class: &'static str,
        title: String,
    },
}

/// A chart of lines over two axes.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

#[derive(Debug)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) scale: Scale,
    pub(super) ticks: Vec<(f64, String)>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) class: String,
    pub(super) label: String,
    /// `None` where nothing is known: the line is broken there.
    pub(super) points: Vec<Option<Point>>,
    /// Number of the shape of its markers.
    pub(super) shape: usize,
    /// Where on the x axis the series ends, and the title of a vertical line there.
    pub(super) limit: Option<(f64, String)>,
}

#[derive(Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) title: String,
    pub(super) is_hollow: bool,
    /// Whether the point has a marker. Most points of a curve have none.
    pub(super) is_marked: bool,
}

impl Scale {
    /// Returns a scale from a little below the least value to a little above the most. Without
    /// values it is from 1 to 10.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        match least <= most {
            true => Self::Log {
                least: least / 1.15,
                most: most * 1.15,
            },
            false => Self::Log {
                least: 1.0,
                most: 10.0,
            },
        }
    }

    /// Returns a scale for shares in percent: from 0 to at most 150 % if all of them lie there,
    /// since a length from 0 says more than a place on a logarithmic scale.
    pub(super) fn of_shares(shares: impl Iterator<Item = f64>) -> Self {
        let shares: Vec<f64> = shares.filter(|share| share.is_finite()).collect();
        match shares.iter().all(|it| (0.0..=SHARE_MAX).contains(it)) {
            true => Self::Linear {
                least: 0.0,
                most: (shares.iter().copied().fold(100.0, f64::max) * 1.05).min(SHARE_MAX),
            },
            false => Self::log(shares.into_iter()),
        }
    }

    /// Returns a scale from 0 to a little above the most.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self::Linear {
            least: 0.0,
            most: if most > 0.0 { most * 1.05 } else { 1.0 },
        }
    }

    /// Returns the position between the ends, from 0 to 1. Values beyond an end are put at it.
    pub(super) fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { least, most } => (value - least) / (most - least),
            Self::Log { least, most } => (value / least).ln() / (most / least).ln(),
        };
        // A value that is no number is put at the lower end.
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }

    /// Returns about five round values within the scale.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { least, most } => {
                let step = round_step((most - least) / 4.0);
                let steps = (0_u32..).map(|index| least + f64::from(index) * step);
                steps.take_while(|tick| *tick <= most).collect()
            }
            Self::Log { least, most } => {
                let digits: [&[f64]; 3] = [
                    &[1.0],
                    &[1.0, 2.0, 5.0],
                    &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
                ];
                let of = |digits: &[f64]| -> Vec<f64> {
                    let all = (-9..13).flat_map(|power| {
                        digits.iter().map(move |digit| digit * 10_f64.powi(power))
                    });
                    all.filter(|tick| (least..=most).contains(tick)).collect()
                };
                let enough = digits
                    .into_iter()
                    .map(of)
                    .find(|ticks| ticks.len() >= TICKS_MIN);
                enough.unwrap_or_else(|| {
                    // The scale is too narrow for round digits.
                    let step = round_step((most - least) / 6.0);
                    let steps =
                        (0_u32..8).map(|index| ((least / step).ceil() + f64::from(index)) * step);
                    steps.take_while(|tick| *tick <= most).collect()
                })
            }
        }
    }
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|it| it * power >= step);
    digit.unwrap_or(10.0) * power
}

impl Axis {
    /// Makes an axis with a tick at each round value.
    pub(super) fn new(title: &str, scale: Scale, label: impl Fn(f64) -> String) -> Self {
        let ticks = scale.ticks().into_iter().map(|tick| (tick, label(tick)));
        Self {
            title: title.to_owned(),
            scale,
            ticks: ticks.collect(),
        }
    }
}

/// Writes a number as short as possible: without trailing zeros, thousands as k and millions as M.
pub(super) fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    // Six digits are enough for round values and hide the errors of binary fractions.
    let rounded = (scaled * 1e6).round() / 1e6;
    format!("{rounded}{unit}")
}

/// Writes a coordinate.
pub(super) fn at(value: f64) -> String {
    format!("{value:.1}")
}

/// Returns the SVG path of a vertical line.
pub(super) fn down(x: f64, from: f64, to: f64) -> String {
    format!("M{} {}V{}", at(x), at(from), at(to))
}

/// Returns the SVG path of a horizontal line.
pub(super) fn across(y: f64, from: f64, to: f64) -> String {
    format!("M{} {}H{}", at(from), at(y), at(to))
}

/// Returns the SVG path through points. It is broken where there is none.
pub(super) fn route(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut step = 'M';
    let mut out = String::new();
    for point in points {
        if let Some((x, y)) = point {
            out += &format!("{step}{} {}", at(x), at(y));
        }
        step = if point.is_some() { 'L' } else { 'M' };
    }
    out
}

impl Rows {
    const LEFT: f64 = 172.0;
    const RIGHT: f64 = 54.0;
    const TOP: f64 = 8.0;
    const PITCH: f64 = 22.0;

    fn x(&self, value: f64) -> f64 {
        Self::LEFT + self.scale.share(value) * (WIDTH - Self::LEFT - Self::RIGHT)
    }

    pub(super) fn draw(&self) -> Markup {
        let bottom = Self::TOP + self.rows.len() as f64 * Self::PITCH;
        let right = WIDTH - Self::RIGHT;
        html! {
            figure {
                figcaption { (self.title) }
                svg viewBox={ "0 0 " (WIDTH) " " (at(bottom + 34.0)) } role="img"
                    aria-label={ (self.title) ": " (self.unit) } {
                    @if let Some((from, to)) = self.band {
                        rect .band x=(at(self.x(from))) y=(at(Self::TOP))
                            width=(at(self.x(to) - self.x(from))) height=(at(bottom - Self::TOP)) {
                            title { "noise floor" }
                        }
                    }
                    @for tick in self.scale.ticks() {
                        path .rule d=(down(self.x(tick), Self::TOP, bottom)) {}
                        text .tick x=(at(self.x(tick))) y=(at(bottom + 14.0)) { (short(tick)) }
                    }
                    text .axis x=(at(f64::midpoint(Self::LEFT, right))) y=(at(bottom + 29.0)) {
                        (self.unit)
                    }
                    @if let Some(reference) = self.reference {
                        path .reference d=(down(self.x(reference), Self::TOP, bottom)) {}
                    }
                    @for (index, row) in self.rows.iter().enumerate() {
                        (self.row(row, Self::TOP + (index as f64 + 0.5) * Self::PITCH))
                    }
                }
            }
        }
    }

    fn row(&self, row: &Row, y: f64) -> Markup {
        html! {
            g class=(row.class) {
                text .name x=(at(Self::LEFT - 8.0)) y=(at(y + 4.0)) { (cut(&row.label)) }
                @for mark in &row.marks {
                    (self.mark(mark, y))
                }
                text .value.faint[row.is_faint] x=(at(WIDTH)) y=(at(y + 4.0)) { (row.value) }
            }
        }
    }

    fn mark(&self, mark: &Mark, y: f64) -> Markup {
        match mark {
            Mark::Dot { at: value, title } => html! {
                circle .dot cx=(at(self.x(*value))) cy=(at(y)) r="2.4" { title { (title) } }
            },
            Mark::Interval { from, to } => html! {
                path .interval d=(across(y, self.x(*from), self.x(*to))) {}
            },
            Mark::Point { at: value, title } => html! {
                circle .point cx=(at(self.x(*value))) cy=(at(y)) r="4.5" { title { (title) } }
            },
            Mark::Bar {
                from,
                to,
                class,
                title,
            } => html! {
                rect class={ "bar " (class) } x=(at(self.x(*from))) y=(at(y - 7.0)) height="14"
                    width=(at((self.x(*to) - self.x(*from)).max(0.0))) { title { (title) } }
            },
        }
    }
}

/// Cuts a label to the room beside a row. It keeps both ends, which tell names apart.
fn cut(label: &str) -> String {
    const CHARACTERS_MAX: usize = 28;
    let characters: Vec<char> = label.chars().collect();
    if characters.len() <= CHARACTERS_MAX {
        return label.to_owned();
    }
    let end = CHARACTERS_MAX / 2;
    let begin = CHARACTERS_MAX - end - 1;
    let (first, last) = (&characters[..begin], &characters[characters.len() - end..]);
    first.iter().chain(&['…']).chain(last).collect()
}

impl Lines {
    const LEFT: f64 = 58.0;
    const RIGHT: f64 = 22.0;
    const TOP: f64 = 10.0;
    const BOTTOM: f64 = 220.0;

    fn x(&self, value: f64) -> f64 {
        Self::LEFT + self.x.scale.share(value) * (WIDTH - Self::LEFT - Self::RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        Self::BOTTOM - self.y.scale.share(value) * (Self::BOTTOM - Self::TOP)
    }

    pub(super) fn draw(&self) -> Markup {
        let right = WIDTH - Self::RIGHT;
        let middle = f64::midpoint(Self::TOP, Self::BOTTOM);
        html! {
            figure {
                figcaption { (self.title) }
                svg viewBox={ "0 0 " (WIDTH) " " (at(Self::BOTTOM + 38.0)) } role="img"
                    aria-label={ (self.title) ": " (self.y.title) } {
                    @for (tick, label) in &self.y.ticks {
                        path .rule d=(across(self.y(*tick), Self::LEFT, right)) {}
                        text .name x=(at(Self::LEFT - 6.0)) y=(at(self.y(*tick) + 4.0)) { (label) }
                    }
                    @for (tick, label) in &self.x.ticks {
                        path .rule d=(down(self.x(*tick), Self::TOP, Self::BOTTOM)) {}
                        text .tick x=(at(self.x(*tick))) y=(at(Self::BOTTOM + 15.0)) { (label) }
                    }
                    text .axis x=(at(f64::midpoint(Self::LEFT, right)))
                        y=(at(Self::BOTTOM + 32.0)) { (self.x.title) }
                    text .axis x="11" y=(at(middle))
                        transform={ "rotate(-90 11 " (at(middle)) ")" } { (self.y.title) }
                    @for series in &self.series {
                        (self.series(series))
                    }
                }
            }
        }
    }

    fn series(&self, series: &Series) -> Markup {
        let place = |point: &Point| (self.x(point.x), self.y(point.y));
        let route = route(series.points.iter().map(|it| it.as_ref().map(place)));
        let marked = series.points.iter().flatten().filter(|it| it.is_marked);
        html! {
            g class=(series.class) {
                @if let Some((limit, title)) = &series.limit {
                    path .limit d=(down(self.x(*limit), Self::TOP, Self::BOTTOM)) {
                        title { (title) }
                    }
                }
                path .line d=(route) { title { (series.label) } }
                @for point in marked {
                    path .marker.hollow[point.is_hollow]
                        d=(marker(series.shape, self.x(point.x), self.y(point.y))) {
                        title { (point.title) }
                    }
                }
            }
        }
    }
}

/// Returns the SVG path of a marker. Its shape can be told apart without its colour.
pub(super) fn marker(shape: usize, x: f64, y: f64) -> String {
    let corners: &[(f64, f64)] = match shape % 5 {
        0 => &[(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)],
        1 => &[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)],
        2 => &[(0.0, -4.5), (4.5, 3.5), (-4.5, 3.5)],
        3 => &[(0.0, 4.5), (4.5, -3.5), (-4.5, -3.5)],
        _ => &[
            (-2.0, -4.5),
            (2.0, -4.5),
            (4.5, 0.0),
            (2.0, 4.5),
            (-2.0, 4.5),
            (-4.5, 0.0),
        ],
    };
    let corners: Vec<String> = corners
        .iter()
        .map(|(dx, dy)| format!("{} {}", at(x + dx), at(y + dy)))
        .collect();
    format!("M{}Z", corners.join("L"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let linear = Scale::from_zero([37.0].into_iter());
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0]);
        let log = Scale::log([0.3, 4.0].into_iter());
        assert_eq!(log.ticks(), [0.5, 1.0, 2.0]);
        let narrow = Scale::log([2.6, 3.9].into_iter());
        assert_eq!(narrow.ticks(), [2.5, 3.0, 3.5, 4.0]);
        assert_eq!(Scale::log([1.0, 1e4].into_iter()).ticks().len(), 5);
        let labels = [0.5, 20.0, 1_500.0, 2e6].map(short);
        assert_eq!(labels, ["0.5", "20", "1.5k", "2M"]);
    }

    #[test]
    fn shares_that_are_not_far_from_all_have_a_linear_scale() {
        let near = Scale::of_shares([28.0, 149.0].into_iter());
        assert!(matches!(near, Scale::Linear { least: 0.0, .. }), "{near:?}");
        // The largest share is not beyond the end.
        assert!(near.share(149.0) < 1.0, "{near:?}");
        let far = Scale::of_shares([28.0, 151.0].into_iter());
        assert!(matches!(far, Scale::Log { .. }), "{far:?}");
        let low = Scale::of_shares([10.0, 28.0, f64::NAN].into_iter());
        assert!(low.share(100.0) > 0.9, "{low:?}");
    }

    #[test]
    fn what_can_t_be_drawn_is_at_an_end() {
        let nothing = Scale::log([].into_iter());
        assert!((nothing.share(f64::NAN)).abs() < 1e-9);
        let scale = Scale::log([1.0, 10.0].into_iter());
        assert!((scale.share(1e9) - 1.0).abs() < 1e-9);
        assert!(scale.share(0.0).abs() < 1e-9);
        assert!(Scale::from_zero([].into_iter()).share(0.5) > 0.0);
    }
}
