//! Percentiles of a measure, with intervals that assume nothing about its distribution.

/// The values of a measure, in ascending order.
#[derive(Clone, Debug)]
pub struct Distribution(Vec<f64>);

/// A percentile and its confidence interval. An end that the values don't reach is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// The percentile of the values: the smallest that is not below that share of them.
    pub value: f64,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
}

/// Probability of each tail that an interval leaves out: 2.5 %, so that it covers 95 %.
const TAIL: f64 = 0.025;

impl Distribution {
    /// Sorts the finite values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let mut values: Vec<f64> = finite.collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    /// Returns how many values there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the smallest value.
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// Returns the largest value.
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Returns the percentile by nearest rank. Its interval of 95 % is made of order statistics:
    /// the number of values below the true percentile follows a binomial distribution (Conover,
    /// *Practical Nonparametric Statistics*, 3rd edition, section 3.2).
    pub fn percentile(&self, percent: u8) -> Quantile {
        let (count, share) = (self.0.len(), f64::from(percent.min(100)) / 100.0);
        let cumulative = binomial(count, share);
        // The percentile is below the value of rank r if at most r - 1 values are below it.
        let low = (1..=count)
            .rev()
            .find(|rank| cumulative[rank - 1] <= TAIL)
            .map(|rank| self.0[rank - 1]);
        let high = (1..=count)
            .find(|rank| 1.0 - cumulative[rank - 1] <= TAIL)
            .map(|rank| self.0[rank - 1]);
        Quantile {
            value: self.0[nearest_rank(count, percent) - 1],
            low,
            high,
        }
    }
}

/// Returns the rank, from 1, of the smallest value that is not below the share of all values.
fn nearest_rank(count: usize, percent: u8) -> usize {
    (count * usize::from(percent.min(100))).div_ceil(100).max(1)
}

/// Returns the cumulative binomial distribution: the probability of at most k successes.
fn binomial(count: usize, share: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut logarithm = 0.0; // of n over k
    (0..=count)
        .map(|successes| {
            if successes > 0 {
                logarithm += ((count - successes + 1) as f64 / successes as f64).ln();
            }
            let (hits, misses) = (successes as f64, (count - successes) as f64);
            let term = logarithm + power(share, hits) + power(1.0 - share, misses);
            sum += term.exp();
            f64::min(sum, 1.0)
        })
        .collect()
}

/// Returns the logarithm of a power, where 0⁰ is 1.
fn power(base: f64, exponent: f64) -> f64 {
    if exponent == 0.0 {
        0.0
    } else {
        exponent * base.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: std::ops::RangeInclusive<u16>) -> Distribution {
        Distribution::of(values.map(f64::from)).expect("values")
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred = of(1..=100);
        let values = [0, 50, 95, 99, 100].map(|percent| hundred.percentile(percent).value);
        assert_eq!(values, [1.0, 50.0, 95.0, 99.0, 100.0]);
        assert_eq!(of(7..=7).percentile(95).value, 7.0);
        assert!(Distribution::of([f64::NAN]).is_none());
    }

    /// The ranks of an interval of 95 % for the median: 40 and 61 of 100 values, 2 and 9 of 10, as
    /// tables of the sign test have them.
    #[test]
    fn intervals_are_those_of_the_tables() {
        let median = of(1..=100).percentile(50);
        assert_eq!((median.low, median.high), (Some(40.0), Some(61.0)));
        let median = of(1..=10).percentile(50);
        assert_eq!((median.low, median.high), (Some(2.0), Some(9.0)));
        // Five values can't have the 95th percentile below one of them for sure.
        let p95 = of(1..=5).percentile(95);
        assert_eq!((p95.low, p95.high), (Some(4.0), None));
        assert_eq!(of(1..=5).percentile(50).low, None);
    }

    /// The interval covers the true percentile about as often as it says.
    #[test]
    fn intervals_cover_the_truth() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        };
        let rounds = 2_000;
        let covered = (0..rounds).filter(|_| {
            let values: Vec<f64> = (0..40).map(|_| uniform()).collect();
            let median = Distribution::of(values).expect("values").percentile(50);
            median.low.is_none_or(|low| low <= 0.5) && median.high.is_none_or(|high| 0.5 <= high)
        });
        let share = covered.count() as f64 / f64::from(rounds);
        assert!((0.94..0.985).contains(&share), "{share}");
    }
}
