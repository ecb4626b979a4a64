//! Settings: what is done with what is found.

use super::{class::Class, place::Place};

/// Settings of a WAF.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The consequence of a score that reaches the threshold.
    pub mode: Mode,
    /// The rules that count: those of this level, 1 to 4, and of the levels below.
    pub paranoia: u8,
    /// The score from which a request counts as an attack.
    pub threshold: u32,
    /// Whether rules go on after the threshold is reached, for a complete log.
    pub complete: bool,
    /// Matches that don't count.
    #[serde(rename = "exclude")]
    pub exclusions: Vec<Exclusion>,
    /// Limits on what is inspected.
    pub limits: Limits,
}

/// The consequence of a score that reaches the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The request is refused.
    #[default]
    Block,
    /// The request is logged and passes.
    Detect,
}

/// Matches that don't count. What is absent excludes nothing; one part at least must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exclusion {
    /// The id of a rule.
    pub rule: Option<String>,
    /// A class of rules.
    pub class: Option<Class>,
    /// The name of a field, such as a parameter's or a header's, in any case of letters.
    pub field: Option<String>,
    /// The place of the field.
    pub place: Option<Place>,
}

/// Limits on what is inspected. What exceeds one is reported as a match of class protocol.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes of a body, as sent and after decompression.
    pub body_bytes: usize,
    /// Parameters of a query, of a form and of multipart, and cookies.
    pub parameters: usize,
    /// Strings and names of a JSON body.
    pub json_values: usize,
    /// Nesting of a JSON body.
    pub json_depth: usize,
    /// How often one text is decoded.
    pub decode_rounds: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Block,
            paranoia: 1,
            threshold: 5,
            complete: false,
            exclusions: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 128 * 1024,
            // As many as PHP takes.
            parameters: 1000,
            json_values: 20_000,
            json_depth: 64,
            // Each proxy and framework on the way decodes once; nobody needs more than three.
            decode_rounds: 5,
        }
    }
}

impl Exclusion {
    /// Returns whether the exclusion names nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.rule.is_none() && self.class.is_none() && self.field.is_none() && self.place.is_none()
    }

    /// Returns whether a match is excluded.
    pub(super) fn covers(&self, rule: &str, class: Class, place: Place, field: &[u8]) -> bool {
        self.rule.as_deref().is_none_or(|excluded| excluded == rule)
            && self.class.is_none_or(|excluded| excluded == class)
            && self.place.is_none_or(|excluded| excluded == place)
            && self
                .field
                .as_deref()
                .is_none_or(|excluded| field.eq_ignore_ascii_case(excluded.as_bytes()))
    }
}
