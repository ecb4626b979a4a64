//! The cells that a guardrail applies to: the `where` of a policy file.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::record::{Cell, Placement};

/// Conditions on a cell. It must have one of the values of every key that is given.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Filter {
    /// Names of scenarios.
    #[serde(default)]
    pub scenario: Texts,
    /// Endpoints, such as `/small`.
    #[serde(default)]
    pub endpoint: Texts,
    /// Names of paths.
    #[serde(default)]
    pub path: Texts,
    /// Numbers of connections.
    #[serde(default)]
    pub concurrency: Numbers,
    /// Rates of loads at a fixed rate, in requests per second.
    #[serde(default)]
    pub rate: Numbers,
    /// Whether connections are kept alive. `None` accepts both.
    #[serde(default)]
    pub keep_alive: Option<bool>,
    /// Cores that the client and the path may use. `None` accepts all placements.
    #[serde(default)]
    pub placement: Option<Placement>,
}

/// Accepted texts. An empty list accepts any.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(from = "OneOrMoreTexts")]
pub struct Texts(pub Vec<String>);

/// Accepted numbers. An empty list accepts any.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(from = "OneOrMoreNumbers")]
pub struct Numbers(pub Vec<u32>);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMoreTexts {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
enum OneOrMoreNumbers {
    One(u32),
    More(Vec<u32>),
}

impl Filter {
    /// Returns whether the cell meets all conditions.
    pub fn matches(&self, cell: &Cell) -> bool {
        let texts = [
            (&self.scenario, &cell.scenario),
            (&self.endpoint, &cell.endpoint),
            (&self.path, &cell.path),
        ];
        let is_one_of = |Numbers(numbers): &Numbers, number: Option<u32>| {
            numbers.is_empty() || number.is_some_and(|number| numbers.contains(&number))
        };
        texts
            .into_iter()
            .all(|(Texts(texts), text)| texts.is_empty() || texts.contains(text))
            && is_one_of(&self.concurrency, Some(cell.concurrency))
            && is_one_of(&self.rate, cell.rate_rps)
            && self.keep_alive.is_none_or(|is| is == cell.keep_alive)
            && self.placement.is_none_or(|is| is == cell.placement)
    }
}

impl Filter {
    /// Returns the values that none of the cells has, each with its key.
    pub(super) fn unmatched(&self, cells: &[&Cell]) -> Vec<String> {
        let texts = [
            (
                "scenario",
                &self.scenario,
                cells_have(cells, |cell| &cell.scenario),
            ),
            (
                "endpoint",
                &self.endpoint,
                cells_have(cells, |cell| &cell.endpoint),
            ),
            ("path", &self.path, cells_have(cells, |cell| &cell.path)),
        ];
        let numbers = [
            (
                "concurrency",
                &self.concurrency,
                cells_have(cells, |cell| Some(cell.concurrency)),
            ),
            ("rate", &self.rate, cells_have(cells, |cell| cell.rate_rps)),
        ];
        let texts = texts.iter().flat_map(|(key, Texts(values), have)| {
            let missing = values.iter().filter(|value| !have.contains(value));
            missing.map(move |value| format!("{key} '{value}'"))
        });
        let numbers = numbers.iter().flat_map(|(key, Numbers(values), have)| {
            let missing = values.iter().filter(|value| !have.contains(&Some(**value)));
            missing.map(move |value| format!("{key} '{value}'"))
        });
        texts.chain(numbers).collect()
    }
}

fn cells_have<'a, T: Ord>(cells: &[&'a Cell], value: impl Fn(&'a Cell) -> T) -> BTreeSet<T> {
    cells.iter().map(|cell| value(cell)).collect()
}

impl From<OneOrMoreTexts> for Texts {
    fn from(wire: OneOrMoreTexts) -> Self {
        Self(match wire {
            OneOrMoreTexts::One(one) => vec![one],
            OneOrMoreTexts::More(more) => more,
        })
    }
}

impl From<OneOrMoreNumbers> for Numbers {
    fn from(wire: OneOrMoreNumbers) -> Self {
        Self(match wire {
            OneOrMoreNumbers::One(one) => vec![one],
            OneOrMoreNumbers::More(more) => more,
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |Numbers(numbers): &Numbers| {
            let texts = numbers.iter().map(u32::to_string);
            texts.collect::<Vec<_>>()
        };
        let keys = [
            ("scenario", self.scenario.0.clone()),
            ("endpoint", self.endpoint.0.clone()),
            ("path", self.path.0.clone()),
            ("concurrency", numbers(&self.concurrency)),
            ("rate", numbers(&self.rate)),
            (
                "keep-alive",
                self.keep_alive.iter().map(bool::to_string).collect(),
            ),
            (
                "placement",
                self.placement.iter().map(Placement::to_string).collect(),
            ),
        ];
        let keys = keys.iter().filter(|(_, values)| !values.is_empty());
        let parts = keys.map(|(key, values)| format!("{key} = {}", values.join(" or ")));
        f.write_str(&parts.collect::<Vec<_>>().join(" and "))
    }
}

crate::has_schema_of! {
    Texts => OneOrMoreTexts;
    Numbers => OneOrMoreNumbers;
}
