//! Every guardrail in every cell that it is for: what was measured, or why nothing was.

use super::{
    Verdict,
    doubt::{About, Doubt, Except, lower_bounds},
    errors,
    invariant::Invariant,
    policy::{Absolute, AbsoluteFigure, Change, Guardrail, Policy},
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
    /// Of what trials are missing, if any are: without them nothing passes.
    pub(super) missing: Option<String>,
}

#[derive(Debug)]
pub(super) enum Matter {
    /// To be decided together with all others of the guardrail.
    Read(Box<Evidence>),
    /// Decided by what is not a figure.
    Settled(Verdict),
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Evidence {
    /// In all blocks.
    pub(super) whole: Reading,
    /// `None` if no trial is doubtful.
    pub(super) doubtful: Option<Doubtful>,
    /// Trials of either side whose percentile is a lower bound of the true one.
    pub(super) lower_bounds: [usize; 2],
}

/// Doubtful trials, and what is said without their blocks.
#[derive(Debug)]
pub(super) struct Doubtful {
    pub(super) doubt: Doubt,
    /// `None` if no block is left.
    pub(super) quiet: Option<Reading>,
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
            missing: None,
        };
        let matching: Vec<&Subject<'_>> = subjects
            .iter()
            .filter(|subject| guardrail.filter().matches(&subject.cell))
            .filter(|subject| is_of_paths(guardrail, &subject.cell))
            .collect();
        if matching.is_empty() {
            // A name that is misspelt would otherwise pass for ever.
            let why = "there is no such cell in the run".to_owned();
            cases.push(case(None, inconclusive(why)));
        }
        let cells: Vec<&Cell> = matching.iter().map(|subject| &subject.cell).collect();
        if !cells.is_empty() {
            for missing in guardrail.filter().unmatched(&cells) {
                let why = format!("none of the cells that it is for has {missing}");
                cases.push(case(None, inconclusive(why)));
            }
        }
        // Below, a cell that the other side doesn't have is no check at all.
        let has_other = |subject: &&Subject<'_>| subject.other.is_some();
        let is_relative = matches!(guardrail, Guardrail::Relative(_));
        if is_relative && !matching.is_empty() && !matching.iter().any(has_other) {
            let why = "there is nothing to compare its cells with".to_owned();
            cases.push(case(None, inconclusive(why)));
        }
        let before = cases.len();
        let missing_of_partner = |cell: &Cell| {
            let partner = partner(guardrail, cell)?;
            let mut subjects = subjects.iter();
            subjects.find(|subject| subject.cell == partner)?.missing()
        };
        for subject in &matching {
            let matter = match guardrail {
                Guardrail::Relative(relative) => self::relative(relative.change, subject, names),
                Guardrail::Absolute(absolute) => self::absolute(absolute, subject, names),
                Guardrail::Invariant(rule) => partner(guardrail, &subject.cell)
                    .and_then(|other| invariant(rule, subject, &other, subjects)),
            };
            cases.extend(matter.map(|matter| {
                Check {
                    missing: subject
                        .missing()
                        .or_else(|| missing_of_partner(&subject.cell)),
                    ..case(Some(&subject.cell), matter)
                }
            }));
        }
        let is_invariant = matches!(guardrail, Guardrail::Invariant(_));
        if is_invariant && !matching.is_empty() && cases.len() == before {
            let why = "at a fixed rate both paths have the rate that was asked for, so that a \
                       rule between two paths asks nothing of RPS there";
            cases.push(case(None, inconclusive(why.to_owned())));
        }
    }
    cases
}

/// An invariant is judged in the cells of its left path; where that is missing, of its right one.
pub(super) fn is_of_paths(guardrail: &Guardrail, cell: &Cell) -> bool {
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

fn relative(change: Change, subject: &Subject<'_>, names: Names) -> Option<Matter> {
    let other = subject.other.as_ref()?;
    if let Some(settled) = settled(&subject.trials, Some(other), names) {
        return Some(settled);
    }
    if subject.is_same_as_other() {
        return Some(Matter::Settled(Verdict::Passed));
    }
    let limit = change.limit();
    let about = match change {
        Change::FallPercent(figure, _) | Change::RisePercent(figure, _) => About::of(figure),
        Change::GrowthRiseMib(_) => About::Memory,
    };
    let ask = |except: &Except| match change {
        Change::FallPercent(figure, _) | Change::RisePercent(figure, _) => {
            subject.change(figure, except).read(Question {
                unit: Unit::Change,
                limit,
                floor: subject.floor(figure, except),
            })
        }
        Change::GrowthRiseMib(_) => subject.growth(except).read(Question {
            unit: Unit::MoreMib,
            limit,
            floor: subject.growth_floor(except),
        }),
    };
    let doubt = subject.doubt(about);
    let bounds = [&subject.trials, other].map(|side| lower_bounds(&side.all, about));
    Some(read(ask, doubt, bounds, "no block has a figure of both"))
}

/// Asks of all blocks, and again without those of doubtful trials.
fn read(
    ask: impl Fn(&Except) -> Option<Reading>,
    doubt: Option<Doubt>,
    lower_bounds: [usize; 2],
    nothing: &str,
) -> Matter {
    let Some(whole) = ask(&Except::default()) else {
        return inconclusive(nothing.to_owned());
    };
    let doubtful = doubt.map(|doubt| Doubtful {
        quiet: ask(&doubt.except),
        doubt,
    });
    Matter::Read(Box::new(Evidence {
        whole,
        doubtful,
        lower_bounds,
    }))
}

pub(super) fn inconclusive(why: String) -> Matter {
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
pub(super) fn first_cause(trials: &Trials<'_>) -> Option<String> {
    let mut own = trials
        .failures()
        .filter(|failure| failure.source == Source::Subject);
    own.next()
        .map(|failure| format!("{}, {}", failure.kind, failure.cause))
}

fn absolute(rule: &Absolute, subject: &Subject<'_>, names: Names) -> Option<Matter> {
    let (figure, scale) = match rule.figure {
        AbsoluteFigure::Errors => return Some(errors::matter(rule.limit, subject, names)),
        AbsoluteFigure::RssGrowthMib => (None, 1.0),
        AbsoluteFigure::Rps => (Some(Figure::Rps), 1.0),
        AbsoluteFigure::P50Ms => (Some(Figure::P50), 1e3),
        AbsoluteFigure::P95Ms => (Some(Figure::P95), 1e3),
        AbsoluteFigure::P99Ms => (Some(Figure::P99), 1e3),
        AbsoluteFigure::CpuUsPerRequest => (Some(Figure::Cpu), 1.0),
        AbsoluteFigure::RssPeakMib => (Some(Figure::Rss), 1024.0),
    };
    if let Some(settled) = settled(&subject.trials, None, names) {
        return Some(settled);
    }
    let question = Question {
        unit: Unit::Own(rule.figure),
        limit: rule.limit,
        floor: None,
    };
    let ask = |except: &Except| {
        let blocks = subject.trials.blocks.without(&except.ours);
        let values = match figure {
            Some(figure) => {
                let series = blocks.series();
                series[figure].iter().map(|value| value / scale).collect()
            }
            None => blocks.growth_mib(),
        };
        Sample::Paired(values).read(question)
    };
    let about = figure.map_or(About::Memory, About::of);
    let bounds = [lower_bounds(&subject.trials.all, about), 0];
    Some(read(
        ask,
        subject.own_doubt(about),
        bounds,
        "no block has a figure",
    ))
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
        // At a fixed rate both have the rate that was asked for, and a hair decides.
        _ if figure == Figure::Rps && subject.cell.rate_rps.is_some() => return None,
        (_, None) => {
            return Some(inconclusive(format!(
                "there is no '{}' to judge by",
                cell.path
            )));
        }
        (true, Some(right)) => (subject, right),
        // The left one's cell has it.
        (false, Some(_)) => return None,
    };
    let names = ["the left path", "the right one"];
    if let Some(settled) = settled(&left.trials, Some(&right.trials), names) {
        return Some(settled);
    }
    let ask = |except: &Except| {
        let floors = [left, right].map(|subject| subject.floor(figure, except));
        let [of_left, of_right] =
            [left, right].map(|subject| subject.trials.blocks.without(&except.ours));
        Sample::Paired(of_left.over(&of_right)[figure].clone()).read(Question {
            unit: Unit::Ratio,
            limit: rule.limit,
            floor: floors.into_iter().flatten().reduce(f64::max),
        })
    };
    let [of_left, of_right] = [left, right].map(Subject::own_and_reference);
    let doubt = Doubt::of([&of_left, &of_right], About::of(figure)).map(Doubt::of_shared_blocks);
    let bounds = [left, right].map(|side| lower_bounds(&side.trials.all, About::of(figure)));
    Some(read(ask, doubt, bounds, "no block has a figure of both"))
}
