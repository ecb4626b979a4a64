//! Trials into figures per cell.
//!
//! A figure over blocks is the median of the blocks' values, with the extremes. A ratio is formed
//! within a block, between a path and the reference of that block, so that what slows the machine
//! down for a while slows both; over the blocks it is an [`Estimate`].
//! Failed trials have no figures, nor have those without a request; they are counted beside them.

mod latency;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use self::latency::Latencies;
pub use self::latency::{
    Merged, Percentile, Percentiles, Quantile, TAIL_SAMPLES_MIN, TrialLatency, has_tail,
};
use crate::{
    estimate::Estimate,
    figures::{Blocks, CLIENT, Figure, Figures, Ratios, Series, per_request, server_cpu_us},
    record::{Build, Cell, Failure, Load, Manifest, Outcome, ScenarioInfo, Trial, Warning},
    statistics::Spread,
    told::{Bound, Told},
};

/// A whole run.
#[derive(Debug)]
pub struct Summary<'a> {
    pub manifest: &'a Manifest,
    pub scenarios: Vec<ScenarioSummary<'a>>,
}

#[derive(Debug)]
pub struct ScenarioSummary<'a> {
    pub info: &'a ScenarioInfo,
    /// Blocks of which there are trials.
    pub blocks: usize,
    /// Roles that have CPU time, the client first.
    pub roles: Vec<String>,
    pub tables: Vec<Table<'a>>,
}

/// The cells of one endpoint, one way of connecting and one kind of load, by concurrency and then
/// in the order of the paths, the reference first.
#[derive(Debug)]
pub struct Table<'a> {
    pub endpoint: String,
    pub keep_alive: bool,
    pub is_fixed_rate: bool,
    pub rows: Vec<CellSummary<'a>>,
}

/// One cell over all blocks.
#[derive(Debug)]
pub struct CellSummary<'a> {
    pub cell: Cell,
    pub is_reference: bool,
    /// Trials that were run, failed ones included.
    pub trials: usize,
    pub failures: Vec<&'a Failure>,
    pub warnings: Vec<&'a Warning>,
    pub rps: Option<Spread>,
    pub blocks: Blocks,
    /// Over the reference in the same block; of the reference, its own figures.
    pub series: Series,
    /// Against the reference; none of the reference itself.
    pub ratios: Ratios,
    /// What is known of them, and of the series: percentiles may be lower bounds.
    pub bounds: Figures<Bound>,
    /// The reference's second trial in a block against its first, at this concurrency: what is
    /// found between things that are equal. Of build B, that of A. `None` without a control.
    pub control: Option<Ratios>,
    /// Percentiles of the blocks that have samples enough above them.
    pub p50_us: Option<Percentiles>,
    pub p90_us: Option<Percentiles>,
    pub p95_us: Option<Percentiles>,
    pub p99_us: Option<Percentiles>,
    /// Of each trial at a fixed rate, the share of the requests due that the path dropped.
    pub dropped_shares: Vec<f64>,
    /// Percentiles of all blocks' latencies put together.
    pub merged: Option<Merged>,
    /// The same as a curve, as far as there are samples enough; empty if `merged` is `None`.
    pub curve: Vec<Quantile>,
    /// CPU time per right answer, by role, in microseconds.
    pub cpu_us_per_request: BTreeMap<String, Spread>,
    /// The same, of everything but the client.
    pub cpu_us_per_request_server: Option<Spread>,
    /// Context switches of the path's processes per right answer.
    pub context_switches_per_request: Option<Spread>,
    /// Sums over the blocks.
    pub totals: Totals,
    /// Resident memory of the path's processes together, in KiB.
    pub rss_before_kib: Option<Spread>,
    pub rss_after_kib: Option<Spread>,
    pub rss_peak_kib: Option<Spread>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub elapsed_us: f64,
    pub requests: u64,
    pub good: u64,
    /// Requests that were due at a fixed rate.
    pub scheduled: u64,
    /// Of those, never asked, because the path kept every connection waiting.
    pub dropped_by_path: u64,
    /// Of those, never asked, because the load generator was late.
    pub dropped_late: u64,
    pub body_bytes: u64,
    pub zero_copy_bytes: u64,
    pub copied_bytes: u64,
    /// System calls that wake the other process.
    pub doorbells_sent: u64,
    /// Times that one was not needed, because the other was awake.
    pub doorbells_suppressed: u64,
    /// Times that an event loop of the tunnel slept and went on.
    pub wake_ups: u64,
    /// Whether any process of the path has counters.
    pub has_counters: bool,
}

/// Why records can't be summarised.
#[derive(Debug, thiserror::Error)]
#[error("trial {trial}: the latency histogram can't be read: {message}")]
pub struct HistogramError {
    trial: u32,
    message: String,
}

impl<'a> Summary<'a> {
    /// # Errors
    /// If a histogram in the records is corrupt.
    pub fn new(manifest: &'a Manifest, trials: &'a [Trial]) -> Result<Self, HistogramError> {
        let scenarios = manifest
            .scenarios
            .iter()
            .map(|info| ScenarioSummary::new(manifest, info, trials))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            manifest,
            scenarios,
        })
    }
}

impl<'a> ScenarioSummary<'a> {
    fn new(
        manifest: &'a Manifest,
        info: &'a ScenarioInfo,
        trials: &'a [Trial],
    ) -> Result<Self, HistogramError> {
        let trials = || {
            trials
                .iter()
                .filter(|trial| trial.planned.cell.scenario == info.name)
        };
        let mut roles: Vec<String> = trials()
            .flat_map(|trial| trial.cpu_us.keys().cloned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        roles.sort_by_key(|role| role != CLIENT);

        let key = |trial: &'a Trial| {
            let cell = &trial.planned.cell;
            let position = info.endpoints.iter().position(|it| *it == cell.endpoint);
            let is_fixed_rate = cell.rate_rps.is_some();
            (position, &cell.endpoint, cell.keep_alive, is_fixed_rate)
        };
        let keys: BTreeSet<_> = trials().map(key).collect();
        let tables = keys
            .into_iter()
            .map(|wanted| {
                let of_table: Vec<&Trial> = trials().filter(|trial| key(trial) == wanted).collect();
                let (_, endpoint, keep_alive, is_fixed_rate) = wanted;
                Ok(Table {
                    endpoint: endpoint.clone(),
                    keep_alive,
                    is_fixed_rate,
                    rows: rows(manifest, info, &of_table)?,
                })
            })
            .collect::<Result<_, HistogramError>>()?;
        let blocks: BTreeSet<u32> = trials().map(|trial| trial.planned.block).collect();
        Ok(Self {
            info,
            blocks: blocks.len(),
            roles,
            tables,
        })
    }
}

/// The cells of a table.
fn rows<'a>(
    manifest: &Manifest,
    info: &ScenarioInfo,
    trials: &[&'a Trial],
) -> Result<Vec<CellSummary<'a>>, HistogramError> {
    let position = |path: &str| manifest.paths.iter().position(|info| info.name == path);
    let mut cells: Vec<&Cell> = trials.iter().map(|trial| &trial.planned.cell).collect();
    cells.sort_by_key(|cell| {
        (
            cell.rate_rps,
            cell.concurrency,
            cell.path != info.reference,
            position(&cell.path),
            &cell.path,
            cell.build,
        )
    });
    cells.dedup();
    cells
        .into_iter()
        .map(|cell| {
            let of_cell: Vec<&Trial> = trials
                .iter()
                .filter(|trial| trial.planned.cell == *cell)
                .copied()
                .collect();
            let reference = Cell {
                path: info.reference.clone(),
                ..cell.clone()
            };
            let of_reference: Vec<&Trial> = trials
                .iter()
                .filter(|trial| trial.planned.cell == reference)
                .copied()
                .collect();
            // Only A's trials have twins.
            let control = Cell {
                build: cell.build.map(|_| Build::A),
                ..reference.clone()
            };
            let twins = trials
                .iter()
                .filter(|trial| trial.planned.cell == control)
                .copied();
            let control = control_of(twins);
            CellSummary::new(cell, *cell == reference, &of_cell, &of_reference, control)
        })
        .collect()
}

impl<'a> CellSummary<'a> {
    fn new(
        cell: &Cell,
        is_reference: bool,
        trials: &[&'a Trial],
        of_reference: &[&Trial],
        control: Option<Ratios>,
    ) -> Result<Self, HistogramError> {
        let blocks = blocks_of(trials);
        let latencies = Latencies::merge(trials)?;
        let of_trials = latencies_of(trials)?;
        let bounds = bounds(&of_trials, &latencies_of(of_reference)?, is_reference);
        let series = match is_reference {
            true => blocks.series(),
            false => blocks.over(&blocks_of(of_reference)),
        };
        let all_loads = || measured(trials);
        let loads = || measured(trials).filter(|(_, load)| load.requests > 0);
        let over = |figure: &dyn Fn(&Trial, &Load) -> Option<f64>| {
            Spread::of(loads().filter_map(|(trial, load)| figure(trial, load)))
        };
        let latency = |percentile: fn(&TrialLatency) -> Option<Percentile>| {
            let blocks: Vec<Percentile> = of_trials.iter().filter_map(percentile).collect();
            Percentiles::of(&blocks)
        };
        let sum_of_processes = |figure: fn(&crate::record::ProcessUsage) -> u64| {
            over(&|trial, _| Some(trial.watched()?.iter().map(figure).sum::<u64>() as f64))
        };
        let roles: BTreeSet<&String> = loads().flat_map(|(trial, _)| trial.cpu_us.keys()).collect();
        let cpu_of = |role: &String| {
            let cpu = over(&|trial, load| per_request(role_cpu_us(trial, role)?, load));
            Some((role.clone(), cpu?))
        };
        Ok(Self {
            cell: cell.clone(),
            trials: trials.len(),
            failures: trials.iter().filter_map(|trial| failure(trial)).collect(),
            warnings: trials.iter().flat_map(|trial| &trial.warnings).collect(),
            rps: over(&|trial, _| trial.rps()),
            ratios: match is_reference {
                true => Ratios::default(),
                false => ratios(&series, &bounds),
            },
            bounds,
            blocks,
            series,
            is_reference,
            control,
            p50_us: latency(|it| it.p50_us),
            p90_us: latency(|it| it.p90_us),
            p95_us: latency(|it| it.p95_us),
            p99_us: latency(|it| it.p99_us),
            dropped_shares: all_loads().filter_map(dropped_share).collect(),
            merged: latencies.as_ref().map(Latencies::merged),
            curve: latencies.as_ref().map(Latencies::curve).unwrap_or_default(),
            cpu_us_per_request: roles.into_iter().filter_map(cpu_of).collect(),
            cpu_us_per_request_server: over(&|trial, load| {
                per_request(server_cpu_us(trial)?, load)
            }),
            context_switches_per_request: over(&|trial, load| {
                per_request(context_switches(trial)? as f64, load)
            }),
            totals: Totals::of(all_loads()),
            rss_before_kib: sum_of_processes(|process| process.rss_before_kib),
            rss_after_kib: sum_of_processes(|process| process.rss_after_kib),
            rss_peak_kib: sum_of_processes(|process| process.rss_peak_kib),
        })
    }

    /// Requests without a right answer, in trials that have figures.
    pub fn failed_requests(&self) -> u64 {
        self.totals.requests - self.totals.good
    }

    /// Whether the path left requests unanswered, or trials failed.
    pub fn has_failures(&self) -> bool {
        self.totals.lost() > 0 || !self.failures.is_empty()
    }

    /// Whether one of its ratios is a difference. `None` without a ratio.
    pub fn told(&self, figure: Figure) -> Option<Told> {
        let floor = self.floor(figure).unwrap_or(1.0);
        let ratio = self.ratios[figure]?;
        Some(Told::of(&ratio, floor, self.bounds[figure]))
    }

    /// The factor by which the control finds equal things to differ. `None` without one.
    pub fn floor(&self, figure: Figure) -> Option<f64> {
        Some(self.control.as_ref()?[figure]?.reach())
    }
}

impl Totals {
    /// Requests that the path did not answer rightly, whether they were asked or not.
    pub fn lost(&self) -> u64 {
        self.requests - self.good + self.dropped_by_path
    }

    /// Requests that were asked or due.
    pub fn due(&self) -> u64 {
        self.requests + self.dropped_by_path + self.dropped_late
    }

    /// The share of the requests due that the path did not answer rightly; 0 if none was due.
    pub fn lost_share(&self) -> f64 {
        self.lost() as f64 / self.due().max(1) as f64
    }

    fn of<'t>(loads: impl Iterator<Item = (&'t Trial, &'t Load)>) -> Self {
        let mut totals = Self::default();
        for (trial, load) in loads {
            totals.elapsed_us += load.elapsed_us;
            totals.requests += load.requests;
            totals.good += load.good;
            if let Some(open) = &load.open_loop {
                totals.scheduled += open.scheduled;
                totals.dropped_by_path += load.dropped_by_path();
                totals.dropped_late += open.dropped.min(open.dropped_late);
            }
            totals.body_bytes += load.body_bytes;
            totals.zero_copy_bytes += trial.counter("tunnel_zero_copy_bytes");
            totals.copied_bytes += trial.counter("tunnel_copied_bytes");
            totals.doorbells_sent += trial.counter("tunnel_doorbells_sent");
            totals.doorbells_suppressed += trial.counter("tunnel_doorbells_suppressed");
            totals.wake_ups += trial.counter("tunnel_wake_ups");
            totals.has_counters |= !trial.counters.is_empty();
        }
        totals
    }
}

/// The second trial of a block over the first. `None` if none is a second one.
fn control_of<'t>(trials: impl Iterator<Item = &'t Trial>) -> Option<Ratios> {
    let (first, second): (Vec<&Trial>, Vec<&Trial>) =
        trials.partition(|trial| trial.planned.twin == 0);
    let control = || blocks_of(&second).over(&blocks_of(&first)).estimate();
    (!second.is_empty()).then(control)
}

fn failure(trial: &Trial) -> Option<&Failure> {
    match &trial.outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Ok => None,
    }
}

/// Trials that have figures, with their loads.
fn measured<'t>(trials: &[&'t Trial]) -> impl Iterator<Item = (&'t Trial, &'t Load)> {
    trials
        .iter()
        .filter_map(|trial| Some((*trial, trial.measured()?)))
}

fn context_switches(trial: &Trial) -> Option<u64> {
    let processes = trial.watched()?.iter();
    let switches =
        processes.map(|it| it.context_switches_voluntary + it.context_switches_involuntary);
    Some(switches.sum())
}

/// Of servers, only if all of their processes were watched.
fn role_cpu_us(trial: &Trial, role: &str) -> Option<f64> {
    if role != CLIENT {
        trial.watched()?;
    }
    trial.cpu_us.get(role).copied()
}

/// What may be larger or smaller is no ratio.
fn ratios(series: &Series, bounds: &Figures<Bound>) -> Ratios {
    Ratios::new(|figure| {
        let ratio = Estimate::of(series[figure].iter().copied());
        ratio.filter(|_| bounds[figure] != Bound::Unknown)
    })
}

/// The figures of blocks, without those that are none: of trials without a request, and
/// percentiles with too few samples above them.
fn blocks_of(trials: &[&Trial]) -> Blocks {
    let trials: Vec<Cow<'_, Trial>> = trials.iter().map(|trial| with_figures(trial)).collect();
    Blocks::of(&trials.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn with_figures(trial: &Trial) -> Cow<'_, Trial> {
    let Some(load) = trial.measured() else {
        return Cow::Borrowed(trial);
    };
    let samples = load.latencies();
    if load.requests > 0 && has_tail(samples, 0.99) {
        return Cow::Borrowed(trial);
    }
    let mut trial = trial.clone();
    if let Some(of_trial) = &mut trial.load {
        let latency = &mut of_trial.latency;
        let percentiles = [
            (0.5, &mut latency.p50_us),
            (0.95, &mut latency.p95_us),
            (0.99, &mut latency.p99_us),
        ];
        for (quantile, us) in percentiles {
            *us = us.filter(|_| has_tail(samples, quantile));
        }
    }
    trial.load = trial.load.filter(|load| load.requests > 0);
    Cow::Owned(trial)
}

fn latencies_of(trials: &[&Trial]) -> Result<Vec<TrialLatency>, HistogramError> {
    let asked = measured(trials).filter(|(_, load)| load.requests > 0);
    asked
        .map(|(trial, load)| TrialLatency::of(trial, load))
        .collect()
}

/// What is known of the ratios of percentiles, by which trials have lower bounds.
fn bounds(
    ours: &[TrialLatency],
    of_reference: &[TrialLatency],
    is_reference: bool,
) -> Figures<Bound> {
    Figures::new(|figure| {
        let of: fn(&TrialLatency) -> Option<Percentile> = match figure {
            Figure::P50 => |it| it.p50_us,
            Figure::P95 => |it| it.p95_us,
            Figure::P99 => |it| it.p99_us,
            _ => return Bound::Exact,
        };
        let may_be_longer = |trials: &[TrialLatency]| {
            let mut percentiles = trials.iter().filter_map(of);
            percentiles.any(|it| it.is_at_least)
        };
        Bound::of_ratio(
            may_be_longer(ours),
            !is_reference && may_be_longer(of_reference),
        )
    })
}

fn dropped_share((_, load): (&Trial, &Load)) -> Option<f64> {
    load.open_loop.as_ref()?;
    Some(load.dropped_by_path() as f64 / load.due().max(1) as f64)
}
