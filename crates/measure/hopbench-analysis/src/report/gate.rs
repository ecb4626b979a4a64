//! A gate's verdicts for a terminal, a pull request, CI and programs.

mod annotations;
mod junit;
mod markdown;

use std::fmt::Write;

use serde_json::{Value, json};

pub use self::{annotations::annotations, junit::junit, markdown::markdown};
use super::{
    sheet::{Medium, Table},
    text::plural,
};
use crate::gate::{Finding, GateResult, Overall, Reading, Sides};

/// Fewest changes for which the number of those for the worse says anything.
const SIDES_MIN: usize = 10;

/// Returns the verdict, and the findings that did not pass, for a terminal.
pub fn terminal(result: &GateResult) -> String {
    let mut out = format!("{}\n{}\n", result.question, result.compared);
    for note in &result.notes {
        writeln!(out, "{note}").expect("a string grows");
    }
    for kind in [Overall::Regressed, Overall::Inconclusive] {
        let findings: Vec<&Finding> = of_kind(result, kind).collect();
        if !findings.is_empty() {
            let table = table(&findings).text(Medium::Terminal);
            write!(out, "\n{}\n\n{table}", kind.name()).expect("a string grows");
        }
    }
    let (nearest, more) = nearest_to_limit(result);
    if !nearest.is_empty() {
        let table = table(&nearest).text(Medium::Terminal);
        write!(out, "\npassed\n\n{table}").expect("a string grows");
        if more > 0 {
            writeln!(out, "and {more} more, further from their limits").expect("a string grows");
        }
    }
    if result.dead_gates().next().is_some() {
        let dead = dead(result).text(Medium::Terminal);
        write!(out, "\ndead gates\n\n{dead}").expect("a string grows");
    }
    if let Some(doubts) = doubts_of_passed(result) {
        write!(out, "\n{doubts}\n").expect("a string grows");
    }
    let sides = sides(&result.sides());
    write!(out, "\n{sides}{}", verdict(result)).expect("a string grows");
    out + "\n"
}

/// Returns one line: the overall verdict, and how many findings have each verdict.
pub fn verdict(result: &GateResult) -> String {
    let [regressed, inconclusive, passed] =
        [Overall::Regressed, Overall::Inconclusive, Overall::Passed].map(|kind| result.count(kind));
    let dead = match result.dead_gates().count() {
        0 => String::new(),
        dead => format!(
            "; {}: the noise floor is larger than the limit",
            plural(dead, "dead gate")
        ),
    };
    format!(
        "gate '{}': {}: {regressed} regressed, {inconclusive} inconclusive, {passed} passed{dead}",
        result.policy,
        result.overall().name()
    )
}

/// Most findings that passed and are shown.
const PASSED_MAX: usize = 10;

/// Returns the findings that passed with a reading and are nearest to their limits, and the number
/// of the others.
fn nearest_to_limit(result: &GateResult) -> (Vec<&Finding>, usize) {
    let mut passed: Vec<(&Finding, f64)> = of_kind(result, Overall::Passed)
        .filter_map(|finding| {
            let reading = finding.reading.as_ref()?;
            let distance = (reading.value / reading.limit.bound()).ln().abs();
            Some((finding, distance))
        })
        .collect();
    passed.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    let more = passed.len().saturating_sub(PASSED_MAX);
    let nearest = passed.iter().take(PASSED_MAX);
    (nearest.map(|(finding, _)| *finding).collect(), more)
}

/// Says how many verdicts passed although trials are doubtful, and of which. `None` of none.
fn doubts_of_passed(result: &GateResult) -> Option<String> {
    let mut passed = of_kind(result, Overall::Passed).filter_map(|finding| {
        let note = finding.note.as_deref()?;
        Some((finding, note))
    });
    let (first, note) = passed.next()?;
    let count = passed.count() + 1;
    Some(format!(
        "{} passed with a note, such as '{}' in {}: {note}",
        plural(count, "verdict"),
        first.guardrail,
        cell(first)
    ))
}

/// Returns the result as JSON; missing metrics are null.
pub fn json(result: &GateResult) -> Value {
    let sides = result.sides();
    json!({
        "policy": result.policy,
        "question": result.question,
        "compared": result.compared,
        "verdict": result.overall().name(),
        "regressed": result.count(Overall::Regressed),
        "inconclusive": result.count(Overall::Inconclusive),
        "passed": result.count(Overall::Passed),
        "notes": result.notes,
        "changes": {
            "worse": sides.worse, "better": sides.better,
            "worse_told_apart": sides.worse_apart, "better_told_apart": sides.better_apart,
        },
        "findings": result.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    let reading = finding.reading.map(|reading| {
        json!({
            "value": reading.value, "low": reading.low, "high": reading.high,
            "confidence": reading.confidence, "blocks": reading.blocks,
            "limit": reading.limit.bound(), "p_beyond_limit": reading.p,
            "noise_floor": reading.noise_floor, "dead_gate": reading.is_dead(),
            "bound": super::text::bound(reading.bound).trim_end(),
        })
    });
    json!({
        "guardrail": finding.guardrail,
        "cell": finding.cell,
        "verdict": finding.verdict.kind().name(),
        "why": finding.verdict.why(),
        "note": finding.note,
        "reading": reading,
    })
}

fn of_kind(result: &GateResult, kind: Overall) -> impl Iterator<Item = &Finding> {
    let findings = result.findings.iter();
    findings.filter(move |finding| finding.verdict.kind() == kind)
}

fn table(findings: &[&Finding]) -> Table {
    let columns = ["guardrail", "cell", "found", "noise floor", "why"];
    let mut sheet = Table::new(2, columns).with_notes(1);
    for finding in findings {
        let noise_floor = finding
            .reading
            .and_then(|reading| reading.noise_floor_text());
        sheet.push(vec![
            finding.guardrail.clone().into(),
            cell(finding).into(),
            found(finding).into(),
            noise_floor.unwrap_or_else(|| "–".to_owned()).into(),
            why(finding).into(),
        ]);
    }
    sheet
}

/// Returns a table of dead gates with their noise floors.
fn dead(result: &GateResult) -> Table {
    let mut sheet = Table::new(2, ["guardrail", "cell", "noise floor"]);
    for finding in result.dead_gates() {
        let noise_floor = finding
            .reading
            .and_then(|reading| reading.noise_floor_text());
        sheet.push(vec![
            finding.guardrail.clone().into(),
            cell(finding).into(),
            noise_floor.unwrap_or_default().into(),
        ]);
    }
    sheet
}

/// Says how many changes are for the worse and for the better. Empty if there are too few.
fn sides(sides: &Sides) -> String {
    let Sides {
        worse,
        better,
        worse_apart,
        better_apart,
    } = *sides;
    if worse + better < SIDES_MIN {
        return String::new();
    }
    let mut out = format!(
        "Of {} changes, {worse} are for the worse ({worse_apart} of them beyond noise) and \
         {better} for the better ({better_apart} beyond noise).",
        worse + better
    );
    if worse_apart >= SIDES_MIN && better_apart == 0 {
        out += " All on one side: the measurement itself may differ between the two sides.";
    }
    out + "\n"
}

fn cell(finding: &Finding) -> String {
    match &finding.cell {
        Some(cell) => cell.full_name(),
        None => "none".to_owned(),
    }
}

fn found(finding: &Finding) -> String {
    match &finding.reading {
        Some(reading) => Reading::to_string(reading),
        None => "–".to_owned(),
    }
}

/// Returns the reason of a verdict, with its note.
fn why(finding: &Finding) -> String {
    let why = finding.verdict.why();
    match (&finding.note, why) {
        (Some(note), "") => note.clone(),
        (Some(note), why) => format!("{why}; {note}"),
        (None, why) => why.to_owned(),
    }
}

/// Returns a finding as one sentence.
fn sentence(finding: &Finding) -> String {
    let mut out = format!("{}: {}: ", cell(finding), finding.guardrail);
    if let Some(reading) = &finding.reading {
        write!(out, "{reading}").expect("a string grows");
        if let Some(noise_floor) = reading.noise_floor_text() {
            write!(out, ", noise floor {noise_floor}").expect("a string grows");
        }
        write!(out, ", {} blocks", reading.blocks).expect("a string grows");
        if !why(finding).is_empty() {
            out += "; ";
        }
    }
    out + &why(finding)
}
