//! The change since the last release, by the comparison of runs.

use super::{Measured, Section, figures, item, paragraph};
use crate::{
    compare::{Compared, Comparison, Difference, Incomparable, changed_versions},
    metrics::Metric,
    record::{Cell, Manifest},
    report::{
        compare::{counted, failures, reliance},
        marks,
        sheet::{Entry, Medium, Table},
        text::{bound, escape, with_interval},
    },
    summary::{CellSummary, ScenarioSummary},
    told::Told,
};

/// Metrics that are compared, each with whether more of it is better.
const METRICS: [(Metric, bool); 3] = [
    (Metric::Rps, true),
    (Metric::P99, false),
    (Metric::Cpu, false),
];

pub(super) fn section(head: &[Measured<'_>], base: &[Measured<'_>]) -> Section {
    let mut body = String::new();
    if base.is_empty() {
        body += &paragraph(
            "This is the first release with a summary; there is nothing to compare with.",
        );
    } else {
        let scenarios = head.iter().flat_map(|run| {
            let all = run.summary.scenarios.iter();
            all.map(move |scenario| of_scenario(run, scenario, base))
        });
        let tables: String = scenarios.collect();
        body += &paragraph(EXPLANATION);
        if let Some(legend) = marks::explained_in(&[&tables]) {
            body += "\n";
            body += &paragraph(&legend);
        }
        body += &tables;
    }
    Section {
        heading: "Change since the last release".to_owned(),
        body,
    }
}

const EXPLANATION: &str = "Each change is this release over the last one: for a path, of its ratio \
    to the reference of the same run; for the reference, of its own metrics. *Slower* names the \
    metrics that are worse by more than noise explains: fewer RPS, a longer p99, or more CPU time \
    per request; *faster* those that are better. At a fixed rate, RPS is given and not judged.";

fn of_scenario(run: &Measured<'_>, of_head: &ScenarioSummary<'_>, base: &[Measured<'_>]) -> String {
    let name = &of_head.info.name;
    let mut out = format!("\n### {}\n\n", escape(name));
    let has_it = |run: &&Measured<'_>| {
        let mut scenarios = run.summary.scenarios.iter();
        scenarios.any(|scenario| scenario.info.name == *name)
    };
    let Some(of_base) = base.iter().find(has_it) else {
        return out + &paragraph("Not comparable: the last release has no run of this scenario.");
    };
    // Versions are looked at path by path: a new one of an outside program concerns only its path.
    let comparison = match Comparison::of_versions(of_base.side(), run.side()) {
        Ok(comparison) => comparison,
        Err(Incomparable(differences)) => {
            let why = why(&differences);
            return out
                + &paragraph(&escape(&format!(
                    "Not comparable: {why}. Measure both releases on the same machine, with the \
                     same scenario and options."
                )));
        }
    };
    let manifests = [of_base.summary.manifest, run.summary.manifest];
    let (sheet, told) = sheet(&comparison, of_head, manifests);
    out += &sheet.text(Medium::Markdown);
    let lines = failures(of_scenario_only(&comparison, name));
    if !lines.is_empty() {
        out += "\nMore failures than before:\n\n";
        out.extend(lines.iter().map(|line| item(&escape(line))));
    }
    let gone: Vec<String> = comparison
        .only_base
        .iter()
        .filter(|cell| cell.scenario == *name)
        .map(ToString::to_string)
        .collect();
    if !gone.is_empty() {
        let gone = format!("Only in the last release: {}.", gone.join(", "));
        out += &format!("\n{}", paragraph(&escape(&gone)));
    }
    let unknown = told.iter().filter(|it| **it == Told::TooFewBlocks).count();
    let shown = of_scenario_only(&comparison, name);
    let shown = shown.flat_map(|cell| METRICS.map(|(metric, _)| cell.changes[metric]));
    let summed = counted(&told) + &reliance(unknown, shown.flatten(), "comparisons");
    out + &format!("\n{}", paragraph(&summed))
}

fn of_scenario_only<'c, 'a>(
    comparison: &'c Comparison<'a>,
    name: &str,
) -> impl Iterator<Item = &'c Compared<'a>> {
    let cells = comparison.cells.iter();
    cells.filter(move |it| it.head.cell.scenario == name)
}

fn why(differences: &[Difference]) -> String {
    let each = differences.iter().map(ToString::to_string);
    each.collect::<Vec<_>>().join("; ")
}

/// Returns a row for each cell of the release, and what each metric tells.
fn sheet(
    comparison: &Comparison<'_>,
    of_head: &ScenarioSummary<'_>,
    [base, head]: [&Manifest; 2],
) -> (Table, Vec<Told>) {
    let columns = ["path", "endpoint", "load", "RPS", "p99", "CPU", "verdict"];
    let mut sheet = Table::new(3, columns).with_notes(1);
    let mut told = Vec::new();
    let versions = |cell: &Cell| {
        let paths = [&cell.path, &of_head.info.reference].into_iter();
        let mut changed = paths.map(|path| changed_versions(base, head, path));
        changed.find(|differences| !differences.is_empty())
    };
    for row in of_head.rows() {
        let mut cells = comparison.cells.iter();
        let compared = cells.find(|it| it.head.cell == row.cell);
        let mut entries: Vec<Entry> = figures::names(row).map(Entry::from).into();
        match (compared, versions(&row.cell)) {
            (Some(compared), None) => {
                told.extend(
                    METRICS
                        .iter()
                        .filter_map(|(metric, _)| compared.told(*metric)),
                );
                entries.extend(METRICS.map(|(metric, _)| change(compared, metric)));
                entries.push(verdict(compared).into());
            }
            (Some(_), Some(changed)) => entries.extend(not_comparable(&why(&changed))),
            (None, _) => entries.extend(not_comparable("not measured in the last release")),
        }
        sheet.push(entries);
    }
    (sheet, told)
}

fn not_comparable(why: &str) -> [Entry; 4] {
    let verdict = format!("not comparable: {why}");
    ["-".into(), "-".into(), "-".into(), verdict.into()]
}

fn change(compared: &Compared<'_>, metric: Metric) -> Entry {
    match (&compared.changes[metric], compared.told(metric)) {
        (Some(estimate), Some(told)) => {
            let text = bound(compared.bounds[metric]).to_owned() + &with_interval(estimate);
            Entry::told(&text, told)
        }
        _ => "-".into(),
    }
}

/// Says which metrics are better and which are worse.
fn verdict(compared: &Compared<'_>) -> String {
    let fails_more = compared.fails_more() || compared.answers_less();
    let (mut faster, mut slower) = (Vec::new(), Vec::new());
    let (mut is_told, mut has_few_blocks) = (false, false);
    let is_fixed_rate = compared.head.cell.rate_rps.is_some();
    let judged = METRICS.into_iter();
    let judged = judged.filter(|(metric, _)| !(is_fixed_rate && *metric == Metric::Rps));
    for (metric, more_is_better) in judged {
        let (Some(change), Some(told)) = (compared.changes[metric], compared.told(metric)) else {
            continue;
        };
        has_few_blocks |= told == Told::TooFewBlocks;
        is_told |= told != Told::TooFewBlocks;
        if told != Told::Different {
            continue;
        }
        match (change.ratio > 1.0) == more_is_better {
            // Answers that fail make room for others, and may be quick.
            true if fails_more => {}
            true => faster.push(metric.title()),
            false => slower.push(metric.title()),
        }
    }
    let mut parts = Vec::new();
    for (word, metrics) in [("slower", slower), ("faster", faster)] {
        if !metrics.is_empty() {
            parts.push(format!("{word}: {}", metrics.join(", ")));
        }
    }
    let is_silent = parts.is_empty();
    parts.extend(fails_more.then(|| "more failures".to_owned()));
    match (is_silent, is_told, has_few_blocks) {
        (false, ..) => {}
        (true, true, _) => parts.insert(0, "no difference shown".to_owned()),
        (true, false, true) => parts.insert(0, "no difference shown: too few blocks".to_owned()),
        (true, false, false) => parts.insert(0, unmeasured(compared.base, compared.head)),
    }
    parts.join("; ")
}

/// Says why there is no metric to compare.
fn unmeasured(base: &CellSummary<'_>, head: &CellSummary<'_>) -> String {
    let why = match (base.rps.is_some(), head.rps.is_some()) {
        (true, false) => "no metrics in this release",
        (false, true) => "no metrics in the last release",
        _ => "no metrics that both releases have",
    };
    format!("not comparable: {why}")
}
