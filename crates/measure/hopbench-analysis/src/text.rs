//! Metrics and marks, as every report writes them.

use maud::Markup;

use crate::{
    estimate::Estimate,
    statistics::Spread,
    summary::{Percentile, Percentiles},
    told::{Bound, Told},
};

pub(crate) fn with_interval(estimate: &Estimate) -> String {
    let values = [estimate.ratio, estimate.low, estimate.high];
    let unit = Unit::of(estimate.ratio);
    let [ratio, low, high] = values.map(|it| unit.number(it));
    match (estimate.blocks, low == ratio && high == ratio) {
        (1, _) => format!("{ratio}{} (1 block)", unit.name()),
        (_, true) => format!("{ratio}{}", unit.name()),
        (_, false) => format!(
            "{ratio}{0} ({low}{1}–{high}{1})",
            unit.name(),
            unit.in_range()
        ),
    }
}

/// Writes the interval of an estimate alone, in one unit.
pub(crate) fn interval(estimate: &Estimate) -> String {
    let unit = Unit::of(estimate.high);
    let [low, high] = [estimate.low, estimate.high].map(|it| unit.number(it));
    match unit {
        Unit::Percent => format!("{low} %–{high} %"),
        Unit::Times => format!("{low}–{high} times"),
    }
}

/// The unit of a ratio: an estimate and its interval have the same.
#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Times,
}

impl Unit {
    fn of(ratio: f64) -> Self {
        match ratio >= TIMES_MIN {
            true => Self::Times,
            false => Self::Percent,
        }
    }

    fn number(self, ratio: f64) -> String {
        let value = match self {
            Self::Percent => ratio * 100.0,
            Self::Times => ratio,
        };
        match value < 9.95 {
            true => tenths(value),
            false => thousands(value),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Percent => " %",
            Self::Times => " times",
        }
    }

    /// Returns the unit behind the ends of a range, whose estimate has the unit already.
    fn in_range(self) -> &'static str {
        match self {
            Self::Percent => " %",
            Self::Times => "",
        }
    }
}

/// Counts things: `1 trial`, `2 trials`.
pub fn plural(count: usize, what: &str) -> String {
    let number = thousands(count as f64);
    match count {
        1 => format!("{number} {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Says that so many are too few: `1 block is too few`.
pub fn too_few(count: usize, what: &str) -> String {
    let are = if count == 1 { "is" } else { "are" };
    format!("{} {are} too few", plural(count, what))
}

/// Writes a difference with its sign, which is a minus and no hyphen.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    format!("{value:+.decimals$}").replace('-', "−")
}

/// Returns a ratio's mark, which says whether it is a difference.
pub(crate) fn mark(told: Told) -> &'static str {
    match told {
        Told::Different => "",
        Told::Equal => "= ",
        // A sign such as '≈' is read as 'about'.
        Told::NotToldApart => "can't tell: ",
        Told::TooFewBlocks => "? ",
    }
}

/// Returns the sign before a ratio that is only a bound.
pub(crate) fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Exact => "",
        Bound::AtLeast => "≥ ",
        Bound::AtMost => "≤ ",
        Bound::Unknown => "? ",
    }
}

/// Returns a ratio with its mark, for where there is little room.
pub(crate) fn short_ratio(told: Option<Told>, ratio: &str) -> String {
    match told {
        Some(Told::NotToldApart) => "can't tell".to_owned(),
        _ => told.map_or("", mark).to_owned() + ratio,
    }
}

/// Writes a percentile in milliseconds.
pub(crate) fn latency(percentile: Percentile) -> String {
    let at_least = if percentile.is_at_least { "≥ " } else { "" };
    format!("{at_least}{}", milliseconds(percentile.us))
}

/// Writes a percentile over blocks in milliseconds: the median, with the range in brackets.
pub(crate) fn latencies(percentiles: Percentiles) -> String {
    let Percentiles { median, min, max } = percentiles;
    let [median, min, max] = [median, min, max].map(latency);
    if min == max {
        median
    } else {
        format!("{median} ({min}–{max})")
    }
}

pub(crate) fn spread(spread: Option<Spread>, format: fn(f64) -> String) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "–".to_owned();
    };
    let (median, min, max) = (format(median), format(min), format(max));
    if min == max {
        median
    } else {
        format!("{median} ({min}–{max})")
    }
}

pub(crate) fn hundredths(number: f64) -> String {
    format!("{number:.2}")
}

pub(crate) fn milliseconds(us: f64) -> String {
    let ms = us / 1e3;
    match ms {
        ..10.0 => format!("{ms:.3}"),
        ..100.0 => format!("{ms:.2}"),
        _ => format!("{ms:.0}"),
    }
}

/// Ratio from which on a percentage can't be grasped.
pub(crate) const TIMES_MIN: f64 = 10.0;

pub(crate) fn percent(ratio: f64) -> String {
    let unit = Unit::of(ratio);
    format!("{}{}", unit.number(ratio), unit.name())
}

/// Writes a share of a whole. Only none at all is 0; a few of many are `<0.1 %`.
pub(crate) fn part(part: u64, whole: u64) -> String {
    let share = part as f64 / whole.max(1) as f64;
    match part {
        0 => "0".to_owned(),
        _ if share < 0.0005 => "<0.1 %".to_owned(),
        _ => percent(share),
    }
}

/// Writes a probability with this many significant digits, however small it is.
pub(crate) fn probability(probability: f64, digits: usize) -> String {
    let rounded = format!("{probability:.*e}", digits - 1).parse::<f64>();
    rounded.expect("a number").to_string()
}

pub(crate) fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// Writes a whole number with its digits in groups of three.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Escapes text that Markdown would take for its own markup or for HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if "|<&*`\\".contains(letter) {
            out.push('\\');
        }
        out.push(if letter.is_control() { ' ' } else { letter });
    }
    out
}

/// Returns XML. A replacement character stands for what XML 1.0 cannot say.
pub(crate) fn xml(markup: Markup) -> String {
    let is_unspeakable = |letter: char| {
        let is_space = matches!(letter, '\t' | '\n' | '\r');
        letter < ' ' && !is_space || matches!(letter, '\u{fffe}' | '\u{ffff}')
    };
    markup.into_string().replace(is_unspeakable, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(ratio: f64, low: f64, high: f64, blocks: usize) -> Estimate {
        Estimate {
            ratio,
            low,
            high,
            confidence: 0.95,
            p: 0.5,
            blocks,
        }
    }

    #[test]
    fn a_ratio_and_its_interval_have_one_unit() {
        for ((ratio, low, high), wanted) in [
            ((0.5, 0.4, 0.6), "50 % (40 %–60 %)"),
            ((8.36, 6.43, 10.1), "836 % (643 %–1,010 %)"),
            ((11.0, 9.22, 17.0), "11 times (9.2–17)"),
            ((0.052, 0.05, 0.12), "5.2 % (5.0 %–12 %)"),
            ((1.0, 1.0, 1.0), "100 %"),
        ] {
            assert_eq!(with_interval(&estimate(ratio, low, high, 6)), wanted);
        }
        assert_eq!(interval(&estimate(1.0, 0.9, 1.15, 6)), "90 %–115 %");
        assert_eq!(interval(&estimate(3.0, 0.5, 12.0, 6)), "0.5–12 times");
    }

    #[test]
    fn a_ratio_of_one_block_says_why_it_has_no_interval() {
        let of = |blocks| with_interval(&estimate(0.32, 0.32, 0.32, blocks));
        assert_eq!(of(1), "32 % (1 block)");
        assert_eq!(of(2), "32 %");
    }

    #[test]
    fn one_thing_has_no_plural() {
        let counted = [0, 1, 2, 1_234].map(|count| plural(count, "trial"));
        assert_eq!(counted, ["0 trials", "1 trial", "2 trials", "1,234 trials"]);
    }

    #[test]
    fn a_difference_has_a_minus_sign() {
        assert_eq!(signed(-3.6, 1), "−3.6");
        assert_eq!(signed(3.0, 0), "+3");
    }
}
