//! `hopbench gate`

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use hopbench_analysis::{
    gate::{self, GateResult, Overall, Policy, Unjudged},
    record::{Manifest, Plan, Trial},
    report::gate as report,
};
use serde_json::{Value, json};

use super::{Context, ab, print, report::read};
use crate::{
    cli::{self, Format},
    exit::{self, Mistake},
    progress::say,
    run_dir::RunDir,
};

/// What a run directory has for a gate.
struct Records {
    manifest: Manifest,
    trials: Vec<Trial>,
    plan: Plan,
}

pub(super) fn run(context: &Context, options: &cli::Gate) -> anyhow::Result<ExitCode> {
    let policy = policy(context, options.policy.as_deref())?;
    let run_dir = match &options.run {
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let base_dir = options.base.as_deref().map(RunDir::open).transpose()?;
    if let Some(base) = &base_dir
        && fs::canonicalize(base.path())? == fs::canonicalize(run_dir.path())?
    {
        let message = format!(
            "'{}' is the run and its base; name another run with --base",
            base.path().display()
        );
        return Err(Mistake(message).into());
    }
    let records = Records::read(&run_dir)?;
    let base = base_dir.as_ref().map(Records::read).transpose()?;
    let result = gate::judge(&policy, records.run(), base.as_ref().map(Records::run));
    let mut result = match result {
        Ok(result) => result,
        Err(Unjudged::Incomparable(incomparable)) => {
            say(&incomparable.to_string());
            return Ok(ExitCode::from(exit::INCONCLUSIVE));
        }
        Err(error @ (Unjudged::OneSide { .. } | Unjudged::ThreeSides)) => {
            return Err(Mistake(error.to_string()).into());
        }
        Err(error @ Unjudged::Histogram(_)) => return Err(error.into()),
    };
    let other = match options.confirm {
        true => {
            let repeat = ab::repeat(context, &records.manifest, &policy, &mut result)?;
            ("repeat", json!(repeat))
        }
        false => ("base", json!(base_dir.as_ref().map(RunDir::path))),
    };
    show(context, &options.output, &result, &run_dir, other)
}

/// Prints a verdict and writes what was asked for; the exit code that it means.
pub(super) fn show(
    context: &Context,
    output: &cli::GateOutput,
    result: &GateResult,
    run_dir: &RunDir,
    (other, run): (&str, Value),
) -> anyhow::Result<ExitCode> {
    if let Some(file) = &output.junit {
        write(file, &report::junit(result))?;
    }
    if let Some(file) = &output.markdown {
        write(file, &report::markdown(result))?;
    }
    context.print(&report::terminal(result), || {
        let mut json = report::json(result);
        json["run"] = json!(run_dir.path());
        json[other] = run;
        json
    })?;
    if output.annotations {
        let annotations = report::annotations(result);
        match context.format {
            // One document is all that there may be on stdout; GitHub looks at stderr, too.
            Format::Json => say(annotations.trim_end()),
            _ => print(&annotations)?,
        }
    }
    Ok(ExitCode::from(match result.overall() {
        Overall::Passed => 0,
        Overall::Regressed => exit::FAILED,
        Overall::Inconclusive => exit::INCONCLUSIVE,
    }))
}

/// The one that was asked for, or the first of the catalog.
pub(super) fn policy(context: &Context, asked: Option<&str>) -> anyhow::Result<Policy> {
    let first = context.catalog.gates.first();
    match (asked, first) {
        (Some(name), _) => Ok(context.catalog.gate(name)?),
        (None, Some(first)) => Ok(first.clone()),
        (None, None) => bail!("no policy is built in; name a file with --policy"),
    }
}

impl Records {
    fn read(run_dir: &RunDir) -> anyhow::Result<Self> {
        let (manifest, trials) = read(run_dir)?;
        Ok(Self {
            manifest,
            trials,
            plan: run_dir.plan()?,
        })
    }

    fn run(&self) -> gate::Run<'_> {
        gate::Run {
            manifest: &self.manifest,
            trials: &self.trials,
            planned: &self.plan.trials,
        }
    }
}

/// Whole, or not at all: what reads it may be waiting for it.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut fresh: OsString = file.into();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| {
        // What is half written is no use to anybody; the error is told in any case.
        let _ = fs::remove_file(&fresh);
        format!("could not write '{}'", file.display())
    })
}
