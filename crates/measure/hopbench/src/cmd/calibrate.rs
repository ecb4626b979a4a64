//! `hopbench calibrate`

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::{Context, columns, report::Report, run as runs};
use crate::{
    cmd::{cli, exit},
    process::{EXIT_INTERRUPTED, Interrupt},
    run::measure::{Settings, measure},
};

pub(super) fn run(context: &Context, options: &cli::Calibrate) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let mut selection = runs::select_choice(context, &options.choice, &interrupt)?;
    let settings = Settings {
        only_knees: true,
        ..runs::settings(context, &options.how)
    };
    let measured = measure(
        &context.toolbox,
        &mut selection,
        None,
        &settings,
        &interrupt,
    )?;
    if measured.ended.interrupted {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    Report::new(&measured.run_dir, &measured.manifest, &[])?.write_or_warn();
    let knees = &measured.manifest.knees;
    let heading = [
        "path",
        "endpoint",
        "connections",
        "holds",
        "closed loop",
        "probes",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(knees.iter().map(|knee| {
        let closed = knee
            .closed_loop_rps
            .map_or_else(|| "failed".to_owned(), |rps| format!("{rps:.0}/s"));
        vec![
            knee.path.clone(),
            knee.endpoint.clone(),
            knee.concurrency.to_string(),
            knee.rate(|rate| format!("{rate}/s")),
            closed,
            knee.probes.to_string(),
        ]
    }));
    let directory = measured.run_dir.path().display();
    let text = format!("{}\nrun directory: {directory}\n", columns(&rows));
    context.print(&text, || json!(knees))?;
    let all_hold = knees.iter().all(|knee| knee.rate_rps.is_some());
    Ok(ExitCode::from(if all_hold { 0 } else { exit::FAILED }))
}
