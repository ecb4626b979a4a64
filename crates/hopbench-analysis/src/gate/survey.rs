//! Every guardrail in every cell that it is for: what was measured, or why nothing was.

use super::{
    Verdict,
    invariant::Invariant,
    policy::{Absolute, AbsoluteFigure, Change, Guardrail, Limit, Policy},
    reading::{Question, Reading, Sample, Unit},
    subject::Subject,
};
use crate::{
    ab::Trials,
    figures::Figure,
    record::{Cell, Source},
};

/// A guardrail in a cell.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) guardrail: String,
    pub(super) cell: Option<Cell>,
    pub(super) partner: Option<Cell>,
    pub(super) matter: Matter,
}

#[derive(Debug)]
pub(super) enum Matter {
    /// To be decided together with all others.
    Read(Reading),
    /// Decided by what is not a figure.
    Settled(Verdict),
}

/// What the side that is judged is called, and what the other is.
pub(super) type Names = [&'static str; 2];

pub(super) fn cases(policy: &Policy, subjects: &[Subject<'_>], names: Names) -> Vec<Check> {
    let mut cases = Vec::new();
    for guardrail in &policy.guardrails {
        let case = |cell: Option<&Cell>, matter| Check {
            guardrail: guardrail.to_string(),
            cell: cell.cloned(),
            partner: cell.and_then(|cell| partner(guardrail, cell)),
            matter,
        };
        let matching: Vec<&Subject<'_>> = subjects
            .iter()
            .filter(|subject| guardrail.filter().matches(&subject.cell))
            .filter(|subject| is_of_paths(guardrail, &subject.cell))
            .collect();
        if matching.is_empty() {
            // A name that is misspelt would otherwise pass for ever.
            let why = "there is no such cell in the run".to_owned();
            cases.push(case(None, Matter::Settled(Verdict::Inconclusive { why })));
        }
        // Below, a cell that the other side doesn't have is no check at all.
        let has_other = |subject: &&Subject<'_>| subject.other.is_some();
        let is_relative = matches!(guardrail, Guardrail::Relative(_));
        if is_relative && !matching.is_empty() && !matching.iter().any(has_other) {
            let why = "there is nothing to compare its cells with".to_owned();
            cases.push(case(None, Matter::Settled(Verdict::Inconclusive { why })));
        }
        for subject in matching {
            let matter = match guardrail {
                Guardrail::Relative(relative) => self::relative(relative.change, subject, names),
                Guardrail::Absolute(absolute) => self::absolute(absolute, subject, names),
                Guardrail::Invariant(rule) => partner(guardrail, &subject.cell)
                    .and_then(|other| invariant(rule, subject, &other, subjects)),
            };
            cases.extend(matter.map(|matter| case(Some(&subject.cell), matter)));
        }
    }
    cases
}

/// An invariant is judged in the cells of its left path; where that is missing, of its right one.
fn is_of_paths(guardrail: &Guardrail, cell: &Cell) -> bool {
    match guardrail {
        Guardrail::Invariant(rule) => [&rule.left.path, &rule.right.path].contains(&&cell.path),
        Guardrail::Relative(_) | Guardrail::Absolute(_) => true,
    }
}

/// The cell of an invariant's other path.
fn partner(guardrail: &Guardrail, cell: &Cell) -> Option<Cell> {
    let Guardrail::Invariant(rule) = guardrail else {
        return None;
    };
    let path = match cell.path == rule.left.path {
        true => rule.right.path.clone(),
        false => rule.left.path.clone(),
    };
    Some(Cell {
        path,
        ..cell.clone()
    })
}

/// At a fixed rate there is nothing to be said of the rate that was reached.
fn is_no_figure(figure: Figure, cell: &Cell) -> bool {
    figure == Figure::Rps && cell.rate_rps.is_some()
}

fn relative(change: Change, subject: &Subject<'_>, names: Names) -> Option<Matter> {
    let other = subject.other.as_ref()?;
    let (sample, unit, floor) = match change {
        Change::FallPercent(figure, _) | Change::RisePercent(figure, _) => {
            if is_no_figure(figure, &subject.cell) {
                return None;
            }
            let sample = &other.changes[figure];
            (sample, Unit::Change, subject.floors[figure])
        }
        Change::GrowthRiseMib(_) => (&other.growth, Unit::MoreMib, other.growth_floor),
    };
    let question = Question {
        unit,
        limit: change.limit(),
        floor,
    };
    Some(
        settled(&subject.trials, Some(&other.trials), names)
            .unwrap_or_else(|| read(sample, question, "no block has a figure of both")),
    )
}

fn read(sample: &Sample, question: Question, nothing: &str) -> Matter {
    match sample.read(question) {
        Some(reading) => Matter::Read(reading),
        None => inconclusive(nothing.to_owned()),
    }
}

fn inconclusive(why: String) -> Matter {
    Matter::Settled(Verdict::Inconclusive { why })
}

/// What there are no figures of.
fn settled(ours: &Trials<'_>, others: Option<&Trials<'_>>, names: Names) -> Option<Matter> {
    let [our, their] = names;
    let no_others = others.is_some_and(|others| others.measured() == 0);
    match (ours.all.len(), ours.measured()) {
        (0, _) => Some(inconclusive(match others {
            Some(others) if others.all.is_empty() => "not measured".to_owned(),
            _ => format!("{our} was not measured"),
        })),
        (_, 0) if no_others => Some(inconclusive(format!(
            "{our} failed in every trial, and there are no figures of {their} either"
        ))),
        (trials, 0) => Some(match first_cause(ours) {
            Some(cause) => Matter::Settled(Verdict::Regressed {
                why: format!("{our} failed in each of {trials} trials: {cause}"),
            }),
            None => inconclusive(format!(
                "{our} has no figures: all of {trials} trials failed for reasons outside of it"
            )),
        }),
        _ if no_others => Some(inconclusive(format!("there are no figures of {their}"))),
        _ => None,
    }
}

/// The first failure that is the path's own.
fn first_cause(trials: &Trials<'_>) -> Option<String> {
    let mut own = trials
        .failures()
        .filter(|failure| failure.source == Source::Subject);
    own.next()
        .map(|failure| format!("{}, {}", failure.kind, failure.cause))
}

fn absolute(rule: &Absolute, subject: &Subject<'_>, names: Names) -> Option<Matter> {
    let series = || subject.trials.blocks.series();
    let scaled = |figure: Figure, unit: f64| {
        let values = series()[figure].iter().map(|value| value / unit).collect();
        Sample::Paired(values)
    };
    let sample = match rule.figure {
        AbsoluteFigure::Errors => return Some(errors(rule.limit, subject, names)),
        AbsoluteFigure::Rps if is_no_figure(Figure::Rps, &subject.cell) => return None,
        AbsoluteFigure::Rps => scaled(Figure::Rps, 1.0),
        AbsoluteFigure::P50Ms => scaled(Figure::P50, 1e3),
        AbsoluteFigure::P95Ms => scaled(Figure::P95, 1e3),
        AbsoluteFigure::P99Ms => scaled(Figure::P99, 1e3),
        AbsoluteFigure::CpuUsPerRequest => scaled(Figure::Cpu, 1.0),
        AbsoluteFigure::RssPeakMib => scaled(Figure::Rss, 1024.0),
        AbsoluteFigure::RssGrowthMib => Sample::Paired(subject.trials.blocks.growth_mib()),
    };
    let question = Question {
        unit: Unit::Own(rule.figure),
        limit: rule.limit,
        floor: None,
    };
    Some(
        settled(&subject.trials, None, names)
            .unwrap_or_else(|| read(&sample, question, "no block has a figure")),
    )
}

/// Facts, not estimates: one is enough. But what failed before, too, is no regression.
fn errors(limit: Limit, subject: &Subject<'_>, [our, their]: Names) -> Matter {
    let Subject { trials, other, .. } = subject;
    let own_failures = |trials: &Trials<'_>| {
        let failures = trials.failures();
        failures
            .filter(|failure| failure.source == Source::Subject)
            .count()
    };
    let (all, failed) = (trials.all.len(), own_failures(trials));
    let requests = trials.failed_requests();
    let failed_before = other.as_ref().map_or(0, |it| own_failures(&it.trials));
    let cause = first_cause(trials).unwrap_or_default();
    let outside = trials.failures().count() - failed;
    if all == 0 {
        return inconclusive(format!("{our} was not measured"));
    }
    if requests as f64 > limit.bound() {
        let why = format!("{requests} requests got no right answer");
        return Matter::Settled(Verdict::Regressed { why });
    }
    if failed > 0 && failed_before == 0 {
        let why = format!("{failed} of {all} trials failed: {cause}");
        return Matter::Settled(Verdict::Regressed { why });
    }
    if failed > 0 {
        return inconclusive(format!(
            "{failed} of {all} trials failed ({cause}), and {failed_before} of {their}"
        ));
    }
    if outside > 0 {
        return inconclusive(format!(
            "{outside} of {all} trials failed for reasons outside of the path"
        ));
    }
    Matter::Settled(Verdict::Passed)
}

fn invariant(
    rule: &Invariant,
    subject: &Subject<'_>,
    cell: &Cell,
    subjects: &[Subject<'_>],
) -> Option<Matter> {
    let figure = rule.left.figure;
    let is_left = subject.cell.path == rule.left.path;
    let other = subjects.iter().find(|other| other.cell == *cell);
    let (left, right) = match (is_left, other) {
        _ if is_no_figure(figure, &subject.cell) => return None,
        (_, None) => {
            return Some(inconclusive(format!(
                "there is no '{}' to judge by",
                cell.path
            )));
        }
        (true, Some(right)) => (subject, right),
        // The left one's cell has it, unless both are one.
        (false, Some(_)) => return None,
    };
    let floors = [left, right].map(|subject| subject.floors[figure]);
    let question = Question {
        unit: Unit::Ratio,
        limit: rule.limit,
        floor: floors.into_iter().flatten().reduce(f64::max),
    };
    let sample = left.trials.blocks.over(&right.trials.blocks)[figure].clone();
    let names = ["the left path", "the right one"];
    Some(
        settled(&left.trials, Some(&right.trials), names).unwrap_or_else(|| {
            read(
                &Sample::Paired(sample),
                question,
                "no block has a figure of both",
            )
        }),
    )
}
