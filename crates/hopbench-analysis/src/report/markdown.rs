//! `REPORT.md`, and the tables that a run prints.

use std::{collections::BTreeMap, fmt::Write};

use super::{chart, lines, overview, rates};
use crate::{
    ab::Duel,
    estimate::{self, BLOCKS_MIN, Estimate},
    figures::Figure,
    pathology,
    record::{Build, Cell, FailureKind, Manifest, PathInfo, Trial, Warning},
    statistics::Spread,
    summary::{CellSummary, ScenarioSummary, Summary, Table},
};

/// The whole report.
pub fn report(summary: &Summary<'_>, trials: &[Trial], planned: usize) -> String {
    let mut out = String::from("# What does a hop cost?\n\n");
    out += &environment(summary.manifest);
    out += &progress(trials, planned);
    out += &doubts(trials, "*Warnings*");
    for warning in &summary.manifest.warnings {
        out += &format!("\n> **Warning:** {warning}\n");
    }
    if let Some(duel) = Duel::of(summary.manifest, trials) {
        out += "\n## b over a\n";
        out += &super::ab::markdown(&duel);
    }
    for scenario in &summary.scenarios {
        out += &scenario_heading(scenario);
        out += &overview::section(scenario);
        for (kind, alternative, _) in pictures(scenario) {
            out += &format!("\n![{alternative}]({kind}-{}.svg)\n", scenario.info.name);
        }
        out += &rates::knees(&summary.manifest.knees, &scenario.info.name);
        out += &tables(scenario);
        out += &copies(scenario);
        out += &wake_ups(scenario);
        out += &pathologies(scenario);
        out += &warnings(scenario);
    }
    out += &paths(&summary.manifest.paths);
    out
}

/// The pictures that a scenario has: kind, what it shows, and itself.
pub fn pictures(
    scenario: &ScenarioSummary<'_>,
) -> impl Iterator<Item = (&'static str, &'static str, String)> {
    [
        (
            "overview",
            "share of the reference",
            chart::overview(scenario),
        ),
        ("latency", "p99 over rate", lines::latency(scenario)),
    ]
    .into_iter()
    .filter(|(_, _, picture)| !picture.is_empty())
}

/// One table per endpoint.
pub fn tables(scenario: &ScenarioSummary<'_>) -> String {
    scenario
        .tables
        .iter()
        .map(|table| match table.is_fixed_rate {
            true => rates::table(scenario, table),
            false => endpoint_table(scenario, table),
        })
        .collect()
}

/// What went wrong, as a section.
pub fn pathologies(scenario: &ScenarioSummary<'_>) -> String {
    let mut out = String::from("\n### Pathologies\n\n");
    let found = pathology::find(scenario);
    let is_measured = scenario.tables.iter().any(|table| !table.rows.is_empty());
    if found.is_empty() {
        out += if is_measured {
            "None found.\n"
        } else {
            "Nothing measured.\n"
        };
    }
    for pathology in found {
        out += &format!("- {pathology}\n");
    }
    out
}

fn environment(manifest: &Manifest) -> String {
    let machine = &manifest.machine;
    let dirty = if manifest.git.dirty {
        ", with uncommitted changes"
    } else {
        ""
    };
    let revision = match manifest.git.revision.as_str() {
        "" => "none",
        revision => &revision[..revision.len().min(12)],
    };
    let limits: Vec<String> = machine
        .cgroup
        .iter()
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    let rows = [
        ("started", manifest.started.clone()),
        ("command", format!("`{}`", manifest.command_line.join(" "))),
        ("revision", format!("{revision}{dirty}")),
        (
            "hopbench",
            format!("{} ({} profile)", manifest.hopbench, manifest.profile),
        ),
        ("toolchain", manifest.toolchain.clone()),
        ("seed", manifest.seed.to_string()),
        (
            "processor",
            format!("{} × {}", machine.cores, machine.cpu_model),
        ),
        ("governor", machine.governor.clone()),
        ("clock source", machine.clock_source.clone()),
        ("memory", format!("{} MiB", machine.memory_kib / 1024)),
        (
            "system",
            format!("{}, Linux {}", machine.operating_system, machine.kernel),
        ),
        ("virtualization", machine.virtualization.clone()),
        ("limits", limits.join(", ")),
        ("storage", machine.storage.clone()),
        ("network", machine.network.join(", ")),
    ];
    let mut out = String::from("| environment | |\n|---|---|\n");
    for (name, value) in rows {
        let value = if value.is_empty() { "unknown" } else { &value };
        writeln!(out, "| {name} | {} |", value.replace('|', "\\|")).expect("a string grows");
    }
    out
}

/// How much of the plan was run, and where the time went.
pub fn progress(trials: &[Trial], planned: usize) -> String {
    let failed = trials
        .iter()
        .filter(|trial| trial.measured().is_none())
        .count();
    let mut out = format!(
        "\n{} of {planned} trials run, {failed} failed.",
        trials.len()
    );
    if trials.len() < planned {
        out += " **The run is not complete.**";
    }
    let total: f64 = trials.iter().map(|trial| trial.timing.total_ms()).sum();
    let overhead: f64 = trials.iter().map(|trial| trial.timing.overhead_ms()).sum();
    if total > 0.0 {
        writeln!(
            out,
            " {:.0} s, of which {:.0} % outside of load (start, verify, scrape, stop).",
            total / 1e3,
            100.0 * overhead / total
        )
        .expect("a string grows");
    }
    out
}

/// How many trials break which rules of validity, and where each is told; empty if none does.
pub fn doubts(trials: &[Trial], place: &str) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for warning in trials.iter().flat_map(|trial| &trial.warnings) {
        *kinds.entry(warning.kind()).or_default() += 1;
    }
    if kinds.is_empty() {
        return String::new();
    }
    let kinds = kinds.iter().map(|(kind, count)| format!("{kind} ×{count}"));
    let kinds: Vec<String> = kinds.collect();
    let marked = trials.iter().filter(|trial| !trial.warnings.is_empty());
    format!(
        "\n{} trial(s) with warnings of validity: {}. Each is under {place}, with what to do.\n",
        marked.count(),
        kinds.join(", ")
    )
}

fn scenario_heading(scenario: &ScenarioSummary<'_>) -> String {
    let info = scenario.info;
    let mut out = format!("\n## {}\n\n**{}**\n", info.name, info.question.trim());
    if !info.analysis.trim().is_empty() {
        out += &format!("\n{}\n", info.analysis.trim());
    }
    out += &format!(
        "\nMedians over {} block(s), with the lowest and highest in brackets. RPS counts right \
         answers only.\n",
        scenario.blocks
    );
    out += &explanation(scenario);
    out
}

/// How ratios are to be read; empty without any.
pub fn explanation(scenario: &ScenarioSummary<'_>) -> String {
    let rows = scenario.tables.iter().flat_map(|table| &table.rows);
    let shown = rows.flat_map(|row| [Figure::Rps, Figure::Cpu].map(|figure| row.ratios[figure]));
    let shown: Vec<Estimate> = shown.flatten().collect();
    if shown.is_empty() {
        return String::new();
    }
    let enough = || shown.iter().filter(|ratio| ratio.blocks >= BLOCKS_MIN);
    let blocks = || enough().map(|ratio| ratio.blocks);
    // Confidence does not rise with the blocks: each of the three is of another cell, maybe.
    let confidence = enough().map(|ratio| ratio.confidence).reduce(f64::min);
    let (Some(least), Some(most), Some(confidence)) = (blocks().min(), blocks().max(), confidence)
    else {
        return format!(
            "\nA ratio is formed within a block. With fewer than {BLOCKS_MIN} blocks nothing is \
             told apart: ?.\n"
        );
    };
    format!(
        "\nA ratio is formed within a block; over {} or more of them it is the Hodges-Lehmann \
         estimate, in brackets the interval that covers the true ratio in {:.0} of 100 runs or \
         more; no p is smaller than {}. ≈ marks what is no difference: the interval has 100 % in \
         it, or the reference differs as much from itself, which its row says (A/A). ? marks what \
         too few blocks can't tell.\n",
        least,
        (confidence * 100.0).floor(),
        probability(estimate::p_min(most), 2)
    )
}

fn endpoint_table(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> String {
    let mut out = format!(
        "\n### {}{}\n\n",
        table.endpoint,
        connection(table.keep_alive)
    );
    out += "| Transport | Concurrency | RPS | p50 (ms) | p99 (ms) | RPS vs Baseline | p90 (ms) \
            | Errors |";
    for role in &scenario.roles {
        out += &format!(" {role} CPU (µs/req) |");
    }
    out += " server CPU (µs/req) | server CPU vs Baseline |\n\
            |---|---:|---:|---:|---:|---:|---:|---:|";
    out += &"---:|".repeat(scenario.roles.len() + 2);
    out += "\n";
    for row in &table.rows {
        out += &table_row(scenario, row);
    }
    out += &control(scenario, table);
    out
}

/// What the reference has over itself, at each concurrency.
fn control(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> String {
    // Of two builds, the first is the one that is its own control.
    let is_control = |row: &&CellSummary<'_>| row.is_reference && row.cell.build != Some(Build::B);
    let references = table.rows.iter().filter(is_control);
    let reaches: Vec<String> = references
        .filter_map(|row| {
            let reach = percent(row.floor(Figure::Rps)? - 1.0);
            Some(format!("{reach} at c={}", row.cell.load()))
        })
        .collect();
    if reaches.is_empty() {
        return String::new();
    }
    format!(
        "\nA/A control: the RPS of `{}` differ from themselves by up to {}. Smaller differences \
         mean nothing.\n",
        scenario.info.reference,
        reaches.join(", ")
    )
}

fn table_row(scenario: &ScenarioSummary<'_>, row: &CellSummary<'_>) -> String {
    let mut out = format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        row.cell.path_and_build(),
        row.cell.load(),
        spread(row.rps, thousands),
        spread(row.p50_us, milliseconds),
        spread(row.p99_us, milliseconds),
        share(row, Figure::Rps),
        spread(row.p90_us, milliseconds),
        errors(row),
    );
    for role in &scenario.roles {
        out += &format!(
            " {} |",
            spread(row.cpu_us_per_request.get(role).copied(), tenths)
        );
    }
    out += &format!(
        " {} | {} |\n",
        spread(row.cpu_us_per_request_server, tenths),
        share(row, Figure::Cpu)
    );
    out
}

/// What a path has over the reference, or the reference over itself.
pub(super) fn share(row: &CellSummary<'_>, figure: Figure) -> String {
    let is_b = row.cell.build == Some(Build::B);
    let control = || row.control.as_ref().filter(|_| !is_b)?[figure];
    match (row.is_reference, control(), &row.ratios[figure]) {
        (true, Some(control), _) => format!("A/A {}", with_interval(&control)),
        (true, None, _) => "100 %".to_owned(),
        (false, _, Some(ratio)) => format!("{}{}", mark(row.differs(figure)), with_interval(ratio)),
        (false, _, None) => "–".to_owned(),
    }
}

pub(super) fn with_interval(estimate: &Estimate) -> String {
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high].map(percent);
    match low == ratio && high == ratio {
        true => ratio,
        false => format!("{ratio} ({low}–{high})"),
    }
}

/// Of a ratio, by whether it is a difference.
pub(super) fn mark(differs: Option<bool>) -> &'static str {
    match differs {
        Some(true) => "",
        Some(false) => "≈ ",
        None => "? ",
    }
}

/// Requests without a right answer, and trials that failed altogether.
pub(super) fn errors(row: &CellSummary<'_>) -> String {
    let mut parts = Vec::new();
    if row.totals.requests > 0 || row.failures.is_empty() {
        parts.push(row.failed_requests().to_string());
    }
    let mut failures: BTreeMap<FailureKind, usize> = BTreeMap::new();
    for failure in &row.failures {
        *failures.entry(failure.kind).or_default() += 1;
    }
    for (kind, trials) in failures {
        parts.push(match trials {
            1 => kind.to_string(),
            _ => format!("{kind} ×{trials}"),
        });
    }
    parts.join(", ")
}

fn copies(scenario: &ScenarioSummary<'_>) -> String {
    let rows: Vec<&CellSummary<'_>> = scenario
        .tables
        .iter()
        .flat_map(|table| &table.rows)
        .filter(|row| row.totals.has_counters && row.totals.good > 0)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "\n### Copies per byte\n\nBytes that the tunnel's processes handed over by reference and \
         bytes that they copied in user space, against the bytes of the bodies that the client \
         received. Heads and requests are carried too: with small bodies there is more to carry \
         than body.\n\n\
         | Transport | Endpoint | Concurrency | body bytes/req | zero-copy bytes/req | copied \
         bytes/req | zero-copy per body byte | copied per body byte |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let totals = &row.totals;
        let requests = totals.good as f64;
        let body = totals.body_bytes as f64;
        let per_body_byte = |bytes: u64| match totals.body_bytes {
            0 => "–".to_owned(),
            _ => format!("{:.2}", bytes as f64 / body),
        };
        out += &cell_line(
            &row.cell,
            [
                thousands(body / requests),
                thousands(totals.zero_copy_bytes as f64 / requests),
                thousands(totals.copied_bytes as f64 / requests),
                per_body_byte(totals.zero_copy_bytes),
                per_body_byte(totals.copied_bytes),
            ],
        );
    }
    out
}

fn wake_ups(scenario: &ScenarioSummary<'_>) -> String {
    let mut out = String::from(
        "\n### Wake-ups and memory\n\nPer request, of all processes but the client: how often a \
         thread was put to sleep or aside; how often the tunnel rang for its other side, how often \
         it could leave that out because the other was awake, and how often one of its event loops \
         slept. The most memory that the processes had resident, together.\n\n\
         | Transport | Endpoint | Concurrency | context switches/req | doorbells/req | left \
         out/req | sleeps/req | peak RSS (MiB) |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut any = false;
    for row in scenario.tables.iter().flat_map(|table| &table.rows) {
        let totals = &row.totals;
        if totals.good == 0 {
            continue;
        }
        any = true;
        let per_request = |count: u64| match totals.has_counters {
            true => hundredths(count as f64 / totals.good as f64),
            false => "–".to_owned(),
        };
        out += &cell_line(
            &row.cell,
            [
                spread(row.context_switches_per_request, hundredths),
                per_request(totals.doorbells_sent),
                per_request(totals.doorbells_suppressed),
                per_request(totals.wake_ups),
                spread(row.rss_peak_kib, |kib| tenths(kib / 1024.0)),
            ],
        );
    }
    if any { out } else { String::new() }
}

/// A line of a table that names its cell first.
fn cell_line(cell: &Cell, figures: [String; 5]) -> String {
    format!(
        "| {} | {} | {} | {} |\n",
        cell.path_and_build(),
        cell.endpoint,
        cell.load(),
        figures.join(" | "),
    )
}

fn warnings(scenario: &ScenarioSummary<'_>) -> String {
    let mut out = String::new();
    for row in scenario.tables.iter().flat_map(|table| &table.rows) {
        let mut kinds: BTreeMap<&str, (usize, &Warning)> = BTreeMap::new();
        for warning in &row.warnings {
            kinds.entry(warning.kind()).or_insert((0, *warning)).0 += 1;
        }
        for (count, first) in kinds.into_values() {
            let of = match count {
                1 => String::new(),
                _ => format!(" (the first of {count} trials)"),
            };
            out += &format!("- {}: {first}{of}\n", row.cell);
        }
    }
    if out.is_empty() {
        out
    } else {
        format!("\n### Warnings\n\n{out}")
    }
}

fn paths(paths: &[PathInfo]) -> String {
    let mut out = String::from("\n## Paths\n");
    for path in paths {
        out += &format!("\n**{}**: {}\n", path.name, path.summary.trim());
        if let Some(reason) = &path.skipped {
            out += &format!("\nSkipped: {reason}\n");
        }
        if !path.analysis.trim().is_empty() {
            out += &format!("\n{}\n", path.analysis.trim());
        }
        for (process, receipt) in &path.receipts {
            out += &format!("\n- {process}: {receipt}");
        }
        out += "\n";
    }
    out
}

pub(super) fn connection(keep_alive: bool) -> &'static str {
    if keep_alive {
        ""
    } else {
        ", a new connection per request"
    }
}

pub(super) fn spread(spread: Option<Spread>, format: fn(f64) -> String) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "–".to_owned();
    };
    let (median, min, max) = (format(median), format(min), format(max));
    if min == max {
        median
    } else {
        format!("{median} ({min}–{max})")
    }
}

fn hundredths(number: f64) -> String {
    format!("{number:.2}")
}

pub(super) fn milliseconds(us: f64) -> String {
    let ms = us / 1e3;
    match ms {
        ..10.0 => format!("{ms:.3}"),
        ..100.0 => format!("{ms:.2}"),
        _ => format!("{ms:.0}"),
    }
}

pub(super) fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// So many digits of a probability, however small it is.
pub(crate) fn probability(probability: f64, digits: usize) -> String {
    let rounded = format!("{probability:.*e}", digits - 1).parse::<f64>();
    rounded.expect("a number").to_string()
}

pub(super) fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// A whole number, its digits in groups of three.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
