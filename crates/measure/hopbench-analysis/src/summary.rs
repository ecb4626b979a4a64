//! Turns trials into metrics per cell.
//!
//! A metric over blocks is the median of the blocks' values, with the extremes. A ratio is formed
//! within a block, between a path and the reference of that block: if the machine slows down for a
//! while, it slows both. Over the blocks, the ratio is an [`Estimate`]. Failed trials and trials
//! without a request have no metrics; they are counted separately.

mod course;
mod latency;
mod parts;
mod totals;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use self::latency::Latencies;
pub(crate) use self::latency::latency_may_be_longer;
pub use self::latency::{Merged, Percentile, Percentiles, Quantile, TrialLatency};
pub use self::{course::Course, parts::PartSummary, totals::Totals};
use crate::{
    estimate::{Estimate, Groups},
    metrics::{Blocks, CLIENT, Metric, Metrics, Ratios, Series, per_request, server_cpu_us},
    record::{
        Build, Cell, CounterInfo, Failure, Load, Manifest, Outcome, PathInfo, Placement, Recovery,
        ScenarioInfo, Trial, Warning, setting,
    },
    statistics::{Spread, has_tail},
    timeline::{Disruptions, Slopes},
    told::{Bound, Told},
};

/// Metrics of a whole run.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Manifest of the run.
    pub manifest: &'a Manifest,
    /// One summary per scenario, in the order of the manifest.
    pub scenarios: Vec<ScenarioSummary<'a>>,
}

/// Metrics of one scenario.
#[derive(Debug)]
pub struct ScenarioSummary<'a> {
    /// The scenario, as the manifest describes it.
    pub info: &'a ScenarioInfo,
    /// Number of blocks that have trials.
    pub blocks: usize,
    /// Roles that have CPU time, the client first.
    pub roles: Vec<String>,
    /// Counters that the scenario's paths declare, each once.
    pub counters: Vec<&'a CounterInfo>,
    /// Tables in the order of the scenario's endpoints.
    pub tables: Vec<Table<'a>>,
}

/// The cells of one endpoint, one way of connecting and one kind of load, by rate and concurrency,
/// and then in the order of the paths, the reference first.
#[derive(Debug)]
pub struct Table<'a> {
    /// Endpoint of all cells.
    pub endpoint: String,
    /// Whether a connection carries more than one request.
    pub keep_alive: bool,
    /// Cores that the client and the path may use.
    pub placement: Placement,
    /// Whether the loads are at a fixed rate; otherwise they are closed loops.
    pub is_fixed_rate: bool,
    /// One row per cell.
    pub rows: Vec<CellSummary<'a>>,
}

impl Table<'_> {
    /// Returns the words for connections and placement that follow the endpoint's name.
    pub(crate) fn setting(&self) -> String {
        setting(self.keep_alive, self.placement)
    }
}

/// One cell over all blocks.
#[derive(Debug)]
pub struct CellSummary<'a> {
    /// Path, endpoint and load.
    pub cell: Cell,
    /// Whether the path is the reference.
    pub is_reference: bool,
    /// Number of trials that were run, failed ones included.
    pub trials: usize,
    /// Failures of the trials that failed.
    pub failures: Vec<&'a Failure>,
    /// Validity warnings of all trials.
    pub warnings: Vec<&'a Warning>,
    /// Correct answers per second. `None` if no trial has metrics.
    pub rps: Option<Spread>,
    /// Metrics of each block.
    pub blocks: Blocks,
    /// Ratios to the reference in the same block; for the reference, its own metrics.
    pub series: Series,
    /// Estimated ratios to the reference; none for the reference itself.
    pub ratios: Ratios,
    /// The two groups into which the blocks' RPS fall: as ratios to the reference in the same block
    /// or, for the reference itself, in requests per second. `None` if they don't, and at a fixed
    /// rate.
    pub groups: Option<Groups>,
    /// Whether ratios and series are exact or only bounds, since percentiles may be lower bounds.
    pub bounds: Metrics<Bound>,
    /// A/A control at this load: the reference's second trial in a block over its first. For build
    /// B, it is that of build A. `None` without a control.
    pub control: Option<Ratios>,
    /// Median latency over the blocks. This and the next three leave out blocks with too few
    /// samples above the percentile, and are `None` if there are no others.
    pub p50_us: Option<Percentiles>,
    /// 90th percentile of the latencies over the blocks.
    pub p90_us: Option<Percentiles>,
    /// 95th percentile of the latencies over the blocks.
    pub p95_us: Option<Percentiles>,
    /// 99th percentile of the latencies over the blocks.
    pub p99_us: Option<Percentiles>,
    /// Share of the requests due that the path dropped, for each measured trial at a fixed rate.
    pub dropped_shares: Vec<f64>,
    /// Percentiles of all blocks' latencies merged. `None` if there are no latencies.
    pub merged: Option<Merged>,
    /// Curve of the merged latencies, as far as there are enough samples; empty without latencies.
    pub curve: Vec<Quantile>,
    /// CPU time per correct answer by role, in microseconds.
    pub cpu_us_per_request: BTreeMap<String, Spread>,
    /// CPU time per correct answer of all roles but the client, in microseconds.
    pub cpu_us_per_request_server: Option<Spread>,
    /// Context switches of the path's processes per correct answer.
    pub context_switches_per_request: Option<Spread>,
    /// Sums over the trials that have metrics.
    pub totals: Totals,
    /// Resident memory before the warm-up, summed over the path's processes, in KiB.
    pub rss_before_kib: Option<Spread>,
    /// Resident memory at the load's end, summed over the path's processes, in KiB.
    pub rss_after_kib: Option<Spread>,
    /// Peak resident memory, summed over the path's processes, in KiB.
    pub rss_peak_kib: Option<Spread>,
    /// Metrics of each kind of request; empty if there is only one.
    pub by_request: Vec<PartSummary>,
    /// Metrics of each stage; empty for a load that stays the same.
    pub by_stage: Vec<PartSummary>,
    /// Disruptions of each trial; empty unless the scenario looks for them.
    pub disruptions: Vec<Disruptions>,
    /// How the loads went from their beginning to their end.
    pub course: Course,
    /// Slopes over the seconds of each trial; empty for a load that stays the same.
    pub slopes: Vec<Slopes>,
}

/// Records can't be summarised, because a trial's latency histogram can't be read.
#[derive(Debug, thiserror::Error)]
#[error("trial {trial}: the latency histogram can't be read: {message}")]
pub struct HistogramError {
    trial: u32,
    message: String,
}

impl<'a> Summary<'a> {
    /// Summarises the trials of a run.
    ///
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

impl<'a> Summary<'a> {
    /// Returns the cells of all scenarios.
    pub fn rows(&self) -> impl Iterator<Item = &CellSummary<'a>> {
        self.scenarios.iter().flat_map(ScenarioSummary::rows)
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
            (
                position,
                &cell.endpoint,
                cell.keep_alive,
                cell.placement,
                is_fixed_rate,
            )
        };
        let keys: BTreeSet<_> = trials().map(key).collect();
        let tables: Vec<Table<'_>> = keys
            .into_iter()
            .map(|wanted| {
                let of_table: Vec<&Trial> = trials().filter(|trial| key(trial) == wanted).collect();
                let (_, endpoint, keep_alive, placement, is_fixed_rate) = wanted;
                Ok(Table {
                    endpoint: endpoint.clone(),
                    keep_alive,
                    placement,
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
            counters: counters(manifest, &tables),
            tables,
        })
    }

    /// Returns the cells of all tables.
    pub fn rows(&self) -> impl Iterator<Item = &CellSummary<'a>> {
        self.tables.iter().flat_map(|table| &table.rows)
    }
}

/// Returns the counters that the paths in `tables` declare. Of two with the same name, the first
/// counts.
fn counters<'a>(manifest: &'a Manifest, tables: &[Table<'_>]) -> Vec<&'a CounterInfo> {
    let rows = || tables.iter().flat_map(|table| &table.rows);
    let has_cells = |path: &&PathInfo| rows().any(|row| row.cell.path == path.name);
    let paths = manifest.paths.iter().filter(has_cells);
    let mut counters: Vec<&CounterInfo> = Vec::new();
    for counter in paths.flat_map(|path| path.counters.iter().flatten()) {
        if !counters.iter().any(|known| known.name == counter.name) {
            counters.push(counter);
        }
    }
    counters
}

/// Summarises the cells of a table.
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
            // With two builds, only A's trials have replicates.
            let control = Cell {
                build: cell.build.map(|_| Build::A),
                ..reference.clone()
            };
            let replicates = trials
                .iter()
                .filter(|trial| trial.planned.cell == control)
                .copied();
            let control = control_of(replicates);
            CellSummary::new(
                cell,
                *cell == reference,
                &of_cell,
                &of_reference,
                control,
                info.recovery.as_ref(),
            )
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
        recovery: Option<&Recovery>,
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
        let over = |metric: &dyn Fn(&Trial, &Load) -> Option<f64>| {
            Spread::of(loads().filter_map(|(trial, load)| metric(trial, load)))
        };
        let latency = |percentile: fn(&TrialLatency) -> Option<Percentile>| {
            let blocks: Vec<Percentile> = of_trials.iter().filter_map(percentile).collect();
            Percentiles::of(&blocks)
        };
        let sum_of_processes = |metric: fn(&crate::record::ProcessUsage) -> u64| {
            over(&|trial, _| Some(trial.watched()?.iter().map(metric).sum::<u64>() as f64))
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
            ratios: ratios(is_reference, &series, &bounds),
            bounds,
            blocks,
            groups: groups(cell, &series),
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
            cpu_us_per_request_server: over(&|it, load| per_request(server_cpu_us(it)?, load)),
            context_switches_per_request: over(&|it, load| {
                per_request(context_switches(it)? as f64, load)
            }),
            totals: Totals::of(all_loads()),
            rss_before_kib: sum_of_processes(|process| process.rss_before_kib),
            rss_after_kib: sum_of_processes(|process| process.rss_after_kib),
            rss_peak_kib: sum_of_processes(|process| process.rss_peak_kib),
            by_request: parts::by_request(trials)?,
            by_stage: parts::by_stage(trials)?,
            disruptions: disruptions(trials, recovery),
            slopes: slopes(trials),
            course: Course::of(trials, all_loads()),
        })
    }

    /// Counts the requests that were sent and got no correct answer, in trials that have metrics.
    pub fn failed_requests(&self) -> u64 {
        self.totals.requests - self.totals.good
    }

    /// Returns whether the path left requests unanswered, or trials failed.
    pub fn has_failures(&self) -> bool {
        self.totals.lost() > 0 || !self.failures.is_empty()
    }

    /// Tells whether a metric differs from the reference's. `None` without a ratio.
    pub fn told(&self, metric: Metric) -> Option<Told> {
        let noise_floor = self.noise_floor(metric).unwrap_or(1.0);
        let ratio = self.ratios[metric]?;
        Some(Told::of(&ratio, noise_floor, self.bounds[metric]))
    }

    /// Returns the noise floor: the factor by which equal things differ in the A/A control. `None`
    /// without a control.
    pub fn noise_floor(&self, metric: Metric) -> Option<f64> {
        Some(self.control.as_ref()?[metric]?.half_width())
    }
}

/// Finds two groups of blocks. A fixed rate is the same in all of them.
fn groups(cell: &Cell, series: &Series) -> Option<Groups> {
    match cell.rate_rps {
        None => Groups::of(&series[Metric::Rps]),
        Some(_) => None,
    }
}

fn disruptions(trials: &[&Trial], rule: Option<&Recovery>) -> Vec<Disruptions> {
    let rules = rule.into_iter();
    let found = rules.flat_map(|rule| trials.iter().filter_map(|it| Disruptions::find(it, rule)));
    found.collect()
}

fn slopes(trials: &[&Trial]) -> Vec<Slopes> {
    let staged = trials
        .iter()
        .filter(|trial| !trial.planned.stages.is_empty());
    staged.map(|trial| Slopes::of(trial)).collect()
}

/// Estimates the second trial of a block over the first. `None` if there is no second one.
fn control_of<'t>(trials: impl Iterator<Item = &'t Trial>) -> Option<Ratios> {
    let (first, second): (Vec<&Trial>, Vec<&Trial>) =
        trials.partition(|trial| trial.planned.replicate == 0);
    let control = || blocks_of(&second).over(&blocks_of(&first)).estimate();
    (!second.is_empty()).then(control)
}

fn failure(trial: &Trial) -> Option<&Failure> {
    match &trial.outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Ok => None,
    }
}

/// Returns the trials that have metrics, with their loads.
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

/// Returns a role's CPU time; for a server's role, only if all server processes were watched.
fn role_cpu_us(trial: &Trial, role: &str) -> Option<f64> {
    if role != CLIENT {
        trial.watched()?;
    }
    trial.cpu_us.get(role).copied()
}

/// Estimates the ratios. A ratio whose true value may be larger or smaller is left out.
fn ratios(is_reference: bool, series: &Series, bounds: &Metrics<Bound>) -> Ratios {
    if is_reference {
        return Ratios::default();
    }
    Ratios::new(|metric| {
        let ratio = Estimate::of(series[metric].iter().copied());
        ratio.filter(|_| bounds[metric] != Bound::Unknown)
    })
}

/// Returns the metrics of each block, without trials that have no request and percentiles that have
/// too few samples above them.
fn blocks_of(trials: &[&Trial]) -> Blocks {
    let samples = fewest_samples(trials);
    let trials = trials.iter().map(|trial| with_metrics(trial, samples));
    let trials: Vec<Cow<'_, Trial>> = trials.collect();
    Blocks::of(&trials.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Returns the number of latencies in the trial that has the fewest. A percentile that some trials
/// allow and others don't would be that of the quick ones.
fn fewest_samples(trials: &[&Trial]) -> u64 {
    let asked = measured(trials).filter(|(_, load)| load.requests > 0);
    asked.map(|(_, load)| load.latencies()).min().unwrap_or(0)
}

fn with_metrics(trial: &Trial, samples: u64) -> Cow<'_, Trial> {
    let Some(load) = trial.measured() else {
        return Cow::Borrowed(trial);
    };
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
    let samples = fewest_samples(trials);
    let asked = measured(trials).filter(|(_, load)| load.requests > 0);
    asked
        .map(|(trial, load)| TrialLatency::with_samples(trial, load, samples))
        .collect()
}

/// Tells which ratios of percentiles are only bounds, by the trials that have lower bounds.
fn bounds(
    ours: &[TrialLatency],
    of_reference: &[TrialLatency],
    is_reference: bool,
) -> Metrics<Bound> {
    Metrics::new(|metric| {
        let of: fn(&TrialLatency) -> Option<Percentile> = match metric {
            Metric::P50 => |it| it.p50_us,
            Metric::P95 => |it| it.p95_us,
            Metric::P99 => |it| it.p99_us,
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
