//! Sentences that the reports share, as plain text.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{part, percent, plural, probability, thousands};
use crate::{
    estimate::{self, BLOCKS_MIN, Estimate, Group},
    metrics::Metric,
    pathology::{self, Pathology},
    record::{Build, Cell, FailureKind, Manifest, Outcome, Trial, Warning},
    repeats,
    summary::{CellSummary, ScenarioSummary, Summary, Table},
};

/// Says how much of the plan was run, and how much of the time went outside of load.
pub fn progress(trials: &[Trial], planned: usize) -> String {
    let failed = trials.iter().filter(|trial| trial.measured().is_none());
    let mut out = format!(
        "{} of {planned} trials run, {} failed.",
        trials.len(),
        failed.count()
    );
    let total: f64 = trials.iter().map(|trial| trial.timing.total_ms()).sum();
    let load: f64 = trials.iter().map(|trial| trial.timing.load_ms).sum();
    if total > 0.0 {
        out += &format!(
            " They took {:.0} s, of which {:.0} s were measured: the rest is for starts, checks, \
             warm-ups and stops.",
            total / 1e3,
            load / 1e3
        );
    }
    let (blocks, again) = repeats::repeated(trials);
    if again > 0 {
        out += &format!(
            " Other programs disturbed {again} of {blocks} times that a load went through all \
             paths. These were measured again: the first undisturbed repetition counts instead."
        );
    }
    let generators = trials.iter().filter_map(|trial| trial.load.as_ref());
    let generators: BTreeSet<&str> = generators.map(|load| load.generator.as_str()).collect();
    if !generators.is_empty() {
        let generators: Vec<&str> = generators.into_iter().collect();
        out += &format!(" The requests came from {}.", generators.join(" and "));
    }
    if let Some(bodies) = bodies(trials) {
        out += &format!(" {bodies}");
    }
    out
}

/// Says how many answers were judged by status and length, and of how many the body was compared
/// with the expected one. `None` if all were compared, and none was wrong.
fn bodies(trials: &[Trial]) -> Option<String> {
    let good: u64 = trials
        .iter()
        .filter_map(Trial::measured)
        .map(|it| it.good)
        .sum();
    // A wrong answer fails its trial, so those that failed count, too.
    let loads = || trials.iter().filter_map(|trial| trial.load.as_ref());
    let checked: u64 = loads().map(|load| load.digests_checked).sum();
    let wrong: u64 = loads().flat_map(|load| load.wrong.values()).sum();
    let is_wrong = |trial: &&Trial| match &trial.outcome {
        Outcome::Failed(failure) => failure.kind == FailureKind::WrongAnswer,
        Outcome::Ok => false,
    };
    let failed = trials.iter().filter(is_wrong).count();
    if checked >= good && failed == 0 {
        return None;
    }
    let compared = match checked {
        0 => "No body was compared".to_owned(),
        1 => "1 body was compared byte by byte".to_owned(),
        _ => format!(
            "{} bodies were compared byte by byte",
            thousands(checked as f64)
        ),
    };
    let found = match (checked, wrong, failed) {
        (0, 0, 0) => String::new(),
        (_, 0, 0) => ", during the loads or right after them; all were right".to_owned(),
        (_, 0, _) => format!("; {} failed by a wrong answer", plural(failed, "trial")),
        (_, 1, _) => format!(
            "; 1 answer was wrong, and failed {}",
            plural(failed, "trial")
        ),
        (..) => format!(
            "; {} answers were wrong, and failed {}",
            thousands(wrong as f64),
            plural(failed, "trial")
        ),
    };
    let good = thousands(good as f64);
    Some(format!(
        "{good} answers had the right status and length. {compared}{found}."
    ))
}

/// Returns what makes metrics of the run doubtful: missing trials, then warnings of the run, then
/// warnings of trials by kind.
pub fn doubts(summary: &Summary<'_>, trials: &[Trial], planned: usize) -> Vec<String> {
    let mut doubts = Vec::new();
    if trials.len() < planned {
        let missing = planned - trials.len();
        doubts.push(format!(
            "the run is not complete: {missing} of {planned} trials missing"
        ));
    }
    doubts.extend(summary.manifest.warnings.iter().cloned());
    let mut kinds: BTreeMap<&str, Vec<(&Cell, &Warning)>> = BTreeMap::new();
    for trial in trials {
        for warning in &trial.warnings {
            let found = kinds.entry(warning.kind()).or_default();
            found.push((&trial.planned.cell, warning));
        }
    }
    for (kind, found) in kinds {
        let (cell, warning) = found[0];
        let cells: BTreeSet<&Cell> = found.iter().map(|(cell, _)| *cell).collect();
        doubts.push(match found.len() {
            1 => format!("{kind}, in {cell}: {warning}"),
            trials => format!(
                "{kind}, in {trials} trials of {}, first in {cell}: {warning}",
                plural(cells.len(), "cell")
            ),
        });
    }
    doubts
}

/// Says in one line how many doubts there are, and of which kinds. `None` if there are none.
pub fn doubts_line(summary: &Summary<'_>, trials: &[Trial], planned: usize) -> Option<String> {
    let mut parts = Vec::new();
    if trials.len() < planned {
        let missing = planned - trials.len();
        parts.push(format!(
            "the run is not complete: {missing} of {planned} trials missing."
        ));
    }
    match summary.manifest.warnings.len() {
        0 => {}
        warnings => parts.push(format!("{} of the run.", plural(warnings, "warning"))),
    }
    parts.extend(doubts_in_short(trials));
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Says in one line how many trials have validity warnings, and of which kinds. `None` if none has.
pub fn doubts_in_short(trials: &[Trial]) -> Option<String> {
    let is_short = is_short(trials);
    let counts = |it: &&Warning| !(is_short && matches!(it, Warning::ShortTail { .. }));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for warning in trials.iter().flat_map(|it| &it.warnings).filter(counts) {
        *kinds.entry(warning.kind()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{kind} ×{count}"))
        .collect();
    let is_marked = |trial: &&Trial| trial.warnings.iter().any(|it| counts(&it));
    let marked = trials.iter().filter(is_marked).count();
    let mut parts = Vec::new();
    if marked > 0 {
        let trials = plural(marked, "trial");
        parts.push(format!(
            "{trials} with validity warnings: {}.",
            kinds.join(", ")
        ));
    }
    let mut warnings = trials.iter().flat_map(|trial| &trial.warnings);
    if is_short && warnings.any(|it| matches!(it, Warning::ShortTail { .. })) {
        let said = "The loads are too short for some p99: '--duration-ms 1000' makes them longer.";
        parts.push(said.to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Longest load of a first look, in milliseconds. Such loads have too few answers for a p99 by
/// design, which is not worth a warning for each trial. Those of a scenario are longer.
const FIRST_LOOK_MS: u64 = 500;

/// Returns whether all loads of a run are those of a first look.
fn is_short(trials: &[Trial]) -> bool {
    let is_short = |trial: &Trial| {
        let planned = &trial.planned;
        planned.requests.is_none() && planned.duration_ms <= FIRST_LOOK_MS
    };
    trials.iter().all(is_short)
}

/// Returns the warnings of each cell, one line for each kind.
pub(super) fn warnings(scenario: &ScenarioSummary<'_>) -> Vec<String> {
    let mut lines = Vec::new();
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
            lines.push(format!("{}: {first}{of}", row.cell));
        }
    }
    lines
}

/// Returns the pathologies with advice, or one line if there are none.
pub(super) fn pathologies(scenario: &ScenarioSummary<'_>) -> Vec<String> {
    let found = pathology::find(scenario);
    let is_measured = scenario.tables.iter().any(|table| !table.rows.is_empty());
    let mut lines = pathologies_found(scenario, &found, is_measured);
    lines.extend(pathology::remarks(scenario));
    lines
}

fn pathologies_found(
    scenario: &ScenarioSummary<'_>,
    found: &[Pathology],
    is_measured: bool,
) -> Vec<String> {
    match (found.is_empty(), is_measured) {
        (true, true) => {
            let mut rows = scenario.rows();
            let counts_queues = rows.any(|row| !row.course.listen_overflows.is_empty());
            let looked_for = scenario.info.pathologies.described(counts_queues);
            let looked_for = looked_for.join("; ");
            vec![format!("None found. Looked for: {looked_for}.")]
        }
        (true, false) => vec!["Nothing measured.".to_owned()],
        (false, _) => {
            let mut lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            let mut advice: Vec<&str> = found.iter().map(Pathology::advice).collect();
            let mut told = BTreeSet::new();
            advice.retain(|it| told.insert(*it));
            lines.extend(advice.iter().map(|advice| format!("{advice}.")));
            lines
        }
    }
}

/// Returns whether there are pathologies or remarks.
pub(super) fn has_pathologies(scenario: &ScenarioSummary<'_>) -> bool {
    !pathology::find(scenario).is_empty() || !pathology::remarks(scenario).is_empty()
}

/// Largest number of pathologies that one line names.
const NAMED_MAX: usize = 3;

/// Says in one line how many pathologies there are, and which. `None` if nothing was measured.
pub(super) fn pathologies_line(scenario: &ScenarioSummary<'_>) -> Option<String> {
    scenario.rows().next()?;
    let found = pathology::find(scenario);
    if found.is_empty() {
        let remarks = pathology::remarks(scenario).len();
        return Some(match remarks {
            0 => "Pathologies: none found.".to_owned(),
            _ => format!(
                "Pathologies: none found, but {}; see below.",
                plural(remarks, "remark")
            ),
        });
    }
    let named = found.iter().take(NAMED_MAX).map(Pathology::in_short);
    let named: Vec<String> = named.collect();
    let first = if found.len() > NAMED_MAX {
        ", first"
    } else {
        ""
    };
    Some(format!(
        "Pathologies: {} found{first}: {}; see below.",
        found.len(),
        named.join(", ")
    ))
}

/// Says that the metrics of a scenario are medians, and over how many blocks.
pub(super) fn medians(scenario: &ScenarioSummary<'_>) -> String {
    format!(
        "Values are medians over {}, with the lowest and highest in brackets. RPS counts only \
         correct answers.",
        plural(scenario.blocks, "block")
    )
}

/// Explains how to read the ratios. `None` if there are none.
pub(super) fn explanation(scenario: &ScenarioSummary<'_>) -> Option<String> {
    let rows = scenario.tables.iter().flat_map(|table| &table.rows);
    let shown = rows.flat_map(|row| [Metric::Rps, Metric::Cpu].map(|metric| row.ratios[metric]));
    let shown: Vec<Estimate> = shown.flatten().collect();
    if shown.is_empty() {
        return None;
    }
    let enough = || shown.iter().filter(|ratio| ratio.blocks >= BLOCKS_MIN);
    let blocks = || enough().map(|ratio| ratio.blocks);
    // Confidence does not rise steadily with the blocks, so the three values may be of three cells.
    let confidence = enough().map(|ratio| ratio.confidence).reduce(f64::min);
    let (Some(least), Some(most), Some(confidence)) = (blocks().min(), blocks().max(), confidence)
    else {
        return Some(format!(
            "Ratios are formed within a block. Those over fewer than {BLOCKS_MIN} blocks are too \
             few to tell."
        ));
    };
    Some(format!(
        "Ratios are formed within a block. Over {} or more blocks, a ratio is the Hodges-Lehmann \
         estimate, with its confidence interval in brackets, which covers the true ratio in at \
         least {:.0} of 100 runs. No p-value is smaller than {}. The reference's own row shows the \
         A/A control.",
        least,
        (confidence * 100.0).floor(),
        probability(estimate::p_min(most), 2),
    ))
}

/// Says in one line how figures and ratios are formed, for readers who have the tables at hand.
/// `None` without a block.
pub(super) fn explanation_in_short(scenario: &ScenarioSummary<'_>) -> Option<String> {
    (scenario.blocks > 0).then(|| {
        format!(
            "{} Ratios are formed within a block (docs/METHODOLOGY.md).",
            medians(scenario)
        )
    })
}

/// Says by how much the reference differs from itself at each load. `None` if it has no replicate,
/// and at fixed rates.
pub(super) fn control(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> Option<String> {
    if table.is_fixed_rate {
        return None;
    }
    // With two builds, A is the one that has a replicate.
    let is_control = |row: &&CellSummary<'_>| row.is_reference && row.cell.build != Some(Build::B);
    let references = table.rows.iter().filter(is_control);
    let reaches: Vec<String> = references
        .filter_map(|row| {
            let factor = row.noise_floor(Metric::Rps)?;
            let [reach, low, high] = [factor - 1.0, 1.0 / factor, factor].map(percent);
            let load = row.cell.load();
            Some(format!("{reach} ({low} to {high}) at c={load}"))
        })
        .collect();
    (!reaches.is_empty()).then(|| {
        format!(
            "A/A control: the noise floor of the RPS of '{}' is {}. Ratios within these \
             bounds cannot be told from 100 %.",
            scenario.info.reference,
            reaches.join(", ")
        )
    })
}

/// Names the cells whose blocks fall into two groups, with both. `None` if there are none.
pub(super) fn groups(scenario: &ScenarioSummary<'_>, table: &Table<'_>) -> Option<String> {
    let reference = &scenario.info.reference;
    let of_row = |row: &CellSummary<'_>| {
        let groups = row.groups?;
        let figure = |value: f64| match row.is_reference {
            true => format!("{}/s", thousands(value)),
            false => percent(value),
        };
        let of_group = |group: Group| {
            let Group {
                count,
                median,
                min,
                max,
            } = group;
            let [median, min, max] = [median, min, max].map(figure);
            format!("{count} at {median} ({min}–{max})")
        };
        let [low, high] = [groups.low, groups.high].map(of_group);
        let (of, blocks) = (row.cell.load(), groups.count());
        let path = row.cell.path_and_build();
        Some(format!(
            "'{path}' at c={of}: of {blocks} blocks {low}, {high}"
        ))
    };
    let found: Vec<String> = table.rows.iter().filter_map(of_row).collect();
    (!found.is_empty()).then(|| {
        format!(
            "Two states: the RPS of some cells fall into two groups, and a median describes \
             neither. {}. Ratios are those to '{reference}' in the same block; placement \
             (--placement) often makes the difference.",
            found.join("; ")
        )
    })
}

/// Says how many requests got no right answer, and how many trials failed, by kind.
pub(super) fn errors(row: &CellSummary<'_>) -> String {
    let mut parts = Vec::new();
    match (row.totals.requests, row.failures.is_empty()) {
        (0, true) => parts.push("no requests".to_owned()),
        (_, false) if row.failed_requests() == 0 => {}
        _ => parts.push(row.failed_requests().to_string()),
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

/// Says what has to be shown beside any metric of a cell: the share of requests that the path did
/// not answer, and how many trials failed. `None` if all is well.
pub(super) fn shortfall(row: &CellSummary<'_>) -> Option<String> {
    let mut parts = Vec::new();
    if row.totals.lost() > 0 {
        let share = part(row.totals.lost(), row.totals.due());
        parts.push(format!("{share} not answered"));
    }
    if !row.failures.is_empty() {
        parts.push(format!(
            "{} of {} trials failed",
            row.failures.len(),
            row.trials
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns the machine and the programs that measured, as names and values; unknown ones say so.
pub(super) fn environment(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let machine = &manifest.machine;
    let limits: Vec<String> = machine
        .cgroup
        .iter()
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    let mut rows = vec![
        ("started", started(manifest)),
        ("command", command(manifest)),
        ("revision", revision(manifest)),
        (
            "hopbench",
            format!("{} ({} profile)", manifest.hopbench, manifest.profile),
        ),
        ("toolchain", manifest.toolchain.clone()),
        ("seed", manifest.seed.to_string()),
        ("processor", processor(manifest)),
        ("governor", machine.governor.clone()),
        ("clock source", machine.clock_source.clone()),
        ("memory", format!("{} MiB", machine.memory_kib / 1024)),
        (
            "system",
            known(&[
                &machine.operating_system,
                &format!("Linux {}", machine.kernel),
            ]),
        ),
        ("virtualization", machine.virtualization.clone()),
        ("limits", limits.join(", ")),
        ("storage", known(&[&machine.storage, &machine.storage_kind])),
        ("network", machine.network.join(", ")),
    ];
    for (_, value) in &mut rows {
        if value.is_empty() {
            "unknown".clone_into(value);
        }
    }
    rows
}

/// Names the revision that was measured, and says whether there were uncommitted changes.
pub(super) fn revision(manifest: &Manifest) -> String {
    let dirty = match manifest.git.dirty {
        true => ", with uncommitted changes",
        false => "",
    };
    let revision = match manifest.git.revision.as_str() {
        "" => "none",
        revision => revision.get(..12).unwrap_or(revision),
    };
    format!("{revision}{dirty}")
}

/// Says how many cores of which model the machine has.
pub(super) fn processor(manifest: &Manifest) -> String {
    let machine = &manifest.machine;
    match machine.cpu_model.as_str() {
        "" => format!("{} cores", machine.cores),
        model => format!("{} × {model}", machine.cores),
    }
}

/// Joins the parts that are not empty.
fn known(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| part.trim());
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns when the run began, without fractions of a second.
pub(super) fn started(manifest: &Manifest) -> String {
    let started = &manifest.started;
    match started.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => started.clone(),
    }
}

/// Returns the command that made the run, quoted for a shell.
pub(super) fn command(manifest: &Manifest) -> String {
    let quoted = manifest.command_line.iter().map(|word| quote(word));
    quoted.collect::<Vec<_>>().join(" ")
}

/// Returns the same command with the seed, which repeats the order of the trials, and without the
/// file that it saved, which is there by now.
pub(super) fn command_to_repeat(manifest: &Manifest) -> String {
    let mut words = Vec::new();
    let mut given = manifest.command_line.iter();
    while let Some(word) = given.next() {
        if word == SAVE {
            given.next();
        } else if !word
            .strip_prefix(SAVE)
            .is_some_and(|it| it.starts_with('='))
        {
            words.push(quote(word));
        }
    }
    let is_seeded = |word: &String| word == "--seed" || word.starts_with("--seed=");
    if !manifest.command_line.iter().any(is_seeded) {
        words.push(format!("--seed {}", manifest.seed));
    }
    words.join(" ")
}

/// Names the file that a command saves.
const SAVE: &str = "--save";

/// Returns whether the run's records say all that it needs to be repeated.
pub(super) fn is_repeatable(manifest: &Manifest) -> bool {
    manifest.request.is_some() && manifest.builds.is_empty()
}

fn quote(word: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-_./:=,%@+~".contains(it);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn a_command_can_be_typed_again() {
        let mut manifest = tests::manifest();
        manifest.command_line = ["hopbench", "run", "it's", "*", ""]
            .map(str::to_owned)
            .into();
        assert_eq!(
            command_to_repeat(&manifest),
            "hopbench run 'it'\\''s' '*' '' --seed 7"
        );
        manifest.command_line = ["hopbench", "run", "--seed=3"].map(str::to_owned).into();
        assert_eq!(command_to_repeat(&manifest), "hopbench run --seed=3");
        manifest.command_line = [
            "hopbench",
            "quick",
            "a b",
            "--save",
            "a.toml",
            "--save=b.toml",
        ]
        .map(str::to_owned)
        .into();
        assert_eq!(
            command_to_repeat(&manifest),
            "hopbench quick 'a b' --seed 7"
        );
    }
}
