//! `report.html`: one file without a script. Everything from outside is escaped by construction.

mod charts;
mod counters;
mod flame;
mod legend;
mod timeline;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::legend::Legend;
use super::{
    ab, compare, external, lead, markdown, marks, overview, parts, plot, rates, sentences,
    sheet::{Entry, Table, Tone},
    tables::{self, Section},
    text::{self, hundredths, thousands},
};
use crate::{
    ab::AbComparison,
    compare::Comparison,
    external::External,
    metrics::{per_request, server_cpu_us},
    record::{Load, Manifest, Outcome, Profile, Trial},
    summary::{Percentile, ScenarioSummary, Summary, TrialLatency},
};

const STYLE: &str = include_str!("html/style.css");

/// Largest number of trials that are listed. More are in `trials.jsonl` only.
const TRIALS_MAX: usize = 5_000;

/// Meanings of the terms on the page.
const DEFINITIONS: [(&str, &str); 13] = [
    (
        "path",
        "one way from the client to the origin; all of its processes are started afresh for every \
         trial",
    ),
    ("reference", "the path that all others are compared with"),
    (
        "trial",
        "one load on one path, after a warm-up that isn't counted",
    ),
    (
        "block",
        "every path with every load, in random order, with the reference twice; ratios are formed \
         only within a block",
    ),
    (
        "c, Concurrency",
        "number of connections that the client has open at the same time; each sends its next \
         request when it has its answer, or all of them share an offered rate ('64 at 5000/s')",
    ),
    (
        "RPS",
        "correct answers per second: those with the expected status and length; bodies are also \
         compared before and after the load",
    ),
    (
        "p99",
        "99 of 100 answers took no longer; tables show the median over the blocks. n/a: fewer than \
         twenty answers took longer. ≥: a lower bound, because requests without an answer count \
         with the time that they had waited",
    ),
    (
        "server CPU",
        "CPU time of all processes except the client, per correct answer",
    ),
    (
        "server over client CPU",
        "server CPU time divided by the client's own; what slows the machine for a moment slows \
         both",
    ),
    (
        "confidence interval",
        "with six blocks or more, it covers the true ratio in at least 95 of 100 runs; with fewer, \
         less often",
    ),
    (
        "=, can't tell and ?",
        "=: equal. The whole confidence interval and the noise floor lie within ±5 % of 100 %. \
         Can't tell: the two may be equal or may differ. The interval contains 100 %, or the ratio \
         is within the noise floor. ?: too few blocks to tell. Without a mark: a difference beyond \
         the noise",
    ),
    (
        "not answered, dropped, late",
        "not answered: requests that the path answered incorrectly or not at all. Dropped: those \
         of them that were due at a fixed rate but never sent, because the path kept every \
         connection waiting. Late: requests that the load generator did not send in time, which \
         are not held against the path",
    ),
    (
        "A/A control, noise floor",
        "the reference is measured twice in each block and compared with itself: the noise floor \
         is how far apart two equal things may seem",
    ),
];

/// Returns the page of a run, of which `planned` trials were planned.
pub fn report(
    summary: &Summary<'_>,
    trials: &[Trial],
    planned: usize,
    profiles: &[Profile],
    figures: &[External],
) -> String {
    let legend = Legend::new(summary);
    let manifest = summary.manifest;
    let names = summary.scenarios.iter().map(|it| it.info.name.as_str());
    let title = format!("hopbench: {}", names.collect::<Vec<_>>().join(", "));
    let comparison = AbComparison::of(manifest, trials);
    let body = html! {
        (head(summary, trials, planned, comparison.as_ref()))
        @if let Some(comparison) = &comparison {
            section {
                h2 { "b over a" }
                @let sections = ab::sections(comparison);
                @for section in &sections { (table(section)) }
                p { (ab::explanation(comparison, &sections)) }
            }
        }
        (legend.boxes())
        @for (index, scenario) in summary.scenarios.iter().enumerate() {
            (self::scenario(index, scenario, manifest, trials, &legend))
        }
        @for profile in profiles { (self::profile(profile)) }
        @if !figures.is_empty() {
            section {
                h2 { (external::HEADING) }
                p { (external::caption(figures)) }
                (external::sheet(figures).html(external::HEADING))
            }
        }
        (paths(manifest))
        (trial_rows(summary, trials))
        (colophon(manifest))
        (definitions())
    };
    page(&title, &legend.style(), &body)
}

/// Returns the page that shows two runs side by side: the base first, then the head.
pub fn comparison(
    names: [&str; 2],
    manifests: [&Manifest; 2],
    comparison: &Comparison<'_>,
) -> String {
    let sides = ["base", "head"];
    let body = html! {
        header {
            h1 { "What changed?" }
            @for (side, name) in sides.iter().zip(names) {
                p { (side) ": " code { (name) } }
            }
        }
        section {
            @let failures = compare::failures(&comparison.cells);
            @if !failures.is_empty() {
                div.first {
                    h2 { "More failures than before" }
                    ul { @for line in &failures { li { (line) } } }
                }
            }
            @let sections = compare::sections(comparison);
            p { (compare::explanation(comparison, &sections)) }
            p {
                "The large mark is the estimate, the bar its confidence interval. Differences are \
                 coloured; what is equal or not told apart is grey. !: some requests were not \
                 answered correctly, or trials failed."
            }
            (grid(charts::changes(comparison).iter().map(plot::Rows::draw)))
            @for section in &sections { (table(section)) }
            @for line in compare::alone(comparison) { p { (line) } }
        }
        @for (side, manifest) in sides.iter().zip(manifests) {
            section {
                h2 { (side) }
                ul { @for warning in &manifest.warnings { li { (warning) } } }
                (environment(manifest))
            }
        }
        (definitions())
    };
    page("hopbench: two runs", "", &body)
}

/// Returns a page whose style has `rules` besides the style sheet.
fn page(title: &str, rules: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // The page loads nothing from anywhere, whatever a name may say.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) (PreEscaped(rules)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string() + "\n"
}

/// Returns the head of the page: what to know before anything else.
fn head(
    summary: &Summary<'_>,
    trials: &[Trial],
    planned: usize,
    comparison: Option<&AbComparison<'_>>,
) -> Markup {
    let manifest = summary.manifest;
    let doubts = sentences::doubts(summary, trials, planned);
    html! {
        header {
            h1 { (markdown::title(manifest)) }
            @if let Some(comparison) = comparison {
                p { (comparison.builds()) }
                ul.answer { @for line in ab::answer::sentences(comparison) { li { (line) } } }
                (ab::answer::sheet(comparison).html("b over a"))
                p { (ab::answer::EXPLANATION) }
            }
            @for (index, scenario) in summary.scenarios.iter().enumerate() {
                (answer(summary, index, scenario))
            }
            @if let Some(line) = sentences::doubts_line(summary, trials, planned) {
                details.first {
                    summary { strong { "Read this first: " } (line) }
                    ul { @for doubt in &doubts { li { (doubt) } } }
                }
            }
            p.lead {
                (sentences::started(manifest)) " · " (sentences::processor(manifest)) " · "
                (sentences::progress(trials, planned))
            }
            @if summary.scenarios.len() > 1 {
                nav aria-label="Scenarios" {
                    @for (index, scenario) in summary.scenarios.iter().enumerate() {
                        a href={ "#scenario-" (index) } { (scenario.info.name) } " "
                    }
                }
            }
        }
    }
}

/// Returns the answer of a scenario: a sentence for each path, and a small table.
fn answer(summary: &Summary<'_>, index: usize, scenario: &ScenarioSummary<'_>) -> Markup {
    let (manifest, info) = (summary.manifest, scenario.info);
    html! {
        @if summary.scenarios.len() > 1 {
            p { strong { (info.name) } ": " (info.question.trim()) }
        }
        ul.answer { @for line in lead::sentences(manifest, scenario) { li { (line) } } }
        @if let Some(section) = lead::section(manifest, scenario) {
            (section.sheet.html(&section.heading))
            @if let Some(text) = &section.text { p { (text) } }
        }
        @if let Some(line) = sentences::pathologies_line(scenario) {
            p { a href={ "#scenario-" (index) } { (line) } }
        }
    }
}

fn scenario(
    index: usize,
    scenario: &ScenarioSummary<'_>,
    manifest: &Manifest,
    trials: &[Trial],
    legend: &Legend,
) -> Markup {
    let info = scenario.info;
    let knees = rates::knees_section(&manifest.knees, &info.name);
    let parts = parts::sections(scenario).into_iter();
    let more = parts.chain(knees).chain(tables::counters(scenario));
    let more: Vec<Section> = more.chain(tables::wake_ups(scenario)).collect();
    let warnings = sentences::warnings(scenario);
    html! {
        section id={ "scenario-" (index) } {
            h2 { (info.name) }
            p.question { (info.question.trim()) }
            @if !info.analysis.trim().is_empty() { p { (info.analysis.trim()) } }
            @if !info.loads.is_empty() { ul { @for load in &info.loads { li { (load) } } } }
            h3 { "Pathologies" }
            ul { @for line in sentences::pathologies(scenario) { li { (line) } } }
            @let glance: Vec<(String, Table)> = overview::sheets(scenario).collect();
            @if !glance.is_empty() { h3 { (overview::HEADING) } }
            @for (title, sheet) in &glance { (sheet.html(title)) }
            @if scenario.blocks > 0 { p { (sentences::medians(scenario)) } }
            @if let Some(text) = sentences::explanation(scenario) { p { (text) } }
            @if let Some(text) = explained(manifest, scenario, &glance) { p { (text) } }
            (pictures(scenario, manifest, legend))
            (picture(
                "Over time",
                "Each point is a second: the median over the blocks. Latencies and failures are of \
                 the requests that ended in it.",
                timeline::charts(scenario, trials, legend).iter().map(plot::Lines::draw).collect(),
            ))
            @if !scenario.tables.is_empty() { h3 { "All metrics" } }
            @for it in &scenario.tables {
                (table(&tables::cells(scenario, it)))
                @if let Some(control) = sentences::control(scenario, it) { p { (control) } }
                @if let Some(groups) = sentences::groups(scenario, it) { p { (groups) } }
            }
            @for section in &more { (table(section)) }
            @if !warnings.is_empty() {
                details {
                    summary { strong { "Warnings by cell" } }
                    ul { @for warning in &warnings { li { (warning) } } }
                }
            }
        }
    }
}

/// Explains the marks in the tables of a scenario. `None` if there are none.
fn explained(
    manifest: &Manifest,
    scenario: &ScenarioSummary<'_>,
    glance: &[(String, Table)],
) -> Option<String> {
    let cells = scenario.tables.iter();
    let sections = cells.map(|table| tables::cells(scenario, table));
    let sections: Vec<Section> = sections.chain(lead::section(manifest, scenario)).collect();
    let sheets = glance.iter().map(|(_, sheet)| sheet);
    let sheets = sheets.chain(sections.iter().map(|section| &section.sheet));
    marks::explained(sheets.flat_map(Table::texts))
}

fn pictures(scenario: &ScenarioSummary<'_>, manifest: &Manifest, legend: &Legend) -> Markup {
    let rows = |rows: Vec<plot::Rows>| rows.iter().map(plot::Rows::draw).collect();
    let lines = |lines: Vec<plot::Lines>| lines.iter().map(plot::Lines::draw).collect();
    html! {
        (picture(
            "Share of the reference",
            "The large mark is the estimate, the bar its confidence interval, each small mark a \
             block. The grey band is the noise floor: within it, nothing can be told from noise. \
             !: some requests were not answered correctly, or trials failed.",
            rows(charts::shares(scenario, legend)),
        ))
        (picture(
            "Requests per second",
            "Hollow marks: some requests were not answered correctly, or trials failed.",
            lines(charts::throughput(scenario, legend)),
        ))
        (picture(
            "Latency by offered rate",
            "All blocks together. Hollow marks: some requests were not answered correctly, or were \
             never sent because the path kept every connection waiting, or trials failed. Dashed \
             line: the largest rate that the path holds.",
            lines(charts::rates(scenario, &manifest.knees, legend)),
        ))
        (picture(
            "Latency",
            &("All blocks together, from the median up to the last percentile that at least twenty \
             answers exceed and that unanswered requests can't make longer."
                .to_owned()
                + &charts::left_out(scenario).unwrap_or_default()),
            lines(charts::percentiles(scenario, legend)),
        ))
        @let cpu: Vec<Markup> = rows(charts::cpu(scenario, legend));
        @if !cpu.is_empty() {
            h3 { "Where the microseconds go" }
            (legend::roles(scenario))
            (grid(cpu.into_iter()))
        }
        @let counted: Vec<Markup> = rows(counters::charts(scenario, legend));
        @if !counted.is_empty() {
            h3 { "Counters" }
            p.key {
                @for (index, counter) in counters::stacked(scenario).iter().enumerate() {
                    span .swatch.(counters::counter_class(index)) {} (counter.label) " "
                }
            }
            (grid(counted.into_iter()))
        }
        @let memory: Vec<Markup> = rows(charts::memory(scenario, legend));
        @if !memory.is_empty() {
            h3 { "Memory" }
            p.key {
                span.swatch.before {} "before the load "
                span.swatch.grown {} "at the peak"
            }
            (grid(memory.into_iter()))
        }
    }
}

/// Returns the section of a profile: where the time went.
fn profile(profile: &Profile) -> Markup {
    html! {
        section {
            h2 { "Profile of " (profile.cell.full_name()) }
            p { (super::profile::summary(profile)) }
            @for note in &profile.notes { p.bad { (note) } }
            @for (role, of_role) in &profile.roles {
                @if of_role.samples() > 0 { (flame::draw(role, of_role)) }
            }
            @for section in super::profile::sections(profile) { (table(&section)) }
        }
    }
}

/// Returns panels below a heading and a text; nothing without panels.
fn picture(heading: &str, text: &str, panels: Vec<Markup>) -> Markup {
    html! {
        @if !panels.is_empty() {
            h3 { (heading) }
            p { (text) }
            (grid(panels.into_iter()))
        }
    }
}

fn grid(panels: impl Iterator<Item = Markup>) -> Markup {
    html! { div.grid { @for panel in panels { (panel) } } }
}

fn table(section: &Section) -> Markup {
    html! {
        details open {
            summary { strong { (section.heading) } }
            @if let Some(text) = &section.text { p { (text) } }
            (section.sheet.html(&section.heading))
        }
    }
}

fn paths(manifest: &Manifest) -> Markup {
    html! {
        section {
            h2 { "Paths" }
            @for path in manifest.all_paths() {
                h3 { (path.name) }
                p { (path.summary.trim()) }
                @if let Some(reason) = &path.skipped { p.bad { "Skipped: " (reason) } }
                @if !path.analysis.trim().is_empty() { p { (path.analysis.trim()) } }
                ul {
                    @if !path.front.is_plain() { li { "asked by " (path.front) } }
                    @for (request, answer) in &path.expect {
                        li { "correct answer to '" (request) "': " (answer) }
                    }
                    @for (name, value) in &path.parameters {
                        li { "parameter " (name) ": " (value) }
                    }
                    @for (process, receipt) in &path.receipts { li { (process) ": " (receipt) } }
                }
            }
        }
    }
}

/// Returns a table of every trial, by cell.
fn trial_rows(summary: &Summary<'_>, trials: &[Trial]) -> Markup {
    let rows = || {
        let tables = summary.scenarios.iter().flat_map(|it| &it.tables);
        tables.flat_map(|table| &table.rows)
    };
    html! {
        section {
            h2 { "Trials" }
            p {
                "The trials that the metrics above are computed from, by their numbers in "
                code { "trials.jsonl" } "."
            }
            @if trials.len() > TRIALS_MAX {
                p { "There are " (trials.len()) ", too many to list." }
            } @else {
                @for row in rows() {
                    details.trials {
                        summary { (row.cell.full_name()) }
                        @let of_cell = trials.iter().filter(|it| it.planned.cell == row.cell);
                        (trial_table(&row.cell.full_name(), of_cell))
                    }
                }
            }
        }
    }
}

fn trial_table<'t>(caption: &str, trials: impl Iterator<Item = &'t Trial>) -> Markup {
    let columns = [
        "trial",
        "block",
        "RPS",
        "p50 (ms)",
        "p99 (ms)",
        "not answered",
        "server CPU (µs/req)",
        "outcome",
    ];
    let mut sheet = Table::new(2, columns);
    for trial in trials {
        let unknown = || "–".to_owned();
        let load = trial.measured().filter(|load| load.requests > 0);
        // The tables have read this histogram already, so it is readable.
        let latency = load.and_then(|load| TrialLatency::of(trial, load).ok());
        let percentile = |of: fn(&TrialLatency) -> Option<Percentile>| match &latency {
            None => unknown(),
            Some(latency) => of(latency).map_or_else(|| "n/a".to_owned(), text::latency),
        };
        let cpu = trial.measured();
        let cpu = cpu.and_then(|load| per_request(server_cpu_us(trial)?, load));
        let (tone, first) = match &trial.outcome {
            Outcome::Ok => (Tone::Plain, "ok".to_owned()),
            Outcome::Failed(failure) => {
                let cause = format!("{}: {}", failure.kind, failure.cause);
                (Tone::Bad, cause)
            }
        };
        let mut outcome = vec![first];
        outcome.extend(
            trial
                .warnings
                .iter()
                .map(|warning| warning.kind().to_owned()),
        );
        sheet.push(vec![
            trial.planned.trial.to_string().into(),
            match trial.planned.replicate {
                0 => trial.planned.block.to_string().into(),
                _ => format!("{}, replicate", trial.planned.block).into(),
            },
            load.and_then(|_| trial.rps())
                .map_or_else(unknown, thousands)
                .into(),
            percentile(|it| it.p50_us).into(),
            percentile(|it| it.p99_us).into(),
            lost(trial),
            cpu.map_or_else(unknown, hundredths).into(),
            Entry::new(outcome.join(", "), tone),
        ]);
    }
    sheet.html(caption)
}

/// Returns how many requests of a trial the path did not answer rightly.
fn lost(trial: &Trial) -> Entry {
    match trial.measured().map(Load::lost) {
        None => "–".into(),
        Some(0) => "0".into(),
        Some(lost) => Entry::new(thousands(lost as f64), Tone::Bad),
    }
}

fn environment(manifest: &Manifest) -> Markup {
    html! {
        dl {
            @for (name, value) in sentences::environment(manifest) {
                dt { (name) } dd { (value) }
            }
        }
    }
}

fn colophon(manifest: &Manifest) -> Markup {
    html! {
        section {
            h2 { "Environment" }
            (environment(manifest))
            p { "To repeat this run:" }
            pre { code { (sentences::command_to_repeat(manifest)) } }
            @if sentences::is_repeatable(manifest) {
                p { "From its records alone:" }
                pre { code { "hopbench rerun RUN" } }
            }
        }
    }
}

fn definitions() -> Markup {
    html! {
        section {
            h2 { "Glossary" }
            dl { @for (word, meaning) in DEFINITIONS { dt { (word) } dd { (meaning) } } }
        }
    }
}

#[cfg(test)]
mod tests;
