//! Tables of a probe: distributions, counts, and rules that don't pass, as text or as Markdown.

use super::{
    Probed, Unit,
    distribution::{Distribution, Quantile},
    rule::{Outcome, Statistic, Verdict, judge},
};
use crate::report::terminal::pad;

/// A table: a heading row and others. Columns after the first are aligned to the right.
type Rows = Vec<Vec<String>>;

/// Returns all tables of a probe for a terminal.
pub fn terminal(probed: &Probed) -> String {
    let mut text = String::new();
    for rows in tables(probed) {
        text.push('\n');
        for row in pad(&rows, |column| column > 1) {
            text += row.join("  ").trim_end();
            text.push('\n');
        }
    }
    text
}

/// Returns all tables of a probe as Markdown.
pub fn markdown(probed: &Probed) -> String {
    let mut text = String::new();
    for rows in tables(probed) {
        text.push('\n');
        for (index, row) in rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if index == 0 {
                let rules = row.iter().enumerate().map(|(column, _)| match column {
                    0 | 1 => "---",
                    _ => "---:",
                });
                text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
            }
        }
    }
    text
}

/// Returns one line per verdict that isn't a pass, and one that counts them all.
pub fn summary(verdicts: &[Verdict]) -> String {
    let count = |outcome| verdicts.iter().filter(|it| it.outcome == outcome).count();
    let [passed, failed, inconclusive] =
        [Outcome::Passed, Outcome::Failed, Outcome::Inconclusive].map(count);
    let mut text = String::new();
    for verdict in verdicts.iter().filter(|it| it.outcome != Outcome::Passed) {
        let unit = Unit::of(&verdict.measure);
        let shown =
            |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), |it| full(it, unit));
        text += &format!(
            "{}: {}: {} of '{}' is {}: expected at most {}{}\n",
            verdict.outcome.name(),
            verdict.subject,
            verdict.statistic.name(),
            verdict.measure,
            shown(verdict.value),
            shown(verdict.limit),
            match verdict.why.as_str() {
                "" => String::new(),
                why => format!(" ({why})"),
            }
        );
    }
    text + &format!("{passed} passed, {failed} failed, {inconclusive} inconclusive\n")
}

fn tables(probed: &Probed) -> Vec<Rows> {
    let (counts, values): (Vec<_>, Vec<_>) = probed
        .series()
        .into_iter()
        .partition(|(_, measure)| Unit::of(measure) == Unit::Count);
    let heading = |names: &[&str]| vec![names.iter().map(|it| (*it).to_owned()).collect()];
    let mut distributions: Rows = heading(&[
        "subject",
        "measure",
        "n",
        "min",
        "p50",
        "95 % of p50",
        "p95",
        "95 % of p95",
        "p99",
        "max",
    ]);
    distributions.extend(values.iter().filter_map(|(subject, measure)| {
        let values = Distribution::of(probed.values(subject, measure))?;
        Some(distribution_row(subject, measure, &values))
    }));
    let mut verdicts: Rows = heading(&["subject", "rule", "value", "limit", "verdict"]);
    let judged = judge(probed);
    let others = judged.iter().filter(|it| it.outcome != Outcome::Passed);
    verdicts.extend(others.map(verdict_row));
    let sums = sums(probed, &counts);
    let all = [distributions, sums, verdicts];
    all.into_iter().filter(|rows| rows.len() > 1).collect()
}

/// Makes the table of counts: a row for each subject, a column for the sum of each measure.
fn sums(probed: &Probed, counts: &[(&str, &str)]) -> Rows {
    let (mut subjects, mut measures) = (Vec::new(), Vec::new());
    for (subject, measure) in counts {
        if !subjects.contains(subject) {
            subjects.push(*subject);
        }
        if !measures.contains(measure) {
            measures.push(*measure);
        }
    }
    let names = measures.iter().map(|measure| measure.replace('_', " "));
    let head = ["subject".to_owned(), "cycles".to_owned()].into_iter();
    let mut rows = vec![head.chain(names).collect::<Vec<_>>()];
    rows.extend(subjects.into_iter().map(|subject| {
        let of = |measure: &&str| Distribution::of(probed.values(subject, measure));
        let most = measures
            .iter()
            .filter_map(of)
            .map(|values| values.count())
            .max();
        let sums = measures.iter().map(|measure| {
            of(measure).map_or_else(
                || "–".to_owned(),
                |values| number(values.sum(), Unit::Count),
            )
        });
        let head = [subject.to_owned(), most.unwrap_or_default().to_string()].into_iter();
        head.chain(sums).collect()
    }));
    rows
}

fn distribution_row(subject: &str, measure: &str, values: &Distribution) -> Vec<String> {
    let unit = Unit::of(measure);
    let [p50, p95, p99] = [50, 95, 99].map(|percent| values.percentile(percent));
    vec![
        subject.to_owned(),
        title(measure, unit),
        values.count().to_string(),
        number(values.min(), unit),
        number(p50.value, unit),
        interval(p50, unit),
        number(p95.value, unit),
        interval(p95, unit),
        number(p99.value, unit),
        number(values.max(), unit),
    ]
}

fn verdict_row(verdict: &Verdict) -> Vec<String> {
    let unit = Unit::of(&verdict.measure);
    let shown =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| number(value, unit));
    let statistic = match verdict.statistic {
        Statistic::Sum if unit == Unit::Count => "",
        other => other.name(),
    };
    vec![
        verdict.subject.clone(),
        format!("{statistic} {}", title(&verdict.measure, unit))
            .trim()
            .to_owned(),
        shown(verdict.value),
        shown(verdict.limit),
        verdict.outcome.name().to_owned(),
    ]
}

/// Returns a measure's name in words, with the unit in which its values are written.
fn title(measure: &str, unit: Unit) -> String {
    let (ending, shown) = match unit {
        Unit::Bytes => ("_bytes", ", bytes"),
        Unit::Count => ("", ""),
        Unit::Kib => ("_kib", ", MiB"),
        Unit::Us => ("_us", ", ms"),
    };
    let name = measure.strip_suffix(ending).unwrap_or(measure);
    format!("{}{shown}", name.replace('_', " "))
}

fn interval(quantile: Quantile, unit: Unit) -> String {
    let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), |value| number(value, unit));
    format!("{}–{}", end(quantile.low), end(quantile.high))
}

/// Writes a value with its unit.
fn full(value: f64, unit: Unit) -> String {
    let name = match unit {
        Unit::Bytes => " bytes",
        Unit::Count => "",
        Unit::Kib => " MiB",
        Unit::Us => " ms",
    };
    number(value, unit) + name
}

/// Writes a value, with three digits that count.
fn number(value: f64, unit: Unit) -> String {
    let value = match unit {
        Unit::Bytes | Unit::Count => return format!("{value:.0}"),
        Unit::Kib => value / 1024.0,
        Unit::Us => value / 1e3,
    };
    match value.abs() {
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{probed, rule::Rule},
        *,
    };

    fn made_up() -> Probed {
        let rule = |measure: &str, statistic, max| Rule {
            measure: measure.to_owned(),
            subject: "*".to_owned(),
            statistic,
            max,
            over: None,
            why: "it was promised".to_owned(),
        };
        let rules = vec![
            rule("wall_us", Statistic::P50, 5_000.0),
            rule("lost_lines", Statistic::Sum, 0.0),
        ];
        let observations = [
            ("quick", "wall_us", 1_234.0),
            ("quick", "wall_us", 1_300.0),
            ("quick", "lost_lines", 0.0),
            ("slow", "wall_us", 123_456.0),
            ("slow", "lost_lines", 2.0),
            ("slow", "rss_kib", 2_048.0),
        ];
        probed(rules, &observations)
    }

    #[test]
    fn a_probe_is_three_tables() {
        let text = markdown(&made_up());
        let expected = "
| subject | measure | n | min | p50 | 95 % of p50 | p95 | 95 % of p95 | p99 | max |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
| quick | wall, ms | 2 | 1.23 | 1.23 | ?–? | 1.30 | 1.23–? | 1.30 | 1.30 |
| slow | wall, ms | 1 | 123 | 123 | ?–? | 123 | ?–? | 123 | 123 |
| slow | rss, MiB | 1 | 2.00 | 2.00 | ?–? | 2.00 | ?–? | 2.00 | 2.00 |

| subject | cycles | lost lines |
|---|---|---:|
| quick | 1 | 0 |
| slow | 1 | 2 |

| subject | rule | value | limit | verdict |
|---|---|---:|---:|---:|
| slow | p50 wall, ms | 123 | 5.00 | inconclusive |
| slow | lost lines | 2 | 0 | failed |
";
        assert_eq!(text, expected);
        let words = summary(&judge(&made_up()));
        let expected = "\
inconclusive: slow: p50 of 'wall_us' is 123 ms: expected at most 5.00 ms (it was promised)
failed: slow: sum of 'lost_lines' is 2: expected at most 0 (it was promised)
2 passed, 1 failed, 1 inconclusive
";
        assert_eq!(words, expected);
    }
}
