//! External figures: what another load engine says that it measured.
//!
//! They are shown, with the name of the engine. Nothing compares them with anything: another
//! engine's clock begins and ends elsewhere, and nothing here knows what else its machine did.

mod csv;
mod json;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::json::Document;

/// An element of `external.json`: what another load engine measured.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Name of the engine, such as `locust`.
    pub engine: String,
    /// Version of the engine, if it said so.
    pub engine_version: Option<String>,
    /// Name of the file that the figures come from.
    pub file: String,
    /// Name of the scenario that was exported, if the engine knows it.
    pub scenario: Option<String>,
    /// Address of the server that was asked, if the engine said so.
    pub target: Option<String>,
    /// Number of processes or machines that made the load, if the engine said so.
    pub generators: Option<u64>,
    /// Duration of the load, in seconds.
    pub duration_s: Option<f64>,
    /// Number of requests that were sent.
    pub requests: u64,
    /// Number of those without the right answer.
    pub failures: Option<u64>,
    /// Number of requests that were due and never sent.
    pub dropped: Option<u64>,
    /// Number of requests per second, failures included.
    pub rate_rps: Option<f64>,
    /// Median latency, in microseconds.
    pub p50_us: Option<f64>,
    /// 95th percentile of the latencies, in microseconds.
    pub p95_us: Option<f64>,
    /// 99th percentile of the latencies, in microseconds.
    pub p99_us: Option<f64>,
    /// Longest latency, in microseconds.
    pub max_us: Option<f64>,
}

/// The reason why a file has no external figures.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{}{message}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
pub struct ExternalError {
    /// Number of the line, from 1, if there is one.
    pub(crate) line: Option<usize>,
    /// The field, what was expected, and what was found.
    pub(crate) message: String,
}

/// Largest number of any figure: far more than anything measured, in whatever unit.
const NUMBER_MAX: f64 = (1_u64 << 48) as f64;

/// Largest number of characters of a text.
const TEXT_CHARS_MAX: usize = 500;

impl External {
    /// Reads the figures of a file: `hopbench-external.json` of an exported project, Locust's
    /// `*_stats.csv`, or k6's summary as JSON, as `--summary-export` or `handleSummary` give it.
    ///
    /// # Errors
    /// If the text is none of these, or has numbers that no measurement yields.
    pub fn read(file: &str, text: &str) -> Result<Self, ExternalError> {
        let mut figures = match text.trim_start().starts_with('{') {
            true => json::read(&Document::parse(text)?)?,
            false => csv::read(text)?,
        };
        file.clone_into(&mut figures.file);
        figures.check().map_err(|message| ExternalError {
            line: None,
            message,
        })?;
        Ok(figures)
    }

    /// Reads `external.json` of a run directory.
    ///
    /// # Errors
    /// If the text is not a list of external figures, or has numbers that no measurement yields.
    pub fn read_kept(text: &str) -> Result<Vec<Self>, ExternalError> {
        let kept: Vec<Self> =
            serde_json::from_str(text).map_err(|error| ExternalError::of(&error))?;
        for (index, figures) in kept.iter().enumerate() {
            figures.check().map_err(|message| ExternalError {
                line: None,
                message: format!("figures {}: {message}", index + 1),
            })?;
        }
        Ok(kept)
    }

    /// Returns the name of the engine with its version.
    pub fn engine_name(&self) -> String {
        match &self.engine_version {
            Some(version) => format!("{} {version}", self.engine),
            None => self.engine.clone(),
        }
    }

    /// Checks what concerns several figures together, and that all can be shown.
    fn check(&self) -> Result<(), String> {
        let texts = [&self.engine, &self.file].into_iter();
        let others = [&self.engine_version, &self.scenario, &self.target];
        let mut texts = texts.chain(others.into_iter().flatten());
        if let Some(text) = texts.find(|text| text.chars().count() > TEXT_CHARS_MAX) {
            let begin: String = text.chars().take(40).collect();
            return Err(format!(
                "'{begin}…' is too long, expected at most {TEXT_CHARS_MAX} characters"
            ));
        }
        if self.engine.is_empty() {
            return Err("'engine' is empty, expected the name of an engine".to_owned());
        }
        let latencies = [
            ("p50_us", self.p50_us),
            ("p95_us", self.p95_us),
            ("p99_us", self.p99_us),
            ("max_us", self.max_us),
        ];
        let others = [("duration_s", self.duration_s), ("rate_rps", self.rate_rps)];
        for (name, value) in latencies.into_iter().chain(others) {
            if value.is_some_and(|value| !(0.0..=NUMBER_MAX).contains(&value)) {
                return Err(format!("'{name}': expected a number from 0 to 2^48"));
            }
        }
        // Histograms round, each value by itself, by a percent at most.
        let known: Vec<(&str, f64)> = latencies
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        for pair in known.windows(2) {
            let [(lower, less), (higher, more)] = [pair[0], pair[1]];
            if less > more * 1.01 {
                return Err(format!(
                    "'{higher}' is {more}, expected at least '{lower}', which is {less}"
                ));
            }
        }
        match self.failures {
            Some(failures) if failures > self.requests => Err(format!(
                "'failures' is {failures}, but there were only {} requests",
                self.requests
            )),
            _ => Ok(()),
        }
    }
}

impl ExternalError {
    pub(crate) fn at(line: usize, message: String) -> Self {
        Self {
            line: Some(line),
            message,
        }
    }

    pub(crate) fn of(error: &serde_json::Error) -> Self {
        Self::at(error.line(), crate::record::line_trouble(error))
    }
}
