//! Says in which paths, endpoints, loads and scenarios two runs differ that have no cell in common.

use std::{collections::BTreeSet, fmt};

use super::{Difference, Incomparable};
use crate::{record::Cell, summary::CellSummary};

/// A set of things that a cell names, and how it names one.
type Set = (&'static str, fn(&Cell) -> String);

const SETS: [Set; 4] = [
    ("scenarios", |cell| cell.scenario.clone()),
    ("paths", Cell::path_and_build),
    ("endpoints", |cell| {
        format!("{}{}", cell.endpoint, cell.setting())
    }),
    ("loads", |cell| format!("c={}", cell.load())),
];

/// Number of names that are shown of each side.
const SHOWN: usize = 5;

/// Finds the sets in which two runs differ. If they differ in none, all cells are the difference.
pub(super) fn differences(sides: [&[&CellSummary<'_>]; 2]) -> Vec<Difference> {
    let names = |of: fn(&Cell) -> String| {
        sides.map(|rows| -> BTreeSet<String> { rows.iter().map(|row| of(&row.cell)).collect() })
    };
    let is_empty = sides.iter().any(|rows| rows.is_empty());
    let found = SETS.into_iter().filter_map(|(key, of)| {
        let [base, head] = names(of);
        (base != head).then(|| Difference {
            key: key.to_owned(),
            base: list(base.difference(&head)),
            head: list(head.difference(&base)),
        })
    });
    let found: Vec<Difference> = found.collect();
    match found.is_empty() || is_empty {
        false => found,
        true => {
            let [base, head] = names(Cell::full_name);
            let all = |names: &BTreeSet<String>| match names.is_empty() {
                true => "none".to_owned(),
                false => list(names.iter()),
            };
            vec![Difference {
                key: "cells".to_owned(),
                base: all(&base),
                head: all(&head),
            }]
        }
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

impl Difference {
    /// Returns whether it says what only one of the runs has.
    fn is_of_sets(&self) -> bool {
        SETS.iter().any(|(key, _)| *key == self.key)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, base, head } = self;
        if !self.is_of_sets() {
            return match key.as_str() {
                "cells" => write!(f, "different cells: {base} in base, {head} in head"),
                _ => write!(f, "{key} '{base}' and '{head}'"),
            };
        }
        let sides = [(base, "base"), (head, "head")];
        let sides = sides.into_iter().filter(|(names, _)| !names.is_empty());
        let sides: Vec<String> = sides
            .map(|(names, side)| format!("{names} only in {side}"))
            .collect();
        write!(f, "different {key}: {}", sides.join(", "))
    }
}

impl fmt::Display for Incomparable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(differences) = self;
        let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
        write!(f, "the runs are not comparable: {}", said.join("; "))?;
        let is_of_paths = |it: &Difference| it.key == "paths";
        f.write_str(match differences.iter().all(Difference::is_of_sets) {
            true if differences.iter().any(is_of_paths) => {
                "; a comparison needs a path and a load that both runs have: to compare two paths, \
                 measure both in one run, with '--path' for each"
            }
            true => {
                "; a comparison needs a path and a load that both runs have: measure both runs \
                 with the same scenario and options"
            }
            false
                if differences
                    .iter()
                    .all(|it| it.key.starts_with("version of")) =>
            {
                "; to compare just these versions, add '--other-versions', or measure both in one \
                 run, with 'hopbench ab'"
            }
            false => "; measure both on the same machine, with the same scenario and options",
        })
    }
}
