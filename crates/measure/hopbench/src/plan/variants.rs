//! Values for the parameters of path files, and the paths that they make.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use hopbench_analysis::record::Request;

use crate::{
    catalog::{PathDefinition, is_plain_name, nearest},
    mistake::Mistake,
};

/// Values for parameters, from the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// Values for all paths.
    pub(crate) set: Vec<Setting>,
    /// Values of which each makes a path of its own.
    pub(crate) sweep: Vec<Sweep>,
}

/// A value for a parameter: `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Several values for a parameter: `NAME=VALUE,VALUE`. `\,` is a comma in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

/// Maximum number of paths that sweeps make of one: with more, a run takes days.
const PATHS_MAX: usize = 64;

/// Maximum length of such a path's name, in bytes: logs are named after it.
const NAME_BYTES_MAX: usize = 120;

impl Parameters {
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.sweep.is_empty()
    }

    /// Returns the value of a parameter, or the first of several.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        let set = self.set.iter().find(|setting| setting.name == name);
        let swept = self.sweep.iter().find(|sweep| sweep.name == name);
        let swept = swept.and_then(|sweep| sweep.values.first());
        set.map(|setting| &setting.value)
            .or(swept)
            .map(String::as_str)
    }

    /// Returns those of a recorded request.
    pub(super) fn of_request(request: &Request) -> Result<Self, String> {
        let set = request.set.iter().map(|text| text.parse());
        let sweep = request.sweep.iter().map(|text| text.parse());
        Ok(Self {
            set: set.collect::<Result<_, _>>()?,
            sweep: sweep.collect::<Result<_, _>>()?,
        })
    }

    /// Returns these values, and beside them the sweeps of a scenario's file for which nothing is
    /// given here.
    pub(super) fn with_sweeps(&self, sweeps: &BTreeMap<String, Vec<String>>) -> Self {
        let mut all = self.clone();
        let open = sweeps.iter().filter(|(name, _)| self.first(name).is_none());
        all.sweep.extend(open.map(|(name, values)| Sweep {
            name: name.clone(),
            values: values.clone(),
        }));
        all
    }

    /// Checks that no parameter is given twice.
    pub(super) fn check_names(&self) -> Result<(), Mistake> {
        let set = self.set.iter().map(|setting| &setting.name);
        let swept = self.sweep.iter().map(|sweep| &sweep.name);
        let mut seen = BTreeSet::new();
        let mut names = set.chain(swept);
        match names.find(|name| !seen.insert(*name)) {
            None => Ok(()),
            Some(name) => Err(Mistake(format!(
                "parameter '{name}' is given twice: expected one '--set', or one '--sweep' with \
                 commas between its values"
            ))),
        }
    }

    /// Checks that each parameter is one of at least one path.
    pub(super) fn check_known<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p PathDefinition>,
    ) -> Result<(), Mistake> {
        let set = self.set.iter().map(|setting| ("--set", &setting.name));
        let swept = self.sweep.iter().map(|sweep| ("--sweep", &sweep.name));
        check_known(set.chain(swept), paths)
    }

    /// Returns the path with the values that are set.
    pub(super) fn set_on(&self, path: &PathDefinition) -> Result<PathDefinition, Mistake> {
        let values = self.values(path);
        match values.is_empty() {
            true => Ok(path.clone()),
            false => path.with(&path.name, &values).map_err(of_path(path)),
        }
    }

    /// Returns a path for each combination of swept values. A path without swept parameters is one.
    pub(super) fn variants(&self, path: &PathDefinition) -> Result<Vec<PathDefinition>, Mistake> {
        let sweeps = self.sweep.iter();
        let sweeps: Vec<&Sweep> = sweeps
            .filter(|sweep| path.parameters.contains_key(&sweep.name))
            .collect();
        if sweeps.is_empty() {
            return Ok(vec![self.set_on(path)?]);
        }
        let count = sweeps
            .iter()
            .fold(1_usize, |all, it| all.saturating_mul(it.values.len()));
        if count > PATHS_MAX {
            return Err(Mistake(format!(
                "'--sweep': expected at most {PATHS_MAX} paths, these values make {count}"
            )));
        }
        let mut combinations = vec![(Vec::new(), self.values(path))];
        for sweep in sweeps {
            let with = |(labels, values): &(Vec<String>, BTreeMap<String, String>)| {
                let one = |value: &String| {
                    let (mut labels, mut values) = (labels.clone(), values.clone());
                    labels.push(format!("{}={}", sweep.name, label(value)));
                    values.insert(sweep.name.clone(), value.clone());
                    (labels, values)
                };
                sweep.values.iter().map(one).collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(with).collect();
        }
        let mut names = BTreeSet::new();
        let variants = combinations.iter().map(|(labels, values)| {
            let name = format!("{}[{}]", path.name, labels.join(","));
            if !names.insert(name.clone()) || name.len() > NAME_BYTES_MAX {
                return Err(Mistake(format!(
                    "'--sweep': expected values that make different names of at most \
                     {NAME_BYTES_MAX} bytes: '{name}'"
                )));
            }
            path.with(&name, values).map_err(of_path(path))
        });
        variants.collect()
    }

    /// Returns the values that are set for parameters of a path.
    fn values(&self, path: &PathDefinition) -> BTreeMap<String, String> {
        let set = self.set.iter();
        let own = set.filter(|setting| path.parameters.contains_key(&setting.name));
        own.map(|it| (it.name.clone(), it.value.clone())).collect()
    }
}

/// Checks that each parameter is one of at least one path. `names` has each name, after what gave
/// it.
pub(super) fn check_known<'p, 'n>(
    names: impl Iterator<Item = (&'static str, &'n String)>,
    paths: impl IntoIterator<Item = &'p PathDefinition>,
) -> Result<(), Mistake> {
    let paths: Vec<&PathDefinition> = paths.into_iter().collect();
    let known: BTreeSet<&str> = paths
        .iter()
        .flat_map(|path| path.parameters.keys())
        .map(String::as_str)
        .collect();
    let mut unknown = names.filter(|(_, name)| !known.contains(name.as_str()));
    let Some((given_by, name)) = unknown.next() else {
        return Ok(());
    };
    let listed: Vec<&str> = known.iter().copied().collect();
    let there_are = match listed.is_empty() {
        true => "they have none; write [parameters] into the file of a path".to_owned(),
        false => format!("there are: {}", listed.join(", ")),
    };
    let names: Vec<&str> = paths.iter().map(|path| path.name.as_str()).collect();
    Err(Mistake(format!(
        "'{given_by}': no parameter '{name}' in the paths '{}'{}; {there_are}",
        names.join("', '"),
        nearest(name, listed)
    )))
}

fn of_path(path: &PathDefinition) -> impl Fn(String) -> Mistake {
    |message| Mistake(format!("path '{}' with other values: {message}", path.name))
}

/// Returns a value as a part of a name, which is also that of files.
fn label(value: &str) -> String {
    let plain = |it: char| match is_plain_name(&it.to_string()) {
        true => it,
        false => '-',
    };
    value.chars().map(plain).collect()
}

/// Splits `NAME=…`.
fn split(text: &str) -> Option<(String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), rest))
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=VALUE, such as 'workers=2'".to_owned();
        let (name, value) = split(text).ok_or_else(expected)?;
        let value = value.to_owned();
        Ok(Self { name, value })
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=VALUE,VALUE, such as 'workers=1,2,4'".to_owned();
        let (name, values) = split(text).ok_or_else(expected)?;
        let values = split_list(values);
        let mut seen = BTreeSet::new();
        if let Some(twice) = values.iter().find(|value| !seen.insert(*value)) {
            return Err(format!("expected each value once: '{twice}'"));
        }
        Ok(Self { name, values })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.iter().map(|value| value.replace(',', r"\,"));
        let values: Vec<String> = values.collect();
        write!(f, "{}={}", self.name, values.join(","))
    }
}

/// Splits a list at its commas. `\,` is a comma in a value.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match (char, values.last_mut()) {
            (',', _) | (_, None) => values.push(String::new()),
            ('\\', Some(value)) if rest.next_if_eq(&',').is_some() => value.push(','),
            (char, Some(value)) => value.push(char),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "\
        summary = 's'\nfront = '127.0.0.1:{{port:a}}'\n\
        [parameters]\nworkers = 1\nmode = 'a b'\n\
        [[process]]\nname = 'a'\nrole = 'x'\nversion = ['a']\n\
        command = ['a', '{{port:a}}', '-w{{parameter:workers}}', '{{parameter:mode}}']\n";

    fn path() -> PathDefinition {
        PathDefinition::parse("own", PATH).expect("valid")
    }

    fn commands(paths: &[PathDefinition]) -> Vec<(String, String)> {
        let words = |path: &PathDefinition| {
            let words = path.processes[0].command[2..].iter();
            let words: Vec<String> = words.map(ToString::to_string).collect();
            (path.name.clone(), words.join("|"))
        };
        paths.iter().map(words).collect()
    }

    fn parameters(set: &[&str], sweep: &[&str]) -> Parameters {
        let set = set.iter().map(|it| it.parse().expect("a setting"));
        let sweep = sweep.iter().map(|it| it.parse().expect("a sweep"));
        Parameters {
            set: set.collect(),
            sweep: sweep.collect(),
        }
    }

    #[test]
    fn values_make_paths_of_their_own() {
        let named = |name: &str, words: &str| (name.to_owned(), words.to_owned());
        let of = |set: &[&str], sweep: &[&str]| {
            let variants = parameters(set, sweep).variants(&path());
            commands(&variants.expect("valid"))
        };
        assert_eq!(of(&[], &[]), [named("own", "-w1|a b")]);
        assert_eq!(
            of(&["workers=2", "other=3"], &["other=1,2"]),
            [named("own", "-w2|a b")]
        );
        assert_eq!(
            of(&["mode=x=y"], &["workers=1,2"]),
            [
                named("own[workers=1]", "-w1|x=y"),
                named("own[workers=2]", "-w2|x=y")
            ]
        );
        assert_eq!(
            of(&[], &["workers=1,2", r"mode=/a\,b,c"]),
            [
                named("own[workers=1,mode=-a-b]", "-w1|/a,b"),
                named("own[workers=1,mode=c]", "-w1|c"),
                named("own[workers=2,mode=-a-b]", "-w2|/a,b"),
                named("own[workers=2,mode=c]", "-w2|c"),
            ]
        );
    }

    #[test]
    fn values_that_make_no_path_are_refused() {
        for (set, sweep, expected) in [
            (
                &["workers={{dir}}"][..],
                &[][..],
                "parameter 'workers': expected a value without",
            ),
            (&[], &["mode=a/b,a:b"], "different names"),
            (&[], &["mode=,"], "different names"),
        ] {
            let refused = match sweep {
                // Two empty values are the same.
                ["mode=,"] => Err(Mistake(format!(
                    "different names: {}",
                    Sweep::from_str("mode=,").expect_err("twice")
                ))),
                _ => parameters(set, sweep).variants(&path()).map(drop),
            };
            let refused = refused.expect_err(expected).to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let many: Vec<String> = (0..=PATHS_MAX).map(|it| it.to_string()).collect();
        let many = format!("workers={}", many.join(","));
        let refused = parameters(&[], &[&many]).variants(&path());
        let refused = refused.expect_err("too many").to_string();
        assert!(
            refused.contains("at most 64 paths, these values make 65"),
            "{refused}"
        );
    }

    #[test]
    fn a_parameter_that_no_path_has_is_named_with_those_that_there_are() {
        let check = |set: &[&str], sweep: &[&str], paths: &[PathDefinition]| {
            let parameters = parameters(set, sweep);
            let checked = parameters.check_names();
            let checked = checked.and_then(|()| parameters.check_known(paths.iter()));
            checked.expect_err("wrong").to_string()
        };
        let unknown = check(&["worker=2"], &[], &[path()]);
        let expected = "'--set': no parameter 'worker' in the paths 'own' (did you mean \
                        'workers'?); there are: mode, workers";
        assert_eq!(unknown, expected);
        assert!(check(&[], &["x=1"], &[]).contains("write [parameters] into the file"));
        let twice = check(&["mode=1"], &["mode=1,2"], &[path()]);
        assert!(twice.contains("'mode' is given twice"), "{twice}");
    }

    #[test]
    fn what_is_recorded_is_understood_again() {
        for text in [r"a=1,2\,3,", "a="] {
            let sweep: Sweep = text.parse().expect("a sweep");
            assert_eq!(sweep.to_string(), text);
        }
        let setting: Setting = "a=b=c,d".parse().expect("a setting");
        assert_eq!(setting.to_string(), "a=b=c,d");
        assert!("=1".parse::<Setting>().is_err() && "a".parse::<Sweep>().is_err());
    }
}
