//! Errors: requests that got no right answer, and trials that failed. They are facts, not
//! estimates.

use super::{
    Verdict,
    doubt::is_late,
    filter::Filter,
    policy::{AbsoluteMetric, Guardrail, Limit, Policy},
    subject::Subject,
    survey::{Matter, Names, first_cause, inconclusive},
};
use crate::{
    ab::Trials,
    record::{Load, Outcome, Source},
    statistics::p_fails_more,
};

/// Where trials failed before, too, more failures are a regression only if their p is at most this.
const P_MAX: f64 = 0.05;

/// Counts over the trials of a cell.
struct Counts {
    trials: usize,
    /// Trials whose failure is the fault of the path.
    failed: usize,
    /// Trials that failed for reasons outside of the path.
    outside: usize,
    /// Trials that did not fail, but in which no request got a right answer.
    silent: usize,
    /// Requests that were sent and got no right answer.
    unanswered: u64,
    /// Requests that were never sent, because the path kept every connection waiting.
    dropped: u64,
    /// Requests that were sent or due.
    due: u64,
    /// Requests that the load generator was too late for. Only trials with too many of them count.
    late: u64,
}

/// Judges the errors of a cell. One failed trial is a regression; where trials failed before, too,
/// it takes clearly more of them.
pub(super) fn matter(limit: Limit, subject: &Subject<'_>, [our, their]: Names<'_>) -> Matter {
    let counts = Counts::of(&subject.trials);
    let before = subject.other.as_ref().map(Counts::of);
    let cause = first_cause(&subject.trials).unwrap_or_default();
    let Counts { trials, failed, .. } = counts;
    let regressed = |why| Matter::Settled(Verdict::Regressed { why });
    if trials == 0 {
        return inconclusive(format!("{our} was not measured"));
    }
    if counts.lost() as f64 > limit.bound() {
        return regressed(counts.lost_facts());
    }
    if failed > 0 {
        return match before.filter(|before| before.failed > 0) {
            None => regressed(format!("{failed} of {trials} trials failed: {cause}")),
            Some(before) => {
                let p = p_fails_more((before.failed, before.trials), (failed, trials));
                let facts = format!(
                    "{failed} of {trials} trials failed ({cause}), against {} of {} in {their}",
                    before.failed, before.trials
                );
                match p <= P_MAX {
                    true => regressed(format!("{facts} (p {p:.2})")),
                    false => inconclusive(facts),
                }
            }
        };
    }
    if counts.outside > 0 {
        return inconclusive(format!(
            "{} of {trials} trials failed for reasons outside the path",
            counts.outside
        ));
    }
    if counts.silent > 0 {
        return inconclusive(format!(
            "in {} of {trials} trials no request was answered, so nothing was measured",
            counts.silent
        ));
    }
    if counts.late > 0 {
        return inconclusive(format!(
            "the load generator was too late to send {} of {} requests, which says nothing about \
             the path",
            counts.late, counts.due
        ));
    }
    Matter::Settled(Verdict::Passed)
}

/// Returns a note if a cell without a guardrail on errors lost requests or had failed trials.
pub(super) fn not_asked_for(policy: &Policy, subjects: &[Subject<'_>]) -> Option<String> {
    let filters = policy.guardrails.iter().filter_map(|guardrail| {
        let is_of_errors = matches!(guardrail, Guardrail::Absolute(absolute)
            if absolute.metric == AbsoluteMetric::Errors);
        is_of_errors.then(|| guardrail.filter())
    });
    let filters: Vec<&Filter> = filters.collect();
    let unasked = subjects.iter().filter(|subject| {
        let mut filters = filters.iter();
        !filters.any(|filter| filter.matches(&subject.cell))
    });
    let mut lost = unasked.filter_map(|subject| {
        let counts = Counts::of(&subject.trials);
        let facts = match (counts.failed, counts.lost()) {
            (0, 0) => return None,
            (0, _) => counts.lost_facts(),
            (failed, _) => format!("{failed} of {} trials failed", counts.trials),
        };
        Some((&subject.cell, facts))
    });
    let (first, facts) = lost.next()?;
    let more = match lost.count() {
        0 => String::new(),
        1 => ", and 1 more cell had errors, too".to_owned(),
        more => format!(", and {more} more cells had errors, too"),
    };
    Some(format!(
        "no guardrail limits errors, but in {first}, {facts}{more}; add one with metric 'errors'"
    ))
}

impl Counts {
    fn of(trials: &Trials<'_>) -> Self {
        let failures = trials.failures().count();
        let own = trials
            .failures()
            .filter(|failure| failure.source == Source::Subject)
            .count();
        let ended = || {
            let ended = trials.all.iter().filter(|it| it.outcome == Outcome::Ok);
            ended.map(|trial| trial.load.as_ref())
        };
        let sum = |count: &dyn Fn(&Load) -> u64| ended().flatten().map(count).sum();
        let late = |load: &Load| load.open_loop.as_ref().map_or(0, |open| open.dropped_late);
        Self {
            trials: trials.all.len(),
            failed: own,
            outside: failures - own,
            silent: ended()
                .filter(|load| load.is_none_or(|load| load.good == 0))
                .count(),
            unanswered: sum(&Load::failed),
            dropped: sum(&Load::dropped_by_path),
            due: sum(&Load::due),
            late: sum(&|load| if is_late(load) { late(load) } else { 0 }),
        }
    }

    fn lost(&self) -> u64 {
        self.unanswered + self.dropped
    }

    fn lost_facts(&self) -> String {
        let Self {
            unanswered,
            dropped,
            due,
            ..
        } = self;
        match (unanswered, dropped) {
            (_, 0) => format!("{unanswered} of {due} requests were not answered correctly"),
            (0, _) => format!(
                "{dropped} of {due} requests were never sent, because no connection was free"
            ),
            _ => format!(
                "{unanswered} of {due} requests were not answered correctly, and {dropped} were \
                 never sent, because no connection was free"
            ),
        }
    }
}
