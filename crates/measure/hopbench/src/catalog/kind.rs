//! Kinds of definitions, for messages about one in place of another.

/// A kind of definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DefinitionKind {
    Case,
    Gate,
    Path,
    Probe,
    Scenario,
}

/// Tables and fields that a file of one kind has, and none of another.
const FIELDS: [(DefinitionKind, &[&str]); 5] = [
    (DefinitionKind::Probe, &["cycles", "quick-cycles"]),
    (DefinitionKind::Path, &["process", "front"]),
    (DefinitionKind::Case, &["policy", "right-percent-min"]),
    (DefinitionKind::Gate, &["relative", "absolute", "invariant"]),
    (
        DefinitionKind::Scenario,
        &["paths", "endpoints", "request", "concurrency"],
    ),
];

impl DefinitionKind {
    /// Returns the kind that a file was meant as, if it can be told.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let table: toml::Table = toml::from_str(text).ok()?;
        let has = |fields: &[&str]| fields.iter().any(|field| table.contains_key(*field));
        let found = FIELDS.into_iter().find(|(_, fields)| has(fields));
        found.map(|(kind, _)| kind)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Case => "case",
            Self::Gate => "gate",
            Self::Path => "path",
            Self::Probe => "probe",
            Self::Scenario => "scenario",
        }
    }

    /// Says what to try with a definition of this kind where another kind was expected.
    pub(super) fn advice(self, expected: Self) -> &'static str {
        match (self, expected) {
            (Self::Path, Self::Scenario) => {
                "use '--path', with commas between several paths, after the name of a scenario"
            }
            (Self::Gate, Self::Scenario) => "use '--policy'",
            (Self::Probe, _) => "use 'hopbench probe'",
            (Self::Case, _) => "use 'hopbench self-test --case'",
            _ => "see 'hopbench list'",
        }
    }
}
