//! Percentiles of latencies, each of them either exact or a lower bound.
//!
//! A percentile is shown only if there are enough samples above it. Requests that were never
//! answered count with the time that they had waited. Their true latencies are longer, so a
//! percentile may be longer, too.

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{Histogram, serialization::Deserializer};

use super::HistogramError;
use crate::{
    record::{Load, Trial},
    statistics::{Spread, has_tail},
};

/// Largest factor by which requests without an answer may move a percentile that is shown as exact.
/// The histogram's three digits, the clock and the scheduler move it by more.
const CENSORED_REACH_MAX: f64 = 1.05;

/// Points of a [`CellSummary::curve`](super::CellSummary::curve) for each further nine of the
/// percentile, as from 99 % to 99.9 %.
const CURVE_POINTS_PER_NINE: f64 = 8.0;

/// A percentile, the mean or the maximum of latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile {
    /// The latency, in microseconds.
    pub us: f64,
    /// Whether the true one may be longer, because unanswered requests are among its samples.
    pub is_at_least: bool,
}

/// A percentile over blocks: its median, with the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Median over the blocks.
    pub median: Percentile,
    /// Smallest value of a block.
    pub min: Percentile,
    /// Largest value of a block.
    pub max: Percentile,
}

/// Percentiles of the latencies of all blocks together. Those with too few samples above them are
/// `None`.
#[derive(Clone, Copy, Debug)]
pub struct Merged {
    /// Number of latencies.
    pub count: u64,
    /// Mean latency.
    pub mean_us: Percentile,
    /// Median latency, however few samples there are.
    pub rough_p50_us: Percentile,
    /// 90th percentile, however few samples there are.
    pub rough_p90_us: Percentile,
    /// Median latency.
    pub p50_us: Option<Percentile>,
    /// 95th percentile.
    pub p95_us: Option<Percentile>,
    /// 99th percentile.
    pub p99_us: Option<Percentile>,
    /// 99.9th percentile.
    pub p999_us: Option<Percentile>,
    /// Longest latency.
    pub max_us: Percentile,
}

/// A point of a latency distribution: this share of all answers took at most this long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// Share of the answers, from 0 to 1.
    pub quantile: f64,
    /// Their longest latency, in microseconds.
    pub latency_us: f64,
}

/// Percentiles of one trial. Those with too few samples above them are `None`.
#[derive(Clone, Copy, Debug)]
pub struct TrialLatency {
    /// Median latency.
    pub p50_us: Option<Percentile>,
    /// 90th percentile.
    pub p90_us: Option<Percentile>,
    /// 95th percentile.
    pub p95_us: Option<Percentile>,
    /// 99th percentile.
    pub p99_us: Option<Percentile>,
}

/// Merged latencies, and the number of lower bounds among them.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    count: u64,
    censored: u64,
}

impl Percentiles {
    /// Summarises one percentile per block. `None` if there are none.
    pub fn of(blocks: &[Percentile]) -> Option<Self> {
        let spread = Spread::of(blocks.iter().map(|it| it.us))?;
        let mut ordered: Vec<f64> = blocks.iter().map(|it| it.us).collect();
        ordered.sort_by(f64::total_cmp);
        // A block whose true value may be longer can raise every value that is not below its own.
        let bounds = blocks.iter().filter(|it| it.is_at_least);
        let least = bounds.map(|it| it.us).reduce(f64::min);
        let known = |us, among| Percentile {
            us,
            is_at_least: least.is_some_and(|least| least <= among),
        };
        Some(Self {
            median: known(spread.median, ordered[ordered.len() / 2]),
            min: known(spread.min, spread.min),
            max: known(spread.max, spread.max),
        })
    }
}

/// Returns whether a percentile of a trial may be longer than measured, because of requests without
/// an answer.
///
/// # Errors
/// If the histogram is corrupt. It is read only if it has lower bounds.
pub(crate) fn latency_may_be_longer(
    trial: &Trial,
    load: &Load,
    quantile: f64,
) -> Result<bool, HistogramError> {
    if load.latency.censored == 0 {
        return Ok(false);
    }
    let latencies = Latencies::merge(&[trial])?;
    Ok(latencies.is_some_and(|it| it.is_at_least(quantile)))
}

impl TrialLatency {
    /// Takes the percentiles of a trial.
    ///
    /// # Errors
    /// If the histogram is corrupt. It is read only if it has lower bounds.
    pub fn of(trial: &Trial, load: &Load) -> Result<Self, HistogramError> {
        Self::with_samples(trial, load, load.latencies())
    }

    /// Takes the percentiles that so many samples allow.
    pub(super) fn with_samples(
        trial: &Trial,
        load: &Load,
        samples: u64,
    ) -> Result<Self, HistogramError> {
        let latencies = match load.latency.censored {
            0 => None,
            _ => Latencies::merge(&[trial])?,
        };
        let known = |us: Option<f64>, quantile| {
            let us = us.filter(|_| has_tail(samples, quantile))?;
            let latencies = latencies.as_ref();
            let is_at_least = latencies.is_some_and(|it| it.is_at_least(quantile));
            Some(Percentile { us, is_at_least })
        };
        let latency = &load.latency;
        Ok(Self {
            p50_us: known(latency.p50_us, 0.5),
            p90_us: known(latency.p90_us, 0.9),
            p95_us: known(latency.p95_us, 0.95),
            p99_us: known(latency.p99_us, 0.99),
        })
    }
}

impl Latencies {
    /// Merges the latencies of trials, so that percentiles are read from the whole and never
    /// averaged. `None` if there are no latencies.
    pub(super) fn merge(trials: &[&Trial]) -> Result<Option<Self>, HistogramError> {
        // This histogram grows to any range of values.
        let mut all = Histogram::<u64>::new(3).expect("three digits are valid");
        let (mut count, mut censored) = (0_u64, 0_u64);
        for trial in trials {
            let Some(load) = trial.measured().filter(|load| load.requests > 0) else {
                continue;
            };
            let broken = |message: String| HistogramError {
                trial: trial.planned.trial,
                message,
            };
            let bytes = BASE64_STANDARD
                .decode(&load.latency.histogram)
                .map_err(|error| broken(error.to_string()))?;
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut &bytes[..])
                .map_err(|error| broken(format!("{error:?}")))?;
            all.add(histogram)
                .map_err(|error| broken(format!("{error:?}")))?;
            count = count.saturating_add(load.latencies());
            censored = censored.saturating_add(load.latency.censored);
        }
        Ok((!all.is_empty()).then_some(Self {
            histogram: all,
            count,
            censored,
        }))
    }

    fn us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Whether the true percentile may be much longer. All lower bounds below it may in truth lie
    /// above it, so the true one is at most the percentile that is higher by their share.
    fn is_at_least(&self, quantile: f64) -> bool {
        if self.censored == 0 {
            return false;
        }
        let highest = quantile + self.censored as f64 / self.count.max(1) as f64;
        highest > 1.0 || self.us(highest) > CENSORED_REACH_MAX * self.us(quantile)
    }

    pub(super) fn merged(&self) -> Merged {
        let is_at_least = self.censored > 0;
        let of_all = |quantile| Percentile {
            us: self.us(quantile),
            is_at_least: self.is_at_least(quantile),
        };
        let at = |quantile| has_tail(self.count, quantile).then(|| of_all(quantile));
        Merged {
            count: self.count,
            mean_us: Percentile {
                us: self.histogram.mean() / 1e3,
                is_at_least,
            },
            rough_p50_us: of_all(0.5),
            rough_p90_us: of_all(0.9),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: Percentile {
                us: self.histogram.max() as f64 / 1e3,
                is_at_least,
            },
        }
    }

    /// Returns the curve from the median on; below it there is little to see. The points are
    /// equally far apart in the logarithm of the share that lies beyond, as in plots of
    /// HdrHistogram. The curve ends where fewer samples lie beyond than a percentile needs, or
    /// where a point would be only a lower bound.
    pub(super) fn curve(&self) -> Vec<Quantile> {
        let beyond = (0_u32..).map(|step| 10_f64.powf(-f64::from(step) / CURVE_POINTS_PER_NINE));
        let beyond = beyond.skip_while(|beyond| *beyond >= 0.5);
        [0.5]
            .into_iter()
            .chain(beyond)
            .map(|beyond| 1.0 - beyond)
            .take_while(|quantile| has_tail(self.histogram.len(), *quantile))
            .take_while(|quantile| !self.is_at_least(*quantile))
            .map(|quantile| Quantile {
                quantile,
                latency_us: self.us(quantile),
            })
            .collect()
    }
}
