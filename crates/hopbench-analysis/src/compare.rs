//! Two runs, cell by cell.
//!
//! The runs share no blocks, so what is compared is each run's own ratios to its reference: a
//! machine that was slower as a whole in one of them is slower for the reference, too. Only the
//! reference itself is compared as it is, which tells how much the machine differed.

use std::{collections::BTreeMap, fmt};

use crate::{
    estimate::Estimate,
    figures::{Figure, Figures, Ratios},
    record::{Cell, Manifest, PathInfo, PlannedTrial, Trial},
    statistics::p_fails_more,
    summary::{CellSummary, Summary},
    told::{Bound, Told},
};

/// What `head` has over `base`.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// Cells that are in both, in the order of `head`'s report.
    pub cells: Vec<Compared<'a>>,
    pub only_base: Vec<&'a Cell>,
    pub only_head: Vec<&'a Cell>,
}

/// One cell of both runs.
#[derive(Debug)]
pub struct Compared<'a> {
    pub base: &'a CellSummary<'a>,
    pub head: &'a CellSummary<'a>,
    /// Of the reference, how its figures changed; of all others, how their shares of it did.
    pub changes: Ratios,
    /// What is known of the changes: percentiles may be lower bounds.
    pub bounds: Figures<Bound>,
}

/// Why two runs have nothing to say of one another.
#[derive(Debug, thiserror::Error)]
pub struct Incomparable(pub Vec<Difference>);

/// A condition of measuring that is not the same.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub key: String,
    pub base: String,
    pub head: String,
}

/// One of the runs.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub summary: &'a Summary<'a>,
    pub trials: &'a [Trial],
}

impl<'a> Comparison<'a> {
    /// # Errors
    /// If the runs were made under different conditions, or have no cell in common but references.
    pub fn new(base: Side<'a>, head: Side<'a>) -> Result<Self, Incomparable> {
        let manifests = [base, head].map(|side| side.summary.manifest);
        let found = versions(manifests[0], manifests[1]);
        Self::of(base, head, found)
    }

    /// The same, whatever versions the programs of a path have: they are what is compared.
    ///
    /// # Errors
    /// As those of [`Self::new`].
    pub fn of_versions(base: Side<'a>, head: Side<'a>) -> Result<Self, Incomparable> {
        Self::of(base, head, Vec::new())
    }

    fn of(base: Side<'a>, head: Side<'a>, versions: Vec<Difference>) -> Result<Self, Incomparable> {
        let mut differences = environment(base.summary.manifest, head.summary.manifest);
        differences.extend(versions);
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
            return Err(Incomparable(vec![Difference {
                key: "cells".to_owned(),
                base: list(&comparison.only_base),
                head: list(&comparison.only_head),
            }]));
        }
        Ok(comparison)
    }
}

impl<'a> Compared<'a> {
    fn new(base: &'a CellSummary<'a>, head: &'a CellSummary<'a>) -> Self {
        let bounds = Figures::new(|figure| head.bounds[figure].over(base.bounds[figure]));
        let change = |figure| {
            let change = Estimate::between(&base.series[figure], &head.series[figure]);
            // What may be larger or smaller is no figure.
            change.filter(|_| bounds[figure] != Bound::Unknown)
        };
        Self {
            base,
            head,
            changes: Ratios::new(change),
            bounds,
        }
    }

    /// Whether a change is a difference, and larger than what the control of either run finds
    /// between equal things. `None` without a figure.
    pub fn told(&self, figure: Figure) -> Option<Told> {
        let floors = [self.base, self.head].map(|row| row.floor(figure).unwrap_or(1.0));
        let floor = floors[0].max(floors[1]);
        let change = self.changes[figure]?;
        Some(Told::of(&change, floor, self.bounds[figure]))
    }

    /// Whether the path left requests unanswered, or trials failed, in either run.
    pub fn has_failures(&self) -> bool {
        self.base.has_failures() || self.head.has_failures()
    }

    /// Whether a larger share of the trials failed in head.
    pub fn fails_more(&self) -> bool {
        let [base, head] = self.failed_trials();
        head.0 * base.1.max(1) > base.0 * head.1.max(1)
    }

    /// Whether a larger share of the requests got no right answer in head.
    pub fn answers_less(&self) -> bool {
        let [base, head] = [self.base, self.head].map(|row| row.totals.lost_share());
        head > base
    }

    /// How many trials failed, and of how many, in base and in head.
    pub fn failed_trials(&self) -> [(usize, usize); 2] {
        [self.base, self.head].map(|row| (row.failures.len(), row.trials))
    }

    /// The probability of so many more failed trials in head, if both fail alike.
    pub fn p_fails_more(&self) -> f64 {
        let [base, head] = self.failed_trials();
        p_fails_more(base, head)
    }
}

fn cells<'a>(summary: &'a Summary<'a>) -> Vec<&'a CellSummary<'a>> {
    let tables = summary
        .scenarios
        .iter()
        .flat_map(|scenario| &scenario.tables);
    tables.flat_map(|table| &table.rows).collect()
}

fn find<'a>(cells: &[&'a CellSummary<'a>], cell: &Cell) -> Option<&'a CellSummary<'a>> {
    cells.iter().find(|row| row.cell == *cell).copied()
}

/// What of machine and build doesn't change from run to run, and changes figures if it does.
pub(crate) fn conditions(manifest: &Manifest) -> [(&'static str, String); 11] {
    let machine = &manifest.machine;
    let cgroup = machine.cgroup.iter();
    let limits: Vec<String> = cgroup
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    // What the kernel keeps for itself differs by a little from start to start.
    let memory_mib = machine.memory_kib.saturating_add(128 << 10) / (256 << 10) * 256;
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

/// Versions of a path's programs that are not of this workspace, by process: those of the workspace
/// have hopbench's own version, and to compare two revisions of them is what runs are for.
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

/// Programs from outside that are not of the same version, on paths that both runs have.
fn versions(base: &Manifest, head: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    for path in &head.paths {
        let mut of_base = base.paths.iter();
        let Some(of_base) = of_base.find(|other| other.name == path.name) else {
            continue;
        };
        if of_base.skipped.is_some() || path.skipped.is_some() {
            continue;
        }
        let [ours, theirs] = [
            outside_versions(head, path),
            outside_versions(base, of_base),
        ];
        for process in path.receipts.keys() {
            let process = process.as_str();
            let is_outside = ours.contains_key(process) || theirs.contains_key(process);
            let Some(before) = of_base.receipts.get(process).filter(|_| is_outside) else {
                continue;
            };
            let now = &path.receipts[process];
            if before != now {
                found.push(Difference {
                    key: format!("version of '{process}' on path '{}'", path.name),
                    base: before.clone(),
                    head: now.clone(),
                });
            }
        }
    }
    found
}

/// What must be the same of machine and build for figures to be comparable.
fn environment(base: &Manifest, head: &Manifest) -> Vec<Difference> {
    let both = conditions(base).into_iter().zip(conditions(head));
    let mut found: Vec<Difference> = both
        .filter(|((_, base), (_, head))| base != head)
        .map(|((key, base), (_, head))| Difference {
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
                key: format!("reference of '{}'", scenario.name),
                base: of_base.reference.clone(),
                head: scenario.reference.clone(),
            });
        }
    }
    found
}

/// How cells of both runs were loaded. The first difference stands for all.
fn loads(base: &[Trial], head: &[Trial]) -> Option<Difference> {
    head.iter().find_map(|head| {
        let base = base
            .iter()
            .find(|base| base.planned.cell == head.planned.cell)?;
        let [ours, theirs] = [head, base].map(|trial| load(&trial.planned));
        if ours != theirs {
            return Some(Difference {
                key: format!("load of {}", head.planned.cell.full_name()),
                base: theirs,
                head: ours,
            });
        }
        let [ours, theirs] = [head, base].map(|trial| trial.load.as_ref());
        let (ours, theirs) = (ours?, theirs?);
        (ours.generator != theirs.generator).then(|| Difference {
            key: format!("load generator of {}", head.planned.cell.full_name()),
            base: theirs.generator.clone(),
            head: ours.generator.clone(),
        })
    })
}

pub(crate) fn load(planned: &PlannedTrial) -> String {
    format!(
        "{} ms after {} ms of warm-up",
        planned.duration_ms, planned.warm_up_ms
    )
}

fn list(cells: &[&Cell]) -> String {
    const SHOWN: usize = 3;
    if cells.is_empty() {
        return "none".to_owned();
    }
    let mut names: Vec<String> = cells
        .iter()
        .take(SHOWN)
        .map(|cell| cell.full_name())
        .collect();
    if cells.len() > SHOWN {
        names.push(format!("{} more", cells.len() - SHOWN));
    }
    names.join(", ")
}

impl fmt::Display for Incomparable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the runs are not comparable")?;
        for (index, Difference { key, base, head }) in self.0.iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{key} '{base}' and '{head}'")?;
        }
        f.write_str("; measure both on one machine, with the same scenario and options")
    }
}
