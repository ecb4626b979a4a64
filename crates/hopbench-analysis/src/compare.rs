//! Two runs, cell by cell.
//!
//! The runs share no blocks, so what is compared is each run's own ratios to its reference: a
//! machine that was slower as a whole in one of them is slower for the reference, too. Only the
//! reference itself is compared as it is, which tells how much the machine differed.

use std::fmt;

use crate::{
    estimate::Estimate,
    figures::{Figure, Ratios},
    record::{Cell, Manifest, PlannedTrial, Trial},
    summary::{CellSummary, Summary},
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
        let mut differences = environment(base.summary.manifest, head.summary.manifest);
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
        let change = |figure| Estimate::between(&base.series[figure], &head.series[figure]);
        Self {
            base,
            head,
            changes: Ratios::new(change),
        }
    }

    /// Whether a change is a difference: 1 is not within its interval, and it is larger than what
    /// the control of either run finds between equal things. `None` without a figure, or with too
    /// few blocks to tell.
    pub fn differs(&self, figure: Figure) -> Option<bool> {
        let floors = [self.base, self.head].map(|row| row.floor(figure).unwrap_or(1.0));
        self.changes[figure]?.is_difference(floors[0].max(floors[1]))
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
pub(crate) fn conditions(manifest: &Manifest) -> [(&'static str, String); 8] {
    let machine = &manifest.machine;
    let cgroup = machine.cgroup.iter();
    let limits: Vec<String> = cgroup
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    [
        ("processor", machine.cpu_model.clone()),
        ("cores", machine.cores.to_string()),
        ("governor", machine.governor.clone()),
        ("virtualization", machine.virtualization.clone()),
        ("kernel", machine.kernel.clone()),
        ("operating system", machine.operating_system.clone()),
        ("limits", limits.join(", ")),
        ("profile", manifest.profile.clone()),
    ]
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

fn load(planned: &PlannedTrial) -> String {
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
