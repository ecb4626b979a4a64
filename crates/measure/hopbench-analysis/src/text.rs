//! Metrics and marks, as every report writes them.

use maud::Markup;

use crate::{
    estimate::Estimate,
    statistics::Spread,
    summary::{Percentile, Percentiles},
    told::{Bound, MARGIN, Told},
};

pub(crate) fn with_interval(estimate: &Estimate) -> String {
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high].map(percent);
    match low == ratio && high == ratio {
        true => ratio,
        false => format!("{ratio} ({low}–{high})"),
    }
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

/// Explains the marks of ratios.
pub(crate) fn marks() -> String {
    format!(
        "No mark means different. = means equal: the whole confidence interval and the noise floor \
         lie within ±{:.0} % of 100 %. \"can't tell\" means not told apart: the interval \
         contains 100 %, or the ratio is within the noise floor, so the two may be equal or may \
         differ, by anything within the interval. ? means too few \
         blocks to tell.",
        (MARGIN - 1.0) * 100.0
    )
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
    let percent = ratio * 100.0;
    if ratio >= TIMES_MIN {
        format!("{} times", thousands(ratio))
    } else if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
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
