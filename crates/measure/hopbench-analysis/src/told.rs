//! Decides by an interval whether two things are different, equal, or not told apart.
//!
//! An interval that contains 100 % does not prove equality: it may be as wide as the noise. Two
//! things are equal only within a margin, and only if the whole interval lies within it (the two
//! one-sided tests of Schuirmann 1987, *A comparison of the two one-sided tests procedure and the
//! power approach for assessing the equivalence of average bioavailability*).

use crate::estimate::{CONFIDENCE, Estimate, Shift};

/// The factor within which two things are called equal. The smallest change that the built-in gate
/// looks for is 15 %, three times as much. A run with `--until 3%` has intervals that are narrow
/// enough for this margin.
pub const MARGIN: f64 = 1.05;

/// Whether two things differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// The interval excludes 1, and the ratio is farther from 1 than the noise floor.
    Different,
    /// The whole interval and the noise floor lie within [`MARGIN`].
    Equal,
    /// Neither of these: the two may be equal or may differ.
    NotToldApart,
    /// Too few blocks to tell.
    TooFewBlocks,
}

/// How well a ratio of percentiles is known, since each percentile may be only a lower bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Bound {
    /// The ratio is exact.
    #[default]
    Exact,
    /// The true ratio may be larger.
    AtLeast,
    /// The true ratio may be smaller.
    AtMost,
    /// The true ratio may be larger or smaller.
    Unknown,
}

impl Told {
    /// Judges an estimate. `noise_floor` is the factor by which equal things differ.
    pub fn of(estimate: &Estimate, noise_floor: f64, bound: Bound) -> Self {
        let differs = estimate.is_difference(noise_floor);
        let is_within = estimate.low >= 1.0 / MARGIN && estimate.high <= MARGIN;
        // A bound shows a difference only if the true ratio can't be nearer to 1.
        let (can_differ, can_be_equal) = match bound {
            Bound::Exact => (true, true),
            Bound::AtLeast => (estimate.ratio > 1.0, false),
            Bound::AtMost => (estimate.ratio < 1.0, false),
            Bound::Unknown => (false, false),
        };
        match differs {
            None => Self::TooFewBlocks,
            Some(true) if can_differ => Self::Different,
            Some(_) => match can_be_equal
                && is_within
                && noise_floor <= MARGIN
                && estimate.confidence >= CONFIDENCE
            {
                true => Self::Equal,
                false => Self::NotToldApart,
            },
        }
    }

    /// Judges a difference of values that are added. There is no margin: nothing is called equal.
    pub fn of_shift(shift: &Shift, noise_floor: f64) -> Self {
        match shift.is_difference(noise_floor) {
            None => Self::TooFewBlocks,
            Some(true) => Self::Different,
            Some(false) => Self::NotToldApart,
        }
    }

    /// Returns the machine-readable name.
    pub fn key(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Equal => "equal",
            Self::NotToldApart => "not-told-apart",
            Self::TooFewBlocks => "too-few-blocks",
        }
    }

    /// Returns whether it is a difference, as in older reports; `None` with too few blocks.
    pub fn is_different(self) -> Option<bool> {
        match self {
            Self::Different => Some(true),
            Self::Equal | Self::NotToldApart => Some(false),
            Self::TooFewBlocks => None,
        }
    }
}

impl Bound {
    /// Returns the machine-readable name.
    pub fn key(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::AtLeast => "at-least",
            Self::AtMost => "at-most",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the bound of a ratio of two percentiles. `above` and `below` tell whether the
    /// numerator and the denominator may be longer than measured.
    pub fn of_ratio(above: bool, below: bool) -> Self {
        match (above, below) {
            (false, false) => Self::Exact,
            (true, false) => Self::AtLeast,
            (false, true) => Self::AtMost,
            (true, true) => Self::Unknown,
        }
    }

    /// Returns the bound of the ratio `self` over the ratio `other`.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        let may_rise = |it, side| it == side || it == Self::Unknown;
        Self::of_ratio(
            may_rise(self, Self::AtLeast) || may_rise(other, Self::AtMost),
            may_rise(self, Self::AtMost) || may_rise(other, Self::AtLeast),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Numbers;

    fn told(ratios: &[f64], noise_floor: f64) -> Told {
        let estimate = Estimate::of(ratios.iter().copied()).expect("some");
        Told::of(&estimate, noise_floor, Bound::Exact)
    }

    #[test]
    fn there_are_three_answers_and_too_few_blocks() {
        let near = [0.99, 1.01, 1.0, 0.98, 1.02, 1.0];
        assert_eq!(told(&near, 1.01), Told::Equal);
        // A wide interval that contains 100 % says nothing.
        let noisy = [0.8, 1.3, 0.9, 1.1, 1.2, 0.7];
        assert_eq!(told(&noisy, 1.01), Told::NotToldApart);
        let slower = [0.8, 0.81, 0.79, 0.8, 0.82, 0.78];
        assert_eq!(told(&slower, 1.01), Told::Different);
        // If the noise floor is beyond the margin, nothing is known to be equal.
        assert_eq!(told(&near, MARGIN + 0.001), Told::NotToldApart);
        assert_eq!(told(&slower, 1.5), Told::NotToldApart);
        // A small difference is a difference, too.
        assert_eq!(told(&[0.98; 6], 1.01), Told::Different);
        assert_eq!(told(&near[..2], 1.0), Told::TooFewBlocks);
        // Five blocks don't reach a confidence of 95 %.
        assert_eq!(told(&near[..5], 1.01), Told::NotToldApart);
        assert_eq!(told(&near.map(|it| it * 0.96), 1.05), Told::NotToldApart);
    }

    #[test]
    fn a_bound_tells_of_one_side_only() {
        let of = |ratio: f64, bound| {
            let estimate = Estimate::of([ratio; 6]).expect("six");
            Told::of(&estimate, 1.01, bound)
        };
        assert_eq!(of(2.0, Bound::AtLeast), Told::Different);
        assert_eq!(of(0.5, Bound::AtLeast), Told::NotToldApart);
        assert_eq!(of(1.0, Bound::AtLeast), Told::NotToldApart);
        assert_eq!(of(0.5, Bound::AtMost), Told::Different);
        assert_eq!(of(2.0, Bound::AtMost), Told::NotToldApart);
        assert_eq!(of(2.0, Bound::Unknown), Told::NotToldApart);
        assert_eq!(Bound::AtLeast.over(Bound::Exact), Bound::AtLeast);
        assert_eq!(Bound::Exact.over(Bound::AtLeast), Bound::AtMost);
        assert_eq!(Bound::AtLeast.over(Bound::AtLeast), Bound::Unknown);
        assert_eq!(Bound::AtLeast.over(Bound::AtMost), Bound::AtLeast);
    }

    /// Things that differ by just the margin are called equal in at most 1 of 40 cases (one side of
    /// an interval of 95 %).
    #[test]
    fn what_differs_by_the_margin_is_seldom_called_equal() {
        let mut numbers = Numbers(1);
        const RUNS: u32 = 4_000;
        let mut equal = |truth: f64| {
            let runs = (0..RUNS).filter(|_| {
                let ratios: Vec<f64> = (0..8)
                    .map(|_| truth * (0.04 * numbers.centred()).exp())
                    .collect();
                let estimate = Estimate::of(ratios).expect("eight");
                // A noise floor of 1 calls the most things equal.
                let told = Told::of(&estimate, 1.0, Bound::Exact);
                let is_within = estimate.low >= 1.0 / MARGIN && estimate.high <= MARGIN;
                told == Told::Equal || told == Told::Different && is_within
            });
            runs.count() as f64 / f64::from(RUNS)
        };
        let at_margin = equal(MARGIN);
        assert!(at_margin <= 0.03, "{at_margin}");
        let same = equal(1.0);
        assert!(same > 0.95, "{same}");
    }
}
