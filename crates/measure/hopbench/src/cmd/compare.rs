//! `hopbench compare`

use std::{fs, process::ExitCode};

use anyhow::Context as _;
use hopbench_analysis::{
    compare::{Comparison, Side, changed_definitions},
    record::Trial,
    report::{compare, html},
    summary::Summary,
};
use serde_json::json;

use super::{
    Context, check_place,
    report::{planned, read},
};
use crate::{
    cmd::{cli, exit},
    console::{say, visible},
    mistake::Mistake,
    run::run_dir::RunDir,
};

pub(super) fn run(context: &Context, options: &cli::Compare) -> anyhow::Result<ExitCode> {
    let base = RunDir::open(&options.base)?;
    let head = match &options.head {
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let is_same = fs::canonicalize(base.path())? == fs::canonicalize(head.path())?;
    check(options, is_same)?;
    let [of_base, of_head] = [read(&base)?, read(&head)?];
    let [base_state, head_state] = [
        completeness(&base, &of_base.1)?,
        completeness(&head, &of_head.1)?,
    ];
    let summaries = [
        Summary::new(&of_base.0, &of_base.1)?,
        Summary::new(&of_head.0, &of_head.1)?,
    ];
    let side = |summary, trials| Side { summary, trials };
    let sides = [
        side(&summaries[0], &of_base.1),
        side(&summaries[1], &of_head.1),
    ];
    let comparison = match options.other_versions {
        true => Comparison::of_versions(sides[0], sides[1]),
        false => Comparison::new(sides[0], sides[1]),
    };
    let comparison = match comparison {
        Ok(comparison) => comparison,
        Err(incomparable) => {
            // Whoever named one run may not know which run is the latest.
            let latest = if options.head.is_none() {
                ", the latest run"
            } else {
                ""
            };
            let [base, head] = [&base, &head].map(|it| it.path().display());
            say(&format!("'{base}' and '{head}'{latest}: {incomparable}"));
            return Ok(ExitCode::from(exit::INCONCLUSIVE));
        }
    };
    if let Some(file) = &options.html {
        let names = [(&base, &base_state), (&head, &head_state)];
        let names = names.map(|(it, state)| format!("{}{state}", it.path().display()));
        let names = names.each_ref().map(String::as_str);
        let page = html::comparison(names, [&of_base.0, &of_head.0], &comparison);
        let describe = || format!("could not write '{}'", file.display());
        fs::write(file, visible(&page).as_bytes()).with_context(describe)?;
    }
    let names = format!(
        "base {}{base_state}\nhead {}{head_state}{}\n",
        base.path().display(),
        head.path().display(),
        if is_same { ", the same run" } else { "" }
    );
    let definitions = compare::definitions(&of_base.0, &of_head.0);
    let changed: String = definitions.iter().map(|line| format!("{line}\n")).collect();
    let text = names + &changed + &compare::terminal(&comparison);
    context.print(&text, || {
        json!({
            "base": base.path().to_string_lossy(),
            "head": head.path().to_string_lossy(),
            "definitions": changed_definitions(&of_base.0, &of_head.0),
            "cells": compare::cells(&comparison),
            "only_base": comparison.only_base,
            "only_head": comparison.only_head,
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Checks what can be known before the records are read.
fn check(options: &cli::Compare, is_same: bool) -> Result<(), Mistake> {
    if is_same && options.head.is_none() {
        return Err(Mistake(format!(
            "'{}' is itself the latest run; name the run to compare it with as HEAD",
            options.base.display()
        )));
    }
    match &options.html {
        Some(file) => check_place(file),
        None => Ok(()),
    }
}

/// Says how much of its plan a run has, if not all of it.
fn completeness(run_dir: &RunDir, trials: &[Trial]) -> anyhow::Result<String> {
    let (trials, planned) = (trials.len(), planned(run_dir, trials)?.len());
    Ok(match trials < planned {
        true => format!(", not complete: {trials} of {planned} trials"),
        false => String::new(),
    })
}
