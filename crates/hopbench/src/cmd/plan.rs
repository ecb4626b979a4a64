//! `hopbench plan`

use std::process::ExitCode;

use super::{Context, columns};
use crate::{cli, plan::Planner, progress::seconds};

pub(super) fn run(context: &Context, options: &cli::Plan) -> anyhow::Result<ExitCode> {
    let selection = context.select(&options.choice)?;
    let mut planner = Planner::new(&selection, options.seed, false, None);
    let plan = planner.plan();
    let mut rows = vec![
        [
            "trial",
            "block",
            "scenario",
            "endpoint",
            "path",
            "concurrency",
            "warm-up",
            "load",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(plan.trials.iter().map(|trial| {
        let twin = if trial.twin == 0 { "" } else { " (control)" };
        vec![
            trial.trial.to_string(),
            trial.block.to_string(),
            trial.cell.scenario.clone(),
            trial.cell.endpoint.clone(),
            format!("{}{twin}", trial.cell.path),
            trial.cell.load(),
            format!("{} ms", trial.warm_up_ms),
            format!("{} ms", trial.duration_ms),
        ]
    }));
    let mut text = columns(&rows);
    text += &format!(
        "\n{} trials, about {}, seed {}\n",
        plan.trials.len(),
        seconds(plan.estimate_ms as f64 / 1e3),
        options.seed
    );
    if let Some(goal) = options.until.goal() {
        text += &planner.prospect(goal);
    }
    for path in &selection.paths {
        if let Some(reason) = &path.skipped {
            text += &format!("skipped: {}: {reason}\n", path.definition.name);
        }
    }
    context.print(&text, || serde_json::json!(plan))?;
    Ok(ExitCode::SUCCESS)
}
