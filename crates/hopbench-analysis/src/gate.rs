//! Whether what is new is good enough: guardrails of a policy, and a verdict of each in each cell.
//!
//! A verdict is told from which side of its limit an interval lies on. *Regressed* is only what is
//! wholly beyond the limit with whole confidence, farther off than equal things are found to be
//! from one another (the A/A control), and still improbable among so many questions at once: of all
//! that a policy asks, the share of false alarms is held below [`FALSE_ALARMS`] by the procedure of
//! Benjamini and Hochberg (1995, *Controlling the false discovery rate: a practical and powerful
//! approach to multiple testing*) over the exact p of Wilcoxon's tests. *Passed* is what is wholly
//! on the good side. Everything else is *inconclusive*, and says why.
//!
//! An alarm that matters comes back: [`GateResult::suspects`] are the cells to measure again, and
//! [`confirm`] keeps what the repeat says as well. The repeat asks less, so that it needs fewer
//! blocks to be sure, and all that stands then has been told from fresh trials.

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
    ab::Duel,
    compare::{Comparison, Incomparable, Side},
    record::{Cell, Manifest, PlannedTrial, Trial},
    summary::{HistogramError, Summary},
};

/// The records of a run, finished or not.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub manifest: &'a Manifest,
    pub trials: &'a [Trial],
    pub planned: &'a [PlannedTrial],
}

/// What a policy says of a run.
#[derive(Clone, Debug)]
pub struct GateResult {
    pub policy: String,
    pub question: String,
    /// What was judged against what; for a sentence.
    pub compared: String,
    /// In the order of the policy, and then of a report's cells.
    pub findings: Vec<Finding>,
    /// Conditions that make verdicts doubtful.
    pub notes: Vec<String>,
}

/// One guardrail in one cell.
#[derive(Clone, Debug)]
pub struct Finding {
    /// In the words of the policy.
    pub guardrail: String,
    /// `None` if the guardrail is for no cell of the run.
    pub cell: Option<Cell>,
    /// What an invariant judges it by.
    pub partner: Option<Cell>,
    pub verdict: Verdict,
    /// `None` of errors, and of what was not measured.
    pub reading: Option<Reading>,
    /// What else there is to be said: of doubtful trials, or of a repeat.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Passed,
    Regressed { why: String },
    Inconclusive { why: String },
}

/// Of all verdicts together. The worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overall {
    Passed,
    Regressed,
    Inconclusive,
}

/// Changes for the worse and for the better. Where nothing changed they are about as many; if all
/// are on one side, the measuring may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    pub worse: usize,
    pub better: usize,
    /// Of those, told apart from none.
    pub worse_apart: usize,
    pub better_apart: usize,
}

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum Unjudged {
    #[error(transparent)]
    Incomparable(#[from] Incomparable),
    #[error(transparent)]
    Histogram(#[from] HistogramError),
    #[error(
        "policy '{policy}' has relative guardrails, and the run has one side only: expected a run \
         of two builds ('hopbench ab'), or another run to judge it against (--base RUN)"
    )]
    OneSide { policy: String },
    #[error(
        "a run of two builds has both sides: expected no base, or two runs of one build each; \
         leave --base out"
    )]
    ThreeSides,
}

/// Judges a run: of two builds, B against A; with a base, against that; else by itself.
///
/// # Errors
/// If the policy asks for another side and there is none, or if two runs are not comparable.
pub fn judge(policy: &Policy, run: Run<'_>, base: Option<Run<'_>>) -> Result<GateResult, Unjudged> {
    let of_builds = |run: Run<'_>| !run.manifest.builds.is_empty();
    let mut notes = Vec::new();
    let (subjects, names, compared) = match (Duel::of(run.manifest, run.trials), base) {
        (Some(_), Some(_)) => return Err(Unjudged::ThreeSides),
        (None, Some(base)) if of_builds(base) => return Err(Unjudged::ThreeSides),
        (Some(duel), None) => {
            let compared = duel.builds();
            (subject::of_builds(run, duel), ["b", "a"], compared)
        }
        (None, Some(base)) => {
            let [before, after] = [base, run].map(|run| Summary::new(run.manifest, run.trials));
            let (before, after) = (before?, after?);
            let side = |summary, trials| Side { summary, trials };
            let sides = (side(&before, base.trials), side(&after, run.trials));
            // Only for what it refuses.
            Comparison::new(sides.0, sides.1)?;
            let compared = format!(
                "head of {} against base of {}",
                run.manifest.started, base.manifest.started
            );
            if subject::is_same(base, run) {
                notes.push("the run and its base are the same records".to_owned());
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
    for (name, run) in [("", Some(run)), (" of the base", base)] {
        let Some(Run {
            trials, planned, ..
        }) = run
        else {
            continue;
        };
        if trials.len() < planned.len() {
            notes.push(format!(
                "the run{name} is not complete: {} of {} trials",
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
    /// Regressed if anything is; else inconclusive if anything is, or if there is nothing at all.
    pub fn overall(&self) -> Overall {
        let is = |overall| self.count(overall) > 0;
        match (is(Overall::Regressed), is(Overall::Inconclusive)) {
            (true, _) => Overall::Regressed,
            (_, true) => Overall::Inconclusive,
            _ if self.findings.is_empty() => Overall::Inconclusive,
            _ => Overall::Passed,
        }
    }

    pub fn count(&self, overall: Overall) -> usize {
        let findings = self.findings.iter();
        findings.filter(|it| it.verdict.kind() == overall).count()
    }

    /// Cells in which something regressed, or would have if less had been asked, of no build; and
    /// what they are judged by: what to measure again.
    pub fn suspects(&self) -> Vec<Cell> {
        let suspects = self.findings.iter().filter(|finding| finding.is_suspect());
        let cells: BTreeSet<&Cell> = suspects
            .flat_map(|it| [&it.cell, &it.partner])
            .flatten()
            .collect();
        cells.into_iter().cloned().collect()
    }

    /// Guardrails that can't fail where they are, since equal things differ by more.
    pub fn dead_gates(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.reading.is_some_and(|reading| reading.is_dead()))
    }

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
    /// Worth measuring again.
    pub fn is_suspect(&self) -> bool {
        self.is_regressed() || self.reading.is_some_and(|reading| reading.is_alarming())
    }

    pub fn is_regressed(&self) -> bool {
        self.verdict.kind() == Overall::Regressed
    }
}

impl Verdict {
    pub fn kind(&self) -> Overall {
        match self {
            Self::Passed => Overall::Passed,
            Self::Regressed { .. } => Overall::Regressed,
            Self::Inconclusive { .. } => Overall::Inconclusive,
        }
    }

    /// Nothing of what passed.
    pub fn why(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Regressed { why } | Self::Inconclusive { why } => why,
        }
    }
}

impl Overall {
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Regressed => "regressed",
            Self::Inconclusive => "inconclusive",
        }
    }
}
