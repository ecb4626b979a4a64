//! Reads records that somebody else may have written, or damaged.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Load, Trial};

/// Reason for which something is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or not of a record's form.
    #[error("{}", line_trouble(.0))]
    Json(serde_json::Error),
    /// It has a number that no measurement yields.
    #[error("'{name}' is {number}, expected a number from 0 to 2^48")]
    Number {
        /// Names of the fields that lead to the number, joined by dots.
        name: String,
        /// The number, as JSON.
        number: String,
    },
    /// It has more correct answers than requests.
    #[error("'good' is {good}, but there were only {requests} requests")]
    Good {
        /// Number of correct answers.
        good: u64,
        /// Number of requests that were sent.
        requests: u64,
    },
}

impl From<serde_json::Error> for RecordError {
    /// Not as the source of the error: whoever prints the chain would say it twice.
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Returns what is wrong with a line of a file, and where in the line.
pub(crate) fn line_trouble(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(trouble) => format!("{trouble}, at column {column}"),
        None => text,
    }
}

/// Far more than any value of a record, in whatever unit. Sums and products of such numbers stay
/// finite.
const NUMBER_MAX: f64 = (1_u64 << 48) as f64;

impl Trial {
    /// Reads a line of `trials.jsonl`.
    ///
    /// # Errors
    /// If the line is not a trial, or has numbers that no measurement yields.
    pub fn read(line: &str) -> Result<Self, RecordError> {
        Self::from_value(serde_json::from_str(line)?)
    }

    /// Reads a line of `trials.jsonl` that has been parsed as JSON.
    ///
    /// # Errors
    /// The same as those of [`Self::read`].
    pub fn from_value(value: Value) -> Result<Self, RecordError> {
        let trial: Self = checked(value)?;
        trial.load.iter().try_for_each(Load::check)?;
        Ok(trial)
    }
}

impl Load {
    /// Reads the output of a load generator.
    ///
    /// # Errors
    /// If the text is not a load, or has numbers that no measurement yields.
    pub fn read(text: &str) -> Result<Self, RecordError> {
        let load: Self = checked(serde_json::from_str(text)?)?;
        load.check()?;
        Ok(load)
    }

    fn check(&self) -> Result<(), RecordError> {
        let (good, requests) = (self.good, self.requests);
        match good > requests {
            true => Err(RecordError::Good { good, requests }),
            false => Ok(()),
        }
    }
}

fn checked<T: DeserializeOwned>(value: Value) -> Result<T, RecordError> {
    let mut name = Vec::new();
    if let Some(number) = unmeasured(&value, &mut name) {
        name.reverse();
        return Err(RecordError::Number {
            name: name.join("."),
            number,
        });
    }
    Ok(serde_json::from_value(value)?)
}

/// Finds a number that no measurement yields. Adds the fields that lead to it to `name`, innermost
/// first.
fn unmeasured(value: &Value, name: &mut Vec<String>) -> Option<String> {
    match value {
        Value::Number(number) => {
            let is_measured = number
                .as_f64()
                .is_some_and(|number| (0.0..=NUMBER_MAX).contains(&number));
            (!is_measured).then(|| number.to_string())
        }
        Value::Object(values) => values.iter().find_map(|(key, value)| {
            let found = unmeasured(value, name)?;
            name.push(key.clone());
            Some(found)
        }),
        Value::Array(values) => values.iter().find_map(|value| unmeasured(value, name)),
        Value::Bool(_) | Value::Null | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_that_no_measurement_yields_are_refused_by_name() {
        let real = include_str!("../../fixtures/run/trials.jsonl");
        let real: Value = serde_json::from_str(real.lines().next().expect("one")).expect("JSON");
        Trial::from_value(real.clone()).expect("a real one");
        let damaged = |pointer: &str, value: Value| {
            let mut trial = real.clone();
            *trial.pointer_mut(pointer).expect(pointer) = value;
            Trial::from_value(trial).expect_err(pointer).to_string()
        };
        let expected = ", expected a number from 0 to 2^48";
        let found = damaged("/load/body_bytes", json!(u64::MAX));
        assert_eq!(
            found,
            format!("'load.body_bytes' is {}{expected}", u64::MAX)
        );
        let found = damaged("/processes/0/cpu_us", json!(-1));
        assert_eq!(found, format!("'processes.cpu_us' is -1{expected}"));
        let found = damaged("/load/good", json!(1_000_000_000));
        assert!(found.starts_with("'good' is 1000000000, but "), "{found}");
    }

    #[test]
    fn a_record_without_a_right_answer_has_no_metrics() {
        let real = include_str!("../../fixtures/run/trials.jsonl");
        let real: Value = serde_json::from_str(real.lines().next().expect("one")).expect("JSON");
        let trial = |requests: u64, elapsed_us: f64| {
            let mut trial = real.clone();
            trial["load"]["good"] = json!(requests);
            trial["load"]["requests"] = json!(requests);
            trial["load"]["elapsed_us"] = json!(elapsed_us);
            Trial::from_value(trial).expect("a record")
        };
        assert_eq!(trial(1, 1e6).rps(), Some(1.0));
        for none in [trial(0, 1e6), trial(1, 0.0)] {
            assert_eq!((none.measured(), none.rps()), (None, None));
        }
    }
}
