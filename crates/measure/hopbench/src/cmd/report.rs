//! `hopbench report`

use std::{collections::BTreeSet, env, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use hopbench_analysis::{
    ab::AbComparison,
    external::External,
    record::{Manifest, Plan, PlannedTrial, Profile, Trial},
    repeats::{counted, counted_plan},
    report::{
        ab, csv, exchange, external, html, markdown, parts, perf, profile, sentences, terminal,
    },
    summary::Summary,
};

use super::{Context, print};
use crate::{
    cmd::cli::{self, Exchange, Format},
    console::{say, visible},
    mistake::Mistake,
    probe::is_probe,
    run::run_dir::{Records, RunDir},
};

pub(super) fn run(context: &Context, options: &cli::Report) -> anyhow::Result<ExitCode> {
    let run_dir = match &options.run {
        Some(path) if is_probe(path) => {
            let path = path.display();
            let message = format!("'{path}' is of a probe; show it with 'hopbench probe {path}'");
            return Err(Mistake(message).into());
        }
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let (manifest, trials) = read(&run_dir)?;
    if let Some(tool) = options.r#as {
        return exchange(tool, &manifest, &trials);
    }
    let report = Report::new(&run_dir, &manifest, &trials)?;
    // Whoever asks for a document gets it, wherever the records are.
    let is_document = context.format != Format::Human && !options.open;
    let written = report.write();
    match options.open && context.format == Format::Human && written.is_ok() {
        true => report.show_place(true)?,
        false => report.show(context, written.is_ok())?,
    }
    match written {
        Err(error) if is_document => say(&format!("warning: {error:#}")),
        other => other?,
    }
    if options.open {
        open(&run_dir.path().join(PAGE))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the figures in another tool's format.
fn exchange(tool: Exchange, manifest: &Manifest, trials: &[Trial]) -> anyhow::Result<ExitCode> {
    let summary = || Summary::new(manifest, trials);
    let text = match tool {
        Exchange::Bmf => format!("{:#}\n", exchange::bmf(&summary()?)),
        Exchange::Prometheus => exchange::prometheus(&summary()?),
        Exchange::Seconds => {
            exchange::seconds(trials).map_err(|error| Mistake(error.to_string()))?
        }
        Exchange::Hdr => exchange::hdr_log(trials, |trial| {
            let started = trial.started.parse::<jiff::Timestamp>();
            let since = started.map(|it| it.duration_since(jiff::Timestamp::UNIX_EPOCH));
            // A record without a right date is at the beginning of time.
            since.map_or(Duration::ZERO, jiff::SignedDuration::unsigned_abs)
        })?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens a page in the user's browser.
fn open(page: &Path) -> anyhow::Result<()> {
    let shown = page.display();
    // Without any of these, 'xdg-open' does nothing, and doesn't say so.
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    anyhow::ensure!(
        ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"]
            .into_iter()
            .any(is_set),
        "the report is written, but there is no display for a browser; open '{shown}' yourself"
    );
    opener::open(page).with_context(|| {
        format!("the report is written, but no browser was found; open '{shown}' yourself")
    })?;
    say(&format!("asked the browser to open '{shown}'"));
    Ok(())
}

/// File name of the report as a page, in the run directory.
const PAGE: &str = "report.html";

/// Reads the records of a run that count, finished or not.
pub(super) fn read(run_dir: &RunDir) -> anyhow::Result<(Manifest, Vec<Trial>)> {
    let (manifest, plan) = (run_dir.manifest()?, run_dir.plan()?);
    let Records { trials, cut } = run_dir.records()?;
    let directory = run_dir.path().display();
    if trials.is_empty() && run_dir.has_lost_all(plan.trials.len()) {
        bail!(
            "'{directory}/trials.jsonl' has no records, but 'state.json' says that trials have \
             finished; restore the file, or measure again"
        );
    }
    if let Some(line) = cut {
        say(&format!(
            "warning: '{directory}/trials.jsonl': line {line} is cut off and was left out"
        ));
    }
    check_against_plan(&plan, &trials)?;
    Ok((manifest, counted(trials)))
}

/// Returns the planned trials that count, given those of them that were run.
pub(super) fn planned(run_dir: &RunDir, counted: &[Trial]) -> anyhow::Result<Vec<PlannedTrial>> {
    Ok(counted_plan(run_dir.plan()?, counted))
}

/// Reads the records of a run of one build that has all of its trials.
pub(super) fn read_whole(run: &Path) -> anyhow::Result<(Manifest, Vec<Trial>)> {
    let run_dir = RunDir::open(run)?;
    let (manifest, trials) = read(&run_dir)?;
    let trouble = if !manifest.builds.is_empty() {
        "is of two builds: expected a run of one build; make one with 'hopbench run'"
    } else if trials.len() < planned(&run_dir, &trials)?.len() {
        "is not complete: expected a run with all of its planned trials"
    } else {
        return Ok((manifest, trials));
    };
    Err(Mistake(format!("'{}' {trouble}", run.display())).into())
}

/// Checks that each record belongs to a planned trial, and that no trial has two.
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
            bail!("'trials.jsonl': trial {} is repeated", planned.trial);
        }
    }
    Ok(())
}

/// A run, summed up once for everything that is written and printed.
pub(super) struct Report<'a> {
    run_dir: &'a RunDir,
    manifest: &'a Manifest,
    trials: &'a [Trial],
    planned: usize,
    summary: Summary<'a>,
    profiles: Vec<Profile>,
    external: Vec<External>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        run_dir: &'a RunDir,
        manifest: &'a Manifest,
        trials: &'a [Trial],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            run_dir,
            manifest,
            trials,
            planned: planned(run_dir, trials)?.len(),
            summary: Summary::new(manifest, trials)?,
            profiles: run_dir.profiles()?,
            external: run_dir.external()?,
        })
    }

    fn markdown(&self) -> String {
        let report = markdown::report(&self.summary, self.trials, self.planned);
        report + &profile::markdown(&self.profiles) + &external::markdown(&self.external)
    }

    fn page(&self) -> String {
        html::report(
            &self.summary,
            self.trials,
            self.planned,
            &self.profiles,
            &self.external,
        )
    }

    /// Writes the reports beside the records from which they are made.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let write = |name: &str, text: &str| self.run_dir.write(name, visible(text).as_bytes());
        write("REPORT.md", &self.markdown())?;
        write(PAGE, &self.page())?;
        for scenario in &self.summary.scenarios {
            for (kind, _, picture) in markdown::pictures(self.manifest, scenario) {
                let name = format!("{kind}-{}.svg", scenario.info.name);
                write(&name, &picture)?;
            }
        }
        write("summary.csv", &csv::render(&self.summary))
    }

    /// Writes the reports where something else is asked for, which must not fail because of them.
    pub(super) fn write_or_warn(&self) {
        if let Err(error) = self.write() {
            say(&format!("warning: {error:#}"));
        }
    }

    /// Writes the reports and prints the results, even if the reports can't be written.
    pub(super) fn publish(&self, context: &Context) -> anyhow::Result<()> {
        let written = self.write();
        self.show(context, written.is_ok())?;
        written
    }

    /// Prints the results in the format that was asked for.
    fn show(&self, context: &Context, is_written: bool) -> anyhow::Result<()> {
        match context.format {
            Format::Human => self.show_tables(is_written),
            Format::Json => print(&format!("{:#}\n", self.json())),
            Format::Perf => print(&perf::render(&self.summary)),
            Format::Html => print(&self.page()),
            Format::Md => print(&self.markdown()),
            Format::Csv => print(&csv::render(&self.summary)),
        }
    }

    fn show_tables(&self, is_written: bool) -> anyhow::Result<()> {
        print(&terminal::render(&self.summary, self.trials, self.planned))?;
        print(&profile::terminal(&self.profiles))?;
        print(&external::terminal(&self.external))?;
        print("\n")?;
        self.show_place(is_written)
    }

    /// Prints how far the run came, and where it is.
    fn show_place(&self, is_written: bool) -> anyhow::Result<()> {
        let progress = sentences::progress(self.trials, self.planned);
        print(&format!("{progress}\n"))?;
        if self.trials.len() < self.planned {
            print("The run is not complete.\n")?;
        }
        let directory = self.run_dir.path().display();
        let report = match is_written {
            true => format!("report: {directory}/{PAGE}\n"),
            false => String::new(),
        };
        print(&format!("\n{report}run directory: {directory}\n"))
    }

    fn json(&self) -> serde_json::Value {
        let failed = self.trials.iter().filter(|it| it.measured().is_none());
        let comparison = AbComparison::of(self.manifest, self.trials);
        serde_json::json!({
            "run": self.run_dir.path().to_string_lossy(),
            "trials": self.trials.len(),
            "failed_trials": failed.count(),
            "cells": csv::cells(&self.summary),
            "parts": parts::parts(&self.summary),
            "timelines": parts::timelines(&self.summary),
            "knees": self.manifest.knees, "profiles": self.profiles,
            "external": self.external,
            "b_over_a": comparison.map(|comparison| ab::cells(&comparison)),
        })
    }
}
