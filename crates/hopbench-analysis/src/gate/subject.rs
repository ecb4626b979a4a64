//! The cells that a policy is about, whichever way they were measured.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Run,
    doubt::{About, Doubt, Except},
    reading::Sample,
};
use crate::{
    ab::{Duel, Trials, order},
    figures::{Blocks, Figure},
    record::{Cell, Trial},
};

/// One cell, of no build.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) cell: Cell,
    /// Of what is judged.
    pub(super) trials: Trials<'a>,
    /// `None` if there is no other side, or nothing to be said of it.
    pub(super) other: Option<Trials<'a>>,
    relation: Relation,
    /// The reference's trials at the same load: of the run that is judged, and of the other one.
    references: [Vec<&'a Trial>; 2],
    /// Trials that are still to be made, of those that were planned: of the run, and of the base.
    missing: [Missing; 2],
}

/// How many of the planned trials of a cell were not made.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    trials: usize,
    planned: usize,
}

impl Missing {
    fn of(run: Run<'_>, cell: &Cell) -> Self {
        let planned = run.planned.iter();
        let planned = planned.filter(|trial| trial.cell.without_build() == *cell);
        let trials = run.trials.iter();
        let trials = trials.filter(|trial| trial.planned.cell.without_build() == *cell);
        let planned = planned.count();
        Self {
            trials: planned.saturating_sub(trials.count()),
            planned,
        }
    }
}

/// How the two sides belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// There is one side only.
    Alone,
    /// Two builds, which share their blocks.
    Builds,
    /// Two runs, each with its own reference and blocks.
    Runs,
    /// A run and its own records.
    Same,
}

/// Cells by themselves.
pub(super) fn alone<'a>(run: Run<'a>) -> Vec<Subject<'a>> {
    let by_cell = by_cell(run);
    let mut subjects: Vec<Subject<'_>> = by_cell
        .iter()
        .map(|(cell, trials)| Subject {
            cell: (*cell).clone(),
            trials: Trials::of(trials.clone()),
            other: None,
            relation: Relation::Alone,
            references: [reference(run, cell, &by_cell), Vec::new()],
            missing: [Missing::of(run, cell), Missing::default()],
        })
        .collect();
    subjects.sort_by_cached_key(|subject| order(run.manifest, &subject.cell));
    subjects
}

/// Build B, against A.
pub(super) fn of_builds<'a>(run: Run<'a>, duel: Duel<'a>) -> Vec<Subject<'a>> {
    let subject = |cell, trials, other| Subject {
        missing: [Missing::of(run, &cell), Missing::default()],
        cell,
        trials,
        other: Some(other),
        relation: Relation::Builds,
        references: Default::default(),
    };
    let pairs = duel.cells.into_iter();
    let mut subjects: Vec<Subject<'_>> = pairs
        .map(|pair| subject(pair.cell, pair.b, pair.a))
        .collect();
    // What neither side has got to yet.
    let planned = run.planned.iter();
    let planned: BTreeSet<Cell> = planned.map(|trial| trial.cell.without_build()).collect();
    for cell in planned {
        if !subjects.iter().any(|subject| subject.cell == cell) {
            subjects.push(subject(cell, Trials::default(), Trials::default()));
        }
    }
    subjects.sort_by_cached_key(|subject| order(run.manifest, &subject.cell));
    subjects
}

/// A run, against one that was there before. Its reference is the yardstick of both: it is judged
/// by itself only.
pub(super) fn of_runs<'a>(base: Run<'a>, head: Run<'a>) -> Vec<Subject<'a>> {
    let mut subjects = alone(head);
    let of_base = by_cell(base);
    let relation = match is_same(base, head) {
        true => Relation::Same,
        false => Relation::Runs,
    };
    for subject in &mut subjects {
        let Some(before) = of_base.get(&subject.cell) else {
            continue;
        };
        if !is_reference(head, &subject.cell) {
            subject.other = Some(Trials::of(before.clone()));
            subject.relation = relation;
            subject.missing[1] = Missing::of(base, &subject.cell);
            subject.references[1] = reference(base, &subject.cell, &of_base);
        }
    }
    for (cell, before) in of_base {
        if !subjects.iter().any(|subject| subject.cell == *cell) {
            subjects.push(Subject {
                cell: cell.clone(),
                trials: Trials::default(),
                other: Some(Trials::of(before)),
                relation,
                references: Default::default(),
                missing: [Missing::default(), Missing::of(base, cell)],
            });
        }
    }
    subjects
}

/// Whether both are the records of one run, trial by trial.
pub(super) fn is_same(base: Run<'_>, head: Run<'_>) -> bool {
    let is_same_trial = |(one, other): (&Trial, &Trial)| {
        one.planned == other.planned
            && one.started == other.started
            && one.outcome == other.outcome
            && one.load == other.load
            && one.processes == other.processes
            && one.cpu_us == other.cpu_us
    };
    base.manifest.started == head.manifest.started
        && !head.trials.is_empty()
        && base.trials.len() == head.trials.len()
        && base.trials.iter().zip(head.trials).all(is_same_trial)
}

impl<'a> Subject<'a> {
    /// Whether it is judged against its own records, so that nothing can have changed.
    pub(super) fn is_same_as_other(&self) -> bool {
        self.relation == Relation::Same
    }

    /// Why nothing of it has passed yet: trials that were planned and not made could be worse.
    pub(super) fn missing(&self) -> Option<String> {
        let sides = ["", " of the base"].into_iter().zip(self.missing);
        let missing = sides.filter(|(_, missing)| missing.trials > 0);
        let missing = missing.map(|(side, Missing { trials, planned })| {
            format!("{trials} of {planned} trials{side} are missing")
        });
        let missing: Vec<String> = missing.collect();
        (!missing.is_empty()).then(|| format!("passed so far, but {}", missing.join(", and ")))
    }

    /// What is judged over what it is judged against; of nothing if there is no other side.
    pub(super) fn change(&self, figure: Figure, except: &Except) -> Sample {
        let Some(other) = &self.other else {
            return Sample::Paired(Vec::new());
        };
        let ours = self.trials.blocks.without(&except.ours);
        let theirs = other.blocks.without(&except.theirs);
        match self.relation {
            Relation::Runs | Relation::Same => {
                let [reference, their_reference] = self.reference_blocks();
                Sample::Between {
                    base: theirs.over(&their_reference)[figure].clone(),
                    head: ours.over(&reference)[figure].clone(),
                }
            }
            Relation::Alone | Relation::Builds => {
                Sample::Paired(ours.over(&theirs)[figure].clone())
            }
        }
    }

    /// By how many MiB more memory grew.
    pub(super) fn growth(&self, except: &Except) -> Sample {
        let Some(other) = &self.other else {
            return Sample::Paired(Vec::new());
        };
        let ours = self.trials.blocks.without(&except.ours);
        let theirs = other.blocks.without(&except.theirs);
        match self.relation {
            Relation::Runs | Relation::Same => Sample::Between {
                base: theirs.growth_mib(),
                head: ours.growth_mib(),
            },
            Relation::Alone | Relation::Builds => Sample::Paired(ours.growth_mib_over(&theirs)),
        }
    }

    /// The factor by which equal things are found to differ at this load: A and itself, of two
    /// builds; else the reference and itself, in whichever run that is more.
    pub(super) fn floor(&self, figure: Figure, except: &Except) -> Option<f64> {
        let floor =
            |[first, second]: [Blocks; 2]| Some(second.over(&first).estimate()[figure]?.reach());
        self.twins(except)
            .into_iter()
            .filter_map(floor)
            .reduce(f64::max)
    }

    /// The same of the growth of memory, in MiB.
    pub(super) fn growth_floor(&self, except: &Except) -> Option<f64> {
        let floor = |[first, second]: [Blocks; 2]| Some(second.growth_shift(&first)?.reach());
        self.twins(except)
            .into_iter()
            .filter_map(floor)
            .reduce(f64::max)
    }

    /// The doubtful trials among those that a change is formed of.
    pub(super) fn doubt(&self, about: About) -> Option<Doubt> {
        let others = self.other.iter().flat_map(|other| &other.all);
        let theirs: Vec<&Trial> = others.chain(&self.references[1]).copied().collect();
        let doubt = Doubt::of([&self.own_and_reference(), &theirs], about)?;
        let doubt = doubt.judging(&self.trials.all);
        Some(match self.relation {
            Relation::Builds => doubt.of_shared_blocks(),
            _ => doubt,
        })
    }

    /// The doubtful trials among its own.
    pub(super) fn own_doubt(&self, about: About) -> Option<Doubt> {
        let doubt = Doubt::of([&self.trials.all, &[]], about)?;
        Some(doubt.judging(&self.trials.all))
    }

    /// Its trials, and those of which the noise floor is formed.
    pub(super) fn own_and_reference(&self) -> Vec<&'a Trial> {
        let own = self.trials.all.iter();
        own.chain(&self.references[0]).copied().collect()
    }

    fn reference_blocks(&self) -> [Blocks; 2] {
        [0, 1].map(|side| Blocks::of(&self.references[side]))
    }

    /// First and second trials of equal things, of each run that has them.
    fn twins(&self, except: &Except) -> Vec<[Blocks; 2]> {
        let mut equal = vec![(&self.references[0], &except.ours)];
        match (self.relation, &self.other) {
            (Relation::Builds, Some(other)) => equal = vec![(&other.all, &except.theirs)],
            _ => equal.push((&self.references[1], &except.theirs)),
        }
        let twins = equal.into_iter().map(|(trials, except)| {
            let (first, second): (Vec<&Trial>, Vec<&Trial>) =
                trials.iter().partition(|trial| trial.planned.twin == 0);
            [first, second].map(|trials| Blocks::of(&trials).without(except))
        });
        twins.collect()
    }
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

fn is_reference(run: Run<'_>, cell: &Cell) -> bool {
    let mut scenarios = run.manifest.scenarios.iter();
    scenarios.any(|info| info.name == cell.scenario && info.reference == cell.path)
}

/// The trials of the reference at the same load as a cell's.
fn reference<'a>(
    run: Run<'a>,
    cell: &Cell,
    cells: &BTreeMap<&'a Cell, Vec<&'a Trial>>,
) -> Vec<&'a Trial> {
    let mut scenarios = run.manifest.scenarios.iter();
    let reference = scenarios
        .find(|info| info.name == cell.scenario)
        .map(|info| Cell {
            path: info.reference.clone(),
            ..cell.clone()
        });
    let trials = reference.and_then(|reference| cells.get(&reference));
    trials.into_iter().flatten().copied().collect()
}
