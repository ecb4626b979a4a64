//! Compares two runs, cell by cell.
//!
//! The runs share no blocks, so the comparison is between each run's ratios to its own reference: a
//! machine that was slower as a whole in one run slowed the reference, too. Only the reference is
//! compared by its own metrics, which shows how much the machine differed.

mod cells;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    estimate::Estimate,
    metrics::{Metric, Metrics, Ratios},
    record::{Cell, Manifest, PathInfo, PlannedTrial, Trial},
    statistics::p_fails_more,
    summary::{CellSummary, Summary},
    told::{Bound, Told},
};

/// Comparison of the run `head` with the run `base`.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// Cells that both runs have, in the order of `head`'s report.
    pub cells: Vec<Compared<'a>>,
    /// Cells that only `base` has.
    pub only_base: Vec<&'a Cell>,
    /// Cells that only `head` has.
    pub only_head: Vec<&'a Cell>,
}

/// One cell that both runs have.
#[derive(Debug)]
pub struct Compared<'a> {
    /// The cell in `base`.
    pub base: &'a CellSummary<'a>,
    /// The cell in `head`.
    pub head: &'a CellSummary<'a>,
    /// Ratios of `head` over `base`: of the reference's own metrics, or of a path's ratios to it.
    pub changes: Ratios,
    /// Whether each change is exact or only a bound, since percentiles may be lower bounds.
    pub bounds: Metrics<Bound>,
}

/// Differences that make two runs incomparable.
#[derive(Debug, thiserror::Error)]
pub struct Incomparable(pub Vec<Difference>);

/// Kind of a condition in which two runs differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DifferenceKind {
    /// It has a value in each run.
    Condition,
    /// Version of a path's program.
    Version,
    /// Paths that only one of the runs has.
    Paths,
    /// Other things that only one of the runs has: endpoints, loads, scenarios or cells.
    Alone,
}

/// A condition of measuring in which two runs differ.
#[derive(Debug, PartialEq)]
pub struct Difference {
    /// Its kind, which decides what to do.
    pub kind: DifferenceKind,
    /// Name of the condition.
    pub key: String,
    /// Its value in `base`; of paths, endpoints, loads and scenarios, those that only `base` has.
    pub base: String,
    /// Its value in `head`, likewise.
    pub head: String,
}

/// One of the two runs.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Summary of the run.
    pub summary: &'a Summary<'a>,
    /// All trials of the run.
    pub trials: &'a [Trial],
}

impl<'a> Comparison<'a> {
    /// Compares two runs.
    ///
    /// # Errors
    /// If the runs were made under different conditions, share no cell, or share only cells of the
    /// reference although one of them has others.
    pub fn new(base: Side<'a>, head: Side<'a>) -> Result<Self, Incomparable> {
        let manifests = [base, head].map(|side| side.summary.manifest);
        let found = versions(manifests[0], manifests[1]);
        Self::of(base, head, found)
    }

    /// Compares two runs, and lets the versions of a path's programs differ.
    ///
    /// # Errors
    /// The same as those of [`Self::new`], except for versions.
    pub fn of_versions(base: Side<'a>, head: Side<'a>) -> Result<Self, Incomparable> {
        Self::of(base, head, Vec::new())
    }

    fn of(base: Side<'a>, head: Side<'a>, versions: Vec<Difference>) -> Result<Self, Incomparable> {
        let mut differences = environment(base.summary.manifest, head.summary.manifest);
        differences.extend(versions);
        differences.extend(fronts(base.summary.manifest, head.summary.manifest));
        differences.extend(loads(base.trials, head.trials));
        if !differences.is_empty() {
            return Err(Incomparable(differences));
        }
        let [of_base, of_head] = [base, head].map(|side| cells(side.summary));
        let missing = |from: &[&'a CellSummary<'a>], of: &[&'a CellSummary<'a>]| {
            let all = of.iter().map(|row| &row.cell);
            all.filter(|cell| find(from, cell).is_none()).collect()
        };
        let comparison = Self {
            cells: of_head
                .iter()
                .filter_map(|head| Some(Compared::new(find(&of_base, &head.cell)?, head)))
                .collect(),
            only_base: missing(&of_head, &of_base),
            only_head: missing(&of_base, &of_head),
        };
        let has_more = !comparison.only_base.is_empty() || !comparison.only_head.is_empty();
        let mut cells = comparison.cells.iter();
        if comparison.cells.is_empty() || has_more && cells.all(|cell| cell.head.is_reference) {
            return Err(Incomparable(cells::differences([&of_base, &of_head])));
        }
        Ok(comparison)
    }
}

impl<'a> Compared<'a> {
    fn new(base: &'a CellSummary<'a>, head: &'a CellSummary<'a>) -> Self {
        let bounds = Metrics::new(|metric| head.bounds[metric].over(base.bounds[metric]));
        let change = |metric| {
            let change = Estimate::between(&base.series[metric], &head.series[metric]);
            // A ratio whose true value may be larger or smaller says nothing.
            change.filter(|_| bounds[metric] != Bound::Unknown)
        };
        Self {
            base,
            head,
            changes: Ratios::new(change),
            bounds,
        }
    }

    /// Tells whether a change is a difference, given the larger noise floor of the two runs. `None`
    /// without a metric.
    pub fn told(&self, metric: Metric) -> Option<Told> {
        let floors = [self.base, self.head].map(|row| row.noise_floor(metric).unwrap_or(1.0));
        let noise_floor = floors[0].max(floors[1]);
        let change = self.changes[metric]?;
        Some(Told::of(&change, noise_floor, self.bounds[metric]))
    }

    /// Returns whether the path left requests unanswered, or trials failed, in either run.
    pub fn has_failures(&self) -> bool {
        self.base.has_failures() || self.head.has_failures()
    }

    /// Returns whether a larger share of the trials failed in `head`.
    pub fn fails_more(&self) -> bool {
        let [base, head] = self.failed_trials();
        head.0 * base.1.max(1) > base.0 * head.1.max(1)
    }

    /// Returns whether a larger share of the requests got no correct answer in `head`.
    pub fn answers_less(&self) -> bool {
        let [base, head] = [self.base, self.head].map(|row| row.totals.lost_share());
        head > base
    }

    /// Returns the number of failed trials and of all trials, in `base` and in `head`.
    pub fn failed_trials(&self) -> [(usize, usize); 2] {
        [self.base, self.head].map(|row| (row.failures.len(), row.trials))
    }

    /// Returns the probability of at least as many failed trials in `head`, if both fail alike.
    pub fn p_fails_more(&self) -> f64 {
        let [base, head] = self.failed_trials();
        p_fails_more(base, head)
    }
}

fn cells<'a>(summary: &'a Summary<'a>) -> Vec<&'a CellSummary<'a>> {
    summary.rows().collect()
}

fn find<'a>(cells: &[&'a CellSummary<'a>], cell: &Cell) -> Option<&'a CellSummary<'a>> {
    cells.iter().find(|row| row.cell == *cell).copied()
}

/// Returns the conditions of machine and build that affect metrics and seldom change between runs.
pub(crate) fn conditions(manifest: &Manifest) -> [(&'static str, String); 11] {
    let machine = &manifest.machine;
    let cgroup = machine.cgroup.iter();
    let limits: Vec<String> = cgroup
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    let memory_mib = memory_mib(machine.memory_kib);
    [
        ("processor", machine.cpu_model.clone()),
        ("cores", machine.cores.to_string()),
        ("memory", format!("{memory_mib} MiB")),
        ("governor", machine.governor.clone()),
        ("clock source", machine.clock_source.clone()),
        ("virtualization", machine.virtualization.clone()),
        ("kernel", machine.kernel.clone()),
        ("operating system", machine.operating_system.clone()),
        ("limits", limits.join(", ")),
        ("toolchain", manifest.toolchain.clone()),
        ("profile", manifest.profile.clone()),
    ]
}

/// Returns a machine's memory in MiB, rounded to 256, since the kernel reserves a slightly
/// different amount at every boot.
pub fn memory_mib(memory_kib: u64) -> u64 {
    memory_kib.saturating_add(128 << 10) / (256 << 10) * 256
}

/// Returns the versions of a path's programs from outside this workspace, by process. Programs of
/// the workspace have hopbench's own version, and runs are made to compare their revisions.
pub(crate) fn outside_versions<'m>(
    manifest: &Manifest,
    path: &'m PathInfo,
) -> BTreeMap<&'m str, &'m str> {
    let is_own = |receipt: &str| receipt.split_whitespace().last() == Some(&manifest.hopbench);
    let receipts = path.receipts.iter();
    let outside = receipts.filter(|(_, receipt)| !is_own(receipt));
    outside
        .map(|(process, receipt)| (process.as_str(), receipt.as_str()))
        .collect()
}

/// A path whose file, or whose parameters, have changed between two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedDefinition {
    /// Name of the path.
    pub path: String,
    /// Lines and parameters that only the base has.
    pub only_base: Vec<String>,
    /// Lines and parameters that only the head has.
    pub only_head: Vec<String>,
}

/// Finds the paths of both runs whose files or parameters have changed. Runs of older builds have
/// recorded none.
pub fn changed_definitions(base: &Manifest, head: &Manifest) -> Vec<ChangedDefinition> {
    let changed = |path: &PathInfo| {
        let mut paths = base.paths.iter();
        let before = paths.find(|it| it.name == path.name)?;
        let is_same =
            (&before.definition, &before.parameters) == (&path.definition, &path.parameters);
        if before.definition.is_empty() || path.definition.is_empty() || is_same {
            return None;
        }
        let lines = |path: &PathInfo| -> Vec<String> {
            let parameters = path.parameters.iter();
            let parameters = parameters.map(|(name, value)| format!("parameter {name} = {value}"));
            let lines = path.definition.lines().map(str::to_owned);
            lines.chain(parameters).collect()
        };
        let [before, now] = [before, path].map(lines);
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            let others: BTreeSet<&String> = other.iter().collect();
            let lines = one.iter().filter(|line| !others.contains(line));
            lines.map(|line| line.trim().to_owned()).collect()
        };
        Some(ChangedDefinition {
            path: path.name.clone(),
            only_base: only(&before, &now),
            only_head: only(&now, &before),
        })
    };
    head.paths.iter().filter_map(changed).collect()
}

/// Finds outside programs whose versions differ, on paths that both runs measured.
fn versions(base: &Manifest, head: &Manifest) -> Vec<Difference> {
    let paths = head.paths.iter();
    let changed = paths.flat_map(|path| changed_versions(base, head, &path.name));
    changed.collect()
}

/// Finds outside programs of a path whose versions differ, if both runs measured it.
pub fn changed_versions(base: &Manifest, head: &Manifest, path: &str) -> Vec<Difference> {
    let of = |manifest: &'_ Manifest| {
        let mut paths = manifest.paths.iter();
        let found = paths.find(|it| it.name == path && it.skipped.is_none());
        found.cloned()
    };
    let (Some(of_base), Some(of_head)) = (of(base), of(head)) else {
        return Vec::new();
    };
    let [ours, theirs] = [
        outside_versions(head, &of_head),
        outside_versions(base, &of_base),
    ];
    let mut found = Vec::new();
    for (process, now) in &of_head.receipts {
        let name = process.as_str();
        let is_outside = ours.contains_key(name) || theirs.contains_key(name);
        let before = of_base.receipts.get(process).filter(|_| is_outside);
        if let Some(before) = before.filter(|before| *before != now) {
            found.push(Difference {
                kind: DifferenceKind::Version,
                key: format!("version of '{process}' on path '{path}'"),
                base: before.clone(),
                head: now.clone(),
            });
        }
    }
    found
}

/// Finds paths that the runs asked differently: their figures have another share of the client in
/// them.
fn fronts(base: &Manifest, head: &Manifest) -> Vec<Difference> {
    let changed = head.paths.iter().filter_map(|path| {
        let before = base.paths.iter().find(|it| it.name == path.name)?;
        (before.front != path.front).then(|| Difference {
            kind: DifferenceKind::Condition,
            key: format!("protocol at the front of path '{}'", path.name),
            base: before.front.to_string(),
            head: path.front.to_string(),
        })
    });
    changed.collect()
}

/// Finds conditions of machine, build and scenario that must be equal and are not.
fn environment(base: &Manifest, head: &Manifest) -> Vec<Difference> {
    let both = conditions(base).into_iter().zip(conditions(head));
    let mut found: Vec<Difference> = both
        .filter(|((_, base), (_, head))| base != head)
        .map(|((key, base), (_, head))| Difference {
            kind: DifferenceKind::Condition,
            key: key.to_owned(),
            base,
            head,
        })
        .collect();
    for scenario in &head.scenarios {
        let of_base = base
            .scenarios
            .iter()
            .find(|other| other.name == scenario.name);
        if let Some(of_base) = of_base
            && of_base.reference != scenario.reference
        {
            found.push(Difference {
                kind: DifferenceKind::Condition,
                key: format!("reference of '{}'", scenario.name),
                base: of_base.reference.clone(),
                head: scenario.reference.clone(),
            });
        }
    }
    found
}

/// Finds the first cell that the two runs loaded differently; it stands for all.
fn loads(base: &[Trial], head: &[Trial]) -> Option<Difference> {
    head.iter().find_map(|head| {
        let base = base
            .iter()
            .find(|base| base.planned.cell == head.planned.cell)?;
        let [ours, theirs] = [head, base].map(|trial| load(&trial.planned));
        if ours != theirs {
            return Some(Difference {
                kind: DifferenceKind::Condition,
                key: format!("load of {}", head.planned.cell.full_name()),
                base: theirs,
                head: ours,
            });
        }
        let [ours, theirs] = [head, base].map(|trial| trial.load.as_ref());
        let (ours, theirs) = (ours?, theirs?);
        (ours.generator != theirs.generator).then(|| Difference {
            kind: DifferenceKind::Condition,
            key: format!("load generator of {}", head.planned.cell.full_name()),
            base: theirs.generator.clone(),
            head: ours.generator.clone(),
        })
    })
}

pub(crate) fn load(planned: &PlannedTrial) -> String {
    let stages = planned.stages.iter();
    let stages = stages.map(|it| format!(", {} to {} in {} ms", it.from, it.to, it.duration_ms));
    let what = match planned.requests {
        Some(requests) => format!("{requests} requests"),
        None => format!("{} ms", planned.duration_ms),
    };
    let stages: String = stages.collect();
    let (warm_up_ms, think_time_ms) = (planned.warm_up_ms, planned.think_time_ms);
    match think_time_ms {
        0 => format!("{what}{stages} after {warm_up_ms} ms of warm-up"),
        _ => format!(
            "{what}{stages}, thinking for {think_time_ms} ms, after {warm_up_ms} ms of warm-up"
        ),
    }
}
