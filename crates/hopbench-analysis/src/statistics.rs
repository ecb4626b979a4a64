//! Statistics over a handful of blocks.

/// A figure over blocks: its median, with the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of the values that are there; `None` of none.
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

/// Of values in any order; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    Some(Spread::of(values.iter().copied())?.median)
}

/// The middle value, or the mean of the two in the middle.
///
/// # Panics
/// Of none.
pub(crate) fn median_of_sorted(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
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
