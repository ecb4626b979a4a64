//! Paths, scenarios, gates and self-test cases: what can be run, and how it is judged. Each is a
//! TOML file.
//!
//! Files in `catalog/`, at any depth, are built into the binary. Any other file is named on the
//! command line by its path. A definition is named after its file, without the ending.

mod address;
mod case;
mod check;
mod counters;
mod duration;
mod front;
mod kind;
mod limits;
mod parameters;
mod path;
mod probe;
mod read;
mod request;
mod scenario;
mod schema;
mod similar;
mod stage;
mod target;
mod template;
mod tls_file;
mod wiring;
mod words;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::Path,
};

use hopbench_analysis::gate::Policy;
use include_dir::{Dir, File, include_dir};

pub(crate) use self::{
    case::{Case, Expectation},
    check::may_select,
    counters::{Conservation, Counters, Take},
    duration::parse_duration,
    limits::{CONCURRENCY_MAX, DURATION_MS_MAX, NAME_BYTES_MAX, RATE_RPS_MAX, rate_min},
    path::{FileDefinition, PathDefinition, ProcessDefinition, START_TIMEOUT_MS_MAX},
    probe::{
        CYCLES_MAX, ConfigParts, ProbeDefinition, ProbeHop, ProbeKind, ProbeNetwork, Reload,
        programs,
    },
    request::{Body, ExpectedAnswer, RequestDefinition},
    scenario::{Asks, Rates, ScenarioDefinition},
    schema::FileKind,
    similar::{most_similar, nearest},
    stage::{Change, Prepare},
    target::Target,
    template::{Fill, Template},
    tls_file::TlsFile,
};

use self::{
    kind::DefinitionKind,
    read::{check_file_name, from_text},
};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/catalog");

/// Why a definition can't be found or read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Two path files of the same name differ.
    #[error(
        "two different paths are named '{name}', after their files: expected unique names; rename \
         a file"
    )]
    SameName {
        /// Name that both have.
        name: String,
    },
    /// A file, or a word on the command line, is invalid.
    #[error("{file}: {message}")]
    Invalid {
        /// File, as it was named.
        file: String,
        /// The fault, and what was expected.
        message: String,
    },
    /// A file can't be read.
    #[error("could not read '{file}': {error}")]
    Unreadable {
        /// File, as it was named.
        file: String,
        /// Error of the system.
        error: io::Error,
    },
    /// A definition of another kind has this name, or is in this file.
    #[error("'{name}' is a {is}; expected a {expected}; {advice}")]
    OtherKind {
        /// Name or file.
        name: String,
        /// Its kind.
        is: &'static str,
        /// The kind that was expected.
        expected: &'static str,
        /// The thing to try.
        advice: &'static str,
    },
    /// No definition of this kind has this name.
    #[error("unknown {kind} '{name}'{nearest}; there are: {known}")]
    Unknown {
        /// Kind of definition, such as a path.
        kind: &'static str,
        /// Name that was looked for.
        name: String,
        /// Known name that is nearest to it, as a hint.
        nearest: String,
        /// Names that there are.
        known: String,
    },
}

/// All built-in definitions.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) paths: Vec<PathDefinition>,
    /// Paths that a command makes of what it was given.
    given: Vec<PathDefinition>,
    given_scenarios: Vec<ScenarioDefinition>,
    pub(crate) scenarios: Vec<ScenarioDefinition>,
    /// The first one judges a run, unless another is chosen.
    pub(crate) gates: Vec<Policy>,
    /// Cases of the self-test.
    pub(crate) cases: Vec<Case>,
    pub(crate) probes: Vec<ProbeDefinition>,
}

impl Catalog {
    /// Reads the built-in definitions.
    pub(crate) fn built_in() -> Result<Self, CatalogError> {
        check_files()?;
        let mut paths = built_in("paths", PathDefinition::parse)?;
        // The reference comes first, the others follow in alphabetical order.
        paths.sort_by_key(|path: &PathDefinition| {
            (
                !path.tags.iter().any(|tag| tag == REFERENCE),
                path.name.clone(),
            )
        });
        let mut scenarios = built_in("scenarios", ScenarioDefinition::parse)?;
        scenarios.sort_by(|a: &ScenarioDefinition, b| a.name.cmp(&b.name));
        Ok(Self {
            paths,
            given: Vec::new(),
            given_scenarios: Vec::new(),
            scenarios,
            gates: built_in("gates", policy)?,
            cases: built_in("cases", Case::parse)?,
            probes: built_in("probes", ProbeDefinition::parse)?,
        })
    }

    /// Returns the paths that a selector names: a name, `tag:` and a tag, `*`, or a file.
    pub(crate) fn paths(&self, selector: &str) -> Result<Vec<PathDefinition>, CatalogError> {
        if selector == "*" {
            return Ok(self.paths.clone());
        }
        if let Some(path) = self.given.iter().find(|path| path.name == selector) {
            return Ok(vec![path.clone()]);
        }
        if let Some(tag) = selector.strip_prefix("tag:") {
            let tagged = self
                .paths
                .iter()
                .filter(|path| path.tags.iter().any(|has| has == tag));
            let tagged: Vec<PathDefinition> = tagged.cloned().collect();
            let mut tags: Vec<&str> = self
                .paths
                .iter()
                .flat_map(|path| &path.tags)
                .map(String::as_str)
                .collect();
            tags.sort_unstable();
            tags.dedup();
            return match tagged.is_empty() {
                true => Err(unknown("tag", tag, tags)),
                false => Ok(tagged),
            };
        }
        let name_of = |path: &PathDefinition| path.name.clone();
        let kind = DefinitionKind::Path;
        let path = self.find(kind, selector, &self.paths, name_of, PathDefinition::parse)?;
        let invalid = |message| CatalogError::Invalid {
            file: selector.to_owned(),
            message,
        };
        path.check_roles(&self.paths).map_err(invalid)?;
        Ok(vec![path])
    }

    /// Returns the scenario with this name, or in this file.
    pub(crate) fn scenario(&self, name: &str) -> Result<ScenarioDefinition, CatalogError> {
        let name_of = |scenario: &ScenarioDefinition| scenario.name.clone();
        let mut given = self.given_scenarios.iter();
        if let Some(scenario) = given.find(|scenario| scenario.name == name) {
            return Ok(scenario.clone());
        }
        let (kind, known) = (DefinitionKind::Scenario, &self.scenarios);
        self.find(kind, name, known, name_of, ScenarioDefinition::parse)
    }

    /// Returns the path that the others are compared with, unless a scenario names another.
    pub(crate) fn reference(&self) -> Option<&PathDefinition> {
        let is_reference = |path: &&PathDefinition| path.tags.iter().any(|it| it == REFERENCE);
        self.paths.iter().find(is_reference)
    }

    /// Returns the scenario with every endpoint, for what is about a path alone.
    pub(crate) fn scenario_of_everything(&self) -> Option<&ScenarioDefinition> {
        let mut scenarios = self.scenarios.iter();
        scenarios.find(|scenario| scenario.asks == Asks::AllEndpoints)
    }

    /// Returns the scenario for a first look at a hop.
    pub(crate) fn scenario_of_a_first_look(&self) -> Option<&ScenarioDefinition> {
        let is_quick = |scenario: &&ScenarioDefinition| scenario.tags.iter().any(|it| it == QUICK);
        self.scenarios.iter().find(is_quick)
    }

    /// Returns the catalog with a path that a command was given, in place of another with its name.
    pub(crate) fn with(mut self, path: PathDefinition) -> Result<Self, CatalogError> {
        if self.reference().is_some_and(|it| it.name == path.name) {
            let name = path.name;
            return Err(CatalogError::SameName { name });
        }
        self.given.retain(|known| known.name != path.name);
        self.given.push(path);
        Ok(self)
    }

    /// Returns the catalog with a scenario that a command was given, in place of another with its
    /// name.
    pub(crate) fn with_scenario(mut self, scenario: ScenarioDefinition) -> Self {
        self.given_scenarios.push(scenario);
        self
    }

    /// Returns the case with this name, or in this file.
    pub(crate) fn case(&self, name: &str) -> Result<Case, CatalogError> {
        let name_of = |case: &Case| case.name.clone();
        self.find(
            DefinitionKind::Case,
            name,
            &self.cases,
            name_of,
            Case::parse,
        )
    }

    /// Returns the probe with this name, or in this file.
    pub(crate) fn probe(&self, name: &str) -> Result<ProbeDefinition, CatalogError> {
        let name_of = |probe: &ProbeDefinition| probe.name.clone();
        let (kind, known) = (DefinitionKind::Probe, &self.probes);
        self.find(kind, name, known, name_of, ProbeDefinition::parse)
    }

    /// Returns whether this is the name or the file of a probe, right or wrong.
    pub(crate) fn is_probe(&self, name: &str) -> bool {
        self.kind_of(name) == Some(DefinitionKind::Probe)
    }

    /// Returns the policy with this name, or in this file.
    pub(crate) fn gate(&self, name: &str) -> Result<Policy, CatalogError> {
        let name_of = |gate: &Policy| gate.name.clone();
        self.find(DefinitionKind::Gate, name, &self.gates, name_of, policy)
    }

    /// Returns the definition with this name, or in this file.
    fn find<T: Clone>(
        &self,
        kind: DefinitionKind,
        name: &str,
        known: &[T],
        name_of: fn(&T) -> String,
        parse: fn(&str, &str) -> Result<T, String>,
    ) -> Result<T, CatalogError> {
        let found = match is_file(name) {
            true => from_file(name, parse),
            false => {
                let named = known.iter().find(|one| name_of(one) == name);
                named.cloned().ok_or_else(|| {
                    let names: Vec<String> = known.iter().map(name_of).collect();
                    let names = names.iter().map(String::as_str).collect();
                    unknown(kind.name(), name, names)
                })
            }
        };
        found.map_err(|error| match self.kind_of(name) {
            Some(is) if is != kind => CatalogError::OtherKind {
                name: name.to_owned(),
                is: is.name(),
                expected: kind.name(),
                advice: is.advice(kind),
            },
            _ => error,
        })
    }

    /// Returns the kind of the definition with this name, or in this file.
    fn kind_of(&self, name: &str) -> Option<DefinitionKind> {
        if is_file(name) {
            return DefinitionKind::of_text(&read_text(Path::new(name)).ok()?);
        }
        let kinds = [
            (
                DefinitionKind::Path,
                self.paths.iter().any(|it| it.name == name),
            ),
            (
                DefinitionKind::Scenario,
                self.scenarios.iter().any(|it| it.name == name),
            ),
            (
                DefinitionKind::Gate,
                self.gates.iter().any(|it| it.name == name),
            ),
            (
                DefinitionKind::Case,
                self.cases.iter().any(|it| it.name == name),
            ),
            (
                DefinitionKind::Probe,
                self.probes.iter().any(|it| it.name == name),
            ),
        ];
        let found = kinds.into_iter().find(|(_, has)| *has);
        found.map(|(kind, _)| kind)
    }
}

fn policy(name: &str, text: &str) -> Result<Policy, String> {
    Policy::new(name, from_text(text)?)
}

/// Parses the text of a definition of any kind; returns whether it is valid.
#[cfg(fuzzing)]
pub(crate) fn read_definition(kind: u8, text: &str) -> bool {
    match kind % 5 {
        0 => PathDefinition::parse("fuzzed", text).is_ok(),
        1 => ScenarioDefinition::parse("fuzzed", text).is_ok(),
        2 => Case::parse("fuzzed", text).is_ok(),
        3 => ProbeDefinition::parse("fuzzed", text).is_ok(),
        _ => policy("fuzzed", text).is_ok(),
    }
}

fn unknown(kind: &'static str, name: &str, known: Vec<&str>) -> CatalogError {
    CatalogError::Unknown {
        kind,
        name: name.to_owned(),
        nearest: nearest_or_file(name, known.iter().copied()),
        known: known.join(", "),
    }
}

/// Returns a hint for an unknown name: the file that may have been meant, or a similar name.
pub(crate) fn nearest_or_file<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let file = format!("{name}.toml");
    match Path::new(&file).is_file() {
        true => format!(" (did you mean the file '{file}'?)"),
        false => nearest(name, known),
    }
}

/// Returns whether what stands for a definition is a file rather than a name.
pub(crate) fn is_file(selector: &str) -> bool {
    selector.contains('/') || selector.ends_with(".toml")
}

fn from_file<T>(file: &str, parse: fn(&str, &str) -> Result<T, String>) -> Result<T, CatalogError> {
    let text = read_text(Path::new(file)).map_err(|error| CatalogError::Unreadable {
        file: file.to_owned(),
        error,
    })?;
    let name = Path::new(file)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let parsed = check_file_name(&name).and_then(|()| match text.trim() {
        "" => Err("the file is empty; 'hopbench new' writes one to start from".to_owned()),
        _ => parse(&name, &text),
    });
    parsed.map_err(|message| CatalogError::Invalid {
        file: file.to_owned(),
        message,
    })
}

/// Returns whether a name can be used in tables and file names as it is.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_.+ ".contains(letter);
    !name.is_empty() && name.chars().all(is_plain)
}

/// Maximum length of a definition file, in bytes; definitions are a page or two.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file, which must be a regular file and not too long.
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    read_text_within(file, FILE_BYTES_MAX)
}

/// Reads a file, which must be a regular file of at most some MiB.
pub(crate) fn read_text_within(file: &Path, bytes_max: u64) -> io::Result<String> {
    // Opening anything else may block, and reading it may never end.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let mut bytes = Vec::new();
    let length = fs::File::open(file)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if length as u64 > bytes_max {
        let mib = bytes_max >> 20;
        return Err(io::Error::other(format!("expected at most {mib} MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        io::Error::other(format!("line {line}: expected UTF-8"))
    })
}

/// Returns the files of a directory and of those below it.
fn all_files(directory: &Dir<'static>) -> Vec<&'static File<'static>> {
    let below = directory.dirs().flat_map(all_files);
    directory.files().chain(below).collect()
}

/// Checks that every built-in file is read as something, and that no two of a kind have one name.
fn check_files() -> Result<(), CatalogError> {
    let mut names = BTreeSet::new();
    for file in all_files(&BUILT_IN) {
        let path = file.path();
        let kind = path.iter().next().and_then(|kind| kind.to_str());
        let kind = kind.filter(|kind| KINDS.contains(kind));
        let is_read = kind.is_some() && path.extension().is_some_and(|it| it == "toml");
        let invalid = |message: String| CatalogError::Invalid {
            file: path.display().to_string(),
            message,
        };
        if !is_read {
            return Err(invalid(format!(
                "expected a '.toml' file below one of the folders {}",
                KINDS.map(|kind| format!("'{kind}'")).join(", ")
            )));
        }
        if !names.insert((kind, path.file_stem())) {
            return Err(invalid(
                "another file of this kind has the same name".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Tag of the reference.
const REFERENCE: &str = "reference";

/// Tag of the scenario for a first look at a hop.
const QUICK: &str = "quick";

/// Folders of the built-in definitions.
const KINDS: [&str; 6] = ["cases", "counters", "gates", "paths", "probes", "scenarios"];

fn built_in<T>(
    directory: &str,
    parse: fn(&str, &str) -> Result<T, String>,
) -> Result<Vec<T>, CatalogError> {
    let files = BUILT_IN.get_dir(directory).into_iter().flat_map(all_files);
    files
        .map(|file| {
            let name = file
                .path()
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy();
            let text = file.contents_utf8().unwrap_or_default();
            parse(&name, text).map_err(|message| CatalogError::Invalid {
                file: file.path().display().to_string(),
                message,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(text: &str) -> String {
        PathDefinition::parse("test", text).unwrap_err()
    }

    const PROCESS: &str = "[[process]]\nname = 'a'\nrole = 'origin'\n\
                           command = ['a', '{{port:a}}']\nversion = ['a']\n";

    #[test]
    fn the_built_in_catalog_is_valid() {
        let catalog = Catalog::built_in().expect("valid");
        assert!(
            catalog.paths[0].describe.is_some(),
            "the reference describes the endpoints"
        );
        for scenario in &catalog.scenarios {
            for selector in scenario.paths.iter().chain([&scenario.reference]) {
                catalog.paths(selector).expect(selector);
            }
            for rule in &scenario.pathologies.slower {
                catalog.paths(&rule.path).expect(&rule.path);
                catalog.paths(&rule.than).expect(&rule.than);
            }
        }
    }

    #[test]
    fn a_role_is_not_one_of_hopbench_itself() {
        let front = "summary = 's'\nfront = '127.0.0.1:{{port:a}}'\n";
        for role in ["client", "server", "", "my role!", "a,b"] {
            let process = PROCESS.replace("'origin'", &format!("'{role}'"));
            let message = invalid(&format!("{front}{process}"));
            assert!(message.contains(&format!("role '{role}'")), "{message}");
            let thread_roles = format!("{front}{PROCESS}thread-roles = {{ tok = '{role}' }}\n");
            let message = invalid(&thread_roles);
            assert!(message.contains(&format!("role '{role}'")), "{message}");
        }
    }

    #[test]
    fn a_run_is_judged_by_the_default() {
        let catalog = Catalog::built_in().expect("valid");
        let gate = &catalog.gates[0];
        let guardrails: Vec<String> = gate.guardrails.iter().map(ToString::to_string).collect();
        let expected = [
            "RPS falls by at most 15 %",
            "p95 rises by at most 20 %",
            "growth of RSS rises by at most 128 MiB",
            "errors <= 0",
        ];
        assert_eq!(
            (gate.name.as_str(), guardrails),
            ("default", expected.map(str::to_owned).into())
        );
    }

    #[test]
    fn mistakes_in_a_path_file_are_named_with_their_place() {
        let unknown_field = format!("sumary = 'x'\nfront = '{{{{port:a}}}}'\n{PROCESS}");
        let message = invalid(&unknown_field);
        assert!(
            message.contains("line 1")
                && message.contains("unknown field 'sumary' (did you mean 'summary'?)"),
            "{message}"
        );
        let message = invalid(&format!("summary = 'x'\nfront = '{{{{port:a'\n{PROCESS}"));
        assert!(
            message.contains("line 2") && message.contains("expected '}}'"),
            "{message}"
        );
        let message = invalid(&format!("summary = 'x'\nfront = 'here'\n{PROCESS}"));
        assert!(
            message.contains("'front': expected a '{{port:…}}'"),
            "{message}"
        );
        let front = "summary = 'x'\nfront = '127.0.0.1:{{port:a}}'\n";
        let message = invalid(&format!("{front}{PROCESS}admin = '{{{{socket:s}}}}'\n"));
        assert!(
            message.contains("did you mean 'unix:{{socket:s}}'?"),
            "{message}"
        );
        let message = invalid(&format!("{front}process = []"));
        assert!(message.contains("at least one [[process]]"), "{message}");
    }

    #[test]
    fn a_misspelt_name_gets_its_neighbour() {
        let catalog = Catalog::built_in().expect("valid");
        let message = catalog.paths("rapace-steam").unwrap_err().to_string();
        assert!(
            message.contains("did you mean 'rapace-stream'?"),
            "{message}"
        );
        let message = catalog.paths("tag:rapaces").unwrap_err().to_string();
        assert!(
            message.contains("unknown tag 'rapaces' (did you mean 'rapace'?)"),
            "{message}"
        );
        let message = catalog.scenario("smok").unwrap_err().to_string();
        assert!(message.contains("did you mean 'smoke'?"), "{message}");
    }
}
