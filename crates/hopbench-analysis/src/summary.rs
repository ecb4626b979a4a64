//! Trials into figures per cell.
//!
//! A figure over blocks is the median of the blocks' values, with the extremes. A ratio is formed
//! within a block, between a path and the reference of that block, so that what slows the machine
//! down for a while slows both; over the blocks it is an [`Estimate`](crate::estimate::Estimate).
//! Failed trials have no figures; they are counted beside them.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{Histogram, serialization::Deserializer};

use crate::{
    figures::{Blocks, CLIENT, Figure, Ratios, Series, per_request, server_cpu_us},
    record::{Build, Cell, Failure, Load, Manifest, Outcome, ScenarioInfo, Trial, Warning},
    statistics::Spread,
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
    /// The reference's second trial in a block against its first, at this concurrency: what is
    /// found between things that are equal. Of build B, that of A. `None` without a control.
    pub control: Option<Ratios>,
    pub p50_us: Option<Spread>,
    pub p90_us: Option<Spread>,
    pub p95_us: Option<Spread>,
    pub p99_us: Option<Spread>,
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

/// Of the latencies of all blocks together, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Merged {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// A point of a latency distribution: this share of all answers took at most so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    pub quantile: f64,
    pub latency_us: f64,
}

/// Fewer samples above a percentile make it one of chance.
pub const TAIL_SAMPLES_MIN: f64 = 20.0;

/// Points of a [`CellSummary::curve`] for each further nine.
const CURVE_POINTS_PER_NINE: f64 = 8.0;

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub elapsed_us: f64,
    pub requests: u64,
    pub good: u64,
    /// Requests that were due at a fixed rate.
    pub scheduled: u64,
    /// Of those, never asked.
    pub dropped: u64,
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
        let blocks = Blocks::of(trials);
        let latencies = merge(trials)?;
        let series = match is_reference {
            true => blocks.series(),
            false => blocks.over(&Blocks::of(of_reference)),
        };
        let loads = || {
            trials
                .iter()
                .filter_map(|trial| Some((*trial, trial.measured()?)))
        };
        let over = |figure: &dyn Fn(&Trial, &Load) -> Option<f64>| {
            Spread::of(loads().filter_map(|(trial, load)| figure(trial, load)))
        };
        let latency = |percentile: fn(&Load) -> Option<f64>| over(&|_, load| percentile(load));
        let sum_of_processes = |figure: fn(&crate::record::ProcessUsage) -> u64| {
            over(&|trial, _| Some(trial.processes.iter().map(figure).sum::<u64>() as f64))
        };
        let roles: BTreeSet<&String> = loads().flat_map(|(trial, _)| trial.cpu_us.keys()).collect();
        let cpu_us_per_request = roles
            .into_iter()
            .filter_map(|role| {
                let cpu = over(&|trial, load| per_request(*trial.cpu_us.get(role)?, load));
                Some((role.clone(), cpu?))
            })
            .collect();
        Ok(Self {
            cell: cell.clone(),
            trials: trials.len(),
            failures: trials.iter().filter_map(|trial| failure(trial)).collect(),
            warnings: trials.iter().flat_map(|trial| &trial.warnings).collect(),
            rps: over(&|trial, _| trial.rps()),
            ratios: match is_reference {
                true => Ratios::default(),
                false => series.estimate(),
            },
            blocks,
            series,
            is_reference,
            control,
            p50_us: latency(|load| load.latency.p50_us),
            p90_us: latency(|load| load.latency.p90_us),
            p95_us: latency(|load| load.latency.p95_us),
            p99_us: latency(|load| load.latency.p99_us),
            merged: latencies.as_ref().map(Merged::of),
            curve: latencies.as_ref().map(curve).unwrap_or_default(),
            cpu_us_per_request,
            cpu_us_per_request_server: over(&|trial, load| per_request(server_cpu_us(trial), load)),
            context_switches_per_request: over(&|trial, load| {
                let switches = trial.processes.iter().map(|process| {
                    process.context_switches_voluntary + process.context_switches_involuntary
                });
                per_request(switches.sum::<u64>() as f64, load)
            }),
            totals: Totals::of(loads()),
            rss_before_kib: sum_of_processes(|process| process.rss_before_kib),
            rss_after_kib: sum_of_processes(|process| process.rss_after_kib),
            rss_peak_kib: sum_of_processes(|process| process.rss_peak_kib),
        })
    }

    /// Requests without a right answer, in trials that have figures.
    pub fn failed_requests(&self) -> u64 {
        self.totals.requests - self.totals.good
    }

    /// Whether one of its ratios is a difference: 1 is not within its interval, and it is farther
    /// from 1 than what the control finds between things that are equal. `None` without a ratio,
    /// or with too few blocks to tell.
    pub fn differs(&self, figure: Figure) -> Option<bool> {
        self.ratios[figure]?.is_difference(self.floor(figure).unwrap_or(1.0))
    }

    /// The factor by which the control finds equal things to differ. `None` without one.
    pub fn floor(&self, figure: Figure) -> Option<f64> {
        Some(self.control.as_ref()?[figure]?.reach())
    }
}

impl Totals {
    fn of<'t>(loads: impl Iterator<Item = (&'t Trial, &'t Load)>) -> Self {
        let mut totals = Self::default();
        for (trial, load) in loads {
            totals.elapsed_us += load.elapsed_us;
            totals.requests += load.requests;
            totals.good += load.good;
            if let Some(open) = &load.open_loop {
                totals.scheduled += open.scheduled;
                totals.dropped += open.dropped;
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
    let control = || Blocks::of(&second).over(&Blocks::of(&first)).estimate();
    (!second.is_empty()).then(control)
}

fn failure(trial: &Trial) -> Option<&Failure> {
    match &trial.outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Ok => None,
    }
}

/// Puts the blocks' latencies together: percentiles are read from the whole, never averaged.
/// `None` without any.
fn merge(trials: &[&Trial]) -> Result<Option<Histogram<u64>>, HistogramError> {
    // Grows to whatever range it is given.
    let mut all = Histogram::<u64>::new(3).expect("three digits are valid");
    for trial in trials {
        let Some(load) = trial.measured() else {
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
    }
    Ok((!all.is_empty()).then_some(all))
}

fn at_quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

impl Merged {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile| at_quantile(latencies, quantile);
        Self {
            count: latencies.len(),
            mean_us: latencies.mean() / 1e3,
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max() as f64 / 1e3,
        }
    }
}

/// From the median on, below which there is little to see; then equally far apart in the logarithm
/// of what lies beyond, as HdrHistogram's plots have it.
fn curve(latencies: &Histogram<u64>) -> Vec<Quantile> {
    let beyond = (0_u32..).map(|step| 10_f64.powf(-f64::from(step) / CURVE_POINTS_PER_NINE));
    let beyond = beyond.skip_while(|beyond| *beyond >= 0.5);
    [0.5]
        .into_iter()
        .chain(beyond)
        .take_while(|beyond| beyond * latencies.len() as f64 >= TAIL_SAMPLES_MIN)
        .map(|beyond| Quantile {
            quantile: 1.0 - beyond,
            latency_us: at_quantile(latencies, 1.0 - beyond),
        })
        .collect()
}
