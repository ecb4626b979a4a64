//! Says in which paths, endpoints, loads and scenarios two runs differ that have no cell in common.

use std::{collections::BTreeSet, fmt};

use super::{Difference, DifferenceKind, Incomparable};
use crate::{record::Cell, summary::CellSummary};

/// A set of things that a cell names: the name of the set, its kind, and how a cell names one.
type Set = (&'static str, DifferenceKind, fn(&Cell) -> String);

const SETS: [Set; 4] = [
    ("scenarios", DifferenceKind::Alone, |cell| {
        cell.scenario.clone()
    }),
    ("paths", DifferenceKind::Paths, Cell::path_and_build),
    ("endpoints", DifferenceKind::Alone, |cell| {
        format!("{}{}", cell.endpoint, cell.setting())
    }),
    ("loads", DifferenceKind::Alone, |cell| {
        format!("c={}", cell.load())
    }),
];

/// Number of names that are shown of each side.
const SHOWN: usize = 5;

/// Finds the sets in which two runs differ. If they differ in none, or if one of the runs has no
/// cell, the cells are the difference.
pub(super) fn differences(sides: [&[&CellSummary<'_>]; 2]) -> Vec<Difference> {
    let difference = |(key, kind, of): Set| {
        let names = sides.map(|rows| -> BTreeSet<String> {
            let names = rows.iter().map(|row| of(&row.cell));
            names.collect()
        });
        let [base, head] = &names;
        (base != head).then(|| Difference {
            kind,
            key: key.to_owned(),
            base: list(base.difference(head)),
            head: list(head.difference(base)),
        })
    };
    let cells = ("cells", DifferenceKind::Alone, Cell::full_name as _);
    let found: Vec<Difference> = match sides.iter().any(|rows| rows.is_empty()) {
        true => Vec::new(),
        false => SETS.into_iter().filter_map(difference).collect(),
    };
    match found.is_empty() {
        true => difference(cells).into_iter().collect(),
        false => found,
    }
}

/// Lists the first names, each in quotes, and counts the others.
fn list<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    let mut shown: Vec<String> = names.iter().take(SHOWN).cloned().collect();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key,
            base,
            head,
        } = self;
        match kind {
            DifferenceKind::Condition | DifferenceKind::Version => {
                write!(f, "{key} '{base}' and '{head}'")
            }
            DifferenceKind::Paths | DifferenceKind::Alone => {
                let sides = [(base, "base"), (head, "head")];
                let sides = sides.into_iter().filter(|(names, _)| !names.is_empty());
                let sides: Vec<String> = sides
                    .map(|(names, side)| format!("{names} only in {side}"))
                    .collect();
                write!(f, "different {key}: {}", sides.join(", "))
            }
        }
    }
}

impl fmt::Display for Incomparable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(differences) = self;
        let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
        let has = |kind| differences.iter().any(|it| it.kind == kind);
        let advice = if has(DifferenceKind::Condition) {
            "measure both on the same machine, with the same scenario and options"
        } else if has(DifferenceKind::Version) {
            "to compare just these versions, add '--other-versions', or measure both in one run, \
             with 'hopbench ab'"
        } else if has(DifferenceKind::Paths) {
            "a comparison needs a path and a load that both runs have: to compare two paths, \
             measure both in one run, with '--path' for each"
        } else {
            "a comparison needs a path and a load that both runs have: measure both runs with the \
             same scenario and options"
        };
        let said = said.join("; ");
        write!(f, "the runs are not comparable: {said}; {advice}")
    }
}
