//! Explains the marks of a report's figures: those that occur, in a sentence each.

use crate::told::MARGIN;

/// Explains the marks in these entries of tables. `None` if there are none.
pub(super) fn explained<'t>(entries: impl Iterator<Item = &'t str>) -> Option<String> {
    let mut found = [false; 6];
    for entry in entries {
        let is = [
            entry.starts_with("= "),
            entry.starts_with("can't tell"),
            entry.starts_with("? "),
            entry.contains("≥ ") || entry.contains("≤ "),
            entry == "n/a",
            entry == "–",
        ];
        for (found, is) in found.iter_mut().zip(is) {
            *found |= is;
        }
    }
    let within = (MARGIN - 1.0) * 100.0;
    let meanings = [
        format!("=: equal, within ±{within:.0} %."),
        "Can't tell: the two may be equal or may differ, by anything within the interval; or equal \
         things differ as much here (the A/A control)."
            .to_owned(),
        "?: too few blocks to tell.".to_owned(),
        "≥, ≤: only a bound, since some requests were not answered.".to_owned(),
        "n/a: too few answers for this percentile.".to_owned(),
        "–: not measured, or nothing to compare with.".to_owned(),
    ];
    // Where some ratios are marked, those without a mark need a word, too.
    let has_marked_ratio = found[..3].contains(&true);
    let unmarked = "A ratio without a mark is a difference beyond the noise.";
    let mut said: Vec<String> = Vec::new();
    said.extend(has_marked_ratio.then(|| unmarked.to_owned()));
    let found = meanings
        .into_iter()
        .zip(found)
        .filter(|(_, is_there)| *is_there);
    said.extend(found.map(|(meaning, _)| meaning));
    (!said.is_empty()).then(|| said.join(" "))
}

/// Explains the marks in tables that are text already.
pub(super) fn explained_in(text: &str) -> Option<String> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    explained(rows.flat_map(|row| row.split('|').map(str::trim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_that_occur_are_explained() {
        let of = |text: &str| explained_in(text).unwrap_or_default();
        assert_eq!(of("| a | 50 % (40 %–60 %) |\n"), "");
        assert_eq!(
            of("| a | = 100 % | n/a |\n"),
            "A ratio without a mark is a difference beyond the noise. =: equal, within ±5 %. n/a: \
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
