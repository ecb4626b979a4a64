//! Tells whether the newest rows of a history have another level than those before.
//!
//! A test for a change at any point needs many rows after it. This test looks at the newest few
//! rows alone. All of them must lie on the same side of every row of the window before, and their
//! median must be far from the window's. The distance is measured by the window's own spread: its
//! median absolute deviation, scaled to the standard deviation of normal noise (Hampel 1974, *The
//! influence curve and its role in robust estimation*). Values are compared by their logarithms.

use crate::statistics::median;

/// Number of newest rows that are tested. One or two alone may well be outliers.
pub const NEWEST: usize = 3;

/// Fewest rows of a window. If all rows are alike, the newest three lie beyond all fifteen with a
/// probability of 2 in 816; the least distance reduces it further.
pub const WINDOW_MIN: usize = 15;

/// Most rows of a window: older rows are of little use.
pub const WINDOW_MAX: usize = 20;

/// Least distance of the two medians, in deviations. With it, a look at rows that are alike raises
/// a false alarm in at most 1 of 1,000 cases, and a step of 30 % among noise of 5 % is found in 98
/// of 100. Tests below count both.
const DEVIATIONS_MIN: f64 = 2.5;

/// Standard deviation of normal noise, in median absolute deviations.
const DEVIATION_OF_MEDIAN_DISTANCE: f64 = 1.4826;

/// A new level of the newest rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recent {
    /// Index of the first of the newest points in the trend.
    pub index: usize,
    /// Median of the window before.
    pub before: f64,
    /// Median of the newest rows.
    pub after: f64,
}

impl Recent {
    /// Compares the newest values of a series with those before, from index `since` on, where its
    /// last change is. Returns `None` if the two are alike, if there are too few before, or if one
    /// is not positive.
    pub(super) fn of(values: &[f64], since: usize) -> Option<Self> {
        let index = values.len().checked_sub(NEWEST)?;
        let first = index.saturating_sub(WINDOW_MAX).max(since);
        let window = values.get(first..index)?;
        if window.len() < WINDOW_MIN {
            return None;
        }
        let logarithms = |values: &[f64]| -> Option<Vec<f64>> {
            let is_usable = values.iter().all(|value| *value > 0.0 && value.is_finite());
            is_usable.then(|| values.iter().map(|value| value.ln()).collect())
        };
        let (window, newest) = (logarithms(window)?, logarithms(&values[index..])?);
        let is_beyond = |is: fn(f64, f64) -> bool| {
            let mut newest = newest.iter();
            newest.all(|new| window.iter().all(|old| is(*new, *old)))
        };
        if !is_beyond(|new, old| new > old) && !is_beyond(|new, old| new < old) {
            return None;
        }
        let (before, after) = (median(&window)?, median(&newest)?);
        let distances: Vec<f64> = window.iter().map(|value| (value - before).abs()).collect();
        let deviation = DEVIATION_OF_MEDIAN_DISTANCE * median(&distances)?;
        let is_far = (after - before).abs() > DEVIATIONS_MIN * deviation;
        is_far.then(|| Self {
            index,
            before: before.exp(),
            after: after.exp(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Numbers;

    /// Returns the share of looks that find a new level, with `window` rows before the newest.
    fn found(window: usize, noise: f64, step: f64, draw: fn(&mut Numbers) -> f64) -> f64 {
        const LOOKS: u32 = 20_000;
        let mut numbers = Numbers(window as u64);
        let found = (0..LOOKS).filter(|_| {
            let values = (0..window + NEWEST).map(|index| {
                let level = if index < window { 1.0 } else { step };
                level * (noise * draw(&mut numbers)).exp()
            });
            Recent::of(&values.collect::<Vec<f64>>(), 0).is_some()
        });
        found.count() as f64 / f64::from(LOOKS)
    }

    #[test]
    fn a_look_at_rows_that_are_alike_hardly_ever_finds_something() {
        let draws = [
            Numbers::normal,
            |numbers: &mut Numbers| numbers.with_outliers(4.0),
            |numbers: &mut Numbers| numbers.in_two_groups(2.5),
        ];
        for draw in draws {
            for window in [WINDOW_MIN, WINDOW_MAX, 40] {
                let share = found(window, 0.05, 1.0, draw);
                // At a rate of 1 in 1,000, 20,000 looks raise 20 alarms, and seldom over 34.
                assert!(share <= 0.0017, "{window}: {share}");
            }
        }
    }

    #[test]
    fn a_step_is_found_three_rows_after_it() {
        for window in [WINDOW_MIN, WINDOW_MAX] {
            for step in [1.3, 1.0 / 1.3] {
                let share = found(window, 0.05, step, Numbers::normal);
                assert!(share > 0.97, "{window} {step}: {share}");
            }
        }
    }

    #[test]
    fn too_few_rows_and_metrics_that_are_none_say_nothing() {
        let mut values = vec![1.0; WINDOW_MIN + NEWEST - 1];
        *values.last_mut().expect("some") = 2.0;
        assert_eq!(Recent::of(&values, 0), None);
        assert_eq!(Recent::of(&[], 0), None);
        let mut values = vec![1.0; WINDOW_MIN];
        values.extend([2.0; NEWEST]);
        assert!(Recent::of(&values, 0).is_some());
        values[0] = 0.0;
        assert_eq!(Recent::of(&values, 0), None);
        // Two values far off are outliers.
        let mut values = vec![1.0; WINDOW_MAX];
        values.extend([1.0, 9.0, 9.0]);
        assert_eq!(Recent::of(&values, 0), None);
    }
}
