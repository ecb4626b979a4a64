//! Decides the verdicts of all cells of a guardrail together: the more cells there are, the smaller
//! the p that a regression needs.

use std::collections::BTreeMap;

use super::{
    Finding, GateResult, Overall, Verdict,
    policy::Limit,
    reading::{Position, Reading},
    survey::{Check, Doubtful, Evidence, Matter},
};
use crate::{
    estimate::{BLOCKS_MAX, CONFIDENCE, p_min},
    text,
    told::Bound,
};

/// Largest share of false alarms to expect among the regressions of a guardrail: the level q of the
/// procedure of Benjamini and Hochberg.
pub const FALSE_ALARMS: f64 = 0.05;

/// A note names doubtful blocks that raise the noise floor by more than this factor.
const FLOOR_FACTOR: f64 = 2.0;

/// The p of those cells of a guardrail that are improbable enough to be regressions.
struct Alarms {
    /// Number of cells that the guardrail judges.
    questions: usize,
    /// Number of cells whose p is small enough.
    count: usize,
    /// Largest p of those cells; 0 without any.
    p_max: f64,
}

/// Returns a finding for each check. Each guardrail is tested over its own cells, so the many cells
/// of one do not make another harder to fail.
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
    /// Returns the reading without the doubtful blocks, if enough other blocks are left.
    fn quiet(&self) -> Option<Reading> {
        let quiet = self.doubtful.as_ref()?.quiet;
        quiet.filter(Reading::has_enough_blocks)
    }

    /// Returns the verdict, and a note on the doubtful trials.
    fn verdict(&self, alarms: [&Alarms; 2]) -> (Verdict, Option<String>) {
        let (verdict, note) = self.verdict_by_blocks(alarms);
        let may_be_beyond = match (self.whole.limit, self.whole.bound) {
            (_, Bound::Exact) => return (verdict, note),
            (_, Bound::Unknown) => None,
            (Limit::AtMost(_), bound) => Some(bound == Bound::AtLeast),
            (Limit::AtLeast(_), bound) => Some(bound == Bound::AtMost),
        };
        // The true metric lies farther to one side. It can undo only what lies on the other.
        let stands = match verdict.kind() {
            Overall::Passed => may_be_beyond == Some(false),
            Overall::Regressed => may_be_beyond == Some(true),
            Overall::Inconclusive => true,
        };
        if stands {
            return (verdict, note);
        }
        let why = format!(
            "a percentile falls among unanswered requests, so it is only a lower bound; as \
             measured: {} ({})",
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
            "{facts}; with these blocks {} ({}), without them {} ({})",
            self.whole,
            of_all.kind().name(),
            reading,
            without.kind().name()
        );
        let is_same = match (of_all.kind(), without.kind()) {
            (Overall::Inconclusive, Overall::Inconclusive) => return (of_all, Some(both)),
            // Fewer blocks have a wider interval, but their estimate must be on the same side.
            (one, Overall::Inconclusive) => one == reading.side(),
            (one, other) => one == other,
        };
        match is_same {
            true => (of_all, self.changed_noise_floor(&reading, &facts)),
            false => {
                let why = format!("the verdict depends on the doubtful blocks: {both}");
                (Verdict::Inconclusive { why }, None)
            }
        }
    }

    /// Returns the verdict and note if too few blocks are left without the doubtful ones.
    fn without_others(
        &self,
        of_all: Verdict,
        Doubtful { doubt, .. }: &Doubtful,
        facts: String,
    ) -> (Verdict, Option<String>) {
        let decides = of_all.kind() != Overall::Inconclusive;
        // A slower path gives fewer answers, but fewer answers do not make its percentile longer.
        let is_longer = matches!(self.whole.limit, Limit::AtMost(_))
            && of_all.kind() == Overall::Regressed
            && doubt.is_of_our_short_tails;
        if is_longer {
            return (of_all, Some(facts));
        }
        let is_one_sided = doubt.is_one_sided() || self.whole.is_of_one_side();
        if decides && (doubt.is_of_measuring || is_one_sided) {
            let why = format!(
                "{facts}, and too few blocks are left without them; with them {} ({})",
                self.whole,
                of_all.kind().name()
            );
            return (Verdict::Inconclusive { why }, None);
        }
        // The verdict is open anyway, or both sides were disturbed alike: the machine is like that.
        (of_all, Some(facts))
    }

    /// Returns the note for doubtful blocks that do not change the verdict. It says whether they
    /// raise the noise floor.
    fn changed_noise_floor(&self, quiet: &Reading, facts: &str) -> Option<String> {
        let [noise_floor, quiet_noise_floor] = [&self.whole, quiet].map(Reading::noise_floor_text);
        let changes = self.whole.is_dead() != quiet.is_dead()
            || self.whole.noise_floor_excess() > FLOOR_FACTOR * quiet.noise_floor_excess();
        Some(match (noise_floor, quiet_noise_floor) {
            (Some(noise_floor), Some(quiet_noise_floor)) if changes => format!(
                "{facts}; the noise floor is {noise_floor} with these blocks, {quiet_noise_floor} \
                 without them"
            ),
            _ => format!("{facts}; without these blocks the verdict is the same"),
        })
    }
}

impl Alarms {
    /// Applies the procedure of Benjamini and Hochberg: of m sorted p, it keeps the first k, where
    /// k is the largest number for which the k-th p is at most `k / m × q`.
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
        let noise_floor = reading.noise_floor_text().unwrap_or_default();
        if !reading.has_enough_blocks() {
            return inconclusive(format!(
                "{} for a {:.0} % confidence interval; it takes {}",
                text::too_few(reading.blocks, "block"),
                CONFIDENCE * 100.0,
                reading.blocks_needed
            ));
        }
        match reading.position() {
            Position::Within => Verdict::Passed,
            Position::Across if reading.is_dead() => inconclusive(format!(
                "dead gate: the noise floor here ({noise_floor}) is larger than the limit"
            )),
            Position::Across => {
                inconclusive("the limit lies within the confidence interval".to_owned())
            }
            Position::Beyond if !reading.is_above_floor() => inconclusive(format!(
                "beyond the limit, but within the noise floor of this cell ({noise_floor})"
            )),
            // A change up to the noise floor may be noise, so the whole interval must be above it.
            Position::Beyond if reading.is_dead() && !reading.is_wholly_above_floor() => {
                inconclusive(format!(
                    "dead gate: beyond the limit, but the confidence interval reaches into the \
                     noise floor ({noise_floor})"
                ))
            }
            Position::Beyond if reading.p > self.p_max => inconclusive(self.improbable(reading)),
            Position::Beyond => Verdict::Regressed {
                why: "the whole confidence interval is beyond the limit".to_owned(),
            },
        }
    }

    /// Says why an interval beyond the limit is not enough: p is too large for so many cells.
    fn improbable(&self, reading: &Reading) -> String {
        let needed = allowed(self.count + 1, self.questions);
        let Self { questions, .. } = self;
        let text = |p| text::probability(p, 2);
        let why = format!(
            "beyond the limit, but among {questions} cells p must be at most {}",
            text(needed)
        );
        if reading.p_min <= needed {
            return format!("{why}, and it is {}", text(reading.p));
        }
        let enough = (1..=BLOCKS_MAX).find(|blocks| p_min(*blocks) / 2.0 <= needed);
        let takes = match (
            reading.blocks_needed == crate::estimate::BLOCKS_WHOLE,
            enough,
        ) {
            (true, Some(blocks)) => format!(", which takes {blocks} blocks"),
            (true, None) => String::new(),
            (false, _) => ", which takes more blocks".to_owned(),
        };
        format!(
            "{why}{takes}; the smallest p that {} blocks can reach is {}",
            reading.blocks,
            text(reading.p_min)
        )
    }
}

fn allowed(count: usize, questions: usize) -> f64 {
    count as f64 / questions as f64 * FALSE_ALARMS
}

/// Returns `first`, corrected by `repeat`, which measured only the suspect cells. A regression
/// stands if the repeat finds one of the same guardrail in the same cell. A suspect whose p was too
/// large among so many cells becomes a regression if the repeat finds one; otherwise it stays
/// inconclusive.
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
                why: "the repeat does not confirm it: it was not measured again".to_owned(),
            };
            continue;
        };
        // A failure is a fact: a repeat without it is no pass.
        let is_fact = finding.reading.is_none();
        match (again.verdict.kind(), &again.reading) {
            (Overall::Regressed, _) => {
                finding.note = Some(format!("first run: {first}; the repeat confirms it"));
                finding.verdict = again.verdict.clone();
            }
            (Overall::Passed, Some(_)) if !is_fact => {
                finding.note = Some(format!("first run: {first}; the repeat passed"));
                finding.verdict = Verdict::Passed;
            }
            _ => {
                let why = match again.verdict.why() {
                    "" => "this time it passed".to_owned(),
                    why => why.to_owned(),
                };
                finding.note = Some(format!("first run: {first}"));
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
