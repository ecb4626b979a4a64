//! Percentiles of latencies, each with what is known of it.
//!
//! A percentile is shown only if there are samples enough above it. Requests that were never
//! answered count with the time that they had waited: their true latencies are longer, so that a
//! percentile may be longer, too.

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{Histogram, serialization::Deserializer};

use super::HistogramError;
use crate::{
    record::{Load, Trial},
    statistics::Spread,
};

/// Fewer samples above a percentile make it one of chance.
pub const TAIL_SAMPLES_MIN: f64 = 20.0;

/// The factor by which requests without an answer may move a percentile that is shown as a plain
/// figure: less than what the histogram's three digits, the clock and the scheduler move it by.
const CENSORED_REACH_MAX: f64 = 1.05;

/// Points of a [`CellSummary::curve`](super::CellSummary::curve) for each further nine.
const CURVE_POINTS_PER_NINE: f64 = 8.0;

/// A percentile, the mean or the maximum of latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile {
    pub us: f64,
    /// Whether it may be longer, because requests that got no answer are among those it is of.
    pub is_at_least: bool,
}

/// A percentile over blocks: its median, with the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    pub median: Percentile,
    pub min: Percentile,
    pub max: Percentile,
}

/// Percentiles of the latencies of all blocks together. Those with too few samples above them are
/// `None`.
#[derive(Clone, Copy, Debug)]
pub struct Merged {
    pub count: u64,
    pub mean_us: Percentile,
    pub p50_us: Option<Percentile>,
    pub p95_us: Option<Percentile>,
    pub p99_us: Option<Percentile>,
    pub p999_us: Option<Percentile>,
    pub max_us: Percentile,
}

/// A point of a latency distribution: this share of all answers took at most so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    pub quantile: f64,
    pub latency_us: f64,
}

/// The percentiles that one trial can show.
#[derive(Clone, Copy, Debug)]
pub struct TrialLatency {
    pub p50_us: Option<Percentile>,
    pub p90_us: Option<Percentile>,
    pub p95_us: Option<Percentile>,
    pub p99_us: Option<Percentile>,
}

/// Latencies, and how many of them are lower bounds.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    count: u64,
    censored: u64,
}

/// Whether enough samples lie above a quantile.
pub fn has_tail(samples: u64, quantile: f64) -> bool {
    // The billionth is for what binary fractions lose.
    samples as f64 * (1.0 - quantile) + 1e-9 >= TAIL_SAMPLES_MIN
}

impl Percentiles {
    /// Over blocks; `None` of none.
    pub fn of(blocks: &[Percentile]) -> Option<Self> {
        let spread = Spread::of(blocks.iter().map(|it| it.us))?;
        let mut ordered: Vec<f64> = blocks.iter().map(|it| it.us).collect();
        ordered.sort_by(f64::total_cmp);
        // A block whose figure may be longer can move everything that is not below it.
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

impl TrialLatency {
    /// # Errors
    /// If the histogram is corrupt. It is looked at only if there are lower bounds in it.
    pub fn of(trial: &Trial, load: &Load) -> Result<Self, HistogramError> {
        let count = load.latencies();
        let latencies = match load.latency.censored {
            0 => None,
            _ => Latencies::merge(&[trial])?,
        };
        let known = |us: Option<f64>, quantile| {
            let us = us.filter(|_| has_tail(count, quantile))?;
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
    /// Puts the latencies of trials together: percentiles are read from the whole, never averaged.
    /// `None` without any.
    pub(super) fn merge(trials: &[&Trial]) -> Result<Option<Self>, HistogramError> {
        // Grows to whatever range it is given.
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

    /// Whether lower bounds lie so that a percentile may be longer than it is. All lower bounds
    /// that are below it may in truth be above it, so that it is between what it is and the
    /// percentile that lies higher by their share.
    fn is_at_least(&self, quantile: f64) -> bool {
        if self.censored == 0 {
            return false;
        }
        let highest = quantile + self.censored as f64 / self.count.max(1) as f64;
        highest > 1.0 || self.us(highest) > CENSORED_REACH_MAX * self.us(quantile)
    }

    pub(super) fn merged(&self) -> Merged {
        let is_at_least = self.censored > 0;
        let at = |quantile| {
            has_tail(self.count, quantile).then(|| Percentile {
                us: self.us(quantile),
                is_at_least: self.is_at_least(quantile),
            })
        };
        Merged {
            count: self.count,
            mean_us: Percentile {
                us: self.histogram.mean() / 1e3,
                is_at_least,
            },
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

    /// From the median on, below which there is little to see; then equally far apart in the
    /// logarithm of what lies beyond, as HdrHistogram's plots have it. It ends where fewer samples
    /// lie beyond than a percentile needs, or where it would be of lower bounds.
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
