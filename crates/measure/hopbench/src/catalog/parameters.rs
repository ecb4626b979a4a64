//! Parameters of a path file: texts in it that the command line may change.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    similar::nearest,
    template::{OPEN, Template},
};

/// A default value, or one to sweep, as it is written in a file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct DefaultValue(pub(super) String);

/// The forms that a default value may have, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum WrittenValue {
    Text(String),
    Number(f64),
    Switch(bool),
}

hopbench_analysis::has_schema_of! {
    DefaultValue => WrittenValue;
}

impl TryFrom<toml::Value> for DefaultValue {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::String(text) => Ok(Self(text)),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                Ok(Self(value.to_string()))
            }
            _ => Err("expected text, a number, 'true' or 'false'"),
        }
    }
}

/// Fills in the parameters of a file's templates. Returns the value of each parameter: the given
/// one, or its default.
pub(super) fn fill_in(
    defaults: BTreeMap<String, DefaultValue>,
    given: &BTreeMap<String, String>,
    templates: Vec<&mut Template>,
) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for (name, DefaultValue(default)) in defaults {
        let value = given.get(&name).unwrap_or(&default);
        check(&name, value).map_err(|message| format!("parameter '{name}': {message}"))?;
        values.insert(name, value.clone());
    }
    let mut used = BTreeSet::new();
    for template in templates {
        for name in template.parameters() {
            if !values.contains_key(name) {
                let nearest = nearest(name, values.keys().map(String::as_str));
                return Err(format!(
                    "'{{{{parameter:{name}}}}}': expected '{name}' in [parameters]{nearest}"
                ));
            }
            used.insert(name.to_owned());
        }
        template.fill_in_parameters(&values);
    }
    match values.keys().find(|name| !used.contains(*name)) {
        None => Ok(values),
        Some(name) => Err(format!(
            "parameter '{name}' is used nowhere: expected '{{{{parameter:{name}}}}}' in a command \
             or a [[file]]"
        )),
    }
}

/// Checks a parameter's name, which is typed on command lines, and its value.
fn check(name: &str, value: &str) -> Result<(), String> {
    let is_plain = |it: char| it.is_alphanumeric() || "-_".contains(it);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err("expected a name of letters, digits, '-' and '_'".to_owned());
    }
    if value.contains(OPEN) || value.contains('\0') {
        return Err(format!(
            "expected a value without '{OPEN}' and zero bytes: '{}'",
            value.escape_debug()
        ));
    }
    Ok(())
}
