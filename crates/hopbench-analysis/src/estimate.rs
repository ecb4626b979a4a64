//! What a hop costs, from one ratio per block.
//!
//! The ratios of a cell to its reference are few, and nothing is known about how they are
//! distributed but that their logarithms lie about evenly on either side of the true one. That is
//! all that the signed-rank test of Wilcoxon (1945, *Individual comparisons by ranking methods*)
//! asks for. Its estimate is that of Hodges and Lehmann (1963, *Estimates of location based on rank
//! tests*); its interval is of the ratios that the test does not reject (Hollander, Wolfe and
//! Chicken, *Nonparametric Statistical Methods*, 3rd edition, section 3.3). Both are exact for any
//! number of blocks and need no random numbers, and an interval without 1 in it is a p below one
//! less its confidence. Resampling the blocks instead gives intervals that are too narrow when they
//! are few: a test below counts how often.

mod ranks;

use self::ranks::{means_of_pairs, rank_sum, signed_ranks};
use crate::statistics::median_of_sorted;

/// How often an interval shall cover the true ratio, if there are enough blocks for that.
pub const CONFIDENCE: f64 = 0.95;

/// With fewer blocks, of either side, nothing is said about whether two things differ.
pub const BLOCKS_MIN: usize = 3;

/// Fewest blocks with which an interval has [`CONFIDENCE`].
pub const BLOCKS_WHOLE: usize = 6;

/// The same, of each of two sides that share no blocks.
pub const BLOCKS_WHOLE_BETWEEN: usize = 4;

/// Most blocks of a scenario: the exact distribution of more would take too long, so that only the
/// first so many count.
pub const BLOCKS_MAX: usize = 200;

/// The same, of each of two sides that are compared.
const BLOCKS_MAX_BETWEEN: usize = 50;

/// A ratio over blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub ratio: f64,
    /// From here …
    pub low: f64,
    /// … to here with `confidence`.
    pub high: f64,
    /// Share of such intervals that cover the true ratio: 0.95 or a little more; less if there are
    /// fewer than six blocks, and 0 with one.
    pub confidence: f64,
    /// Probability of ratios as far from 1 as these or farther, on either side, if the true one
    /// is 1.
    pub p: f64,
    pub blocks: usize,
}

/// A difference over blocks, in the unit of what was measured: for what is added, not multiplied.
/// A ratio is one between logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    pub by: f64,
    /// From here …
    pub low: f64,
    /// … to here with `confidence`.
    pub high: f64,
    /// As an [`Estimate`]'s.
    pub confidence: f64,
    /// Probability of differences as far from 0 as these or farther, on either side, if the true
    /// one is 0.
    pub p: f64,
    pub blocks: usize,
}

impl Estimate {
    /// Of the ratios that are there, one per block; those that are not positive and finite are
    /// left out. `None` of none.
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Option<Self> {
        Shift::of(logarithms(ratios)).map(Self::of_logarithms)
    }

    /// Of `head` over `base`, which have nothing to do with one another but what they measure: the
    /// median of all pairs' ratios, with the interval and p of the rank-sum test (Mann and Whitney
    /// 1947, *On a test of whether one of two random variables is stochastically larger than the
    /// other*; Hollander, Wolfe and Chicken, sections 4.1 to 4.3). `None` if either has none.
    pub fn between(base: &[f64], head: &[f64]) -> Option<Self> {
        let [base, head] = [base, head].map(|side| logarithms(side.iter().copied()));
        Shift::between(&base, &head).map(Self::of_logarithms)
    }

    fn of_logarithms(shift: Shift) -> Self {
        Self {
            ratio: shift.by.exp(),
            low: shift.low.exp(),
            high: shift.high.exp(),
            confidence: shift.confidence,
            p: shift.p,
            blocks: shift.blocks,
        }
    }

    /// The larger of the distances from 1 to the two ends, as a factor that is at least 1.
    pub fn reach(&self) -> f64 {
        self.high.max(1.0 / self.low).max(1.0)
    }

    /// Whether it is told apart from 1: 1 is not within the interval, and it is more than a factor
    /// of `floor` from 1. `None` with too few blocks to tell.
    pub fn is_difference(&self, floor: f64) -> Option<bool> {
        let distance = self.ratio.max(1.0 / self.ratio);
        let is_difference = distance > floor && !(self.low..=self.high).contains(&1.0);
        (self.blocks >= BLOCKS_MIN).then_some(is_difference)
    }
}

impl Shift {
    /// Of the differences that are there, one per block. `None` of none.
    pub fn of(differences: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = finite(differences, BLOCKS_MAX);
        let ranks: Vec<usize> = (1..=values.len()).collect();
        let (p, blocks) = (signed_ranks(&values).two_sided(), values.len());
        Self::within(&means_of_pairs(&values), &ranks::sums(&ranks), p, blocks)
    }

    /// Of `head` less `base`, which have nothing to do with one another: see
    /// [`Estimate::between`].
    pub fn between(base: &[f64], head: &[f64]) -> Option<Self> {
        let [base, head] =
            [base, head].map(|side| finite(side.iter().copied(), BLOCKS_MAX_BETWEEN));
        let mut differences: Vec<f64> = head
            .iter()
            .flat_map(|head| base.iter().map(move |base| head - base))
            .collect();
        differences.sort_by(f64::total_cmp);
        // The ranks without ties, less what the smallest sum is.
        let ranks: Vec<usize> = (1..=base.len() + head.len()).collect();
        let below = ranks::sums_of(head.len(), &ranks);
        let least: usize = ranks[..head.len()].iter().sum();
        let p = rank_sum(&base, &head).two_sided();
        let blocks = base.len().min(head.len());
        Self::within(&differences, &below[least..], p, blocks)
    }

    /// The median of what every pair of blocks says, and the interval that leaves out so many on
    /// either side as a sum of ranks is with a probability of a fortieth.
    fn within(ordered: &[f64], probabilities: &[f64], p: f64, blocks: usize) -> Option<Self> {
        if ordered.is_empty() {
            return None;
        }
        let mut beyond = 0;
        let mut confidence = 1.0 - 2.0 * probabilities[0];
        let mut sum = 0.0;
        for (index, probability) in probabilities.iter().enumerate() {
            sum += probability;
            if sum > (1.0 - CONFIDENCE) / 2.0 {
                break;
            }
            (beyond, confidence) = (index, 1.0 - 2.0 * sum);
        }
        Some(Self {
            by: median_of_sorted(ordered),
            low: ordered[beyond],
            high: ordered[ordered.len() - 1 - beyond],
            confidence: confidence.max(0.0),
            p,
            blocks,
        })
    }

    /// The larger of the distances from 0 to the two ends.
    pub fn reach(&self) -> f64 {
        self.high.max(-self.low).max(0.0)
    }

    /// As [`Estimate::is_difference`], with 0 for 1.
    pub fn is_difference(&self, floor: f64) -> Option<bool> {
        let is_difference = self.by.abs() > floor && !(self.low..=self.high).contains(&0.0);
        (self.blocks >= BLOCKS_MIN).then_some(is_difference)
    }
}

/// The smallest p that so many blocks can reach.
pub fn p_min(blocks: usize) -> f64 {
    0.5_f64
        .powi(i32::try_from(blocks).unwrap_or(i32::MAX) - 1)
        .min(1.0)
}

/// Of one side: the probability of differences as far above 0 as these or farther, if the true one
/// is 0 (Wilcoxon's signed ranks).
pub fn p_above(differences: &[f64]) -> f64 {
    signed_ranks(&finite(differences.iter().copied(), BLOCKS_MAX)).at_least()
}

/// Of one side: the probability that `head` is as far above `base` as it is or farther, if they
/// are alike (Mann and Whitney's rank sum).
pub fn p_above_between(base: &[f64], head: &[f64]) -> f64 {
    let [base, head] = [base, head].map(|side| finite(side.iter().copied(), BLOCKS_MAX_BETWEEN));
    rank_sum(&base, &head).at_least()
}

/// The smallest p of one side that so many blocks of each can reach.
pub fn p_above_between_min(base: usize, head: usize) -> f64 {
    let (base, head) = (base.min(BLOCKS_MAX_BETWEEN), head.min(BLOCKS_MAX_BETWEEN));
    // One over the ways to choose the head's among all.
    (1..=head)
        .map(|chosen| chosen as f64 / (base + chosen) as f64)
        .product()
}

/// Of those that have one.
pub(crate) fn logarithms(ratios: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let usable = |ratio: &f64| ratio.is_finite() && *ratio > 0.0;
    ratios.into_iter().filter(usable).map(f64::ln).collect()
}

fn finite(values: impl IntoIterator<Item = f64>, most: usize) -> Vec<f64> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    finite.take(most).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numbers::Numbers;

    /// Hollander, Wolfe and Chicken, example 3.1 and its sequels: depression factors of nine
    /// patients before and after. T+ = 5, P = 0.0391 on two sides, estimate −0.46, interval of
    /// 96.1 % from −0.786 to −0.010.
    #[expect(clippy::approx_constant, reason = "a patient's")]
    #[test]
    fn an_example_of_the_books() {
        let before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
        let after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
        let differences = after
            .iter()
            .zip(before)
            .map(|(after, before)| after - before);
        let estimate = Estimate::of(differences.map(f64::exp)).expect("nine");
        let close = |is: f64, shall: f64| assert!((is - shall).abs() < 6e-4, "{is} {shall}");
        close(estimate.p, 0.0391);
        close(estimate.ratio.ln(), -0.46);
        close(estimate.low.ln(), -0.786);
        close(estimate.high.ln(), -0.010);
        close(estimate.confidence, 0.961);
    }

    /// What is added is told apart as what is multiplied is, on its own scale.
    #[test]
    fn a_shift_is_an_estimate_of_logarithms() {
        let values = [-0.3, 0.1, 0.25, 0.4, -0.05, 0.6, 0.2];
        let shift = Shift::of(values).expect("seven");
        let estimate = Estimate::of(values.map(f64::exp)).expect("seven");
        for (shift, ratio) in [
            (shift.by, estimate.ratio),
            (shift.low, estimate.low),
            (shift.high, estimate.high),
        ] {
            assert!((shift.exp() - ratio).abs() < 1e-12);
        }
        assert_eq!((shift.p, shift.blocks), (estimate.p, 7));
        assert!((shift.reach() - shift.high).abs() < 1e-12);
        assert_eq!(shift.is_difference(0.0), Some(false));
        assert_eq!(Shift::of([f64::NAN]), None);
    }

    #[test]
    fn one_side_has_half_the_p_of_two() {
        let values = [-0.3, 0.1, 0.25, 0.4, -0.05, 0.6, 0.2];
        let both = Shift::of(values).expect("seven").p;
        assert!((p_above(&values) - both / 2.0).abs() < 1e-12);
        assert!(p_above(&values.map(|value| -value)) > 0.9);
        assert!((p_above(&[1.0; 6]) - p_min(6) / 2.0).abs() < 1e-12);
        assert_eq!((p_above(&[]), p_above(&[0.0])), (1.0, 1.0));
        let (base, head) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0]);
        let apart = p_above_between(&base, &head);
        assert!((apart - 1.0 / 35.0).abs() < 1e-12, "{apart}");
        assert!((p_above_between_min(4, 3) - apart).abs() < 1e-12);
        assert!((p_above_between(&head, &base) - 1.0).abs() < 1e-12);
        for (blocks, is_whole) in [
            (BLOCKS_WHOLE_BETWEEN, true),
            (BLOCKS_WHOLE_BETWEEN - 1, false),
        ] {
            let (base, head) = (vec![1.0; blocks], vec![2.0; blocks]);
            let shift = Shift::between(&base, &head).expect("both");
            assert_eq!(shift.confidence >= CONFIDENCE, is_whole, "{blocks}");
        }
    }

    #[test]
    fn few_blocks_promise_little() {
        let one = Estimate::of([0.5]).expect("one");
        assert_eq!(
            (one.low, one.high, one.confidence, one.p),
            (0.5, 0.5, 0.0, 1.0)
        );
        let three = Estimate::of([0.4, 0.5, 0.6]).expect("three");
        assert!((three.low - 0.4).abs() < 1e-12 && (three.high - 0.6).abs() < 1e-12);
        assert_eq!((three.confidence, three.p), (0.75, 0.25));
        assert_eq!(three.is_difference(1.0), Some(true));
        let two = Estimate::of([0.4, 0.5]).expect("two");
        assert_eq!(two.is_difference(1.0), None);
        for blocks in 1..20 {
            let estimate = Estimate::of(vec![0.5; blocks]).expect("some");
            assert!(
                (estimate.p - p_min(blocks)).abs() < 1e-12,
                "{blocks} blocks"
            );
            let is_whole = estimate.confidence >= CONFIDENCE;
            assert_eq!(is_whole, blocks >= BLOCKS_WHOLE, "{blocks}");
        }
        assert_eq!(Estimate::of([]), None);
        assert_eq!(Estimate::of([f64::NAN, 0.0, -1.0, f64::INFINITY]), None);
    }

    #[test]
    fn no_difference_at_all_is_none() {
        let same = Estimate::of([1.0; 9]).expect("nine");
        assert_eq!(
            (same.ratio, same.low, same.high, same.p),
            (1.0, 1.0, 1.0, 1.0)
        );
        assert_eq!(same.is_difference(1.0), Some(false));
    }

    /// Hollander, Wolfe and Chicken, example 4.1 and its sequels: permeability of membranes at term
    /// and at 12 to 26 weeks of pregnancy. W = 30, P = 0.2544 on two sides, estimate −0.305,
    /// interval of 96 % from −0.76 to 0.15.
    #[test]
    fn an_example_of_the_books_between_two() {
        let at_term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let before = [1.15, 0.88, 0.90, 0.74, 1.21];
        let [at_term, before] = [&at_term[..], &before].map(|side| {
            side.iter()
                .map(|value| f64::exp(*value))
                .collect::<Vec<_>>()
        });
        let estimate = Estimate::between(&at_term, &before).expect("both");
        let close = |is: f64, shall: f64| assert!((is - shall).abs() < 6e-4, "{is} {shall}");
        close(estimate.p, 0.2544);
        close(estimate.ratio.ln(), -0.305);
        close(estimate.low.ln(), -0.76);
        close(estimate.high.ln(), 0.15);
        assert!((0.95..0.97).contains(&estimate.confidence), "{estimate:?}");
    }

    #[test]
    fn two_sides_that_are_alike_do_not_differ() {
        let values = [0.9, 1.0, 1.1];
        let same = Estimate::between(&values, &values).expect("both");
        assert_eq!((same.ratio, same.p, same.blocks), (1.0, 1.0, 3));
        assert_eq!(same.is_difference(1.0), Some(false));
        assert_eq!(Estimate::between(&values, &[]), None);
        assert_eq!(Estimate::between(&[], &values), None);
        let apart = Estimate::between(&[1.0, 1.1, 1.2], &[2.0, 2.1, 2.2]).expect("both");
        assert!((apart.p - 0.1).abs() < 1e-12 && (apart.confidence - 0.9).abs() < 1e-12);
        assert_eq!(apart.is_difference(1.5), Some(true));
        assert_eq!(apart.is_difference(2.0), Some(false));
        // One block has no control that could tell how much it means.
        let nineteen: Vec<f64> = (1..20).map(f64::from).collect();
        let lonely = Estimate::between(&nineteen, &[100.0]).expect("both");
        assert_eq!((lonely.blocks, lonely.is_difference(1.0)), (1, None));
    }

    /// Share of intervals that cover the true ratio, of `runs` of so many blocks.
    fn coverage(blocks: usize, runs: u32, draw: fn(&mut Numbers) -> f64) -> (f64, f64) {
        const TRUE: f64 = 0.8;
        let mut numbers = Numbers(blocks as u64);
        let mut confidence = 0.0;
        let covered = (0..runs).filter(|_| {
            let ratios = (0..blocks).map(|_| TRUE * (0.05 * draw(&mut numbers)).exp());
            let estimate = Estimate::of(ratios).expect("blocks");
            confidence = estimate.confidence;
            (estimate.low..=estimate.high).contains(&TRUE)
        });
        (covered.count() as f64 / f64::from(runs), confidence)
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let draws = [
            Numbers::centred,
            Numbers::normal,
            |numbers: &mut Numbers| numbers.with_outliers(10.0),
            |numbers: &mut Numbers| numbers.in_two_groups(3.0),
        ];
        for draw in draws {
            for blocks in [2, 3, 5, 7, 8, 10, 16] {
                let (share, confidence) = coverage(blocks, 2_000, draw);
                assert!(
                    (share - confidence).abs() < 0.02,
                    "{blocks}: {share} {confidence}"
                );
                assert!(
                    blocks < 7 || (0.93..=0.97).contains(&share),
                    "{blocks}: {share}"
                );
            }
        }
    }

    /// Stopping as soon as the interval is narrow favours blocks that happen to agree.
    #[test]
    fn stopping_when_narrow_costs_little_coverage() {
        const RUNS: u32 = 1_000;
        for (noise, reach) in [(0.03, 1.015_f64), (0.05, 1.02)] {
            let mut numbers = Numbers(1);
            let covered = (0..RUNS).filter(|_| {
                let mut ratios = Vec::new();
                loop {
                    ratios.push((noise * numbers.normal()).exp());
                    let estimate = Estimate::of(ratios.iter().copied()).expect("blocks");
                    let width = estimate.high / estimate.low;
                    let whole = estimate.confidence >= CONFIDENCE;
                    if whole && width <= reach * reach || ratios.len() == BLOCKS_MAX {
                        break (estimate.low..=estimate.high).contains(&1.0);
                    }
                }
            });
            let share = covered.count() as f64 / f64::from(RUNS);
            assert!((0.90..0.97).contains(&share), "{noise}: {share}");
        }
    }

    #[test]
    fn intervals_between_two_cover_as_often_as_they_say() {
        for (base, head) in [(2, 3), (3, 3), (5, 5), (7, 7), (10, 8)] {
            let mut numbers = Numbers(1);
            let mut confidence = 0.0;
            let covered = (0..2_000).filter(|_| {
                let [base, head] = [(base, 1.0), (head, 0.8)].map(|(blocks, ratio)| {
                    (0..blocks)
                        .map(|_| ratio * (0.05 * numbers.in_two_groups(3.0)).exp())
                        .collect::<Vec<f64>>()
                });
                let estimate = Estimate::between(&base, &head).expect("both");
                confidence = estimate.confidence;
                (estimate.low..=estimate.high).contains(&0.8)
            });
            let share = covered.count() as f64 / 2e3;
            assert!(
                (share - confidence).abs() < 0.02,
                "{base} {head}: {share} {confidence}"
            );
        }
    }

    /// Why the blocks are not resampled: the middle 95 % of the medians of 500 new draws from seven
    /// blocks are no interval of 95 %.
    #[test]
    fn resampled_blocks_promise_too_much() {
        const BLOCKS: usize = 7;
        let mut numbers = Numbers(1);
        let covered = (0..1_000).filter(|_| {
            let values: Vec<f64> = (0..BLOCKS).map(|_| numbers.normal()).collect();
            let mut medians: Vec<f64> = (0..500)
                .map(|_| {
                    let pick = |_| values[numbers.below(BLOCKS)];
                    let picked: Vec<f64> = (0..BLOCKS).map(pick).collect();
                    let means = means_of_pairs(&picked);
                    means[means.len() / 2]
                })
                .collect();
            medians.sort_by(f64::total_cmp);
            medians[12] <= 0.0 && 0.0 <= medians[487]
        });
        let share = covered.count() as f64 / 1e3;
        assert!((0.85..0.92).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn an_estimate_is_within_its_interval(ratios in prop::collection::vec(0.01..100.0, 1..30)) {
            let estimate = Estimate::of(ratios.iter().copied()).expect("some");
            prop_assert!(estimate.low <= estimate.ratio * (1.0 + 1e-12));
            prop_assert!(estimate.ratio <= estimate.high * (1.0 + 1e-12));
            prop_assert!((0.0..=1.0).contains(&estimate.p));
            prop_assert!(estimate.p >= p_min(ratios.len()) * (1.0 - 1e-9));
        }

        /// The other way round is the reciprocal.
        #[test]
        fn neither_side_is_favoured(ratios in prop::collection::vec(0.01..100.0, 1..30)) {
            let estimate = Estimate::of(ratios.iter().copied()).expect("some");
            let other = Estimate::of(ratios.iter().map(|ratio| 1.0 / ratio)).expect("some");
            prop_assert!((estimate.ratio * other.ratio - 1.0).abs() < 1e-9);
            prop_assert!((estimate.low * other.high - 1.0).abs() < 1e-9);
            prop_assert!((estimate.p - other.p).abs() < 1e-9);
        }

        /// Interval and test are of one piece.
        #[test]
        fn an_interval_without_one_is_a_small_p(
            ratios in prop::collection::vec(0.5..1.8, 6..20),
        ) {
            let estimate = Estimate::of(ratios).expect("some");
            let excluded = estimate.low > 1.0 || estimate.high < 1.0;
            prop_assert_eq!(excluded, estimate.p <= 1.0 - estimate.confidence + 1e-12);
        }
    }
}
