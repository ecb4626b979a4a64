//! The gate: judges a run by the guardrails of a policy, with a verdict per guardrail and cell.
//!
//! A verdict says on which side of its limit a confidence interval lies. *Passed*: the whole
//! interval is on the good side. *Regressed*: the whole interval is beyond the limit, the metric is
//! beyond the noise floor (the A/A control), and its p is small enough among all cells of the
//! guardrail. The p are the exact ones of Wilcoxon's tests; the procedure of Benjamini and Hochberg
//! (1995, *Controlling the false discovery rate: a practical and powerful approach to multiple
//! testing*) keeps the share of false alarms within [`FALSE_ALARMS`]. *Inconclusive*: everything
//! else, with the reason.
//!
//! A real regression comes back. [`GateResult::suspects`] returns the cells to measure again, and
//! [`confirm`] keeps what the repeat confirms. The repeat has fewer cells, so it needs fewer
//! blocks, and every regression that stands after it was found in fresh trials.

mod decide;
mod doubt;
mod errors;
pub mod filter;
pub mod invariant;
mod needs;
pub mod policy;
pub mod reading;
mod subject;
mod survey;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

#[cfg(any(test, fuzzing))]
pub(crate) use self::policy::usual_policy;

pub use self::{
    decide::{FALSE_ALARMS, confirm},
    needs::{BlocksNeeded, blocks_needed},
    policy::{Policy, PolicyFile},
    reading::{Reading, Unit},
};
use crate::{
    ab::AbComparison,
    compare::{Comparison, Incomparable, Side},
    record::{Cell, Manifest, PlannedTrial, Trial},
    summary::{HistogramError, Summary},
};

/// The records of a run, finished or not.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Conditions and settings of the run.
    pub manifest: &'a Manifest,
    /// Trials that were made so far.
    pub trials: &'a [Trial],
    /// All trials of the plan, made or not.
    pub planned: &'a [PlannedTrial],
}

/// The verdicts of a policy on a run.
#[derive(Clone, Debug)]
pub struct GateResult {
    /// Name of the policy.
    pub policy: String,
    /// Question that the policy answers.
    pub question: String,
    /// A phrase that says what was judged against what.
    pub compared: String,
    /// Findings in the order of the policy, then of the cells in a report.
    pub findings: Vec<Finding>,
    /// Remarks on the whole run, such as missing trials or too few blocks.
    pub notes: Vec<String>,
}

/// The verdict of one guardrail in one cell.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The guardrail as text, such as `RPS falls by at most 15 %`.
    pub guardrail: String,
    /// The cell. `None` if the finding is about the guardrail as a whole, such as one that applies
    /// to no cell of the run.
    pub cell: Option<Cell>,
    /// The cell of an invariant's other path. `None` for other guardrails.
    pub partner: Option<Cell>,
    /// Passed, regressed or inconclusive.
    pub verdict: Verdict,
    /// The metric with its interval. `None` if the verdict rests on none, as for errors and for
    /// cells that were not measured.
    pub reading: Option<Reading>,
    /// A remark on doubtful trials or on a repeat.
    pub note: Option<String>,
}

/// The outcome of a guardrail in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The guardrail holds.
    Passed,
    /// The limit is broken by more than noise explains.
    Regressed {
        /// The reason, for a reader.
        why: String,
    },
    /// Neither passed nor regressed.
    Inconclusive {
        /// The reason, for a reader.
        why: String,
    },
}

/// The kind of a verdict: of one finding, or of all findings together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overall {
    /// Nothing regressed, and nothing is inconclusive.
    Passed,
    /// Something regressed.
    Regressed,
    /// Nothing regressed, but something could not be decided.
    Inconclusive,
}

/// Numbers of changes for the worse and for the better, over all relative guardrails. If nothing
/// really changed, the two are about equal. If all changes are on one side, the cause may be the
/// measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// Changes for the worse.
    pub worse: usize,
    /// Changes for the better.
    pub better: usize,
    /// Changes for the worse that are told apart from no change.
    pub worse_apart: usize,
    /// Changes for the better that are told apart from no change.
    pub better_apart: usize,
}

/// The reasons why a run cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Unjudged {
    /// The two runs were made under different conditions.
    #[error(transparent)]
    Incomparable(#[from] Incomparable),
    /// A latency histogram of the records cannot be read.
    #[error(transparent)]
    Histogram(#[from] HistogramError),
    /// The policy has relative guardrails, but there is no second side.
    #[error(
        "policy '{policy}' has relative guardrails, but the run has only one side: expected a run \
         of two builds ('hopbench ab'), or another run to compare it with (--base RUN)"
    )]
    OneSide {
        /// Name of the policy.
        policy: String,
    },
    /// There is a base although one of the runs has two builds already.
    #[error(
        "a run of two builds already has both sides: expected no base, or two runs of one build \
         each; leave --base out"
    )]
    ThreeSides,
}

/// Judges a run by a policy. A run of two builds is judged B against A, any other run against
/// `base`, or by itself if there is no base.
///
/// # Errors
/// Fails if the policy needs a second side and there is none, if there is one side too many, if the
/// two runs are not comparable, or if a histogram cannot be read.
pub fn judge(policy: &Policy, run: Run<'_>, base: Option<Run<'_>>) -> Result<GateResult, Unjudged> {
    let of_builds = |run: Run<'_>| !run.manifest.builds.is_empty();
    let mut notes = Vec::new();
    let (subjects, names, compared) = match (AbComparison::of(run.manifest, run.trials), base) {
        (Some(_), Some(_)) => return Err(Unjudged::ThreeSides),
        (None, Some(base)) if of_builds(base) => return Err(Unjudged::ThreeSides),
        (Some(comparison), None) => {
            let compared = comparison.builds();
            (subject::of_builds(run, comparison), ["b", "a"], compared)
        }
        (None, Some(base)) => {
            let [before, after] = [base, run].map(|run| Summary::new(run.manifest, run.trials));
            let (before, after) = (before?, after?);
            let side = |summary, trials| Side { summary, trials };
            let sides = (side(&before, base.trials), side(&after, run.trials));
            // This only refuses runs that are not comparable.
            Comparison::new(sides.0, sides.1)?;
            let compared = format!(
                "head (run of {}) against base (run of {})",
                run.manifest.started, base.manifest.started
            );
            if subject::is_same(base, run) {
                notes.push("the run and its base have the same records".to_owned());
            }
            let subjects = subject::of_runs(base, run);
            (subjects, ["head", "base"], compared)
        }
        (None, None) if policy.is_relative() => {
            let policy = policy.name.clone();
            return Err(Unjudged::OneSide { policy });
        }
        (None, None) => {
            let compared = format!("the run of {} by itself", run.manifest.started);
            (subject::alone(run), ["it", "the other"], compared)
        }
    };
    for (name, run) in [("run", Some(run)), ("base run", base)] {
        let Some(Run {
            trials, planned, ..
        }) = run
        else {
            continue;
        };
        if trials.len() < planned.len() {
            notes.push(format!(
                "the {name} is not complete: {} of {} trials were made",
                trials.len(),
                planned.len()
            ));
        }
    }
    notes.extend(errors::not_asked_for(policy, &subjects));
    let findings = decide::findings(survey::cases(policy, &subjects, names));
    notes.extend(needs::shortfalls(&findings));
    Ok(GateResult {
        policy: policy.name.clone(),
        question: policy.question.clone(),
        compared,
        findings,
        notes,
    })
}

impl GateResult {
    /// Returns regressed if any finding is, inconclusive if any other is or if there are none, and
    /// passed otherwise.
    pub fn overall(&self) -> Overall {
        let is = |overall| self.count(overall) > 0;
        match (is(Overall::Regressed), is(Overall::Inconclusive)) {
            (true, _) => Overall::Regressed,
            (_, true) => Overall::Inconclusive,
            _ if self.findings.is_empty() => Overall::Inconclusive,
            _ => Overall::Passed,
        }
    }

    /// Counts the findings with this kind of verdict.
    pub fn count(&self, overall: Overall) -> usize {
        let findings = self.findings.iter();
        findings.filter(|it| it.verdict.kind() == overall).count()
    }

    /// Returns the cells to measure again, without a build: those of suspect findings, and the
    /// cells that an invariant compares them with.
    pub fn suspects(&self) -> Vec<Cell> {
        let suspects = self.findings.iter().filter(|finding| finding.is_suspect());
        let cells: BTreeSet<&Cell> = suspects
            .flat_map(|it| [&it.cell, &it.partner])
            .flatten()
            .collect();
        cells.into_iter().cloned().collect()
    }

    /// Returns the findings of dead gates: their limit is smaller than the noise floor of the cell.
    pub fn dead_gates(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.reading.is_some_and(|reading| reading.is_dead()))
    }

    /// Counts the changes for the worse and for the better.
    pub fn sides(&self) -> Sides {
        let mut sides = Sides::default();
        let readings = self.findings.iter().filter_map(|it| it.reading);
        for (is_worse, is_apart) in readings.filter_map(|reading| reading.direction()) {
            let (count, apart) = match is_worse {
                true => (&mut sides.worse, &mut sides.worse_apart),
                false => (&mut sides.better, &mut sides.better_apart),
            };
            *count += 1;
            *apart += usize::from(is_apart);
        }
        sides
    }
}

impl Finding {
    /// Returns whether the cell is worth measuring again: it regressed, or only its p was too
    /// large.
    pub fn is_suspect(&self) -> bool {
        self.is_regressed() || self.reading.is_some_and(|reading| reading.is_alarming())
    }

    /// Returns whether the verdict is a regression.
    pub fn is_regressed(&self) -> bool {
        self.verdict.kind() == Overall::Regressed
    }
}

impl Verdict {
    /// Returns the kind of the verdict, without its reason.
    pub fn kind(&self) -> Overall {
        match self {
            Self::Passed => Overall::Passed,
            Self::Regressed { .. } => Overall::Regressed,
            Self::Inconclusive { .. } => Overall::Inconclusive,
        }
    }

    /// Returns the reason. It is empty if the guardrail passed.
    pub fn why(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Regressed { why } | Self::Inconclusive { why } => why,
        }
    }
}

impl Overall {
    /// Returns the word for reports and JSON, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Regressed => "regressed",
            Self::Inconclusive => "inconclusive",
        }
    }
}
