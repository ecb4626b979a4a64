//! Counters of a path's processes: those that reports show, and the rules by which they must
//! account for the bytes that the client received.

use std::collections::BTreeSet;

use hopbench_analysis::record::{CounterInfo, Per};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{BUILT_IN, nearest, read::from_text};

/// Declared counters and rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) shown: Vec<CounterInfo>,
    pub(crate) rules: Vec<Conservation>,
}

/// A rule: these counters together cover the bodies that the client received.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Conservation {
    /// Names of the counters.
    pub(crate) counters: Vec<String>,
    /// Role of the processes whose counters are added up; those of all processes if `None`.
    pub(crate) role: Option<String>,
    /// How several counters become one number.
    #[serde(default)]
    pub(crate) take: Take,
    /// Largest multiple of the bytes that client and path exchanged, heads included, at which
    /// nothing seems to have been carried twice.
    pub(crate) at_most: Option<f64>,
}

/// How several counters become one number.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Take {
    Largest,
    #[default]
    Sum,
}

/// Tables of a path file, or of a file in `catalog/counters`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Wire {
    #[serde(default)]
    pub(super) counter: Vec<WireCounter>,
    #[serde(default)]
    pub(super) conservation: Vec<Conservation>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireCounter {
    /// Name under which the processes serve it.
    name: String,
    /// Heading of its columns; by default the name.
    label: Option<String>,
    /// Unit of its value.
    unit: Option<String>,
    /// Divisors of its value, each of which makes a column.
    #[serde(default = "per_request")]
    per: Vec<Per>,
    /// Explanation of what it counts.
    help: String,
}

impl Counters {
    /// Reads a path's own tables, after those of the set that it names.
    pub(super) fn read(set: Option<&str>, own: Wire) -> Result<Self, String> {
        let mut wire = match set {
            Some(name) => built_in(name)?,
            None => Wire::default(),
        };
        wire.counter.extend(own.counter);
        wire.conservation.extend(own.conservation);
        let counters = Self {
            shown: wire.counter.into_iter().map(CounterInfo::from).collect(),
            rules: wire.conservation,
        };
        counters.check()?;
        Ok(counters)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.rules.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for CounterInfo { name, per, .. } in &self.shown {
            check_name(name)?;
            if !names.insert(name) {
                return Err(format!(
                    "counter '{name}' is repeated: expected unique names"
                ));
            }
            let is_repeated = per
                .iter()
                .enumerate()
                .any(|(at, one)| per[..at].contains(one));
            if per.is_empty() || is_repeated {
                return Err(format!(
                    "counter '{name}': 'per': expected one or more of 'request', 'body-byte' and \
                     'trial', each once"
                ));
            }
        }
        for rule in &self.rules {
            if rule.counters.is_empty() {
                return Err(
                    "[[conservation]]: 'counters': expected the names of one or more counters"
                        .to_owned(),
                );
            }
            rule.counters.iter().try_for_each(|name| check_name(name))?;
            if let Some(at_most) = rule.at_most
                && !(at_most.is_finite() && at_most > 1.0)
            {
                return Err(format!(
                    "[[conservation]]: 'at-most': expected a number above 1, found {at_most}"
                ));
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_:.-".contains(letter);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!(
            "counter '{name}': expected letters, digits, '_', ':', '.' and '-'"
        )),
    }
}

/// Reads a file of `catalog/counters`.
fn built_in(name: &str) -> Result<Wire, String> {
    let files = || {
        BUILT_IN
            .get_dir("counters")
            .into_iter()
            .flat_map(|it| it.files())
    };
    let stem =
        |path: &std::path::Path| path.file_stem().map(|it| it.to_string_lossy().into_owned());
    let Some(file) = files().find(|file| stem(file.path()).as_deref() == Some(name)) else {
        let known: Vec<String> = files().filter_map(|file| stem(file.path())).collect();
        let nearest = nearest(name, known.iter().map(String::as_str));
        return Err(format!(
            "'counter-set': unknown set '{name}'{nearest}; there are: {}",
            known.join(", ")
        ));
    };
    let text = file.contents_utf8().unwrap_or_default();
    from_text(text).map_err(|error| format!("{}: {error}", file.path().display()))
}

impl From<WireCounter> for CounterInfo {
    fn from(wire: WireCounter) -> Self {
        Self {
            label: wire.label.unwrap_or_else(|| wire.name.clone()),
            name: wire.name,
            unit: wire.unit.unwrap_or_default(),
            per: wire.per,
            help: wire.help.trim().to_owned(),
        }
    }
}

fn per_request() -> Vec<Per> {
    vec![Per::Request]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::PathDefinition;

    fn read(tables: &str) -> Result<Counters, String> {
        let text = format!(
            "summary = 's'\nfront = '127.0.0.1:{{{{port:a}}}}'\n{tables}\n[[process]]\nname = 'a'\n\
             role = 'near'\ncommand = ['a', '{{{{port:a}}}}', '{{{{port:b}}}}']\n\
             version = ['a']\nadmin = '127.0.0.1:{{{{port:b}}}}'\n"
        );
        PathDefinition::parse("test", &text).map(|path| path.counters)
    }

    #[test]
    fn a_path_declares_what_it_counts() {
        let counters = read(
            "counter-set = 'tunnel'\n[[counter]]\nname = 'hop_hits'\nper = ['trial', 'request']\n\
             help = 'answers from memory'\n",
        );
        let counters = counters.expect_err("the set has rules for roles that the path hasn't");
        assert!(
            counters.contains("no process with 'admin' has the role 'host'"),
            "{counters}"
        );
        let counters = read("[[counter]]\nname = 'hop_hits'\nhelp = 'answers from memory'\n");
        let counters = counters.expect("valid");
        let [hits] = counters.shown.as_slice() else {
            panic!("{counters:?}");
        };
        assert_eq!(
            (hits.label.as_str(), hits.per.as_slice()),
            ("hop_hits", &[Per::Request][..])
        );
    }

    #[test]
    fn mistakes_in_counters_are_named() {
        let cases = [
            (
                "counter-set = 'tunel'",
                "'counter-set': unknown set 'tunel' (did you mean 'tunnel'?)",
            ),
            (
                "[[counter]]\nname = 'a b'\nhelp = ''",
                "counter 'a b': expected letters",
            ),
            (
                "[[counter]]\nname = 'a'\nhelp = ''\nper = []",
                "counter 'a': 'per': expected one",
            ),
            (
                "[[counter]]\nname = 'a'\nhelp = ''\nper = ['byte']",
                "unknown variant 'byte'",
            ),
            (
                "[[counter]]\nname = 'a'\nhelp = ''\n[[counter]]\nname = 'a'\nhelp = ''",
                "is repeated",
            ),
            ("[[counter]]\nname = 'a'", "missing field 'help'"),
            (
                "[[conservation]]\ncounters = []",
                "'counters': expected the names",
            ),
            (
                "[[conservation]]\ncounters = ['a']\nrole = 'far'",
                "has the role 'far'",
            ),
            (
                "[[conservation]]\ncounters = ['a']\nat-most = 1",
                "'at-most': expected a number above 1",
            ),
            (
                "[[conservation]]\ncounters = ['a']\nsum = true",
                "unknown field 'sum'",
            ),
        ];
        for (tables, expected) in cases {
            let message = read(tables).expect_err(tables);
            assert!(message.contains(expected), "{tables}: {message}");
        }
    }
}
