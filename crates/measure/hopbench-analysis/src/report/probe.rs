//! Tables of a probe: distributions, counts, and rules that don't pass.

use super::{
    sheet::{Entry, Medium, Table, Tone},
    text::{self, escape},
};
use crate::probe::{
    Probed, Unit,
    distribution::{Distribution, Quantile},
    rule::{Outcome, Statistic, Verdict, judge},
};

/// Returns all tables of a probe for a terminal.
pub fn terminal(probed: &Probed) -> String {
    tables(probed, Medium::Terminal)
}

/// Returns the tables and the verdicts of a probe below a heading of a page, with what has changed
/// since another one.
pub(super) fn below_heading(head: &Probed, base: Option<&Probed>) -> String {
    let change = match base {
        None => String::new(),
        Some(base) => format!("\nSince the last release:\n\n{}", change(base, head)),
    };
    let verdicts = summary(head);
    let verdicts: String = verdicts
        .lines()
        .map(|line| format!("- {}\n", escape(line)))
        .collect();
    format!("{}\n{verdicts}{change}", tables(head, Medium::Markdown))
}

/// Compares medians. They differ if their intervals don't overlap, which is rarer by chance than
/// one time in twenty.
fn change(base: &Probed, head: &Probed) -> String {
    let mut table = Table::new(
        2,
        ["subject", "measure", "p50 before", "p50 now", "verdict"],
    );
    table = table.with_notes(1);
    for (subject, measure) in head.series() {
        let unit = Unit::of(measure);
        let of = |probed: &Probed| Distribution::of(probed.values(subject, measure));
        let (Some(before), Some(now)) = (of(base), of(head)) else {
            continue;
        };
        if unit == Unit::Count {
            continue;
        }
        let [before, now] = [before, now].map(|values| values.percentile(50));
        let is_above = |one: Quantile, other: Quantile| {
            one.low
                .zip(other.high)
                .is_some_and(|(low, high)| low > high)
        };
        let verdict = if is_above(now, before) {
            "more"
        } else if is_above(before, now) {
            "less"
        } else {
            "no difference shown"
        };
        let cells = [
            number(before.value, unit),
            number(now.value, unit),
            verdict.to_owned(),
        ];
        let names = [subject.to_owned(), title(measure, unit)];
        table.push(names.into_iter().chain(cells).map(Entry::from).collect());
    }
    table.text(Medium::Markdown)
}

/// Returns the page of a probe, as Markdown.
pub fn markdown(probed: &Probed) -> String {
    let info = &probed.info;
    let notes = info.notes.iter();
    let notes: String = notes.map(|note| format!("- {}\n", escape(note))).collect();
    let machine = &info.machine;
    format!(
        "# {}: {}\n\n{}, {} cores, kernel {}; revision {}{}; {}\n{}\n{}\n{notes}",
        info.probe,
        info.question,
        machine.cpu_model,
        machine.cores,
        machine.kernel,
        info.git.revision,
        if info.git.dirty { " with changes" } else { "" },
        info.started,
        tables(probed, Medium::Markdown),
        summary(probed)
    )
}

/// Returns one line per verdict that isn't a pass, and one that counts them all.
pub fn summary(probed: &Probed) -> String {
    let verdicts = judge(probed);
    let count = |outcome| verdicts.iter().filter(|it| it.outcome == outcome).count();
    let [passed, failed, inconclusive] =
        [Outcome::Passed, Outcome::Failed, Outcome::Inconclusive].map(count);
    let others = verdicts.iter().filter(|it| it.outcome != Outcome::Passed);
    let lines: String = others.map(sentence).collect();
    let unfinished = match probed.info.is_finished {
        true => "",
        false => "not finished: these are the observations until it ended\n",
    };
    let injected = probed.info.injected.as_ref();
    let injected = injected.map_or_else(String::new, |fault| format!("injected: {fault}\n"));
    let counts = format!("{passed} passed, {failed} failed, {inconclusive} inconclusive\n");
    lines + &injected + unfinished + &counts
}

fn sentence(verdict: &Verdict) -> String {
    let unit = Unit::of(&verdict.measure);
    let shown = |value: Option<f64>, otherwise: &str| {
        value.map_or_else(|| otherwise.to_owned(), |it| number(it, unit) + name(unit))
    };
    let why = match verdict.why.as_str() {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    format!(
        "{}: {}: {} of '{}' is {}: expected at most {}{why}\n",
        verdict.outcome.name(),
        verdict.subject,
        verdict.statistic.name(),
        verdict.measure,
        shown(verdict.value, "not observed"),
        shown(verdict.limit, "what was not observed either"),
    )
}

fn tables(probed: &Probed, medium: Medium) -> String {
    let (counts, values): (Vec<_>, Vec<_>) = probed
        .series()
        .into_iter()
        .partition(|(_, measure)| Unit::of(measure) == Unit::Count);
    let tables = [
        distributions(probed, &values),
        sums(probed, &counts),
        verdicts(probed),
    ];
    let tables = tables.into_iter().filter(|table| !table.is_empty());
    tables
        .map(|table| format!("\n{}", table.text(medium)))
        .collect()
}

fn distributions(probed: &Probed, series: &[(&str, &str)]) -> Table {
    let columns = [
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
    ];
    let mut table = Table::new(2, columns);
    for (subject, measure) in series {
        let unit = Unit::of(measure);
        let Some(values) = Distribution::of(probed.values(subject, measure)) else {
            continue;
        };
        let [p50, p95, p99] = [50, 95, 99].map(|percent| values.percentile(percent));
        let cells = [
            values.count().to_string(),
            number(values.min(), unit),
            number(p50.value, unit),
            interval(p50, unit),
            number(p95.value, unit),
            interval(p95, unit),
            number(p99.value, unit),
            number(values.max(), unit),
        ];
        let names = [(*subject).to_owned(), title(measure, unit)];
        table.push(names.into_iter().chain(cells).map(Entry::from).collect());
    }
    table
}

/// Makes the table of counts: a row for each subject, a column for the sum of each measure.
fn sums(probed: &Probed, counts: &[(&str, &str)]) -> Table {
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
    let mut table = Table::new(1, head.chain(names));
    for subject in subjects {
        let cycles = probed.cycles(subject).to_string();
        let sums = measures.iter().map(|measure| {
            let values = Distribution::of(probed.values(subject, measure));
            values.map_or_else(|| "–".to_owned(), |it| number(it.sum(), Unit::Count))
        });
        let head = [subject.to_owned(), cycles].into_iter();
        table.push(head.chain(sums).map(Entry::from).collect());
    }
    table
}

fn verdicts(probed: &Probed) -> Table {
    let mut table = Table::new(2, ["subject", "rule", "value", "limit", "verdict"]).with_notes(1);
    let verdicts = judge(probed).into_iter();
    for verdict in verdicts.filter(|it| it.outcome != Outcome::Passed) {
        let unit = Unit::of(&verdict.measure);
        let shown =
            |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |it| number(it, unit));
        let title = title(&verdict.measure, unit);
        let rule = match verdict.statistic {
            Statistic::Sum if unit == Unit::Count => title,
            other => format!("{} {title}", other.name()),
        };
        let tone = match verdict.outcome {
            Outcome::Failed => Tone::Bad,
            Outcome::Inconclusive | Outcome::Passed => Tone::Plain,
        };
        table.push(vec![
            verdict.subject.into(),
            rule.into(),
            shown(verdict.value).into(),
            shown(verdict.limit).into(),
            Entry::new(verdict.outcome.name(), tone),
        ]);
    }
    table
}

/// Returns a measure's name in words, with the unit in which its values are written.
fn title(measure: &str, unit: Unit) -> String {
    let ending = match unit {
        Unit::Bytes => "_bytes",
        Unit::Count => "",
        Unit::Each => "_each",
        Unit::Kib => "_kib",
        Unit::Us => "_us",
    };
    let words = measure
        .strip_suffix(ending)
        .unwrap_or(measure)
        .replace('_', " ");
    match name(unit).trim() {
        "" => words,
        name => format!("{words}, {name}"),
    }
}

fn name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => " bytes",
        Unit::Count => "",
        Unit::Each => " each",
        Unit::Kib => " MiB",
        Unit::Us => " ms",
    }
}

fn interval(quantile: Quantile, unit: Unit) -> String {
    let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), |value| number(value, unit));
    format!("{}–{}", end(quantile.low), end(quantile.high))
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes | Unit::Count => text::thousands(value),
        Unit::Each => text::hundredths(value),
        Unit::Kib => text::tenths(value / 1024.0),
        Unit::Us => text::milliseconds(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{probed, rule::Rule};

    fn made_up() -> Probed {
        let rule = |measure: &str, statistic, max| Rule {
            measure: measure.to_owned(),
            subject: "*".to_owned(),
            except: Vec::new(),
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
            ("sl|ow", "wall_us", 123_456.0),
            ("sl|ow", "lost_lines", 2.0),
            ("sl|ow", "rss_kib", 2_048.0),
            ("quick", "wall_us", 1_234.0),
            ("quick", "wall_us", 1_300.0),
            ("quick", "lost_lines", 0.0),
        ];
        let mut probed = probed(rules, &observations);
        probed.info.subjects = vec!["quick".to_owned(), "sl|ow".to_owned()];
        probed
    }

    #[test]
    fn medians_that_differ_for_sure_are_more_or_less() {
        let of = |quick: f64, slow: f64| {
            let values = (0..20).map(f64::from);
            let all = values.flat_map(|step| {
                [
                    ("quick", "wall_us", quick + step),
                    ("slow", "wall_us", slow + step),
                ]
            });
            probed(Vec::new(), &all.collect::<Vec<_>>())
        };
        let text = change(&of(1_000.0, 2_000.0), &of(1_005.0, 3_000.0));
        let expected = "\
| subject | measure | p50 before | p50 now | verdict |
|---|---|---:|---:|---|
| quick | wall, ms | 1.009 | 1.014 | no difference shown |
| slow | wall, ms | 2.009 | 3.009 | more |
";
        assert_eq!(text, expected);
        assert!(change(&of(9.0, 900.0), &of(9.0, 90.0)).contains("| less |"));
    }

    #[test]
    fn a_probe_is_three_tables_in_the_order_of_its_subjects() {
        let text = tables(&made_up(), Medium::Markdown);
        let expected = "
| subject | measure | n | min | p50 | 95 % of p50 | p95 | 95 % of p95 | p99 | max |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
| quick | wall, ms | 2 | 1.234 | 1.234 | ?–? | 1.300 | 1.234–? | 1.300 | 1.300 |
| sl\\|ow | wall, ms | 1 | 123 | 123 | ?–? | 123 | ?–? | 123 | 123 |
| sl\\|ow | rss, MiB | 1 | 2.0 | 2.0 | ?–? | 2.0 | ?–? | 2.0 | 2.0 |

| subject | cycles | lost lines |
|---|---:|---:|
| quick | 3 | 0 |
| sl\\|ow | 3 | 2 |

| subject | rule | value | limit | verdict |
|---|---|---:|---:|---|
| sl\\|ow | p50 wall, ms | 123 | 5.000 | inconclusive |
| sl\\|ow | lost lines | 2 | 0 | failed |
";
        assert_eq!(text, expected);
        let expected = "\
inconclusive: sl|ow: p50 of 'wall_us' is 123 ms: expected at most 5.000 ms (it was promised)
failed: sl|ow: sum of 'lost_lines' is 2: expected at most 0 (it was promised)
2 passed, 1 failed, 1 inconclusive
";
        assert_eq!(summary(&made_up()), expected);
        let mut ended = made_up();
        ended.info.is_finished = false;
        assert!(summary(&ended).contains("\nnot finished: "));
    }
}
