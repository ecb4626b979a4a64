//! `hopbench release-summary`

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use hopbench_analysis::{
    probe::Probed,
    record::{Manifest, Trial},
    report::release::{self, Measured},
    summary::Summary,
};
use serde_json::json;

use super::{Context, REFERENCE, check_place, print, report::read_whole};
use crate::{
    catalog::read_text_within,
    cmd::cli,
    console::visible,
    mistake::Mistake,
    probe::{ProbeDir, is_probe},
    run::run_dir::{RunDir, write_whole},
};

pub(super) fn run(context: &Context, options: &cli::ReleaseSummary) -> anyhow::Result<ExitCode> {
    if let Some(file) = &options.out {
        check_place(file)?;
    }
    let places = match options.runs.is_empty() {
        true => reference_runs()?,
        false => options.runs.clone(),
    };
    let (places, probes) = apart(&places);
    let (base, base_probes) = apart(&options.base);
    let [probes, base_probes] = [read_probes(&probes)?, read_probes(&base_probes)?];
    let [head, base] = [read_all(&places)?, read_all(&base)?];
    let summaries = [summaries(&head)?, summaries(&base)?];
    let [of_head, of_base] = [
        measured(&head, &summaries[0]),
        measured(&base, &summaries[1]),
    ];
    let mut sections = release::sections(&of_head, &of_base);
    // What has changed is the last section.
    let last = sections.len().saturating_sub(1);
    sections.splice(last..last, release::probes(&probes, &base_probes));
    let page = release::page(&options.release, &sections);
    if let Some(file) = &options.out {
        let name = file.display();
        if file.exists() && !is_page(file) {
            let message = "is there already, and no page of a release; use another name";
            return Err(Mistake(format!("'{name}' {message}")).into());
        }
        write_whole(file, visible(&page).as_bytes())?;
        print(&format!("wrote '{name}'\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    context.print(&page, || {
        json!({
            "release": options.release,
            "runs": lossy(&places),
            "probes": probes.iter().map(|it| &it.info.probe).collect::<Vec<_>>(),
            "base": lossy(&options.base),
            "markdown": page,
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the names of directories for JSON, which has no other text than UTF-8.
fn lossy(places: &[PathBuf]) -> Vec<Cow<'_, str>> {
    places.iter().map(|place| place.to_string_lossy()).collect()
}

/// Returns whether a file is such a page, which may be written anew.
fn is_page(file: &Path) -> bool {
    read_text_within(file, PAGE_BYTES_MAX).is_ok_and(|text| text.contains(release::MARK))
}

/// Largest page: one of hundreds of thousands of cells.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Directory of the probes of a release.
const PROBES: &str = "bench_results/probes";

/// Returns the directories of the reference runs, and of the probes beside them.
fn reference_runs() -> anyhow::Result<Vec<PathBuf>> {
    let reference = Path::new(REFERENCE);
    match reference.is_dir() {
        true => {
            let mut all = RunDir::all(reference)?;
            let probes = Path::new(PROBES);
            if probes.is_dir() {
                all.extend(ProbeDir::all(probes)?);
            }
            Ok(all)
        }
        false => Err(Mistake(format!(
            "there are no runs below '{REFERENCE}'; name the runs of the release"
        ))
        .into()),
    }
}

/// Tells directories of runs from those of probes.
fn apart(places: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let places = places.iter().cloned();
    places.partition(|place| !is_probe(place))
}

/// Reads probes, at most one of each name, which are finished.
fn read_probes(places: &[PathBuf]) -> anyhow::Result<Vec<Probed>> {
    let mut found: Vec<Probed> = Vec::new();
    for place in places {
        let probed = ProbeDir::read(place)?;
        let mistake = |message: &str| Mistake(format!("'{}' {message}", place.display()));
        if !probed.info.is_finished {
            return Err(mistake("is not finished: expected a whole probe").into());
        }
        if found.iter().any(|it| it.info.probe == probed.info.probe) {
            let message = "is the second of its probe: expected one of each; leave one out";
            return Err(mistake(message).into());
        }
        found.push(probed);
    }
    Ok(found)
}

/// The records of a run.
struct Records {
    /// Name of the run's directory.
    name: String,
    manifest: Manifest,
    trials: Vec<Trial>,
}

/// Reads whole runs, at most one for each scenario.
fn read_all(places: &[PathBuf]) -> anyhow::Result<Vec<Records>> {
    let mut known: BTreeMap<String, &Path> = BTreeMap::new();
    let mut found = Vec::new();
    for place in places {
        let (manifest, trials) = read_whole(place)?;
        for scenario in &manifest.scenarios {
            if let Some(other) = known.insert(scenario.name.clone(), place) {
                return Err(Mistake(format!(
                    "scenario '{}' is in '{}' and in '{}': expected one run for each scenario; \
                     name the runs of the release",
                    scenario.name,
                    other.display(),
                    place.display()
                ))
                .into());
            }
        }
        found.push(Records {
            name: name_of(place),
            manifest,
            trials,
        });
    }
    Ok(found)
}

/// Returns the name of a directory, however it was written.
fn name_of(place: &Path) -> String {
    let whole = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}

fn summaries(records: &[Records]) -> anyhow::Result<Vec<Summary<'_>>> {
    let summaries = records.iter().map(|run| {
        Summary::new(&run.manifest, &run.trials).with_context(|| format!("'{}'", run.name))
    });
    summaries.collect()
}

fn measured<'a>(records: &'a [Records], summaries: &'a [Summary<'a>]) -> Vec<Measured<'a>> {
    let both = records.iter().zip(summaries);
    let measured = both.map(|(run, summary)| Measured {
        name: &run.name,
        summary,
        trials: &run.trials,
    });
    measured.collect()
}
