//! Figures and marks as they are written in every report.

use crate::{
    estimate::Estimate,
    statistics::Spread,
    summary::{Percentile, Percentiles},
    told::{Bound, MARGIN, Told},
};

pub(super) fn connection(keep_alive: bool) -> &'static str {
    if keep_alive {
        ""
    } else {
        ", a new connection per request"
    }
}

pub(super) fn with_interval(estimate: &Estimate) -> String {
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high].map(percent);
    match low == ratio && high == ratio {
        true => ratio,
        false => format!("{ratio} ({low}–{high})"),
    }
}

/// A ratio's mark, by whether it is a difference.
pub(super) fn mark(told: Told) -> &'static str {
    match told {
        Told::Different => "",
        Told::Equal => "= ",
        Told::NotToldApart => "≈ ",
        Told::TooFewBlocks => "? ",
    }
}

/// What comes before a ratio that is no more than a bound.
pub(super) fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Exact => "",
        Bound::AtLeast => "≥ ",
        Bound::AtMost => "≤ ",
        Bound::Unknown => "? ",
    }
}

/// What the marks of ratios mean.
pub(super) fn marks() -> String {
    format!(
        "= is equal: the whole interval is within ±{:.0} % of 100 %, and the A/A control differs \
         by no more. ≈ is not told apart: the interval has 100 % in it, or the control differs as \
         much; the two may be equal and may not be. Without a mark it is different. ? is too few \
         blocks to tell.",
        (MARGIN - 1.0) * 100.0
    )
}

/// A percentile in milliseconds.
pub(crate) fn latency(percentile: Percentile) -> String {
    let at_least = if percentile.is_at_least { "≥ " } else { "" };
    format!("{at_least}{}", milliseconds(percentile.us))
}

/// A percentile over blocks, in milliseconds.
pub(super) fn latencies(percentiles: Percentiles) -> String {
    let Percentiles { median, min, max } = percentiles;
    let [median, min, max] = [median, min, max].map(latency);
    if min == max {
        median
    } else {
        format!("{median} ({min}–{max})")
    }
}

pub(super) fn spread(spread: Option<Spread>, format: fn(f64) -> String) -> String {
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

pub(super) fn hundredths(number: f64) -> String {
    format!("{number:.2}")
}

pub(super) fn milliseconds(us: f64) -> String {
    let ms = us / 1e3;
    match ms {
        ..10.0 => format!("{ms:.3}"),
        ..100.0 => format!("{ms:.2}"),
        _ => format!("{ms:.0}"),
    }
}

pub(super) fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A part of a whole: none is 0, and few are not none.
pub(super) fn part(part: u64, whole: u64) -> String {
    let share = part as f64 / whole.max(1) as f64;
    match part {
        0 => "0".to_owned(),
        _ if share < 0.0005 => "<0.1 %".to_owned(),
        _ => percent(share),
    }
}

/// So many digits of a probability, however small it is.
pub(crate) fn probability(probability: f64, digits: usize) -> String {
    let rounded = format!("{probability:.*e}", digits - 1).parse::<f64>();
    rounded.expect("a number").to_string()
}

pub(super) fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// A whole number, its digits in groups of three.
pub(super) fn thousands(number: f64) -> String {
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
