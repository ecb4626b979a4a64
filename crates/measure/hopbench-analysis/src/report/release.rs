//! The page of a release, as Markdown: the machine, what each scenario showed, and what changed
//! since the last release. A page is a list of sections; whoever has more to tell adds its own.

mod change;
mod figures;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{
    probe, sentences,
    sheet::{Medium, Table},
    text::escape,
};
use crate::{compare::Side, probe::Probed, record::Trial, summary::Summary};

/// A run whose figures belong to a release.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Name of the run's directory.
    pub name: &'a str,
    /// Summary of the run.
    pub summary: &'a Summary<'a>,
    /// All trials of the run.
    pub trials: &'a [Trial],
}

impl<'a> Measured<'a> {
    fn side(&self) -> Side<'a> {
        Side {
            summary: self.summary,
            trials: self.trials,
        }
    }
}

/// A part of the page below a heading of its own.
#[derive(Clone, Debug)]
pub struct Section {
    /// Heading, as text.
    pub heading: String,
    /// Everything below it, as Markdown.
    pub body: String,
}

/// Mark of a page that a program wrote. Tables in such a page may be wide.
pub const MARK: &str = "<!-- made by 'hopbench release-summary': changes by hand get lost -->";

/// Returns the page of a release, with these sections in their order.
pub fn page(release: &str, sections: &[Section]) -> String {
    let mut out = format!("# Performance of release {}\n\n{MARK}\n", escape(release));
    for section in sections {
        let body = section.body.trim_matches('\n');
        out += &format!("\n## {}\n\n{body}\n", escape(&section.heading));
    }
    out
}

/// Returns the sections that the runs of a release make: the runs, the environment, one for each
/// scenario, and the change since the runs of the last release.
pub fn sections(head: &[Measured<'_>], base: &[Measured<'_>]) -> Vec<Section> {
    let mut sections = vec![runs(head), environment(head)];
    for run in head {
        let scenarios = run.summary.scenarios.iter();
        sections.extend(scenarios.map(|scenario| figures::section(run, scenario)));
    }
    sections.push(change::section(head, base));
    sections
}

/// Returns a section for each probe of a release, with what has changed since those of the last.
pub fn probes(head: &[Probed], base: &[Probed]) -> Vec<Section> {
    let section = |probed: &Probed| {
        let info = &probed.info;
        let before = base.iter().find(|it| it.info.probe == info.probe);
        let revision = info.git.revision.get(..12).unwrap_or(&info.git.revision);
        let conditions = format!(
            "Revision {}, observed at {}, on {}, {} cores.",
            escape(revision),
            escape(&info.started),
            escape(&info.machine.cpu_model),
            info.machine.cores
        );
        let body = paragraph(&conditions) + &probe::below_heading(probed, before);
        Section {
            heading: format!("Probe {}: {}", info.probe, info.question),
            body,
        }
    };
    head.iter().map(section).collect()
}

fn runs(head: &[Measured<'_>]) -> Section {
    let mut body = String::new();
    for run in head {
        body += &item(&run_in_a_sentence(run));
    }
    body += "\n";
    body += &paragraph(
        "How to read the tables: RPS (correct answers per second), latencies and CPU time are \
         medians over the blocks of the run. At a fixed rate, a latency counts from the moment a \
         request is due. CPU is the time of all server processes per correct answer, and max RSS \
         the largest peak of their resident memory together in any trial. Failed: requests \
         without a correct answer, and trials that failed, by kind. Dropped: requests at a fixed \
         rate that were never sent, because the path kept every connection waiting; late: those \
         that the load generator missed. `-`: not measured, or fewer than twenty answers exceed \
         the percentile. ≥: the percentile is a lower bound.",
    );
    Section {
        heading: "Runs".to_owned(),
        body,
    }
}

/// Says what was measured, when, at which revision, and with how much trouble.
fn run_in_a_sentence(run: &Measured<'_>) -> String {
    let manifest = run.summary.manifest;
    let failed = run.trials.iter().filter(|it| it.measured().is_none());
    let scenarios = names(run.summary).join(", ");
    let mut out = format!(
        "**{}**: {}, revision {}, measured at {}; {} trials, {} failed.",
        escape(&scenarios),
        escape(run.name),
        escape(&sentences::revision(manifest)),
        escape(&sentences::started(manifest)),
        run.trials.len(),
        failed.count()
    );
    for warning in &manifest.warnings {
        out += &format!(" Warning: {}.", escape(warning));
    }
    if let Some(doubts) = sentences::doubts_in_short(run.trials) {
        out += &format!(" {}", escape(&doubts));
    }
    out
}

/// Returns the names of a run's scenarios.
fn names(summary: &Summary<'_>) -> Vec<String> {
    let scenarios = summary.scenarios.iter();
    scenarios.map(|it| it.info.name.clone()).collect()
}

/// Items of a run's environment that the list of runs has already.
const OF_THE_RUN: [&str; 4] = ["started", "command", "revision", "seed"];

/// Returns the machine and the programs that measured; values that differ between runs, for each.
fn environment(head: &[Measured<'_>]) -> Section {
    let mut sheet = Table::new(2, ["item", "value"]);
    let of_runs = head.iter().map(|run| {
        let items = sentences::environment(run.summary.manifest).into_iter();
        let items = items.filter(|(item, _)| !OF_THE_RUN.contains(item));
        (names(run.summary).join(", "), items.collect::<Vec<_>>())
    });
    let of_runs: Vec<(String, Vec<(&str, String)>)> = of_runs.collect();
    let rows = of_runs.first().map_or(0, |(_, items)| items.len());
    for row in 0..rows {
        let values: BTreeSet<&String> = of_runs.iter().map(|(_, items)| &items[row].1).collect();
        let value = match values.len() {
            1 => of_runs[0].1[row].1.clone(),
            _ => {
                let each = of_runs.iter();
                let each = each.map(|(name, items)| format!("{name}: {}", items[row].1));
                each.collect::<Vec<_>>().join("; ")
            }
        };
        sheet.push(vec![of_runs[0].1[row].0.into(), value.into()]);
    }
    Section {
        heading: "Environment".to_owned(),
        body: sheet.text(Medium::Markdown),
    }
}

/// Longest line of text, in characters.
const COLUMNS: usize = 100;

/// Breaks Markdown text into lines.
fn paragraph(text: &str) -> String {
    wrap(text, "")
}

/// Makes an item of a list.
fn item(text: &str) -> String {
    format!("- {}", wrap(text, "  "))
}

/// Breaks text into lines that begin with `indent`, the first one excepted.
fn wrap(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut column = indent.len();
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if out.is_empty() {
        } else if column + 1 + length > COLUMNS {
            out += &format!("\n{indent}");
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out + "\n"
}
