//! The figures of a path that are compared: with its reference, with its twin, between runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Index,
};

use crate::{
    estimate::{Estimate, Shift},
    record::{Load, Trial},
};

/// Role of the load generator among the roles of CPU time.
pub const CLIENT: &str = "client";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Right answers per second.
    Rps,
    P50,
    P95,
    P99,
    /// CPU time per right answer of everything but the client.
    Cpu,
    /// The same over the client's own. What slows the machine for a moment slows both, so that of
    /// two builds, asked by the same client, it says more than either.
    CpuOverClient,
    /// Peak of the resident memory of the path's processes together.
    Rss,
}

/// One of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures<T>([T; Figure::ALL.len()]);

/// What one thing has over what another has. `None` where either has no figure.
pub type Ratios = Figures<Option<Estimate>>;

/// One value per block.
pub type Series = Figures<Vec<f64>>;

/// What was measured in each block. Of several trials in one block, a figure is their geometric
/// mean, since ratios are looked at in their logarithms: the arithmetic mean of a quiet trial and a
/// disturbed one would make the reference look slower than it is in the middle. The growth of
/// memory, which is a difference, is their arithmetic mean.
#[derive(Clone, Debug, Default)]
pub struct Blocks(BTreeMap<u32, Block>);

#[derive(Clone, Copy, Debug)]
struct Block {
    figures: Figures<Option<f64>>,
    /// It can be none at all, so that there is no ratio of it to another.
    growth_mib: Option<f64>,
}

impl Figure {
    pub const ALL: [Self; 7] = [
        Self::Rps,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Cpu,
        Self::CpuOverClient,
        Self::Rss,
    ];

    /// For machines.
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

    /// For people.
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

    /// `None` of a trial without a measurement.
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

impl<T> Figures<T> {
    pub fn new(of: impl FnMut(Figure) -> T) -> Self {
        Self(Figure::ALL.map(of))
    }
}

impl<T> Index<Figure> for Figures<T> {
    type Output = T;

    fn index(&self, figure: Figure) -> &T {
        &self.0[figure as usize]
    }
}

impl Blocks {
    pub fn of(trials: &[&Trial]) -> Self {
        let blocks: BTreeSet<u32> = trials.iter().map(|trial| trial.planned.block).collect();
        let values = |block: u32, of: &dyn Fn(&Trial) -> Option<f64>| -> Vec<f64> {
            let of_block = trials.iter().filter(|trial| trial.planned.block == block);
            of_block.filter_map(|trial| of(trial)).collect()
        };
        let figures = |block| Block {
            figures: Figures::new(|figure| {
                geometric_mean(&values(block, &|trial| figure.of(trial)))
            }),
            growth_mib: mean(&values(block, &growth_mib)),
        };
        let blocks = blocks.into_iter();
        Self(blocks.map(|block| (block, figures(block))).collect())
    }

    /// The same without some of the blocks.
    pub fn without(&self, blocks: &BTreeSet<u32>) -> Self {
        let others = self.0.iter().filter(|(block, _)| !blocks.contains(block));
        Self(others.map(|(number, block)| (*number, *block)).collect())
    }

    /// Without blocks in which there is none.
    pub fn series(&self) -> Series {
        let of_blocks = |figure| {
            self.0
                .values()
                .filter_map(move |block| block.figures[figure])
        };
        Series::new(|figure| of_blocks(figure).collect())
    }

    /// What these have over those, of blocks in which both were measured.
    pub fn over(&self, others: &Self) -> Series {
        let ratio = |(block, ours): (&u32, &Block), figure| {
            Some(ours.figures[figure]? / others.0.get(block)?.figures[figure]?)
        };
        Series::new(|figure| {
            let blocks = self.0.iter();
            blocks.filter_map(|block| ratio(block, figure)).collect()
        })
    }

    /// By how much the memory of the path's processes grew under the load, per block.
    pub fn growth_mib(&self) -> Vec<f64> {
        let blocks = self.0.values();
        blocks.filter_map(|block| block.growth_mib).collect()
    }

    /// By how much more than those', of blocks in which both were measured.
    pub fn growth_mib_over(&self, others: &Self) -> Vec<f64> {
        let more = |(block, ours): (&u32, &Block)| {
            Some(ours.growth_mib? - others.0.get(block)?.growth_mib?)
        };
        self.0.iter().filter_map(more).collect()
    }

    pub fn growth_shift(&self, others: &Self) -> Option<Shift> {
        Shift::of(self.growth_mib_over(others))
    }
}

impl Series {
    pub fn estimate(&self) -> Ratios {
        Ratios::new(|figure| Estimate::of(self[figure].iter().copied()))
    }
}

/// `None` of nothing.
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// `None` of nothing. Of equal values it is that value, to the last digit.
fn geometric_mean(values: &[f64]) -> Option<f64> {
    let first = values.first()?;
    let factors: Vec<f64> = values.iter().map(|value| (value / first).ln()).collect();
    Some(first * mean(&factors)?.exp())
}

/// From before the warm-up to the peak: what a load needs only for a while counts, too.
fn growth_mib(trial: &Trial) -> Option<f64> {
    trial.measured()?;
    let growth = trial.watched()?.iter().map(|process| {
        let grown = process.rss_peak_kib.saturating_sub(process.rss_before_kib);
        grown as f64 / 1024.0
    });
    Some(growth.sum())
}

/// CPU time of everything but the client. `None` if a process of a server was not watched.
pub(crate) fn server_cpu_us(trial: &Trial) -> Option<f64> {
    let roles = trial.cpu_us.iter().filter(|(role, _)| *role != CLIENT);
    trial.watched()?;
    Some(roles.map(|(_, cpu_us)| cpu_us).sum())
}

pub(crate) fn per_request(figure: f64, load: &Load) -> Option<f64> {
    (load.good > 0).then(|| figure / load.good as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Warning, report::tests::trial};

    /// The reference's trials of a block are 100 and 400 µs: in logarithms their middle is 200.
    #[test]
    fn two_trials_of_a_block_have_their_geometric_mean() {
        let with_p99 = |path: &str, twin: u8, p99_us: f64| {
            let mut trial = trial(path, 1, 1, twin, 1_000, 100);
            trial.load.as_mut().expect("loaded").latency.p99_us = Some(p99_us);
            trial
        };
        let reference = [with_p99("plain", 0, 100.0), with_p99("plain", 1, 400.0)];
        let path = with_p99("fast", 0, 200.0);
        let reference: Vec<&Trial> = reference.iter().collect();
        let over = Blocks::of(&[&path]).over(&Blocks::of(&reference));
        assert!((over[Figure::P99][0] - 1.0).abs() < 1e-12, "{over:?}");
        // One trial of a block is what it is.
        let alone = Blocks::of(&reference[..1]).series();
        assert_eq!(alone[Figure::P99], [100.0]);
    }

    #[test]
    fn what_went_unwatched_has_no_figure() {
        let mut stray = trial("fast", 1, 1, 0, 1_000, 100);
        let of = |trial: &Trial| Blocks::of(&[trial]);
        let watched = of(&stray);
        stray.warnings.push(Warning::Strayed {
            process: "'worker' (pid 7)".to_owned(),
        });
        let unwatched = of(&stray);
        for figure in [Figure::Cpu, Figure::CpuOverClient, Figure::Rss] {
            assert_eq!(watched.series()[figure].len(), 1, "{figure:?}");
            assert!(unwatched.series()[figure].is_empty(), "{figure:?}");
        }
        assert_eq!(
            (watched.growth_mib().len(), unwatched.growth_mib().len()),
            (1, 0)
        );
        // What the client saw is known.
        assert_eq!(
            unwatched.series()[Figure::Rps],
            watched.series()[Figure::Rps]
        );
    }
}
