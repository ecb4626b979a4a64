//! Explains the marks of a report's figures: those that occur, in a sentence each.

use crate::told::MARGIN;

/// A mark: whether an entry has it, and what it means.
type Mark = (fn(&str) -> bool, &'static str);

/// Marks in the order in which they are explained, behind the one for equal.
const MARKS: [Mark; 6] = [
    (
        |entry| entry.contains(" %"),
        "A ratio without a mark is a difference beyond the noise.",
    ),
    (
        |entry| entry.starts_with("can't tell"),
        "Can't tell: the two may be equal or may differ, by anything within the interval; or equal \
         things differ as much here (the A/A control).",
    ),
    (
        |entry| entry.starts_with("? "),
        "?: too few blocks to tell.",
    ),
    (
        |entry| entry.contains("≥ ") || entry.contains("≤ "),
        "≥, ≤: only a bound, since some requests were not answered.",
    ),
    (
        |entry| entry == "n/a",
        "n/a: too few answers for this percentile.",
    ),
    (
        |entry| entry == "–",
        "–: not measured, or nothing to compare with.",
    ),
];

/// Explains the marks in these entries of tables. `None` if there are none.
pub(super) fn explained<'t>(entries: impl Iterator<Item = &'t str>) -> Option<String> {
    let entries: Vec<&str> = entries.collect();
    let occurs = |is: fn(&str) -> bool| entries.iter().any(|entry| is(entry));
    let within = (MARGIN - 1.0) * 100.0;
    let equal = occurs(|entry| entry.starts_with("= "));
    let equal = equal.then(|| format!("=: equal, within ±{within:.0} %."));
    let others = MARKS.into_iter().filter(|(is, _)| occurs(*is));
    let others = others.map(|(_, meaning)| meaning.to_owned());
    let said: Vec<String> = equal.into_iter().chain(others).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

/// Explains the marks in tables that are text already.
pub(super) fn explained_in(texts: &[&str]) -> Option<String> {
    let lines = texts.iter().flat_map(|text| text.lines());
    let rows = lines.filter(|line| line.starts_with('|'));
    explained(rows.flat_map(|row| row.split('|').map(str::trim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_that_occur_are_explained() {
        let of = |text: &str| explained_in(&[text]).unwrap_or_default();
        assert_eq!(of("| a | 5,000 |\n"), "");
        assert_eq!(
            of("| a | = 100 % | n/a |\n"),
            "=: equal, within ±5 %. A ratio without a mark is a difference beyond the noise. n/a: \
             too few answers for this percentile."
        );
        assert_eq!(
            of("no table: – | ? 5 |\n| a | – |\n"),
            "–: not measured, or nothing to compare with."
        );
        let all = of("| ? 3 % | can't tell: 9 % | ≥ 4 | = 1 | n/a | – |\n");
        for mark in ["=:", "Can't tell:", "?:", "≥, ≤:", "n/a:", "–:"] {
            assert!(all.contains(mark), "'{mark}' is missing: {all}");
        }
    }
}
