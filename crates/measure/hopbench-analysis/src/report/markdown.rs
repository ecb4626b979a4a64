//! `REPORT.md`, and the tables that a run prints.

use super::{
    ab, chart, lead, lines, marks, overview, parts, rates, sentences,
    sheet::{Medium, Table},
    tables,
    text::escape,
};
use crate::{
    ab::AbComparison,
    record::{Manifest, Trial},
    summary::{ScenarioSummary, Summary},
};

/// Returns the whole report of a run, of which `planned` trials were planned.
pub fn report(summary: &Summary<'_>, trials: &[Trial], planned: usize) -> String {
    let comparison = AbComparison::of(summary.manifest, trials);
    let mut out = format!("# {}\n", title(summary.manifest));
    if let Some(comparison) = &comparison {
        out += &ab::answer::text(comparison, Medium::Markdown);
    }
    let heads = answers(summary, Medium::Markdown);
    out += &heads.concat();
    if let Some(line) = sentences::doubts_line(summary, trials, planned) {
        let doubts = list(
            &sentences::doubts(summary, trials, planned),
            Medium::Markdown,
        );
        out += &format!(
            "\n<details>\n<summary>Read this first: {}</summary>\n\n{doubts}\n</details>\n",
            escape(&line)
        );
    }
    out += &format!("\n{}\n", sentences::progress(trials, planned));
    if let Some(comparison) = &comparison {
        out += "\n## b over a\n";
        out += &ab::details(comparison, Medium::Markdown);
    }
    for (scenario, head) in summary.scenarios.iter().zip(&heads) {
        out += &scenario_heading(scenario);
        let mut tables = pathologies(scenario, Medium::Markdown);
        tables += &overview::section(scenario, Medium::Markdown);
        for (kind, alternative, _) in pictures(summary.manifest, scenario) {
            let file = format!("{kind}-{}.svg", scenario.info.name);
            // Without the angle brackets a name with a space would end there.
            tables += &match file.contains(' ') {
                true => format!("\n![{alternative}](<{file}>)\n"),
                false => format!("\n![{alternative}]({file})\n"),
            };
        }
        tables += &rates::knees(&summary.manifest.knees, &scenario.info.name);
        tables += &tables::all(scenario, Medium::Markdown);
        let parts = parts::sections(scenario).into_iter();
        let more = parts
            .chain(tables::counters(scenario))
            .chain(tables::wake_ups(scenario));
        tables.extend(more.map(|section| section.text(Medium::Markdown)));
        if let Some(legend) = marks::explained_in(&[head, &tables]) {
            out += &format!("\n{}\n", escape(&legend));
        }
        out += &tables;
        let warnings = sentences::warnings(scenario);
        if !warnings.is_empty() {
            out += &format!("\n### Warnings\n\n{}", list(&warnings, Medium::Markdown));
        }
    }
    out += &paths(summary.manifest);
    out += &environment(summary.manifest);
    out
}

/// Returns the question that a report answers.
pub(super) fn title(manifest: &Manifest) -> &'static str {
    match manifest.builds.is_empty() {
        true => "What does a hop cost?",
        false => "What has changed from a to b?",
    }
}

/// Returns the answer of each scenario.
pub(super) fn answers(summary: &Summary<'_>, medium: Medium) -> Vec<String> {
    let scenarios = summary.scenarios.iter();
    let answers = scenarios.map(|scenario| answer(summary, scenario, medium));
    answers.collect()
}

/// Returns the answer of a scenario: a sentence for each path, and a small table.
pub(super) fn answer(
    summary: &Summary<'_>,
    scenario: &ScenarioSummary<'_>,
    medium: Medium,
) -> String {
    let (manifest, info) = (summary.manifest, scenario.info);
    let mut out = String::new();
    if summary.scenarios.len() > 1 {
        out += &match medium {
            Medium::Markdown => format!("\n**{}**: {}\n", info.name, info.question.trim()),
            Medium::Terminal => format!("\n{}: {}\n", info.name, info.question.trim()),
        };
    }
    let said = lead::sentences(manifest, scenario);
    if !said.is_empty() {
        out += &format!("\n{}", list(&said, medium));
    }
    if let Some(section) = lead::section(manifest, scenario) {
        let explained = section.text.unwrap_or_default();
        out += &format!("\n{}\n{explained}\n", section.sheet.text(medium));
    }
    let found = sentences::pathologies_line(scenario);
    out.extend(found.map(|line| match medium {
        Medium::Markdown => format!("\n{}\n", escape(&line)),
        Medium::Terminal => format!("\n{line}\n"),
    }));
    out
}

/// Returns the pictures of a scenario: kind, alternative text and SVG of each.
pub fn pictures(
    manifest: &Manifest,
    scenario: &ScenarioSummary<'_>,
) -> impl Iterator<Item = (&'static str, &'static str, String)> {
    [
        (
            "overview",
            "RPS as a share of the reference's",
            chart::overview(manifest, scenario),
        ),
        ("latency", "p99 by offered rate", lines::latency(scenario)),
    ]
    .into_iter()
    .filter(|(_, _, picture)| !picture.is_empty())
}

/// Returns the pathologies as a section.
pub(super) fn pathologies(scenario: &ScenarioSummary<'_>, medium: Medium) -> String {
    let lines = list(&sentences::pathologies(scenario), medium);
    format!("\n### Pathologies\n\n{lines}")
}

pub(super) fn list(lines: &[String], medium: Medium) -> String {
    let text = |line: &String| match medium {
        Medium::Markdown => escape(line),
        Medium::Terminal => line.clone(),
    };
    lines
        .iter()
        .map(|line| format!("- {}\n", text(line)))
        .collect()
}

fn scenario_heading(scenario: &ScenarioSummary<'_>) -> String {
    let info = scenario.info;
    let mut out = format!("\n## {}\n\n**{}**\n", info.name, info.question.trim());
    if !info.analysis.trim().is_empty() {
        out += &format!("\n{}\n", info.analysis.trim());
    }
    if !info.loads.is_empty() {
        out += &format!("\n{}", list(&info.loads, Medium::Markdown));
    }
    out += &format!("\n{}\n", sentences::medians(scenario));
    out.extend(sentences::explanation(scenario).map(|text| format!("\n{text}\n")));
    out
}

fn environment(manifest: &Manifest) -> String {
    let mut sheet = Table::new(2, ["item", "value"]);
    for (name, value) in sentences::environment(manifest) {
        sheet.push(vec![name.into(), value.into()]);
    }
    let from_records = match sentences::is_repeatable(manifest) {
        true => ", or, from its records alone, `hopbench rerun RUN`",
        false => "",
    };
    format!(
        "\n## Environment\n\n{}\nTo repeat this run: `{}`{from_records}\n",
        sheet.text(Medium::Markdown),
        sentences::command_to_repeat(manifest)
    )
}

fn paths(manifest: &Manifest) -> String {
    let mut out = String::from("\n## Paths\n");
    for path in manifest.all_paths() {
        out += &format!("\n**{}**: {}\n", path.name, escape(path.summary.trim()));
        if let Some(reason) = &path.skipped {
            out += &format!("\nSkipped: {reason}\n");
        }
        if !path.analysis.trim().is_empty() {
            out += &format!("\n{}\n", path.analysis.trim());
        }
        if !path.front.is_plain() {
            out += &format!("\n- asked by {}", path.front);
        }
        for (request, answer) in &path.expect {
            out += &format!(
                "\n- correct answer to '{}': {}",
                escape(request),
                escape(answer)
            );
        }
        for (name, value) in &path.parameters {
            out += &format!("\n- parameter {name}: {}", escape(value));
        }
        for (process, receipt) in &path.receipts {
            out += &format!("\n- {process}: {}", escape(receipt));
        }
        out += "\n";
    }
    out
}
