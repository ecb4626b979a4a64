//! Two builds of one workspace, measured in the same blocks.
//!
//! Every block has each cell once of build B and twice of build A. What slows the machine down for
//! a while slows both, so that B is told from A by their ratio within a block; and what A's second
//! trial has over its first is what is found between equal things, in that very cell.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    estimate::{BLOCKS_WHOLE, Estimate, Shift},
    figures::{Blocks, Figure, Ratios, Series},
    record::{Build, Cell, Failure, Manifest, Outcome, Trial},
    told::{Bound, Told},
};

/// What B has over A.
#[derive(Debug)]
pub struct Duel<'a> {
    pub manifest: &'a Manifest,
    /// In the order of a report.
    pub cells: Vec<Pair<'a>>,
}

/// A cell of both builds.
#[derive(Debug)]
pub struct Pair<'a> {
    /// Of no build.
    pub cell: Cell,
    pub a: Trials<'a>,
    pub b: Trials<'a>,
    /// B over A, one ratio per block; of A's two trials in a block, their geometric mean counts.
    pub series: Series,
    pub changes: Ratios,
    /// By how many MiB more the memory of B's processes grew than that of A's.
    pub growth: Option<Shift>,
    /// A's second trial in a block over its first.
    pub control: Ratios,
    pub growth_control: Option<Shift>,
    pub disturbed: Disturbed,
    /// Changes and control without the disturbed blocks. `None` if no block is disturbed, or if too
    /// few others remain.
    quiet: Option<[Ratios; 2]>,
}

/// Blocks in which something outside used the machine, of one cell.
#[derive(Debug)]
pub struct Disturbed {
    pub blocks: BTreeSet<u32>,
    pub of_blocks: usize,
}

/// All trials of one cell.
#[derive(Debug, Default)]
pub struct Trials<'a> {
    pub all: Vec<&'a Trial>,
    pub blocks: Blocks,
}

impl<'a> Duel<'a> {
    /// `None` if it is no run of two builds.
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

    /// One line: how many blocks of cells were disturbed; `None` if none were.
    pub fn disturbed(&self) -> Option<String> {
        let cells = || self.cells.iter().map(|pair| &pair.disturbed);
        let disturbed: usize = cells().map(|disturbed| disturbed.blocks.len()).sum();
        let all: usize = cells().map(|disturbed| disturbed.of_blocks).sum();
        (disturbed > 0).then(|| {
            format!(
                "Something outside used the machine in {disturbed} of {all} block(s) of cells. \
                 They count, but a change that is one only with them, or only without them, is not \
                 told"
            )
        })
    }

    /// One line: what `a` and `b` are.
    pub fn builds(&self) -> String {
        let builds = self.manifest.builds.iter().map(|info| {
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
        let (first, second): (Vec<&Trial>, Vec<&Trial>) =
            a.iter().copied().partition(|trial| trial.planned.twin == 0);
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

    /// The factor by which A is found to differ from itself. `None` without a control.
    pub fn floor(&self, figure: Figure) -> Option<f64> {
        Some(self.control[figure]?.reach())
    }

    /// What a change says. It is not told apart if the disturbed blocks decide what it says. `None`
    /// without a figure.
    pub fn told(&self, figure: Figure) -> Option<Told> {
        let told = |changes: &Ratios, control: &Ratios| {
            let floor = control[figure].map_or(1.0, |control| control.reach());
            Some(Told::of(&changes[figure]?, floor, Bound::Exact))
        };
        let of_all = told(&self.changes, &self.control)?;
        Some(match &self.quiet {
            // Others take time, not memory.
            Some([changes, control])
                if figure != Figure::Rss && told(changes, control) != Some(of_all) =>
            {
                Told::NotToldApart
            }
            _ => of_all,
        })
    }

    /// The same of the memory's growth.
    pub fn growth_differs(&self) -> Option<bool> {
        let floor = self.growth_control.map_or(0.0, |control| control.reach());
        self.growth?.is_difference(floor)
    }

    /// A's own figure, for orientation.
    pub fn of_a(&self, figure: Figure) -> Option<f64> {
        let series = self.a.blocks.series();
        Some(Estimate::of(series[figure].iter().copied())?.ratio)
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

    /// Whether enough blocks remain without them to say something.
    fn is_decidable_without(&self) -> bool {
        !self.blocks.is_empty() && self.of_blocks - self.blocks.len() >= BLOCKS_WHOLE
    }
}

impl<'a> Trials<'a> {
    pub fn of(all: Vec<&'a Trial>) -> Self {
        Self {
            blocks: Blocks::of(&all),
            all,
        }
    }

    /// Those that have figures.
    pub fn measured(&self) -> usize {
        let all = self.all.iter();
        all.filter(|trial| trial.measured().is_some()).count()
    }

    pub fn failures(&self) -> impl Iterator<Item = &'a Failure> {
        self.all.iter().filter_map(|trial| match &trial.outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Ok => None,
        })
    }

    /// Requests that the path did not answer rightly, whether they were asked or not.
    pub fn lost_requests(&self) -> u64 {
        let loads = self.all.iter().filter_map(|trial| trial.load.as_ref());
        loads.map(|load| load.lost()).sum()
    }
}

/// As in the tables of a report: scenario and endpoint as they are listed, loads by size, the
/// reference before the other paths.
pub(crate) fn order(manifest: &Manifest, cell: &Cell) -> impl Ord + use<> {
    let scenarios = || manifest.scenarios.iter();
    let scenario = scenarios().position(|info| info.name == cell.scenario);
    let info = scenario.map(|position| &manifest.scenarios[position]);
    let endpoint = info.and_then(|info| info.endpoints.iter().position(|it| *it == cell.endpoint));
    let is_reference = info.is_some_and(|info| info.reference == cell.path);
    let path = manifest.paths.iter().position(|it| it.name == cell.path);
    (
        (scenario, endpoint, cell.endpoint.clone(), cell.keep_alive),
        (cell.rate_rps, cell.concurrency),
        (!is_reference, path, cell.path.clone()),
    )
}
