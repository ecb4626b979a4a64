//! Rules for the observations of a probe, and what they find.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Probed,
    distribution::{Distribution, Quantile},
};

/// A limit for a statistic of a measure.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Measure that is judged.
    pub measure: String,
    /// Subjects that are judged: a name, the beginning of names and `*`, or `*` for all.
    pub subject: String,
    /// Names of those among them that are not judged, such as one with a rule of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Statistic that is judged.
    pub statistic: Statistic,
    /// Largest value that is right; with `over`, the most that it may be above the reference's.
    pub max: f64,
    /// Subject whose statistic is the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The reason for the limit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A statistic of a measure.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Largest value.
    Max,
    /// Median.
    P50,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// Sum of all values.
    Sum,
}

/// The judgement of a rule on a subject.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Subject that was judged.
    pub subject: String,
    /// Measure that was judged.
    pub measure: String,
    /// Statistic that was judged.
    pub statistic: Statistic,
    /// Its value; `None` if nothing was observed.
    pub value: Option<f64>,
    /// Limit; `None` if the reference was not observed.
    pub limit: Option<f64>,
    /// Whether the value is right.
    pub outcome: Outcome,
    /// The reason for the limit.
    pub why: String,
}

/// The outcome of a judgement.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The value and its whole interval are beyond the limit, and beyond the upper end of a
    /// reference's interval.
    Failed,
    /// The value is beyond the limit, but its interval isn't; or there is no value.
    Inconclusive,
    /// The value is within the limit.
    Passed,
}

impl Statistic {
    /// Returns its name, as it is written in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Sum => "sum",
        }
    }

    fn of(self, values: &Distribution) -> Quantile {
        let exact = |value| Quantile {
            value,
            low: Some(value),
            high: Some(value),
        };
        match self {
            Self::Max => exact(values.max()),
            Self::Sum => exact(values.sum()),
            Self::P50 => values.percentile(50),
            Self::P95 => values.percentile(95),
            Self::P99 => values.percentile(99),
        }
    }
}

impl Outcome {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
            Self::Passed => "passed",
        }
    }
}

impl Rule {
    fn concerns(&self, subject: &str) -> bool {
        if self.except.iter().any(|name| name == subject) {
            return false;
        }
        match self.subject.strip_suffix('*') {
            Some(beginning) => subject.starts_with(beginning),
            None => subject == self.subject,
        }
    }

    /// Returns the subjects that the rule judges. Its reference isn't one of them.
    pub fn subjects<'p>(&self, probed: &'p Probed) -> Vec<&'p str> {
        let series = probed.series().into_iter();
        let concerned = series.filter(|(subject, measure)| {
            let is_reference = self.over.as_deref() == Some(subject);
            *measure == self.measure && self.concerns(subject) && !is_reference
        });
        concerned.map(|(subject, _)| subject).collect()
    }

    fn judge(&self, probed: &Probed, subject: &str) -> Verdict {
        let of = |subject: &str| {
            let values = Distribution::of(probed.values(subject, &self.measure))?;
            Some(self.statistic.of(&values))
        };
        let value = of(subject);
        let reference = self.over.as_ref().map(|reference| of(reference));
        // The limit, and the largest that it may truly be.
        let limits = match reference {
            None => Some((self.max, self.max)),
            Some(reference) => reference.map(|it| {
                let most = it.high.unwrap_or(it.value).max(it.value);
                (it.value + self.max, most + self.max)
            }),
        };
        let outcome = match (value, limits) {
            (Some(value), Some((limit, _))) if value.value <= limit => Outcome::Passed,
            (Some(value), Some((_, most))) if value.low.is_some_and(|low| low > most) => {
                Outcome::Failed
            }
            _ => Outcome::Inconclusive,
        };
        Verdict {
            subject: subject.to_owned(),
            measure: self.measure.clone(),
            statistic: self.statistic,
            value: value.map(|value| value.value),
            limit: limits.map(|(limit, _)| limit),
            outcome,
            why: self.why.clone(),
        }
    }
}

/// Judges all subjects by the rules of the probe. A rule that concerns no subject at all is
/// inconclusive: it was meant for something that was not observed.
pub fn judge(probed: &Probed) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for rule in &probed.info.rules {
        let subjects = rule.subjects(probed);
        if subjects.is_empty() {
            verdicts.push(rule.judge(probed, &rule.subject));
        }
        verdicts.extend(
            subjects
                .into_iter()
                .map(|subject| rule.judge(probed, subject)),
        );
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::{super::probed, *};

    fn rule(subject: &str, statistic: Statistic, max: f64, over: Option<&str>) -> Rule {
        Rule {
            measure: "wall_us".to_owned(),
            subject: subject.to_owned(),
            except: Vec::new(),
            statistic,
            max,
            over: over.map(str::to_owned),
            why: String::new(),
        }
    }

    fn outcomes(rules: Vec<Rule>, observations: &[(&str, &str, f64)]) -> Vec<(String, Outcome)> {
        let verdicts = judge(&probed(rules, observations)).into_iter();
        verdicts.map(|it| (it.subject, it.outcome)).collect()
    }

    #[test]
    fn a_slow_subject_fails_and_a_single_outlier_does_not() {
        let mut observations = Vec::new();
        for cycle in 0..20 {
            observations.push(("true", "wall_us", 1_000.0));
            observations.push(("quick", "wall_us", 2_000.0));
            observations.push(("slow", "wall_us", 302_000.0));
            // Two of twenty: the 95th percentile is beyond the limit, but perhaps by chance.
            observations.push((
                "odd",
                "wall_us",
                if cycle < 2 { 302_000.0 } else { 2_000.0 },
            ));
        }
        let rules = vec![rule("*", Statistic::P95, 100_000.0, Some("true"))];
        let expected = [
            ("quick".to_owned(), Outcome::Passed),
            ("slow".to_owned(), Outcome::Failed),
            ("odd".to_owned(), Outcome::Inconclusive),
        ];
        assert_eq!(outcomes(rules, &observations), expected);
    }

    #[test]
    fn a_count_is_exact_and_nothing_observed_is_no_pass() {
        let observations = [("a 1", "wall_us", 0.0), ("a 2", "wall_us", 1.0)];
        let rules = vec![
            rule("a*", Statistic::Sum, 0.0, None),
            rule("b*", Statistic::Sum, 0.0, None),
            rule("a 1", Statistic::Max, 0.0, Some("gone")),
        ];
        let expected = [
            ("a 1".to_owned(), Outcome::Passed),
            ("a 2".to_owned(), Outcome::Failed),
            ("b*".to_owned(), Outcome::Inconclusive),
            ("a 1".to_owned(), Outcome::Inconclusive),
        ];
        assert_eq!(outcomes(rules, &observations), expected);
    }
}
