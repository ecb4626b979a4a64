//! Sums of ranks and their exact distributions, with or without ties.

/// A sum of ranks, and the probability of every possible sum by chance.
pub(super) struct Sum {
    probabilities: Vec<f64>,
    sum: usize,
}

impl Sum {
    pub(super) fn at_least(&self) -> f64 {
        self.probabilities[self.sum..].iter().sum::<f64>().min(1.0)
    }

    pub(super) fn two_sided(&self) -> f64 {
        let at_most: f64 = self.probabilities[..=self.sum].iter().sum();
        (2.0 * at_most.min(self.at_least())).min(1.0)
    }
}

/// Returns the mean of every pair of values, and of each value with itself, in ascending order: the
/// *Walsh averages*.
pub(super) fn means_of_pairs(values: &[f64]) -> Vec<f64> {
    let mut means: Vec<f64> = (0..values.len())
        .flat_map(|first| (first..values.len()).map(move |second| (first, second)))
        .map(|(first, second)| f64::midpoint(values[first], values[second]))
        .collect();
    means.sort_by(f64::total_cmp);
    means
}

/// Sums the ranks, by magnitude, of the positive values, for the signed-rank test. Zeros are left
/// out, as Wilcoxon did. The interval includes them, so with zeros the two may disagree.
pub(super) fn signed_ranks(values: &[f64]) -> Sum {
    let mut values: Vec<f64> = values.iter().copied().filter(|one| *one != 0.0).collect();
    values.sort_by(|one, other| one.abs().total_cmp(&other.abs()));
    let magnitudes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    let ranks = ranks(&magnitudes);
    let positive = values.iter().zip(&ranks).filter(|(value, _)| **value > 0.0);
    Sum {
        sum: positive.map(|(_, rank)| rank).sum(),
        probabilities: sums(&ranks),
    }
}

/// Sums the ranks of `head` among both sides, for the rank-sum test.
pub(super) fn rank_sum(base: &[f64], head: &[f64]) -> Sum {
    let mut all: Vec<f64> = base.iter().chain(head).copied().collect();
    all.sort_by(f64::total_cmp);
    let ranks = ranks(&all);
    let rank_of = |value: &f64| ranks[all.partition_point(|other| other < value)];
    Sum {
        sum: head.iter().map(rank_of).sum(),
        probabilities: sums_of(head.len(), &ranks),
    }
}

/// Returns twice the rank of each value. Equal values have their mean rank, and twice that is a
/// whole number.
fn ranks(ordered: &[f64]) -> Vec<usize> {
    ordered
        .iter()
        .map(|value| {
            let first = ordered.partition_point(|other| other < value);
            let behind = ordered.partition_point(|other| other <= value);
            first + 1 + behind
        })
        .collect()
}

/// Returns the probability of each sum of `count` ranks if all choices are equally likely.
pub(super) fn sums_of(count: usize, ranks: &[usize]) -> Vec<f64> {
    let width = ranks.iter().sum::<usize>() + 1;
    // By the number of ranks chosen so far, and by their sum.
    let mut ways = vec![vec![0.0; width]; count + 1];
    ways[0][0] = 1.0;
    let mut largest = 0;
    for rank in ranks {
        largest += rank;
        for chosen in (1..=count).rev() {
            for sum in (*rank..=largest).rev() {
                let with = ways[chosen - 1][sum - rank];
                ways[chosen][sum] += with;
            }
        }
    }
    let total: f64 = ways[count].iter().sum();
    ways[count].iter().map(|ways| ways / total).collect()
}

/// Returns the probability of each sum of ranks if each rank is as likely to count as not.
pub(super) fn sums(ranks: &[usize]) -> Vec<f64> {
    let mut probabilities = vec![0.0; ranks.iter().sum::<usize>() + 1];
    probabilities[0] = 1.0;
    let mut largest = 0;
    for rank in ranks {
        largest += rank;
        for sum in (0..=largest).rev() {
            let with = sum
                .checked_sub(*rank)
                .map_or(0.0, |rest| probabilities[rest]);
            probabilities[sum] = f64::midpoint(probabilities[sum], with);
        }
    }
    probabilities
}
