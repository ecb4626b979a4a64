//! Figures and marks as they are written in every report.

use crate::{estimate::Estimate, statistics::Spread};

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

/// Of a ratio, by whether it is a difference.
pub(super) fn mark(differs: Option<bool>) -> &'static str {
    match differs {
        Some(true) => "",
        Some(false) => "≈ ",
        None => "? ",
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
