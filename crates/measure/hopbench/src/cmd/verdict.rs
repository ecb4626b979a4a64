//! The policy that a gate judges by, and the output of its verdict.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use hopbench_analysis::{
    gate::{GateResult, Overall, Policy},
    report::gate as report,
};
use serde_json::{Value, json};

use super::{Context, check_place, print};
use crate::{
    cmd::{
        cli::{self, Format},
        exit,
    },
    console::{say, visible},
    mistake::Mistake,
    run::run_dir::RunDir,
};

/// Prints a verdict and writes the files asked for; returns the verdict's exit code.
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
        json["run"] = json!(run_dir.path().to_string_lossy());
        json[other] = run;
        json
    })?;
    if output.annotations {
        let annotations = report::annotations(result);
        match context.format {
            // There may be only one document on stdout. GitHub reads stderr too.
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

/// Checks that the files asked for can be written where they are to be.
pub(super) fn check(output: &cli::GateOutput) -> Result<(), Mistake> {
    let mut files = output.junit.iter().chain(&output.markdown);
    files.try_for_each(|file| check_place(file))
}

/// Returns the policy with this name, or the first of the catalog.
pub(super) fn policy(context: &Context, asked: Option<&str>) -> anyhow::Result<Policy> {
    let first = context.catalog.gates.first();
    match (asked, first) {
        (Some(name), _) => Ok(context.catalog.gate(name)?),
        (None, Some(first)) => Ok(first.clone()),
        (None, None) => bail!("there is no built-in policy; name a file with --policy"),
    }
}

/// Writes a file as a whole or not at all: a reader may be waiting for it.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut fresh: OsString = file.into();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let written =
        fs::write(&fresh, visible(text).as_bytes()).and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| {
        // Remove the half-written file. The error is reported in any case.
        let _ = fs::remove_file(&fresh);
        format!("could not write '{}'", file.display())
    })
}
