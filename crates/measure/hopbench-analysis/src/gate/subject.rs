//! The cells that a policy judges, from two builds, two runs or one run.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Run,
    doubt::{About, Doubt, Except, may_be_longer},
    reading::Sample,
};
use crate::{
    ab::{AbComparison, Trials, order},
    metrics::{Blocks, Metric},
    record::{Cell, Trial},
    told::Bound,
};

/// One cell, without a build, with the trials of its sides.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) cell: Cell,
    /// Trials of the side that is judged.
    pub(super) trials: Trials<'a>,
    /// Trials of the other side. `None` if there is none, or if the cell is not compared.
    pub(super) other: Option<Trials<'a>>,
    relation: Relation,
    /// The reference's trials at the same load, in the judged run and in its base.
    references: [Vec<&'a Trial>; 2],
    /// Trials that were planned and not made, in the judged run and in its base.
    missing: [Missing; 2],
}

/// The number of planned trials of a cell, and of those that were not made.
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

/// The relation between the two sides.
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

/// Returns the cells of a run, each by itself.
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

/// Returns the cells of build B, against those of A.
pub(super) fn of_builds<'a>(run: Run<'a>, comparison: AbComparison<'a>) -> Vec<Subject<'a>> {
    let subject = |cell, trials, other| Subject {
        missing: [Missing::of(run, &cell), Missing::default()],
        cell,
        trials,
        other: Some(other),
        relation: Relation::Builds,
        references: Default::default(),
    };
    let pairs = comparison.cells.into_iter();
    let mut subjects: Vec<Subject<'_>> = pairs
        .map(|pair| subject(pair.cell, pair.b, pair.a))
        .collect();
    // Cells that neither side has measured yet.
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

/// Returns the cells of a run, against those of its base. The reference is the yardstick of both
/// and is judged only by itself.
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

/// Returns whether both are the records of one run, trial by trial.
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
    /// Returns whether it is judged against its own records, so that nothing can have changed.
    pub(super) fn is_same_as_other(&self) -> bool {
        self.relation == Relation::Same
    }

    /// Says which planned trials are missing. `None` if none are. Nothing passes before they are
    /// made: they could be worse.
    pub(super) fn missing(&self) -> Option<String> {
        let sides = ["", " of the base"].into_iter().zip(self.missing);
        let missing = sides.filter(|(_, missing)| missing.trials > 0);
        let missing = missing.map(|(side, Missing { trials, planned })| {
            let verb = if trials == 1 { "is" } else { "are" };
            format!("{trials} of {planned} trials{side} {verb} missing")
        });
        let missing: Vec<String> = missing.collect();
        (!missing.is_empty()).then(|| format!("passes so far, but {}", missing.join(", and ")))
    }

    /// Returns the ratios of the judged side to the other one. With two runs it returns both sides,
    /// each as ratios to its own reference. Empty if there is no other side.
    pub(super) fn change(&self, metric: Metric, except: &Except) -> Sample {
        let Some(other) = &self.other else {
            return Sample::Paired(Vec::new());
        };
        let ours = self.trials.blocks.without(&except.ours);
        let theirs = other.blocks.without(&except.theirs);
        match self.relation {
            Relation::Runs | Relation::Same => {
                let [reference, their_reference] = self.reference_blocks();
                Sample::Between {
                    base: theirs.over(&their_reference)[metric].clone(),
                    head: ours.over(&reference)[metric].clone(),
                }
            }
            Relation::Alone | Relation::Builds => {
                Sample::Paired(ours.over(&theirs)[metric].clone())
            }
        }
    }

    /// Returns the difference in memory growth, in MiB; with two runs, the growth of each. Empty if
    /// there is no other side.
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

    /// Returns the noise floor at this load, as a factor: of build A and its replicate, otherwise
    /// of the reference and its replicate, in the run where it is larger. `None` without a
    /// replicate.
    pub(super) fn noise_floor(&self, metric: Metric, except: &Except) -> Option<f64> {
        let noise_floor = |[first, second]: [Blocks; 2]| {
            Some(second.over(&first).estimate()[metric]?.half_width())
        };
        self.replicates(except)
            .into_iter()
            .filter_map(noise_floor)
            .reduce(f64::max)
    }

    /// Returns the noise floor of memory growth, in MiB. `None` without a replicate.
    pub(super) fn growth_noise_floor(&self, except: &Except) -> Option<f64> {
        let noise_floor =
            |[first, second]: [Blocks; 2]| Some(second.growth_shift(&first)?.half_width());
        self.replicates(except)
            .into_iter()
            .filter_map(noise_floor)
            .reduce(f64::max)
    }

    /// Returns the doubtful trials among those that a change and its noise floor are formed of.
    pub(super) fn doubt(&self, about: About) -> Option<Doubt> {
        let others = self.other.iter().flat_map(|other| &other.all);
        let theirs: Vec<&Trial> = others.chain(&self.references[1]).copied().collect();
        let doubt = Doubt::of([&self.own_and_reference(), &theirs], about)?;
        let doubt = doubt.judging(&self.trials.all);
        Some(match self.relation {
            Relation::Builds => doubt.of_shared_blocks(),
            Relation::Runs | Relation::Same => doubt.of_two_runs(),
            Relation::Alone => doubt,
        })
    }

    /// Returns whether a change may be larger or smaller than measured: the percentiles that it is
    /// formed of may be lower bounds.
    pub(super) fn bound(&self, about: About) -> Bound {
        let bound = |path: &[&Trial], reference: &[&Trial]| {
            Bound::of_ratio(may_be_longer(path, about), may_be_longer(reference, about))
        };
        let theirs = self.other.as_ref().map_or(&[][..], |other| &other.all);
        match self.relation {
            Relation::Alone | Relation::Builds => bound(&self.trials.all, theirs),
            Relation::Runs | Relation::Same => {
                let [ours_by, theirs_by] = &self.references;
                bound(&self.trials.all, ours_by).over(bound(theirs, theirs_by))
            }
        }
    }

    /// Returns the doubtful trials among its own.
    pub(super) fn own_doubt(&self, about: About) -> Option<Doubt> {
        let doubt = Doubt::of([&self.trials.all, &[]], about)?;
        Some(doubt.judging(&self.trials.all))
    }

    /// Returns its trials, and those that the noise floor is formed of.
    pub(super) fn own_and_reference(&self) -> Vec<&'a Trial> {
        let own = self.trials.all.iter();
        own.chain(&self.references[0]).copied().collect()
    }

    fn reference_blocks(&self) -> [Blocks; 2] {
        [0, 1].map(|side| Blocks::of(&self.references[side]))
    }

    /// Returns the first and second trials of equal things, for each run that has them.
    fn replicates(&self, except: &Except) -> Vec<[Blocks; 2]> {
        let mut equal = vec![(&self.references[0], &except.ours)];
        match (self.relation, &self.other) {
            (Relation::Builds, Some(other)) => equal = vec![(&other.all, &except.theirs)],
            _ => equal.push((&self.references[1], &except.theirs)),
        }
        let replicates = equal.into_iter().map(|(trials, except)| {
            let (first, second): (Vec<&Trial>, Vec<&Trial>) = trials
                .iter()
                .partition(|trial| trial.planned.replicate == 0);
            [first, second].map(|trials| Blocks::of(&trials).without(except))
        });
        replicates.collect()
    }
}

/// Returns every planned cell with the trials that were made.
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

/// Returns the trials of the reference at the load of a cell.
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
