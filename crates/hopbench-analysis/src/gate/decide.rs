//! Verdicts, all at once: how probable an alarm must be depends on how many there could be.

use std::collections::BTreeMap;

use super::{
    Finding, GateResult, Overall, Verdict,
    policy::Limit,
    reading::{Position, Reading},
    survey::{Check, Doubtful, Evidence, Matter},
};
use crate::estimate::{BLOCKS_MAX, CONFIDENCE, p_min};

/// Of all regressions that a guardrail tells, at most this share is expected to be none.
pub const FALSE_ALARMS: f64 = 0.05;

/// Doubtful blocks that make a noise floor so many times as large are named.
const FLOOR_FACTOR: f64 = 2.0;

/// What is improbable enough among all that a guardrail asks.
struct Alarms {
    questions: usize,
    /// How many are.
    count: usize,
    /// The largest p of those.
    p_max: f64,
}

/// The readings of a guardrail's cells stand together: each guardrail is a question of its own, and
/// many cells of one don't make another harder to fail.
pub(super) fn findings(cases: Vec<Check>) -> Vec<Finding> {
    let alarms = |reading: &dyn Fn(&Evidence) -> Reading| {
        let mut p: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for case in &cases {
            if let Matter::Read(evidence) = &case.matter {
                let of_guardrail = p.entry(case.guardrail.clone()).or_default();
                of_guardrail.push(reading(evidence).p);
            }
        }
        let alarms = p
            .into_iter()
            .map(|(guardrail, p)| (guardrail, Alarms::among(p)));
        alarms.collect::<BTreeMap<String, Alarms>>()
    };
    let whole = alarms(&|evidence| evidence.whole);
    let quiet = alarms(&|evidence| evidence.quiet().unwrap_or(evidence.whole));
    let finding = |case: Check| {
        let (verdict, note, reading) = match case.matter {
            Matter::Settled(verdict) => (verdict, None, None),
            Matter::Read(evidence) => {
                let alarms = [&whole, &quiet].map(|alarms| &alarms[&case.guardrail]);
                let (verdict, note) = evidence.verdict(alarms);
                (verdict, note, Some(evidence.whole))
            }
        };
        let verdict = match (verdict, case.missing) {
            (Verdict::Passed, Some(why)) => Verdict::Inconclusive { why },
            (verdict, _) => verdict,
        };
        Finding {
            guardrail: case.guardrail,
            cell: case.cell,
            partner: case.partner,
            verdict,
            reading,
            note,
        }
    };
    cases.into_iter().map(finding).collect()
}

impl Evidence {
    /// What is read without the doubtful blocks, if enough others are left.
    fn quiet(&self) -> Option<Reading> {
        let quiet = self.doubtful.as_ref()?.quiet;
        quiet.filter(Reading::has_enough_blocks)
    }

    /// The verdict, and what is to be said of the doubtful trials.
    fn verdict(&self, alarms: [&Alarms; 2]) -> (Verdict, Option<String>) {
        let (verdict, note) = self.verdict_by_blocks(alarms);
        // Where the true percentile is longer than the measured one, a limit that is kept may not
        // be; and one that is broken is not, if what it is measured by is longer.
        let [ours, theirs] = self.lower_bounds;
        let (is_ours, trials) = match (self.whole.limit, verdict.kind()) {
            (Limit::AtMost(_), Overall::Passed) | (Limit::AtLeast(_), Overall::Regressed) => {
                (true, ours)
            }
            (Limit::AtMost(_), Overall::Regressed) | (Limit::AtLeast(_), Overall::Passed) => {
                (false, theirs)
            }
            (_, Overall::Inconclusive) => return (verdict, note),
        };
        if trials == 0 {
            return (verdict, note);
        }
        let side = if is_ours { "this" } else { "the other" };
        let why = format!(
            "in {trials} trial(s) of {side} side the percentile lies among requests without an \
             answer, so that the true one is longer; with what was measured it is {} ({})",
            self.whole,
            verdict.kind().name()
        );
        (Verdict::Inconclusive { why }, note)
    }

    fn verdict_by_blocks(&self, [whole, quiet]: [&Alarms; 2]) -> (Verdict, Option<String>) {
        let of_all = whole.verdict(&self.whole);
        let Some(doubtful) = &self.doubtful else {
            return (of_all, None);
        };
        let facts = doubtful.doubt.facts();
        let Some(reading) = self.quiet() else {
            return self.without_others(of_all, doubtful, facts);
        };
        let without = quiet.verdict(&reading);
        let both = format!(
            "{facts}; {} ({}) with their blocks, {} ({}) without them",
            self.whole,
            of_all.kind().name(),
            reading,
            without.kind().name()
        );
        let is_same = match (of_all.kind(), without.kind()) {
            (Overall::Inconclusive, Overall::Inconclusive) => return (of_all, Some(both)),
            // Fewer blocks have a wider interval. What they say all the same must not be another
            // thing.
            (one, Overall::Inconclusive) => one == reading.side(),
            (one, other) => one == other,
        };
        match is_same {
            true => (of_all, self.changed_floor(&reading, &facts)),
            false => {
                let why = format!("the doubtful blocks decide: {both}");
                (Verdict::Inconclusive { why }, None)
            }
        }
    }

    /// Too few blocks are left without the doubtful ones.
    fn without_others(
        &self,
        of_all: Verdict,
        Doubtful { doubt, .. }: &Doubtful,
        facts: String,
    ) -> (Verdict, Option<String>) {
        let decides = of_all.kind() != Overall::Inconclusive;
        // A slower path answers less, which is not the reason that its percentile is longer.
        let is_longer = matches!(self.whole.limit, Limit::AtMost(_))
            && of_all.kind() == Overall::Regressed
            && doubt.is_of_our_short_tails;
        if is_longer {
            return (of_all, Some(facts));
        }
        let is_one_sided = doubt.is_one_sided() || self.whole.is_of_one_side();
        if decides && (doubt.is_of_measuring || is_one_sided) {
            let why = format!(
                "{facts}, and too few blocks are without; with them it is {} ({})",
                self.whole,
                of_all.kind().name()
            );
            return (Verdict::Inconclusive { why }, None);
        }
        // Both sides had the same: that is what the machine is like.
        (of_all, Some(facts))
    }

    /// Says if the doubtful blocks are what makes equal things differ.
    fn changed_floor(&self, quiet: &Reading, facts: &str) -> Option<String> {
        let [floor, quiet_floor] = [&self.whole, quiet].map(Reading::floor_text);
        let changes = self.whole.is_dead() != quiet.is_dead()
            || self.whole.floor_excess() > FLOOR_FACTOR * quiet.floor_excess();
        Some(match (floor, quiet_floor) {
            (Some(floor), Some(quiet_floor)) if changes => format!(
                "{facts}; equal things differ by up to {floor} with their blocks, {quiet_floor} \
                 without them"
            ),
            _ => format!("{facts}; without their blocks the verdict is the same"),
        })
    }
}

impl Alarms {
    /// Benjamini and Hochberg's procedure: of m sorted p the largest k with `p ≤ k / m × q`.
    fn among(mut p: Vec<f64>) -> Self {
        p.sort_by(f64::total_cmp);
        let questions = p.len();
        let is_enough = |count: usize| p[count - 1] <= allowed(count, questions);
        let count = (1..=questions).rev().find(|count| is_enough(*count));
        let count = count.unwrap_or(0);
        Self {
            questions,
            count,
            p_max: count.checked_sub(1).map_or(0.0, |last| p[last]),
        }
    }

    fn verdict(&self, reading: &Reading) -> Verdict {
        let inconclusive = |why: String| Verdict::Inconclusive { why };
        let floor = reading.floor_text().unwrap_or_default();
        if !reading.has_enough_blocks() {
            return inconclusive(format!(
                "{} block(s) are too few for an interval of {:.0} %: {} are needed",
                reading.blocks,
                CONFIDENCE * 100.0,
                reading.blocks_needed
            ));
        }
        match reading.position() {
            Position::Within => Verdict::Passed,
            Position::Across if reading.is_dead() => inconclusive(format!(
                "dead gate: equal things differ by up to {floor} here, more than the limit"
            )),
            Position::Across => inconclusive("the limit is within the interval".to_owned()),
            Position::Beyond if !reading.is_above_floor() => inconclusive(format!(
                "beyond the limit, but equal things differ as much here (up to {floor})"
            )),
            // Anything up to the floor may be noise, so that it takes more than the limit to fail.
            Position::Beyond if reading.is_dead() && !reading.is_wholly_above_floor() => {
                inconclusive(format!(
                    "dead gate: beyond the limit, but within what equal things differ by here (up \
                     to {floor})"
                ))
            }
            Position::Beyond if reading.p > self.p_max => inconclusive(self.improbable(reading)),
            Position::Beyond => Verdict::Regressed {
                why: "the whole interval is beyond the limit".to_owned(),
            },
        }
    }

    /// Why an interval beyond the limit is not enough.
    fn improbable(&self, reading: &Reading) -> String {
        let needed = allowed(self.count + 1, self.questions);
        let Self { questions, .. } = self;
        let text = |p| crate::report::text::probability(p, 2);
        let why = format!(
            "beyond the limit, but among {questions} cells its p must be at most {}",
            text(needed)
        );
        if reading.p_min <= needed {
            return format!("{why}, and is {}", text(reading.p));
        }
        let enough = (1..=BLOCKS_MAX).find(|blocks| p_min(*blocks) / 2.0 <= needed);
        let enough = match reading.blocks_needed == crate::estimate::BLOCKS_WHOLE {
            true => enough.map_or_else(String::new, |blocks| format!("; {blocks} blocks can")),
            false => "; measure more".to_owned(),
        };
        format!(
            "{why}, which {} blocks can't reach ({}){enough}",
            reading.blocks,
            text(reading.p_min)
        )
    }
}

fn allowed(count: usize, questions: usize) -> f64 {
    count as f64 / questions as f64 * FALSE_ALARMS
}

/// What is left of `first` after `repeat`, which is of the suspects alone: a regression stands if
/// the repeat says so of the same guardrail in the same cell. What was only suspect, because too
/// much was asked at once, is a regression if the repeat says so; else it stays inconclusive.
pub fn confirm(first: &GateResult, repeat: &GateResult) -> GateResult {
    let mut confirmed = first.clone();
    for finding in &mut confirmed.findings {
        if !finding.is_suspect() {
            continue;
        }
        let mut again = repeat.findings.iter();
        let again =
            again.find(|again| again.guardrail == finding.guardrail && again.cell == finding.cell);
        if !finding.is_regressed() && !again.is_some_and(Finding::is_regressed) {
            continue;
        }
        let first = match &finding.reading {
            Some(reading) => reading.to_string(),
            None => finding.verdict.why().to_owned(),
        };
        let Some(again) = again else {
            finding.verdict = Verdict::Inconclusive {
                why: "the repeat does not confirm it: not measured again".to_owned(),
            };
            continue;
        };
        // What failed once has failed: that it doesn't always do so is not a pass.
        let is_fact = finding.reading.is_none();
        match (again.verdict.kind(), &again.reading) {
            (Overall::Regressed, _) => {
                finding.note = Some(format!("at first {first}; confirmed by the repeat"));
                finding.verdict = again.verdict.clone();
            }
            (Overall::Passed, Some(_)) if !is_fact => {
                finding.note = Some(format!("at first {first}; the repeat passed"));
                finding.verdict = Verdict::Passed;
            }
            _ => {
                let why = match again.verdict.why() {
                    "" => "it passed".to_owned(),
                    why => why.to_owned(),
                };
                finding.note = Some(format!("at first: {first}"));
                finding.verdict = Verdict::Inconclusive {
                    why: format!("the repeat does not confirm it: {why}"),
                };
            }
        }
        finding.reading = again.reading.or(finding.reading);
    }
    confirmed
        .notes
        .extend(repeat.notes.iter().map(|note| format!("repeat: {note}")));
    confirmed
}
