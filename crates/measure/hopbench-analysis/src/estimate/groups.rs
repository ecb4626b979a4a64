//! Tells whether the blocks of a cell fall into two groups, of which no single figure speaks.
//!
//! The statistic is that of Engelman and Hartigan (1969, *Percentage points of a test for
//! clusters*, Journal of the American Statistical Association 64): the values are sorted and split
//! where the sum of squares between the two parts is the largest, as a multiple of that within
//! them. Its limit is not the paper's, which is for normal values: a long tail or a flat
//! distribution has no groups either. The limits here were simulated (4,000 samples each of
//! normal, Laplace, log-normal, exponential, uniform and t distributions); of all these, at most
//! one sample in 100 exceeds them. A test simulates that again.

use crate::statistics::median_of_sorted;

/// Two groups of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    /// The group of the smaller values.
    pub low: Group,
    /// The group of the larger values.
    pub high: Group,
}

/// Some of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Number of its values.
    pub count: usize,
    /// Median.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Largest statistic of values without groups, by their number. Between two numbers, the straight
/// line lies above the curve.
const LIMITS: [(usize, f64); 10] = [
    (6, 66.0),
    (7, 40.0),
    (8, 29.0),
    (10, 20.0),
    (12, 14.5),
    (15, 11.2),
    (20, 8.7),
    (30, 7.2),
    (50, 5.6),
    (200, 4.5),
];

/// Smallest share of the values that makes a group. Fewer are outliers.
const SHARE_MIN: f64 = 0.2;

/// Fewest values of a group.
const GROUP_MIN: usize = 2;

/// Smallest ratio of the groups' medians that matters to anybody.
const RATIO_MIN: f64 = 1.05;

impl Groups {
    /// Finds two groups among positive values, by their logarithms. `None` if they are one group,
    /// or too few to tell.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.to_vec();
        sorted.retain(|value| value.is_finite() && *value > 0.0);
        sorted.sort_by(f64::total_cmp);
        let logarithms: Vec<f64> = sorted.iter().map(|value| value.ln()).collect();
        let (at, statistic) = split(&logarithms)?;
        let (low, high) = sorted.split_at(at);
        let groups = Self {
            low: Group::of(low),
            high: Group::of(high),
        };
        let is_apart =
            statistic > limit(sorted.len())? && groups.high.median >= RATIO_MIN * groups.low.median;
        is_apart.then_some(groups)
    }

    /// Returns the number of values of both groups.
    pub fn count(&self) -> usize {
        self.low.count + self.high.count
    }
}

impl Group {
    fn of(sorted: &[f64]) -> Self {
        Self {
            count: sorted.len(),
            median: median_of_sorted(sorted),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }
}

/// Returns the largest statistic of values that have no groups. `None` for too few to tell.
fn limit(count: usize) -> Option<f64> {
    let after = LIMITS.iter().position(|(number, _)| *number >= count);
    let (to, limit_to) = match after {
        Some(after) => LIMITS[after],
        None => return Some(LIMITS[LIMITS.len() - 1].1),
    };
    if to == count {
        return Some(limit_to);
    }
    let (from, limit_from) = LIMITS[after?.checked_sub(1)?];
    let share = (count - from) as f64 / (to - from) as f64;
    Some(limit_from + share * (limit_to - limit_from))
}

/// Returns where sorted values are best split, and the statistic there.
fn split(sorted: &[f64]) -> Option<(usize, f64)> {
    let count = sorted.len() as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small number"
    )]
    let least = ((SHARE_MIN * count).ceil() as usize).max(GROUP_MIN);
    let last = sorted.len().checked_sub(least)?;
    // Around the mean, sums of squares lose no digits.
    let mean = sorted.iter().sum::<f64>() / count;
    let whole: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
    let (mut below, mut best) = (0.0, None);
    for (index, value) in sorted.iter().enumerate() {
        below += value - mean;
        let size = index + 1;
        if size < least || size > last {
            continue;
        }
        let (low, high) = (size as f64, count - size as f64);
        // The deviations above the split sum to the opposite of those below.
        let between = below.powi(2) / low + below.powi(2) / high;
        let within = (whole - between).max(whole * f64::EPSILON);
        let statistic = between / within;
        if best.is_none_or(|(_, other)| statistic > other) {
            best = Some((size, statistic));
        }
    }
    best.filter(|(_, statistic)| statistic.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Numbers;

    /// Returns the share of 2,000 samples in which groups are found.
    fn found(count: usize, value: &mut dyn FnMut(&mut Numbers) -> f64) -> f64 {
        let mut rng = Numbers(7);
        let samples = 2_000;
        let mut with_groups = 0;
        for _ in 0..samples {
            let values: Vec<f64> = (0..count).map(|_| value(&mut rng).exp()).collect();
            with_groups += usize::from(Groups::of(&values).is_some());
        }
        with_groups as f64 / f64::from(samples)
    }

    fn exponential(rng: &mut Numbers) -> f64 {
        -(1.0 - rng.next()).ln()
    }

    #[test]
    fn noise_of_one_group_has_no_groups() {
        for count in [6, 7, 9, 11, 15, 25, 60] {
            let distributions: [&mut dyn FnMut(&mut Numbers) -> f64; 5] = [
                &mut |rng| 0.1 * rng.normal(),
                &mut |rng| 0.1 * exponential(rng) * if rng.next() < 0.5 { 1.0 } else { -1.0 },
                &mut |rng| 0.1 * exponential(rng),
                &mut |rng| 0.1 * rng.next(),
                &mut |rng| 0.1 * (0.5 * rng.normal()).exp(),
            ];
            for (index, distribution) in distributions.into_iter().enumerate() {
                let share = found(count, distribution);
                // One in 100, and what 2,000 samples may have more by chance.
                assert!(
                    share <= 0.017,
                    "{count} values of distribution {index}: {share}"
                );
            }
        }
    }

    #[test]
    fn modes_are_found_with_their_shares() {
        let share = found(10, &mut |rng| {
            0.015 * rng.normal() + if rng.next() < 0.5 { 0.27 } else { 0.0 }
        });
        // A mode with one block of ten is an outlier.
        assert!(share > 0.9, "{share}");
        let values = [84.0, 110.0, 85.0, 109.0, 83.0, 111.0, 110.5, 84.5];
        let groups = Groups::of(&values).expect("two");
        assert_eq!(
            (groups.low.count, groups.high.count, groups.count()),
            (4, 4, 8)
        );
        assert!((groups.low.median - 84.25).abs() < 1e-9 && groups.high.min == 109.0);
    }

    #[test]
    fn what_is_alike_or_too_little_has_no_groups() {
        assert_eq!(Groups::of(&[100.0; 20]), None);
        assert_eq!(Groups::of(&[]), None);
        assert_eq!(Groups::of(&[1.0, 1.0, 2.0, 2.0, 2.0]), None);
        // Apart, but by less than anybody cares about.
        assert_eq!(
            Groups::of(&[100.0, 100.1, 100.0, 102.0, 102.1, 102.0, 100.0, 102.0]),
            None
        );
        assert_eq!(Groups::of(&[f64::NAN, 0.0, -1.0, 5.0]), None);
        // One outlier is no group.
        assert_eq!(Groups::of(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 3.0]), None);
        let many: Vec<f64> = (0..400)
            .map(|it| if it % 2 == 0 { 1.0 } else { 2.0 })
            .collect();
        assert!(Groups::of(&many).is_some());
    }
}
