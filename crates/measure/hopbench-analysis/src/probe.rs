//! Records of probes, which measure what isn't a load of requests: commands, starts, reloads, logs.
//!
//! A probe makes observations: of a subject, in a cycle, a value of a measure. The end of a
//! measure's name is its unit. [`distribution`] gives percentiles with their intervals, [`rule`]
//! judges them, and [`crate::report::probe`] writes both.

pub mod distribution;
pub mod rule;

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::rule::Rule;
use crate::record::{Git, Machine};

/// Version of the format of `probe.json` and `observations.jsonl`.
pub const PROBE_SCHEMA: u32 = 1;

/// `probe.json`: what was probed, where, and by which rules it is judged.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct ProbeInfo {
    /// Version of the format.
    pub schema: u32,
    /// Version of hopbench.
    pub hopbench: String,
    /// Name of the probe.
    pub probe: String,
    /// Question that it answers.
    pub question: String,
    /// Start, in UTC and as RFC 3339.
    pub started: String,
    /// Command line of hopbench, word by word.
    pub command_line: Vec<String>,
    /// Seed of the order.
    pub seed: u64,
    /// Revision that was measured.
    pub git: Git,
    /// Machine that was used.
    pub machine: Machine,
    /// Fault that was injected to test the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected: Option<String>,
    /// Things that were left out, and why; conditions that make values doubtful.
    pub notes: Vec<String>,
    /// Subjects, in the order in which tables have them. Observations come in a random order.
    pub subjects: Vec<String>,
    /// Whether everything was observed. If not, it was interrupted, or it failed.
    pub is_finished: bool,
    /// Rules that judge the observations.
    pub rules: Vec<Rule>,
}

/// A line of `observations.jsonl`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Observation {
    /// Number of the cycle, from 1.
    pub cycle: u32,
    /// The thing that was observed: a command, a path, a hop in some state.
    pub subject: String,
    /// Name of the measure, which ends in its unit: `_us`, `_kib`, `_bytes`, `_each` for a number
    /// of things that each has, or a plural for a count.
    pub measure: String,
    /// The value, in that unit.
    pub value: f64,
}

/// The kind of a measure's unit, which its name ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things. Its sum matters.
    Count,
    /// A number of things that each of others has, which need not be whole.
    Each,
    /// KiB.
    Kib,
    /// Microseconds.
    Us,
}

impl Unit {
    /// Returns the unit of a measure.
    pub fn of(measure: &str) -> Self {
        match measure.rsplit_once('_').map(|(_, unit)| unit) {
            Some("us") => Self::Us,
            Some("kib") => Self::Kib,
            Some("bytes") => Self::Bytes,
            Some("each") => Self::Each,
            _ => Self::Count,
        }
    }
}

/// A probe that has ended.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The conditions, and how it is judged.
    pub info: ProbeInfo,
    /// All observations, in their order.
    pub observations: Vec<Observation>,
}

impl Probed {
    /// Returns the values of a subject's measure, in the order of the cycles.
    pub fn values(&self, subject: &str, measure: &str) -> Vec<f64> {
        let found = self.observations.iter();
        found
            .filter(|one| one.subject == subject && one.measure == measure)
            .map(|one| one.value)
            .collect()
    }

    /// Returns in how many cycles a subject was observed.
    pub fn cycles(&self, subject: &str) -> usize {
        let found = self
            .observations
            .iter()
            .filter(|one| one.subject == subject);
        let cycles: HashSet<u32> = found.map(|one| one.cycle).collect();
        cycles.len()
    }

    /// Returns every pair of a subject and a measure: subjects in their order, measures in that in
    /// which they first appear.
    pub fn series(&self) -> Vec<(&str, &str)> {
        let mut series: Vec<(&str, &str)> = Vec::new();
        let mut known = HashSet::new();
        for one in &self.observations {
            let pair = (one.subject.as_str(), one.measure.as_str());
            if known.insert(pair) {
                series.push(pair);
            }
        }
        let place = |subject: &str| self.info.subjects.iter().position(|it| it == subject);
        // Those that have no place come last.
        series.sort_by_key(|(subject, _)| place(subject).unwrap_or(usize::MAX));
        series
    }
}

/// Why the records of a probe can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `probe.json` is no record of a probe.
    #[error("'probe.json': {0}")]
    Info(serde_json::Error),
    /// A line is no observation.
    #[error("'observations.jsonl', line {line}: {error}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The reason.
        error: serde_json::Error,
    },
    /// Another version of this program has written it.
    #[error("'probe.json' has schema {0}: expected {PROBE_SCHEMA}")]
    Schema(u32),
}

/// Reads the records of a probe. A last line that is cut off is left out.
///
/// # Errors
/// If they are of another version or damaged.
pub fn read(info: &str, observations: &str) -> Result<Probed, ProbeError> {
    let info: ProbeInfo = serde_json::from_str(info).map_err(ProbeError::Info)?;
    if info.schema != PROBE_SCHEMA {
        return Err(ProbeError::Schema(info.schema));
    }
    let whole = observations.rfind('\n').map_or(0, |at| at + 1);
    let lines = observations[..whole].lines().enumerate();
    let read = lines.map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| ProbeError::Line {
            line: index + 1,
            error,
        })
    });
    Ok(Probed {
        info,
        observations: read.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
pub(crate) fn probed(rules: Vec<Rule>, observations: &[(&str, &str, f64)]) -> Probed {
    Probed {
        info: ProbeInfo {
            schema: PROBE_SCHEMA,
            hopbench: "0".to_owned(),
            probe: "test".to_owned(),
            question: "Does it work?".to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            command_line: Vec::new(),
            seed: 1,
            git: Git::default(),
            machine: Machine::default(),
            injected: None,
            notes: Vec::new(),
            subjects: Vec::new(),
            is_finished: true,
            rules,
        },
        observations: (1..)
            .zip(observations)
            .map(|(cycle, (subject, measure, value))| Observation {
                cycle,
                subject: (*subject).to_owned(),
                measure: (*measure).to_owned(),
                value: *value,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_again_and_a_cut_line_is_left_out() {
        let probed = probed(Vec::new(), &[("a", "wall_us", 1.5), ("b", "failures", 0.0)]);
        let info = serde_json::to_string(&probed.info).expect("a record");
        let mut lines = String::new();
        for one in &probed.observations {
            lines += &serde_json::to_string(one).expect("a record");
            lines.push('\n');
        }
        lines += "{\"cycle\": 3, \"sub";
        let again = read(&info, &lines).expect("good records");
        assert_eq!(again.observations, probed.observations);
        let damaged = lines.replacen("\"subject\"", "\"subjekt\"", 1);
        let error = read(&info, &damaged)
            .expect_err("a damaged line")
            .to_string();
        assert!(
            error.starts_with("'observations.jsonl', line 1: "),
            "{error}"
        );
        let other = info.replace("\"schema\":1", "\"schema\":9");
        let error = read(&other, &lines)
            .expect_err("another version")
            .to_string();
        assert_eq!(error, "'probe.json' has schema 9: expected 1");
    }
}
