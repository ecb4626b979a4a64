//! Metrics of a path that are compared: with its reference, with its replicate, or between runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Index,
};

use serde::Deserialize;

use crate::{
    estimate::{Estimate, Shift},
    record::{Load, Trial},
};

/// Role under which the load generator's CPU time is reported.
pub const CLIENT: &str = "client";

/// A metric of a trial that is compared.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum Metric {
    /// Correct answers per second.
    Rps,
    /// Median latency, in microseconds.
    P50,
    /// 95th percentile of the latencies, in microseconds.
    P95,
    /// 99th percentile of the latencies, in microseconds.
    P99,
    /// Server CPU time (of all roles but the client) per correct answer, in microseconds.
    Cpu,
    /// Server CPU time over the client's. If the machine slows down for a moment, it slows both. So
    /// for two builds with the same client, this ratio tells more than either time.
    CpuOverClient,
    /// Peak resident memory, summed over the path's processes, in KiB.
    Rss,
}

/// One value of type `T` for each [`Metric`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics<T>([T; Metric::ALL.len()]);

/// Ratios of one thing's metrics over another's. `None` where either lacks the metric.
pub type Ratios = Metrics<Option<Estimate>>;

/// One value per block, for each metric.
pub type Series = Metrics<Vec<f64>>;

/// Metrics of each block. If a block has several trials, its metric is their geometric mean, since
/// ratios are compared by their logarithms: the arithmetic mean of a quiet and a disturbed trial
/// would make the reference look slower than it typically is. Memory growth is compared by
/// difference, so it is their arithmetic mean.
#[derive(Clone, Debug, Default)]
pub struct Blocks(BTreeMap<u32, Block>);

#[derive(Clone, Copy, Debug)]
struct Block {
    metrics: Metrics<Option<f64>>,
    /// Memory growth, in MiB. It may be 0, so it is compared by difference, not by ratio.
    growth_mib: Option<f64>,
}

impl Metric {
    /// All metrics, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Rps,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Cpu,
        Self::CpuOverClient,
        Self::Rss,
    ];

    /// Returns the machine-readable name.
    pub fn key(self) -> &'static str {
        match self {
            Self::Rps => "rps",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Cpu => "cpu",
            Self::CpuOverClient => "cpu_over_client",
            Self::Rss => "rss",
        }
    }

    /// Returns the name for readers.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rps => "RPS",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Cpu => "server CPU",
            Self::CpuOverClient => "server over client CPU",
            Self::Rss => "peak RSS",
        }
    }

    /// Returns the metric of a trial; `None` if it was not measured.
    fn of(self, trial: &Trial) -> Option<f64> {
        let load = trial.measured()?;
        match self {
            Self::Rps => trial.rps(),
            Self::P50 => load.latency.p50_us,
            Self::P95 => load.latency.p95_us,
            Self::P99 => load.latency.p99_us,
            Self::Cpu => per_request(server_cpu_us(trial)?, load),
            Self::CpuOverClient => {
                let client_us = trial.cpu_us.get(CLIENT).filter(|us| **us > 0.0)?;
                Some(server_cpu_us(trial)? / client_us)
            }
            Self::Rss => {
                let peaks = trial.watched()?.iter().map(|process| process.rss_peak_kib);
                Some(peaks.sum::<u64>() as f64)
            }
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    /// Parses a key.
    fn try_from(text: String) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|metric| metric.key() == text);
        found.ok_or_else(|| {
            let keys = Self::ALL.map(Self::key).join(", ");
            format!("metric '{text}': expected {keys}")
        })
    }
}

impl<T> Metrics<T> {
    /// Takes the value of each metric from a function.
    pub fn new(of: impl FnMut(Metric) -> T) -> Self {
        Self(Metric::ALL.map(of))
    }
}

impl<T> Index<Metric> for Metrics<T> {
    type Output = T;

    fn index(&self, metric: Metric) -> &T {
        &self.0[metric as usize]
    }
}

impl Blocks {
    /// Groups trials by block.
    pub fn of(trials: &[&Trial]) -> Self {
        let blocks: BTreeSet<u32> = trials.iter().map(|trial| trial.planned.block).collect();
        let values = |block: u32, of: &dyn Fn(&Trial) -> Option<f64>| -> Vec<f64> {
            let of_block = trials.iter().filter(|trial| trial.planned.block == block);
            of_block.filter_map(|trial| of(trial)).collect()
        };
        let metrics = |block| Block {
            metrics: Metrics::new(|metric| {
                geometric_mean(&values(block, &|trial| metric.of(trial)))
            }),
            growth_mib: mean(&values(block, &growth_mib)),
        };
        let blocks = blocks.into_iter();
        Self(blocks.map(|block| (block, metrics(block))).collect())
    }

    /// Returns the blocks other than the given ones.
    pub fn without(&self, blocks: &BTreeSet<u32>) -> Self {
        let others = self.0.iter().filter(|(block, _)| !blocks.contains(block));
        Self(others.map(|(number, block)| (*number, *block)).collect())
    }

    /// Returns the values of each metric, over the blocks that have it.
    pub fn series(&self) -> Series {
        let of_blocks = |metric| {
            self.0
                .values()
                .filter_map(move |block| block.metrics[metric])
        };
        Series::new(|metric| of_blocks(metric).collect())
    }

    /// Returns the ratios of these metrics over the others', over blocks that both sides have.
    pub fn over(&self, others: &Self) -> Series {
        let ratio = |(block, ours): (&u32, &Block), metric| {
            Some(ours.metrics[metric]? / others.0.get(block)?.metrics[metric]?)
        };
        Series::new(|metric| {
            let blocks = self.0.iter();
            blocks.filter_map(|block| ratio(block, metric)).collect()
        })
    }

    /// Returns the differences of these metrics and the others', over blocks that both sides have.
    pub fn minus(&self, others: &Self) -> Series {
        let difference = |(block, ours): (&u32, &Block), metric| {
            Some(ours.metrics[metric]? - others.0.get(block)?.metrics[metric]?)
        };
        Series::new(|metric| {
            let blocks = self.0.iter();
            blocks
                .filter_map(|block| difference(block, metric))
                .collect()
        })
    }

    /// Returns the memory growth of the path's processes under the load, in MiB, per block.
    pub fn growth_mib(&self) -> Vec<f64> {
        let blocks = self.0.values();
        blocks.filter_map(|block| block.growth_mib).collect()
    }

    /// Returns the difference in memory growth, in MiB, over blocks that both sides have.
    pub fn growth_mib_over(&self, others: &Self) -> Vec<f64> {
        let more = |(block, ours): (&u32, &Block)| {
            Some(ours.growth_mib? - others.0.get(block)?.growth_mib?)
        };
        self.0.iter().filter_map(more).collect()
    }

    /// Estimates the difference in memory growth, in MiB; `None` if no block has both.
    pub fn growth_shift(&self, others: &Self) -> Option<Shift> {
        Shift::of(self.growth_mib_over(others))
    }
}

impl Series {
    /// Estimates a ratio for each metric; `None` for those without values.
    pub fn estimate(&self) -> Ratios {
        Ratios::new(|metric| Estimate::of(self[metric].iter().copied()))
    }
}

/// Returns the arithmetic mean; `None` if there are no values.
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Returns the geometric mean; `None` if there are no values. The mean of equal values is exactly
/// that value.
fn geometric_mean(values: &[f64]) -> Option<f64> {
    let first = values.first()?;
    let factors: Vec<f64> = values.iter().map(|value| (value / first).ln()).collect();
    Some(first * mean(&factors)?.exp())
}

/// Returns the memory growth from before the warm-up to the peak, in MiB: memory that is needed
/// only for a while counts, too.
fn growth_mib(trial: &Trial) -> Option<f64> {
    trial.measured()?;
    let growth = trial.watched()?.iter().map(|process| {
        let grown = process.rss_peak_kib.saturating_sub(process.rss_before_kib);
        grown as f64 / 1024.0
    });
    Some(growth.sum())
}

/// Returns the CPU time of all roles but the client, in microseconds. `None` if a server process
/// was not watched.
pub(crate) fn server_cpu_us(trial: &Trial) -> Option<f64> {
    let roles = trial.cpu_us.iter().filter(|(role, _)| *role != CLIENT);
    trial.watched()?;
    Some(roles.map(|(_, cpu_us)| cpu_us).sum())
}

pub(crate) fn per_request(metric: f64, load: &Load) -> Option<f64> {
    (load.good > 0).then(|| metric / load.good as f64)
}

crate::has_schema_of! {
    Metric => String;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Warning, report::tests::trial};

    /// The reference's trials of a block have 100 and 400 µs: their geometric mean is 200 µs.
    #[test]
    fn two_trials_of_a_block_have_their_geometric_mean() {
        let with_p99 = |path: &str, replicate: u8, p99_us: f64| {
            let mut trial = trial(path, 1, 1, replicate, 1_000, 100);
            trial.load.as_mut().expect("loaded").latency.p99_us = Some(p99_us);
            trial
        };
        let reference = [with_p99("plain", 0, 100.0), with_p99("plain", 1, 400.0)];
        let path = with_p99("fast", 0, 200.0);
        let reference: Vec<&Trial> = reference.iter().collect();
        let over = Blocks::of(&[&path]).over(&Blocks::of(&reference));
        assert!((over[Metric::P99][0] - 1.0).abs() < 1e-12, "{over:?}");
        // A single trial of a block keeps its exact metric.
        let alone = Blocks::of(&reference[..1]).series();
        assert_eq!(alone[Metric::P99], [100.0]);
    }

    #[test]
    fn what_went_unwatched_has_no_metric() {
        let mut stray = trial("fast", 1, 1, 0, 1_000, 100);
        let of = |trial: &Trial| Blocks::of(&[trial]);
        let watched = of(&stray);
        stray.warnings.push(Warning::Strayed {
            process: "'worker' (pid 7)".to_owned(),
        });
        let unwatched = of(&stray);
        for metric in [Metric::Cpu, Metric::CpuOverClient, Metric::Rss] {
            assert_eq!(watched.series()[metric].len(), 1, "{metric:?}");
            assert!(unwatched.series()[metric].is_empty(), "{metric:?}");
        }
        assert_eq!(
            (watched.growth_mib().len(), unwatched.growth_mib().len()),
            (1, 0)
        );
        // Metrics that the client measures are still known.
        assert_eq!(
            unwatched.series()[Metric::Rps],
            watched.series()[Metric::Rps]
        );
    }
}
