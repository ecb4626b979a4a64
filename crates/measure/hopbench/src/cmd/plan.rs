//! `hopbench plan`

use std::process::ExitCode;

use hopbench_analysis::{
    gate::{self, Policy},
    record::{Cell, PlannedTrial},
};

use super::{Context, columns};
use crate::{
    catalog::RATE_RPS_MAX,
    cmd::cli,
    console::seconds,
    plan::{
        planner::{self, Planner},
        selection::Selection,
    },
    run::knee,
};

pub(super) fn run(context: &Context, options: &cli::Plan) -> anyhow::Result<ExitCode> {
    let mut selection = context.select(&options.choice)?;
    let mut planner = Planner::new(&selection, options.seed, false, None);
    let planned = planner.plan();
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
    rows.extend(planned.trials.iter().map(|trial| {
        let replicate = if trial.replicate == 0 {
            ""
        } else {
            " (control)"
        };
        vec![
            trial.trial.to_string(),
            trial.block.to_string(),
            trial.cell.scenario.clone(),
            trial.cell.endpoint.clone(),
            format!("{}{replicate}", trial.cell.path),
            trial.cell.load(),
            format!("{} ms", trial.warm_up_ms),
            match trial.requests {
                Some(requests) => format!("{requests} requests"),
                None => format!("{} ms", trial.duration_ms),
            },
        ]
    }));
    let mut text = String::new();
    // Trials at shares of knees can't be listed before these are found.
    if !planned.trials.is_empty() {
        text += &columns(&rows);
        text += &format!(
            "\n{} trials, about {}, seed {}\n",
            planned.trials.len(),
            seconds(planned.estimate_ms as f64 / 1e3),
            options.seed
        );
    }
    if let Some(goal) = options.until.goal() {
        text += &planner.prospect(goal);
    }
    if let Some(policy) = context.catalog.gates.first()
        && !planned.trials.is_empty()
    {
        text += &for_a_gate(policy, &selection, &planned.trials);
    }
    if selection.needs_knees() {
        text += &after_knees(&mut selection, options.seed);
    }
    for path in &selection.paths {
        if let Some(reason) = &path.skipped {
            text += &format!("skipped: {}: {reason}\n", path.definition.name);
        }
    }
    context.print(&text, || serde_json::json!(planned))?;
    Ok(ExitCode::SUCCESS)
}

/// Says how many blocks a verdict needs.
fn for_a_gate(policy: &Policy, selection: &Selection, planned: &[PlannedTrial]) -> String {
    let is_reference = |cell: &Cell| {
        let mut scenarios = selection.scenarios.iter();
        scenarios.any(|one| one.definition.name == cell.scenario && one.reference == cell.path)
    };
    let needed = gate::blocks_needed(policy, is_reference, planned);
    format!(
        "to detect a single regression among {} cells, '{}' needs {} blocks in each of two runs \
         ('hopbench gate --base'), or {} blocks of two builds ('hopbench ab')\n",
        needed.cells, policy.name, needed.between, needed.paired
    )
}

/// Describes trials that can't be planned yet: their rates are shares of knees that are found
/// first.
fn after_knees(selection: &mut Selection, seed: u64) -> String {
    /// An arbitrary knee: the number of rates doesn't depend on it.
    const STAND_IN_RPS: u32 = RATE_RPS_MAX / 10;
    let search = knee::estimate(selection, true);
    let scenarios = selection.scenarios.iter_mut();
    let mut names = Vec::new();
    for scenario in scenarios.filter(|one| one.definition.rates.depend_on_knee()) {
        let loads = scenario.loads().into_iter();
        scenario.knees = loads.map(|load| (load, STAND_IN_RPS)).collect();
        names.push(scenario.definition.name.clone());
    }
    let mut trials = Planner::new(selection, seed, false, None).plan().trials;
    trials.retain(|trial| names.contains(&trial.cell.scenario));
    let without_rate = |trial: &PlannedTrial| {
        let rate_rps = None;
        let cell = trial.cell.clone();
        Cell { rate_rps, ..cell }.to_string()
    };
    let mut shown: Vec<String> = trials.iter().map(without_rate).collect();
    shown.sort_unstable();
    shown.dedup();
    format!(
        "'{}': finding the knees takes about {}; then up to {} trials at shares of them take \
         about {}:\n  {}\n",
        names.join("', '"),
        seconds(search.as_secs_f64()),
        trials.len(),
        seconds(planner::estimate_ms(&trials) as f64 / 1e3),
        shown.join("\n  ")
    )
}
