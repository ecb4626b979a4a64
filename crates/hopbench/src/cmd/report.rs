//! `hopbench report`

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Context as _, bail};
use hopbench_analysis::{
    ab::Duel,
    record::{Manifest, Plan, Trial},
    report::{ab, csv, html, markdown, perf, profile, terminal, words},
    summary::Summary,
};

use super::{Context, print};
use crate::{
    cli::{self, Format},
    run_dir::RunDir,
};

pub(super) fn run(context: &Context, options: &cli::Report) -> anyhow::Result<ExitCode> {
    let run_dir = match &options.run {
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let (manifest, trials) = read(&run_dir)?;
    write(&run_dir, &manifest, &trials)?;
    show(context, &run_dir, &manifest, &trials)?;
    if options.open {
        let page = run_dir.path().join(PAGE);
        opener::open(&page).with_context(|| {
            let page = page.display();
            format!("no browser was found; open '{page}' yourself")
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The report as a page, in the run directory.
const PAGE: &str = "report.html";

/// The records of a run, finished or not.
pub(super) fn read(run_dir: &RunDir) -> anyhow::Result<(Manifest, Vec<Trial>)> {
    let (manifest, trials) = (run_dir.manifest()?, run_dir.trials()?);
    check_against_plan(&run_dir.plan()?, &trials)?;
    Ok((manifest, trials))
}

/// Records are those of planned trials, each once.
fn check_against_plan(plan: &Plan, trials: &[Trial]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for Trial { planned, .. } in trials {
        if !plan.trials.contains(planned) {
            bail!(
                "'trials.jsonl': trial {} is not in 'plan.json'",
                planned.trial
            );
        }
        if !seen.insert(planned.trial) {
            bail!("'trials.jsonl': trial {} is there twice", planned.trial);
        }
    }
    Ok(())
}

/// Writes the reports beside the records they are made from.
pub(super) fn write(run_dir: &RunDir, manifest: &Manifest, trials: &[Trial]) -> anyhow::Result<()> {
    let planned = run_dir.plan()?.trials.len();
    let summary = Summary::new(manifest, trials)?;
    let profiles = run_dir.profiles()?;
    let text = markdown::report(&summary, trials, planned) + &profile::markdown(&profiles);
    run_dir.write("REPORT.md", text.as_bytes())?;
    let page = html::report(&summary, trials, planned, &profiles);
    run_dir.write(PAGE, page.as_bytes())?;
    for scenario in &summary.scenarios {
        for (kind, _, picture) in markdown::pictures(scenario) {
            let name = format!("{kind}-{}.svg", scenario.info.name);
            run_dir.write(&name, picture.as_bytes())?;
        }
    }
    run_dir.write("summary.csv", csv::render(&summary).as_bytes())
}

/// Prints the results in the format that was asked for.
pub(super) fn show(
    context: &Context,
    run_dir: &RunDir,
    manifest: &Manifest,
    trials: &[Trial],
) -> anyhow::Result<()> {
    let summary = Summary::new(manifest, trials)?;
    let planned = run_dir.plan()?.trials.len();
    let profiles = run_dir.profiles()?;
    match context.format {
        Format::Human => {
            print(&terminal::render(&summary))?;
            if let Some(duel) = Duel::of(manifest, trials) {
                print(&ab::terminal(&duel))?;
            }
            print(&profile::terminal(&profiles))?;
            print(&format!("\n{}\n", words::progress(trials, planned)))?;
            if trials.len() < planned {
                print("The run is not complete.\n")?;
            }
            if let Some(doubts) = words::doubts_in_short(trials) {
                print(&format!("{doubts} The report says what to do.\n"))?;
            }
            let directory = run_dir.path().display();
            print(&format!(
                "\nreport: {directory}/{PAGE}\nrun directory: {directory}\n"
            ))
        }
        Format::Json => print(&format!(
            "{:#}\n",
            serde_json::json!({
                "run": run_dir.path(),
                "trials": trials.len(),
                "failed_trials": trials.iter().filter(|trial| trial.measured().is_none()).count(),
                "cells": csv::cells(&summary),
                "profiles": profiles,
                "b_over_a": Duel::of(manifest, trials).map(|duel| ab::cells(&duel)),
            })
        )),
        Format::Perf => print(&perf::render(&summary)),
        Format::Html => print(&html::report(&summary, trials, planned, &profiles)),
        Format::Md => {
            print(&(markdown::report(&summary, trials, planned) + &profile::markdown(&profiles)))
        }
        Format::Csv => print(&csv::render(&summary)),
    }
}
