//! Parts of a load: its kinds of requests, and its stages.

use super::{HistogramError, Percentiles, latencies_of, latency::TrialLatency, measured};
use crate::{
    record::{Latency, Load, OpenLoop, Trial},
    statistics::Spread,
    summary::Percentile,
};

/// Metrics of a part of a cell's loads over all blocks.
#[derive(Clone, Debug)]
pub struct PartSummary {
    /// Name of the request or of the stage.
    pub name: String,
    /// Requests that were sent or due, in all blocks.
    pub due: u64,
    /// Requests that were not answered correctly, in all blocks.
    pub lost: u64,
    /// Correct answers per second.
    pub rps: Option<Spread>,
    /// Median latency over the blocks.
    pub p50_us: Option<Percentiles>,
    /// 95th percentile over the blocks.
    pub p95_us: Option<Percentiles>,
    /// 99th percentile over the blocks.
    pub p99_us: Option<Percentiles>,
}

/// A part of one load.
struct Part<'a> {
    name: &'a str,
    elapsed_us: f64,
    requests: u64,
    good: u64,
    dropped: u64,
    body_bytes: u64,
    latency: &'a Latency,
}

/// Summarises each kind of request; empty if there is only one.
pub(super) fn by_request(trials: &[&Trial]) -> Result<Vec<PartSummary>, HistogramError> {
    parts(trials, |_, load| {
        let kinds = load.by_request.iter();
        let kinds = kinds.map(|kind| Part {
            name: &kind.name,
            elapsed_us: load.elapsed_us,
            requests: kind.requests,
            good: kind.good,
            dropped: kind.dropped,
            body_bytes: kind.body_bytes,
            latency: &kind.latency,
        });
        kinds.collect()
    })
}

/// Summarises each stage; empty for a load that stays the same.
pub(super) fn by_stage(trials: &[&Trial]) -> Result<Vec<PartSummary>, HistogramError> {
    parts(trials, |trial, load| {
        let stages = trial.planned.stages.iter().zip(&load.stages);
        let stages = stages.map(|(stage, of)| Part {
            name: &stage.name,
            elapsed_us: stage.duration_ms as f64 * 1e3,
            requests: of.requests,
            good: of.good,
            dropped: of.dropped,
            body_bytes: 0,
            latency: &of.latency,
        });
        stages.collect()
    })
}

fn parts<'t>(
    trials: &[&'t Trial],
    of: impl Fn(&'t Trial, &'t Load) -> Vec<Part<'t>>,
) -> Result<Vec<PartSummary>, HistogramError> {
    let all: Vec<(&Trial, Vec<Part<'_>>)> = measured(trials)
        .map(|(trial, load)| (trial, of(trial, load)))
        .collect();
    let count = all
        .iter()
        .map(|(_, parts)| parts.len())
        .max()
        .unwrap_or_default();
    let summaries = (0..count).map(|index| {
        let alone = all.iter().filter_map(|(trial, parts)| {
            let part = parts.get(index)?;
            Some((part.name, part.alone(trial)))
        });
        let (names, alone): (Vec<&str>, Vec<Trial>) = alone.unzip();
        PartSummary::new(names[0], &alone.iter().collect::<Vec<_>>())
    });
    summaries.collect()
}

impl Part<'_> {
    /// Returns a trial whose load is this part.
    fn alone(&self, trial: &Trial) -> Trial {
        let mut alone = trial.clone();
        if let Some(load) = &mut alone.load {
            *load = Load {
                elapsed_us: self.elapsed_us,
                requests: self.requests,
                good: self.good,
                body_bytes: self.body_bytes,
                latency: self.latency.clone(),
                open_loop: load.open_loop.as_ref().map(|_| OpenLoop {
                    scheduled: self.requests + self.dropped,
                    dropped: self.dropped,
                    ..OpenLoop::default()
                }),
                ..Load::default()
            };
        }
        alone
    }
}

impl PartSummary {
    fn new(name: &str, trials: &[&Trial]) -> Result<Self, HistogramError> {
        let loads = || trials.iter().filter_map(|trial| trial.load.as_ref());
        let of_trials = latencies_of(trials)?;
        let latency = |percentile: fn(&TrialLatency) -> Option<Percentile>| {
            let blocks: Vec<Percentile> = of_trials.iter().filter_map(percentile).collect();
            Percentiles::of(&blocks)
        };
        let rps = |load: &Load| load.good as f64 / load.elapsed_us * 1e6;
        Ok(Self {
            name: name.to_owned(),
            due: loads().map(Load::due).sum(),
            lost: loads().map(Load::lost).sum(),
            rps: Spread::of(loads().map(rps)),
            p50_us: latency(|it| it.p50_us),
            p95_us: latency(|it| it.p95_us),
            p99_us: latency(|it| it.p99_us),
        })
    }
}
