//! Figures in JSON: of exported projects, and k6's own.

use serde_json::Value;

use super::{External, ExternalError, NUMBER_MAX};

/// A JSON document, with its text, so that errors can name lines.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    value: Value,
}

/// Version of `hopbench-external.json`.
const SCHEMA: f64 = 1.0;

/// Reads figures in whichever form they are.
pub(super) fn read(document: &Document<'_>) -> Result<External, ExternalError> {
    if document.get(&["engine"]).is_some() {
        of_project(document)
    } else if document.get(&["metrics"]).is_some_and(Value::is_object) {
        of_k6(document)
    } else {
        Err(ExternalError::at(
            1,
            "expected the field 'engine', as in 'hopbench-external.json', or 'metrics', as in a \
             summary of k6"
                .to_owned(),
        ))
    }
}

fn of_project(document: &Document<'_>) -> Result<External, ExternalError> {
    let schema = document.required(&["schema"])?;
    if schema.to_bits() != SCHEMA.to_bits() {
        let expected = format!("expected {SCHEMA}; use the hopbench that exported the project");
        return Err(document.mistake(&["schema"], &expected));
    }
    let engine = document.text(&["engine"])?;
    let number = |name: &str| document.number(&[name]);
    let count = |name: &str| document.count(&[name]);
    Ok(External {
        engine: engine.unwrap_or_default(),
        engine_version: document.text(&["engine_version"])?,
        file: String::new(),
        scenario: document.text(&["scenario"])?,
        target: document.text(&["target"])?,
        generators: count("generators")?,
        duration_s: number("duration_s")?,
        requests: document.required_count(&["requests"])?,
        failures: Some(document.required_count(&["failures"])?),
        dropped: count("dropped")?,
        rate_rps: Some(document.required(&["rate_rps"])?),
        p50_us: number("p50_us")?,
        p95_us: number("p95_us")?,
        p99_us: number("p99_us")?,
        max_us: number("max_us")?,
    })
}

/// Reads a summary of k6: metrics with their values below `values` (`handleSummary`), or directly
/// below the metric (`--summary-export`).
fn of_k6(document: &Document<'_>) -> Result<External, ExternalError> {
    let place = |metric: &'static str, name: &'static str| {
        let inner = ["metrics", metric, "values", name];
        match document.get(&inner[..3]) {
            Some(_) => inner.to_vec(),
            None => vec!["metrics", metric, name],
        }
    };
    let duration = |name| document.number(&place("http_req_duration", name));
    let us = |milliseconds: Option<f64>| milliseconds.map(|it| it * 1e3);
    let median = match duration("p(50)")? {
        Some(median) => Some(median),
        None => duration("med")?,
    };
    let run_ms = document.number(&["state", "testRunDurationMs"])?;
    Ok(External {
        engine: "k6".to_owned(),
        duration_s: run_ms.map(|ms| ms / 1e3),
        requests: document.required_count(&place("http_reqs", "count"))?,
        // The metric says how many have failed, so those that failed have passed.
        failures: document.count(&place("http_req_failed", "passes"))?,
        dropped: document.count(&place("dropped_iterations", "count"))?,
        rate_rps: Some(document.required(&place("http_reqs", "rate"))?),
        p50_us: us(median),
        p95_us: us(duration("p(95)")?),
        p99_us: us(duration("p(99)")?),
        max_us: us(duration("max")?),
        ..External::default()
    })
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, ExternalError> {
        let value = serde_json::from_str(text).map_err(|error| ExternalError::of(&error))?;
        Ok(Self { text, value })
    }

    fn get(&self, place: &[&str]) -> Option<&Value> {
        let mut fields = place.iter();
        let found = fields.try_fold(&self.value, |value, field| value.get(field));
        found.filter(|value| !value.is_null())
    }

    fn number(&self, place: &[&str]) -> Result<Option<f64>, ExternalError> {
        let Some(value) = self.get(place) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if (0.0..=NUMBER_MAX).contains(&number) => Ok(Some(number)),
            _ => Err(self.mistake(place, "expected a number from 0 to 2^48")),
        }
    }

    fn count(&self, place: &[&str]) -> Result<Option<u64>, ExternalError> {
        match self.number(place)? {
            None => Ok(None),
            Some(number) if number.fract() == 0.0 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a whole number from 0 to 2^48"
                )]
                let count = number as u64;
                Ok(Some(count))
            }
            Some(_) => Err(self.mistake(place, "expected a whole number")),
        }
    }

    fn text(&self, place: &[&str]) -> Result<Option<String>, ExternalError> {
        match self.get(place) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.mistake(place, "expected a text")),
        }
    }

    fn required(&self, place: &[&str]) -> Result<f64, ExternalError> {
        let number = self.number(place)?;
        number.ok_or_else(|| self.mistake(place, "expected a number"))
    }

    fn required_count(&self, place: &[&str]) -> Result<u64, ExternalError> {
        let count = self.count(place)?;
        count.ok_or_else(|| self.mistake(place, "expected a whole number"))
    }

    /// Returns the error for a field, with the line of the innermost field that is there.
    fn mistake(&self, place: &[&str], expected: &str) -> ExternalError {
        let found = match self.get(place) {
            Some(value) => {
                let value: String = value.to_string().chars().take(40).collect();
                format!("found {value}")
            }
            None => "found none".to_owned(),
        };
        let mut offset = 0;
        for field in place {
            let name = format!("\"{field}\"");
            let Some(further) = self.text[offset..].find(&name) else {
                break;
            };
            offset += further + name.len();
        }
        let line = self.text[..offset].matches('\n').count() + 1;
        ExternalError::at(line, format!("'{}': {expected}, {found}", place.join(".")))
    }
}
