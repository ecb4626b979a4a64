//! The cells that a policy is about, whichever way they were measured.

use std::collections::{BTreeMap, BTreeSet};

use super::{Run, reading::Sample};
use crate::{
    ab::{Duel, Trials, order},
    compare::{Compared, Comparison},
    figures::{Blocks, Figure, Figures},
    record::{Build, Cell, Trial},
};

/// One cell, of no build.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) cell: Cell,
    /// Of what is judged.
    pub(super) trials: Trials<'a>,
    /// The factor by which equal things are found to differ in this cell.
    pub(super) floors: Figures<Option<f64>>,
    /// `None` if there is no other side, or nothing to be said of it.
    pub(super) other: Option<Other<'a>>,
}

/// What it is judged against.
#[derive(Debug)]
pub(super) struct Other<'a> {
    pub(super) trials: Trials<'a>,
    pub(super) changes: Figures<Sample>,
    /// In MiB.
    pub(super) growth: Sample,
    pub(super) growth_floor: Option<f64>,
}

/// Cells by themselves.
pub(super) fn alone<'a>(run: Run<'a>) -> Vec<Subject<'a>> {
    let by_cell = by_cell(run);
    let mut subjects: Vec<Subject<'_>> = by_cell
        .iter()
        .map(|(cell, trials)| Subject {
            cell: (*cell).clone(),
            trials: Trials::of(trials.clone()),
            floors: reference_floors(run, cell, &by_cell),
            other: None,
        })
        .collect();
    subjects.sort_by_cached_key(|subject| order(run.manifest, &subject.cell));
    subjects
}

/// Build B, against A.
pub(super) fn of_builds<'a>(run: Run<'a>, duel: Duel<'a>) -> Vec<Subject<'a>> {
    let mut subjects: Vec<Subject<'_>> = duel
        .cells
        .into_iter()
        .map(|pair| Subject {
            floors: Figures::new(|figure| pair.floor(figure)),
            other: Some(Other {
                growth: Sample::Paired(pair.b.blocks.growth_mib_over(&pair.a.blocks)),
                growth_floor: pair.growth_control.map(|control| control.reach()),
                changes: Figures::new(|figure| Sample::Paired(pair.series[figure].clone())),
                trials: pair.a,
            }),
            cell: pair.cell,
            trials: pair.b,
        })
        .collect();
    // What neither side has got to yet.
    let planned = run.planned.iter();
    let planned: BTreeSet<Cell> = planned.map(|trial| trial.cell.without_build()).collect();
    for cell in planned {
        if !subjects.iter().any(|subject| subject.cell == cell) {
            subjects.push(Subject {
                cell,
                trials: Trials::default(),
                floors: Figures::new(|_| None),
                other: Some(Other::nothing(Trials::default())),
            });
        }
    }
    subjects.sort_by_cached_key(|subject| order(run.manifest, &subject.cell));
    subjects
}

/// A run, against one that was there before. Its reference is the yardstick of both: it is judged
/// by itself only.
pub(super) fn of_runs<'a>(
    base: Run<'a>,
    head: Run<'a>,
    comparison: &Comparison<'_>,
) -> Vec<Subject<'a>> {
    let mut subjects = alone(head);
    let (of_base, of_head) = (by_cell(base), by_cell(head));
    for subject in &mut subjects {
        let Some(before) = of_base.get(&subject.cell) else {
            continue;
        };
        let mut compared = comparison.cells.iter();
        let compared = compared.find(|compared| compared.head.cell == subject.cell);
        let before = Trials::of(before.clone());
        subject.other = match compared {
            Some(compared) if compared.head.is_reference => None,
            Some(compared) => {
                subject.floors = Figures::new(|figure| larger_floor(compared, figure));
                let growth_floors = [(base, &of_base), (head, &of_head)]
                    .map(|(run, cells)| growth_floor(run, &subject.cell, cells));
                Some(Other {
                    growth_floor: growth_floors.into_iter().flatten().reduce(f64::max),
                    ..Other::between(before, compared, &subject.trials)
                })
            }
            None => Some(Other::nothing(before)),
        };
    }
    for (cell, before) in of_base {
        if !subjects.iter().any(|subject| subject.cell == *cell) {
            subjects.push(Subject {
                cell: cell.clone(),
                trials: Trials::default(),
                floors: Figures::new(|_| None),
                other: Some(Other::nothing(Trials::of(before))),
            });
        }
    }
    subjects
}

impl<'a> Other<'a> {
    fn nothing(trials: Trials<'a>) -> Self {
        Self {
            trials,
            changes: Figures::new(|_| Sample::Paired(Vec::new())),
            growth: Sample::Paired(Vec::new()),
            growth_floor: None,
        }
    }

    fn between(before: Trials<'a>, compared: &Compared<'_>, head: &Trials<'_>) -> Self {
        Self {
            changes: Figures::new(|figure| Sample::Between {
                base: compared.base.series[figure].clone(),
                head: compared.head.series[figure].clone(),
            }),
            growth: Sample::Between {
                base: before.blocks.growth_mib(),
                head: head.blocks.growth_mib(),
            },
            growth_floor: None,
            trials: before,
        }
    }
}

fn larger_floor(compared: &Compared<'_>, figure: Figure) -> Option<f64> {
    let floors = [compared.base, compared.head].map(|row| row.floor(figure));
    floors.into_iter().flatten().reduce(f64::max)
}

/// Every cell that was planned, with the trials that there are.
fn by_cell<'a>(run: Run<'a>) -> BTreeMap<&'a Cell, Vec<&'a Trial>> {
    let planned = run.planned.iter();
    let mut cells: BTreeMap<&Cell, Vec<&Trial>> =
        planned.map(|trial| (&trial.cell, Vec::new())).collect();
    for trial in run.trials {
        cells.entry(&trial.planned.cell).or_default().push(trial);
    }
    cells
}

/// Of the reference's second trial in a block over its first, at the same load.
fn reference_floors(
    run: Run<'_>,
    cell: &Cell,
    cells: &BTreeMap<&Cell, Vec<&Trial>>,
) -> Figures<Option<f64>> {
    let [first, second] = twins(run, cell, cells);
    let control = second.over(&first).estimate();
    Figures::new(|figure| Some(control[figure]?.reach()))
}

/// By how many MiB more or less the reference's memory grows in its second trial of a block.
fn growth_floor(run: Run<'_>, cell: &Cell, cells: &BTreeMap<&Cell, Vec<&Trial>>) -> Option<f64> {
    let [first, second] = twins(run, cell, cells);
    Some(second.growth_shift(&first)?.reach())
}

/// The reference's first and second trials at the same load as a cell's.
fn twins(run: Run<'_>, cell: &Cell, cells: &BTreeMap<&Cell, Vec<&Trial>>) -> [Blocks; 2] {
    let scenarios = run.manifest.scenarios.iter();
    let mut of_name = scenarios.filter(|info| info.name == cell.scenario);
    let reference = of_name.next().map(|info| Cell {
        path: info.reference.clone(),
        build: cell.build.map(|_| Build::A),
        ..cell.clone()
    });
    let trials = reference.and_then(|reference| cells.get(&reference));
    let trials = trials.into_iter().flatten().copied();
    let (first, second): (Vec<&Trial>, Vec<&Trial>) =
        trials.partition(|trial| trial.planned.twin == 0);
    [first, second].map(|trials| Blocks::of(&trials))
}
