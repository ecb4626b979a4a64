//! `hopbench report`

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::bail;
use hopbench_analysis::{
    ab::Duel,
    record::{Manifest, Plan, Trial},
    report::{ab, csv, markdown, perf, terminal},
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
    Ok(ExitCode::SUCCESS)
}

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
    run_dir.write(
        "REPORT.md",
        markdown::report(&summary, trials, planned).as_bytes(),
    )?;
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
    match context.format {
        Format::Human => {
            print(&terminal::render(&summary))?;
            if let Some(duel) = Duel::of(manifest, trials) {
                print(&ab::terminal(&duel))?;
            }
            print(&markdown::progress(trials, run_dir.plan()?.trials.len()))?;
            print(&markdown::doubts(trials, "'Warnings' in REPORT.md"))?;
            print(&format!("\nrun directory: {}\n", run_dir.path().display()))
        }
        Format::Json => print(&format!(
            "{:#}\n",
            serde_json::json!({
                "run": run_dir.path(),
                "trials": trials.len(),
                "failed_trials": trials.iter().filter(|trial| trial.measured().is_none()).count(),
                "cells": csv::cells(&summary),
                "b_over_a": Duel::of(manifest, trials).map(|duel| ab::cells(&duel)),
            })
        )),
        Format::Perf => print(&perf::render(&summary)),
    }
}
