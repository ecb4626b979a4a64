//! Compares two builds of one workspace that were measured in the same blocks.
//!
//! Every block has each cell once with build B and twice with build A. If the machine slows down
//! for a while, it slows both builds, so ratios of B over A are formed within a block. A's second
//! trial over its first is the A/A control: it shows how far equal things differ in that very cell.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    estimate::{BLOCKS_WHOLE, Estimate, Shift},
    metrics::{Blocks, Metric, Ratios, Series},
    record::{Build, Cell, Failure, Manifest, Outcome, Trial},
    text::plural,
    told::{Bound, Told},
};

/// Comparison of build B with build A, cell by cell.
#[derive(Debug)]
pub struct AbComparison<'a> {
    /// Manifest of the run that measured both builds.
    pub manifest: &'a Manifest,
    /// One pair per cell, in the order of a report.
    pub cells: Vec<Pair<'a>>,
}

/// One cell, measured with both builds.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The cell, without a build.
    pub cell: Cell,
    /// Trials of build A, replicates included.
    pub a: Trials<'a>,
    /// Trials of build B.
    pub b: Trials<'a>,
    /// Ratios of B over A, one per block. A's two trials in a block count as their geometric mean.
    pub series: Series,
    /// Estimates of the ratios of B over A.
    pub changes: Ratios,
    /// Memory growth of B's processes minus that of A's, in MiB. `None` if no block has both.
    pub growth: Option<Shift>,
    /// A/A control: A's second trial in a block over its first.
    pub control: Ratios,
    /// A/A control of the memory growth: A's second trial minus its first, in MiB.
    pub growth_control: Option<Shift>,
    /// Blocks in which something outside the measurement used the machine.
    pub disturbed: Disturbed,
    /// Changes and control without the disturbed blocks. `None` if no block is disturbed, or if too
    /// few others remain.
    quiet: Option<[Ratios; 2]>,
}

/// Disturbed blocks of one cell: those in which something outside used the machine.
#[derive(Debug)]
pub struct Disturbed {
    /// Numbers of the disturbed blocks.
    pub blocks: BTreeSet<u32>,
    /// Number of all blocks of the cell.
    pub of_blocks: usize,
}

/// All trials of one cell.
#[derive(Debug, Default)]
pub struct Trials<'a> {
    /// The trials, failed ones included.
    pub all: Vec<&'a Trial>,
    /// Metrics of each block.
    pub blocks: Blocks,
}

impl<'a> AbComparison<'a> {
    /// Compares the two builds of a run. Returns `None` if it is not a run of two builds.
    pub fn of(manifest: &'a Manifest, trials: &'a [Trial]) -> Option<Self> {
        if manifest.builds.is_empty() {
            return None;
        }
        let mut cells: BTreeMap<Cell, [Vec<&Trial>; 2]> = BTreeMap::new();
        for trial in trials {
            let cell = &trial.planned.cell;
            let sides = cells.entry(cell.without_build()).or_default();
            sides[usize::from(cell.build == Some(Build::B))].push(trial);
        }
        let pairs = cells.into_iter();
        let mut cells: Vec<Pair<'_>> = pairs.map(|(cell, [a, b])| Pair::new(cell, a, b)).collect();
        cells.sort_by_cached_key(|pair| order(manifest, &pair.cell));
        Some(Self { manifest, cells })
    }

    /// Describes in one line how many blocks of cells were disturbed; `None` if none were.
    pub fn disturbed(&self) -> Option<String> {
        let cells = || self.cells.iter().map(|pair| &pair.disturbed);
        let disturbed: usize = cells().map(|disturbed| disturbed.blocks.len()).sum();
        let all: usize = cells().map(|disturbed| disturbed.of_blocks).sum();
        (disturbed > 0).then(|| {
            format!(
                "Other programs or the hypervisor used the machine in {disturbed} of {}, \
                 counted per cell. These blocks count, but a change that shows only with them, or \
                 only without them, is marked \"can't tell\"",
                plural(all, "block")
            )
        })
    }

    /// Describes in one line which revisions or files `a` and `b` are.
    pub fn builds(&self) -> String {
        let builds = self.manifest.builds.iter().map(|info| {
            if info.path.is_some() {
                return format!("{} is '{}'", info.build, info.asked);
            }
            let revision = match info.git.revision.as_str() {
                "" => "unversioned",
                revision => revision.get(..12).unwrap_or(revision),
            };
            let changes = match info.git.dirty {
                true => " with uncommitted changes",
                false => "",
            };
            format!("{} is '{}' ({revision}{changes})", info.build, info.asked)
        });
        builds.collect::<Vec<_>>().join(", ")
    }
}

impl<'a> Pair<'a> {
    fn new(cell: Cell, a: Vec<&'a Trial>, b: Vec<&'a Trial>) -> Self {
        let disturbed = Disturbed::of([&a[..], &b[..]].concat());
        let (first, second): (Vec<&Trial>, Vec<&Trial>) = a
            .iter()
            .copied()
            .partition(|trial| trial.planned.replicate == 0);
        let [first, second] = [first, second].map(|trials| Blocks::of(&trials));
        let [a, b] = [a, b].map(Trials::of);
        let series = b.blocks.over(&a.blocks);
        let quiet = disturbed.is_decidable_without().then(|| {
            [(&b.blocks, &a.blocks), (&second, &first)].map(|(of, over)| {
                let [of, over] = [of, over].map(|blocks| blocks.without(&disturbed.blocks));
                of.over(&over).estimate()
            })
        });
        Self {
            cell,
            changes: series.estimate(),
            series,
            growth: b.blocks.growth_shift(&a.blocks),
            control: second.over(&first).estimate(),
            growth_control: second.growth_shift(&first),
            disturbed,
            quiet,
            a,
            b,
        }
    }

    /// Returns the noise floor: the factor by which A differs from itself, or `None` without a
    /// control.
    pub fn noise_floor(&self, metric: Metric) -> Option<f64> {
        Some(self.control[metric]?.half_width())
    }

    /// Tells whether B differs from A. If the answer depends on the disturbed blocks, the two are
    /// not told apart. `None` without a metric.
    pub fn told(&self, metric: Metric) -> Option<Told> {
        let told = |changes: &Ratios, control: &Ratios| {
            let noise_floor = control[metric].map_or(1.0, |control| control.half_width());
            Some(Told::of(&changes[metric]?, noise_floor, Bound::Exact))
        };
        let of_all = told(&self.changes, &self.control)?;
        Some(match &self.quiet {
            // Other programs take CPU time from a path, not memory.
            Some([changes, control])
                if metric != Metric::Rss && told(changes, control) != Some(of_all) =>
            {
                Told::NotToldApart
            }
            _ => of_all,
        })
    }

    /// Tells whether the memory growth of B differs from that of A. `None` if it was not measured,
    /// or with too few blocks.
    pub fn growth_differs(&self) -> Option<bool> {
        let noise_floor = self
            .growth_control
            .map_or(0.0, |control| control.half_width());
        self.growth?.is_difference(noise_floor)
    }

    /// Estimates A's own metric over the blocks, for orientation. `None` if it was not measured.
    pub fn of_a(&self, metric: Metric) -> Option<f64> {
        let series = self.a.blocks.series();
        Some(Estimate::of(series[metric].iter().copied())?.ratio)
    }
}

impl Disturbed {
    fn of(trials: Vec<&Trial>) -> Self {
        let number = |trial: &&Trial| trial.planned.block;
        let all: BTreeSet<u32> = trials.iter().map(number).collect();
        let disturbed = trials.iter().filter(|trial| trial.is_disturbed());
        Self {
            blocks: disturbed.map(number).collect(),
            of_blocks: all.len(),
        }
    }

    /// Whether there are disturbed blocks, and enough others for a full confidence interval.
    fn is_decidable_without(&self) -> bool {
        !self.blocks.is_empty() && self.of_blocks - self.blocks.len() >= BLOCKS_WHOLE
    }
}

impl<'a> Trials<'a> {
    /// Groups the trials of a cell by block.
    pub fn of(all: Vec<&'a Trial>) -> Self {
        Self {
            blocks: Blocks::of(&all),
            all,
        }
    }

    /// Counts the trials that have metrics.
    pub fn measured(&self) -> usize {
        let all = self.all.iter();
        all.filter(|trial| trial.measured().is_some()).count()
    }

    /// Returns the failures of the trials that failed.
    pub fn failures(&self) -> impl Iterator<Item = &'a Failure> {
        self.all.iter().filter_map(|trial| match &trial.outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Ok => None,
        })
    }

    /// Counts the requests that got no correct answer, or that the path dropped.
    pub fn lost_requests(&self) -> u64 {
        let loads = self.all.iter().filter_map(|trial| trial.load.as_ref());
        loads.map(|load| load.lost()).sum()
    }
}

/// Returns the sort key of a cell for the tables of a report: scenarios and endpoints as the
/// manifest lists them, loads by size, the reference before the other paths.
pub(crate) fn order(manifest: &Manifest, cell: &Cell) -> impl Ord + use<> {
    let scenarios = || manifest.scenarios.iter();
    let scenario = scenarios().position(|info| info.name == cell.scenario);
    let info = scenario.map(|position| &manifest.scenarios[position]);
    let endpoint = info.and_then(|info| info.endpoints.iter().position(|it| *it == cell.endpoint));
    let is_reference = info.is_some_and(|info| info.reference == cell.path);
    let path = manifest.paths.iter().position(|it| it.name == cell.path);
    (
        (
            scenario,
            endpoint,
            cell.endpoint.clone(),
            cell.keep_alive,
            cell.placement,
        ),
        (cell.rate_rps, cell.concurrency),
        (!is_reference, path, cell.path.clone()),
    )
}
