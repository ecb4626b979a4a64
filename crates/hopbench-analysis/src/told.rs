//! What an interval says of two things: different, equal, or not told apart.
//!
//! An interval that has 100 % in it is no proof of equality: it may be as wide as the noise is. Two
//! things are equal only within a margin, and only if the whole interval lies within it (the two
//! one-sided tests of Schuirmann 1987, *A comparison of the two one-sided tests procedure and the
//! power approach for assessing the equivalence of average bioavailability*).

use crate::estimate::{CONFIDENCE, Estimate, Shift};

/// The factor within which two things are called equal. The smallest change that the gate which is
/// built in looks for is 15 %, three times as much; and a run with `--until 3%` has intervals that
/// are narrow enough for it.
pub const MARGIN: f64 = 1.05;

/// Whether two things differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// 1 is outside of the interval, and the ratio is farther from 1 than what the control finds
    /// between equal things.
    Different,
    /// The whole interval is within [`MARGIN`], and so is what the control finds between equal
    /// things.
    Equal,
    /// Neither: they may be equal, and they may differ.
    NotToldApart,
    /// Too few blocks to tell.
    TooFewBlocks,
}

/// What is known of a ratio of percentiles that may be lower bounds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Bound {
    #[default]
    Exact,
    /// The true one may be larger.
    AtLeast,
    /// The true one may be smaller.
    AtMost,
    /// It may be either.
    Unknown,
}

impl Told {
    /// What an estimate says, where equal things are found to differ by a factor of `floor`.
    pub fn of(estimate: &Estimate, floor: f64, bound: Bound) -> Self {
        let differs = estimate.is_difference(floor);
        let is_within = estimate.low >= 1.0 / MARGIN && estimate.high <= MARGIN;
        // A bound says nothing of the side on which the true ratio may be.
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
                && floor <= MARGIN
                && estimate.confidence >= CONFIDENCE
            {
                true => Self::Equal,
                false => Self::NotToldApart,
            },
        }
    }

    /// The same of what is added. It has no margin: nothing is called equal.
    pub fn of_shift(shift: &Shift, floor: f64) -> Self {
        match shift.is_difference(floor) {
            None => Self::TooFewBlocks,
            Some(true) => Self::Different,
            Some(false) => Self::NotToldApart,
        }
    }

    /// For machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Equal => "equal",
            Self::NotToldApart => "not-told-apart",
            Self::TooFewBlocks => "too-few-blocks",
        }
    }

    /// Whether it is a difference, as older reports have it.
    pub fn is_different(self) -> Option<bool> {
        match self {
            Self::Different => Some(true),
            Self::Equal | Self::NotToldApart => Some(false),
            Self::TooFewBlocks => None,
        }
    }
}

impl Bound {
    /// For machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::AtLeast => "at-least",
            Self::AtMost => "at-most",
            Self::Unknown => "unknown",
        }
    }

    /// Of a ratio of two percentiles, by which of them may be longer than they are.
    pub fn of_ratio(above: bool, below: bool) -> Self {
        match (above, below) {
            (false, false) => Self::Exact,
            (true, false) => Self::AtLeast,
            (false, true) => Self::AtMost,
            (true, true) => Self::Unknown,
        }
    }

    /// Of one ratio over another.
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

    fn told(ratios: &[f64], floor: f64) -> Told {
        let estimate = Estimate::of(ratios.iter().copied()).expect("some");
        Told::of(&estimate, floor, Bound::Exact)
    }

    #[test]
    fn there_are_three_answers_and_too_few_blocks() {
        let near = [0.99, 1.01, 1.0, 0.98, 1.02, 1.0];
        assert_eq!(told(&near, 1.01), Told::Equal);
        // Noise that has 100 % in it says nothing.
        let noisy = [0.8, 1.3, 0.9, 1.1, 1.2, 0.7];
        assert_eq!(told(&noisy, 1.01), Told::NotToldApart);
        let slower = [0.8, 0.81, 0.79, 0.8, 0.82, 0.78];
        assert_eq!(told(&slower, 1.01), Told::Different);
        // Where equal things differ by more than the margin, nothing is known to be equal.
        assert_eq!(told(&near, MARGIN + 0.001), Told::NotToldApart);
        assert_eq!(told(&slower, 1.5), Told::NotToldApart);
        // A difference that is small is one all the same.
        assert_eq!(told(&[0.98; 6], 1.01), Told::Different);
        assert_eq!(told(&near[..2], 1.0), Told::TooFewBlocks);
        // Five blocks have no interval of 95 %.
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

    /// Of things that differ by just the margin, at most a fortieth are called equal (one side of
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
                // As if the control had no noise, which calls the most equal.
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
