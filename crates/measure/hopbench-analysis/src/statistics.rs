//! Statistics over a handful of blocks.

/// A metric over blocks: its median, with the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median of the values.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl Spread {
    /// Takes the spread of the finite values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self {
            median: median_of_sorted(&values),
            min,
            max,
        })
    }
}

/// Fewest samples above a percentile that is shown. With fewer, it would depend on chance.
pub const TAIL_SAMPLES_MIN: f64 = 20.0;

/// Returns the fewest samples of which a quantile is shown.
pub fn samples_min(quantile: f64) -> f64 {
    // Rounding makes up for what binary fractions lose.
    (TAIL_SAMPLES_MIN / (1.0 - quantile)).round()
}

/// Returns whether enough samples lie above a quantile.
pub fn has_tail(samples: u64, quantile: f64) -> bool {
    samples as f64 >= samples_min(quantile)
}

/// Returns the median of the finite values, in any order; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    Some(Spread::of(values.iter().copied())?.median)
}

/// Returns the middle value, or the mean of the two in the middle.
///
/// # Panics
/// If there are no values.
pub(crate) fn median_of_sorted(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Returns the one-sided p of Fisher's exact test (1922, *On the interpretation of χ² from
/// contingency tables, and the calculation of P*): the probability that at least this many of all
/// failures are on the side `head` if both sides fail alike. Each side is a number of failures and
/// a total.
pub fn p_fails_more(base: (usize, usize), head: (usize, usize)) -> f64 {
    let ((base_failed, base_of), (head_failed, head_of)) = (base, head);
    let (base_failed, head_failed) = (base_failed.min(base_of), head_failed.min(head_of));
    let failed = base_failed + head_failed;
    let logarithm_of_ways = |of: usize, chosen: usize| -> f64 {
        let factors = (1..=chosen).map(|it| ((of - chosen + it) as f64 / it as f64).ln());
        factors.sum()
    };
    let all = logarithm_of_ways(base_of + head_of, failed);
    let as_many = (head_failed..=failed.min(head_of)).filter(|of_head| failed - of_head <= base_of);
    let probabilities = as_many.map(|of_head| {
        let of_base = failed - of_head;
        (logarithm_of_ways(head_of, of_head) + logarithm_of_ways(base_of, of_base) - all).exp()
    });
    probabilities.sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        let spread = Spread::of([3.0, 1.0, 2.0]).expect("values");
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]).expect("values").median,
            2.5
        );
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    /// Fisher's lady tasting tea names all four, or three, of the four cups with milk first.
    #[test]
    fn a_lady_tastes_tea() {
        let close = |is: f64, shall: f64| assert!((is - shall).abs() < 1e-12, "{is} {shall}");
        close(p_fails_more((0, 4), (4, 4)), 1.0 / 70.0);
        close(p_fails_more((1, 4), (3, 4)), 17.0 / 70.0);
        // There are 924 ways to choose six of twelve; 37 have five or six on the second side.
        close(p_fails_more((1, 6), (5, 6)), 37.0 / 924.0);
        close(p_fails_more((0, 6), (0, 6)), 1.0);
        close(p_fails_more((0, 0), (3, 3)), 1.0);
        close(p_fails_more((6, 6), (0, 6)), 1.0);
    }

    proptest! {
        /// At least half of the values lie on either side of the median.
        #[test]
        fn median_splits_in_halves(values in prop::collection::vec(-1e9..1e9, 1..20)) {
            let median = Spread::of(values.iter().copied()).expect("values").median;
            let below = values.iter().filter(|value| **value <= median).count();
            let above = values.iter().filter(|value| **value >= median).count();
            prop_assert!(2 * below >= values.len() && 2 * above >= values.len());
        }
    }
}
