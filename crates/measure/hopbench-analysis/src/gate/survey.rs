//! Every guardrail in every cell that it applies to: what was measured, or why nothing was.

use super::{
    Verdict,
    doubt::{About, Doubt, Except, may_be_longer},
    errors,
    invariant::Invariant,
    policy::{Absolute, AbsoluteMetric, Change, Guardrail, Policy},
    reading::{Question, Reading, Sample, Unit},
    subject::Subject,
};
use crate::{
    ab::Trials,
    metrics::Metric,
    record::{Cell, Source},
    told::Bound,
};

/// A guardrail in a cell, before its verdict.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) guardrail: String,
    pub(super) cell: Option<Cell>,
    pub(super) partner: Option<Cell>,
    pub(super) matter: Matter,
    /// Says which trials are missing: without them nothing passes. `None` if none are.
    pub(super) missing: Option<String>,
}

#[derive(Debug)]
pub(super) enum Matter {
    /// Metrics, to be decided together with those of all other cells of the guardrail.
    Read(Box<Evidence>),
    /// A verdict that needs no metric.
    Settled(Verdict),
}

/// The metrics that a verdict rests on.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The reading of all blocks.
    pub(super) whole: Reading,
    /// `None` if no trial is doubtful.
    pub(super) doubtful: Option<Doubtful>,
}

/// Doubtful trials, and the reading without their blocks.
#[derive(Debug)]
pub(super) struct Doubtful {
    pub(super) doubt: Doubt,
    /// `None` if no block is left.
    pub(super) quiet: Option<Reading>,
}

/// Names of the side that is judged and of the other one.
pub(super) type Names<'a> = [&'a str; 2];

pub(super) fn cases(policy: &Policy, subjects: &[Subject<'_>], names: Names<'_>) -> Vec<Check> {
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
            // Otherwise a misspelt name would pass for ever.
            let why = "the guardrail matches no cell of the run".to_owned();
            cases.push(case(None, inconclusive(why)));
        }
        let cells: Vec<&Cell> = matching.iter().map(|subject| &subject.cell).collect();
        if !cells.is_empty() {
            for missing in guardrail.filter().unmatched(&cells) {
                let why = format!("{missing} matches none of the guardrail's cells");
                cases.push(case(None, inconclusive(why)));
            }
        }
        // The loop below skips cells that the other side does not have.
        let has_other = |subject: &&Subject<'_>| subject.other.is_some();
        let is_relative = matches!(guardrail, Guardrail::Relative(_));
        if is_relative && !matching.is_empty() && !matching.iter().any(has_other) {
            let why = "there is nothing to compare the guardrail's cells with".to_owned();
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
            let why = "at a fixed rate both paths get the same offered rate, so an invariant \
                       cannot compare their RPS";
            cases.push(case(None, inconclusive(why.to_owned())));
        }
    }
    cases
}

/// Returns whether the cell is of a path that the guardrail judges. An invariant is judged in the
/// cells of its own path, or in those of the other path where its own are missing.
pub(super) fn is_of_paths(guardrail: &Guardrail, cell: &Cell) -> bool {
    match guardrail {
        Guardrail::Invariant(rule) => [&rule.path, &rule.over].contains(&&cell.path),
        Guardrail::Relative(_) | Guardrail::Absolute(_) => true,
    }
}

/// Returns the cell of an invariant's other path. `None` for other guardrails.
fn partner(guardrail: &Guardrail, cell: &Cell) -> Option<Cell> {
    let Guardrail::Invariant(rule) = guardrail else {
        return None;
    };
    let path = match cell.path == rule.path {
        true => rule.over.clone(),
        false => rule.path.clone(),
    };
    Some(Cell {
        path,
        ..cell.clone()
    })
}

fn relative(change: Change, subject: &Subject<'_>, names: Names<'_>) -> Option<Matter> {
    let other = subject.other.as_ref()?;
    if let Some(settled) = settled(&subject.trials, Some(other), names) {
        return Some(settled);
    }
    if subject.is_same_as_other() {
        return Some(Matter::Settled(Verdict::Passed));
    }
    let limit = change.limit();
    let about = match change {
        Change::FallPercent(metric, _) | Change::RisePercent(metric, _) => About::of(metric),
        Change::GrowthRiseMib(_) => About::Memory,
    };
    let ask = |except: &Except| match change {
        Change::FallPercent(metric, _) | Change::RisePercent(metric, _) => {
            subject.change(metric, except).read(Question {
                unit: Unit::Change,
                limit,
                noise_floor: subject.noise_floor(metric, except),
            })
        }
        Change::GrowthRiseMib(_) => subject.growth(except).read(Question {
            unit: Unit::MoreMib,
            limit,
            noise_floor: subject.growth_noise_floor(except),
        }),
    };
    let doubt = subject.doubt(about);
    // Doubtful blocks are judged apart from the others.
    if about == About::Rps
        && doubt.is_none()
        && let Some(why) = subject.change(Metric::Rps, &Except::default()).groups()
    {
        return Some(inconclusive(why));
    }
    Some(read(
        ask,
        doubt,
        subject.bound(about),
        "no block has the metric on both sides",
    ))
}

/// Reads the metric in all blocks, and again without the blocks of doubtful trials.
fn read(
    ask: impl Fn(&Except) -> Option<Reading>,
    doubt: Option<Doubt>,
    bound: Bound,
    nothing: &str,
) -> Matter {
    let ask = |except: &Except| ask(except).map(|reading| Reading { bound, ..reading });
    let Some(whole) = ask(&Except::default()) else {
        return inconclusive(nothing.to_owned());
    };
    let doubtful = doubt.map(|doubt| Doubtful {
        quiet: ask(&doubt.except),
        doubt,
    });
    Matter::Read(Box::new(Evidence { whole, doubtful }))
}

pub(super) fn inconclusive(why: String) -> Matter {
    Matter::Settled(Verdict::Inconclusive { why })
}

/// Returns the verdict on a cell if one of its sides has no metrics.
fn settled(ours: &Trials<'_>, others: Option<&Trials<'_>>, names: Names<'_>) -> Option<Matter> {
    let [our, their] = names;
    let no_others = others.is_some_and(|others| others.measured() == 0);
    match (ours.all.len(), ours.measured()) {
        (0, _) => Some(inconclusive(match others {
            Some(others) if others.all.is_empty() => "not measured".to_owned(),
            _ => format!("{our} was not measured"),
        })),
        (_, 0) if no_others => Some(inconclusive(format!(
            "{our} failed in every trial, and {their} has no metrics either"
        ))),
        (trials, 0) => Some(match first_cause(ours) {
            Some(cause) => Matter::Settled(Verdict::Regressed {
                why: format!("{our} failed in all {trials} trials: {cause}"),
            }),
            None => inconclusive(format!(
                "{our} has no metrics: all {trials} trials failed for reasons outside it"
            )),
        }),
        _ if no_others => Some(inconclusive(format!("{their} has no metrics"))),
        _ => None,
    }
}

/// Describes the first failure that is the fault of the path.
pub(super) fn first_cause(trials: &Trials<'_>) -> Option<String> {
    let mut own = trials
        .failures()
        .filter(|failure| failure.source == Source::Subject);
    own.next()
        .map(|failure| format!("{}, {}", failure.kind, failure.cause))
}

fn absolute(rule: &Absolute, subject: &Subject<'_>, names: Names<'_>) -> Option<Matter> {
    let (metric, scale) = match rule.metric {
        AbsoluteMetric::Errors => return Some(errors::matter(rule.limit, subject, names)),
        AbsoluteMetric::RssGrowthMib => (None, 1.0),
        AbsoluteMetric::Rps => (Some(Metric::Rps), 1.0),
        AbsoluteMetric::P50Ms => (Some(Metric::P50), 1e3),
        AbsoluteMetric::P95Ms => (Some(Metric::P95), 1e3),
        AbsoluteMetric::P99Ms => (Some(Metric::P99), 1e3),
        AbsoluteMetric::CpuUsPerRequest => (Some(Metric::Cpu), 1.0),
        AbsoluteMetric::RssPeakMib => (Some(Metric::Rss), 1024.0),
    };
    if let Some(settled) = settled(&subject.trials, None, names) {
        return Some(settled);
    }
    let question = Question {
        unit: Unit::Own(rule.metric),
        limit: rule.limit,
        noise_floor: None,
    };
    let ask = |except: &Except| {
        let blocks = subject.trials.blocks.without(&except.ours);
        let values = match metric {
            Some(metric) => {
                let series = blocks.series();
                series[metric].iter().map(|value| value / scale).collect()
            }
            None => blocks.growth_mib(),
        };
        Sample::Paired(values).read(question)
    };
    let about = metric.map_or(About::Memory, About::of);
    let bound = Bound::of_ratio(may_be_longer(&subject.trials.all, about), false);
    Some(read(
        ask,
        subject.own_doubt(about),
        bound,
        "no block has the metric",
    ))
}

fn invariant(
    rule: &Invariant,
    subject: &Subject<'_>,
    cell: &Cell,
    subjects: &[Subject<'_>],
) -> Option<Matter> {
    let metric = rule.metric;
    let is_left = subject.cell.path == rule.path;
    let other = subjects.iter().find(|other| other.cell == *cell);
    let (left, right) = match (is_left, other) {
        // At a fixed rate both paths have the rate that was asked for, so chance would decide.
        _ if metric == Metric::Rps && subject.cell.rate_rps.is_some() => return None,
        (_, None) => {
            return Some(inconclusive(format!(
                "there is no matching cell of path '{}' to compare with",
                cell.path
            )));
        }
        (true, Some(right)) => (subject, right),
        // It is judged in the left path's cell.
        (false, Some(_)) => return None,
    };
    let names = [rule.path.as_str(), rule.over.as_str()];
    if let Some(settled) = settled(&left.trials, Some(&right.trials), names) {
        return Some(settled);
    }
    let ask = |except: &Except| {
        let floors = [left, right].map(|subject| subject.noise_floor(metric, except));
        let [of_left, of_right] =
            [left, right].map(|subject| subject.trials.blocks.without(&except.ours));
        Sample::Paired(of_left.over(&of_right)[metric].clone()).read(Question {
            unit: Unit::Ratio,
            limit: rule.limit,
            noise_floor: floors.into_iter().flatten().reduce(f64::max),
        })
    };
    let [of_left, of_right] = [left, right].map(Subject::own_and_reference);
    let doubt = Doubt::of([&of_left, &of_right], About::of(metric)).map(Doubt::of_shared_blocks);
    let [above, below] =
        [left, right].map(|side| may_be_longer(&side.trials.all, About::of(metric)));
    Some(read(
        ask,
        doubt,
        Bound::of_ratio(above, below),
        "no block has the metric on both sides",
    ))
}
