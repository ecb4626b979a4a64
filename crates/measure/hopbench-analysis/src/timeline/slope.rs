//! How fast something grows, by the Theil-Sen estimator: the median of the slopes between all pairs
//! of points. Single jumps hardly move it.
//!
//! The interval is Sen's (1968, *Estimates of the regression coefficient based on Kendall's tau*):
//! the slopes between those ranks that the normal approximation of Kendall's S gives, with its
//! variance for ties. It takes the points for independent. Memory that is never given back is not:
//! there the interval is too narrow, but the sign is right.

use crate::statistics::median_of_sorted;

/// A slope with its interval, per unit of the first coordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Estimate.
    pub slope: f64,
    /// Lower end of the interval of 95 %.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Fewest points. With fewer, the normal approximation is poor.
pub const POINTS_MIN: usize = 10;

/// Most points: an hour of seconds is put together into this many, by medians.
const POINTS_MAX: usize = 600;

/// 97.5th percentile of the normal distribution.
const Z: f64 = 1.959_964;

impl Slope {
    /// Estimates the slope through points `(x, y)` in the order of x. `None` for fewer than
    /// [`POINTS_MIN`].
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let points = thinned(points);
        if points.len() < POINTS_MIN {
            return None;
        }
        let mut slopes: Vec<f64> = Vec::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let later = points[index + 1..].iter().filter(|(other, _)| other > x);
            slopes.extend(later.map(|(other_x, other_y)| (other_y - y) / (other_x - x)));
        }
        slopes.sort_by(f64::total_cmp);
        let pairs = slopes.len() as f64;
        let reach = Z * variance(&points).sqrt();
        let at = |rank: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to an index"
            )]
            let index = rank.clamp(0.0, pairs - 1.0) as usize;
            slopes[index]
        };
        Some(Self {
            slope: median_of_sorted(&slopes),
            low: at(((pairs - reach) / 2.0 - 1.0).floor()),
            high: at(((pairs + reach) / 2.0).ceil()),
        })
    }

    /// Returns the slope in other units.
    pub fn times(self, factor: f64) -> Self {
        Self {
            slope: self.slope * factor,
            low: self.low * factor,
            high: self.high * factor,
        }
    }
}

/// Returns the variance of Kendall's S with ties in y (Kendall 1970, *Rank Correlation Methods*).
fn variance(points: &[(f64, f64)]) -> f64 {
    let of = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut ys: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
    ys.sort_by(f64::total_cmp);
    let ties: f64 = ys
        .chunk_by(|a, b| a == b)
        .map(|tie| of(tie.len() as f64))
        .sum();
    (of(points.len() as f64) - ties) / 18.0
}

/// Puts neighbours together until there are few enough points.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let together = points.len().div_ceil(POINTS_MAX).max(1);
    let middle = |values: Vec<f64>| {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        median_of_sorted(&values)
    };
    let chunks = points.chunks(together);
    let chunks = chunks.map(|chunk| {
        let (xs, ys): (Vec<f64>, Vec<f64>) = chunk.iter().copied().unzip();
        (middle(xs), middle(ys))
    });
    chunks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_own_slope() {
        let points: Vec<(f64, f64)> = (0..30)
            .map(|x| (f64::from(x), 3.0 * f64::from(x)))
            .collect();
        let slope = Slope::of(&points).expect("enough");
        assert_eq!((slope.slope, slope.low, slope.high), (3.0, 3.0, 3.0));
        assert_eq!(Slope::of(&points[..POINTS_MIN - 1]), None);
        let slope = slope.times(60.0);
        assert_eq!((slope.slope, slope.high), (180.0, 180.0));
    }

    #[test]
    fn jumps_do_not_move_it_and_nothing_has_no_slope() {
        let mut points: Vec<(f64, f64)> = (0..60)
            .map(|x| (f64::from(x), 2.0 * f64::from(x)))
            .collect();
        for at in [7, 23, 41] {
            points[at].1 += 1e6;
        }
        assert_eq!(Slope::of(&points).expect("enough").slope, 2.0);
        let flat: Vec<(f64, f64)> = (0..60).map(|x| (f64::from(x), 5.0)).collect();
        let slope = Slope::of(&flat).expect("enough");
        assert_eq!((slope.slope, slope.low, slope.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        let mut state = 11_u64;
        // Knuth's linear congruential generator.
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let runs = 400;
        let covered = (0..runs).filter(|_| {
            // Twelve uniform numbers add up to a nearly normal one.
            let mut noise = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            let points: Vec<(f64, f64)> = (0..40)
                .map(|x| (f64::from(x), 0.1 * f64::from(x) + noise()))
                .collect();
            let slope = Slope::of(&points).expect("enough");
            slope.low <= 0.1 && 0.1 <= slope.high
        });
        // Of 400, 95 % are 380; three standard deviations are 13.
        assert!((367..=397).contains(&covered.count()));
    }

    #[test]
    fn an_hour_of_seconds_is_put_together() {
        let points: Vec<(f64, f64)> = (0..3_600).map(|x| (f64::from(x), f64::from(x))).collect();
        assert!(thinned(&points).len() <= POINTS_MAX);
        assert!((Slope::of(&points).expect("enough").slope - 1.0).abs() < 1e-9);
    }
}
