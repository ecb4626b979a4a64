//! A scenario, with everything that its file says or leaves to a default.

use hopbench_analysis::report::plural;
use serde_json::{Value, json};

use super::{Context, fields};
use crate::catalog::{Asks, ScenarioDefinition, Target};

pub(super) fn describe(context: &Context, scenario: &ScenarioDefinition) -> anyhow::Result<()> {
    let mut text = format!(
        "scenario {}\n\n{}\n{}\n{}",
        scenario.name,
        scenario.question.trim(),
        scenario.analysis,
        general(scenario)
    );
    let loads = scenario.loads();
    if !loads.is_empty() {
        text += &format!("\n  {}\n", loads.join("\n  "));
    }
    context.print(&text, || as_json(scenario))
}

fn general(scenario: &ScenarioDefinition) -> String {
    let ms = |ms: u64| format!("{ms} ms");
    let load = match (scenario.requests, scenario.stages.len()) {
        (Some(requests), _) => format!("{requests} requests within {}", ms(scenario.duration_ms)),
        (None, 0) => ms(scenario.duration_ms),
        (None, stages) => format!("{} in {stages} stages", ms(scenario.duration_ms)),
    };
    let warm_up = match scenario.is_cold {
        true => "none".to_owned(),
        false => ms(scenario.warm_up_ms),
    };
    let recovery = scenario.recovery.as_ref().map(|rule| {
        format!(
            "{} with a p95 of at most {} times that of stage '{}'",
            plural(rule.seconds as usize, "good second"),
            rule.p95_factor,
            rule.baseline
        )
    });
    fields([
        ("tags", scenario.tags.join(", ")),
        ("reference", scenario.reference.clone()),
        ("paths", scenario.paths.join(", ")),
        ("endpoints", endpoints(scenario).join(", ")),
        ("concurrency", format!("{:?}", scenario.concurrency)),
        ("rates", rates(scenario)),
        ("keep-alive", scenario.keep_alive.to_string()),
        ("placement", placements(scenario)),
        ("load", load),
        ("think time", ms(scenario.think_time_ms)),
        (
            "timeout",
            scenario.timeout_ms.map_or_else(|| "5000 ms".to_owned(), ms),
        ),
        ("warm-up", warm_up),
        ("blocks", scenario.blocks.to_string()),
        ("control", scenario.control.to_string()),
        ("recovery", recovery.unwrap_or_default()),
        ("pathologies", pathologies(scenario)),
    ])
}

fn rates(scenario: &ScenarioDefinition) -> String {
    match (scenario.stages.is_empty(), scenario.is_open_loop()) {
        (true, _) => scenario.rates.to_string(),
        (false, true) => "those of the stages".to_owned(),
        (false, false) => "closed loop".to_owned(),
    }
}

fn placements(scenario: &ScenarioDefinition) -> String {
    let names = scenario.placements.iter().map(|it| it.name());
    names.collect::<Vec<_>>().join(", ")
}

fn endpoints(scenario: &ScenarioDefinition) -> Vec<String> {
    match &scenario.asks {
        Asks::AllEndpoints => vec!["*".to_owned()],
        Asks::Endpoints(targets) => targets.iter().map(Target::to_string).collect(),
        Asks::Mix(_) => Vec::new(),
    }
}

fn pathologies(scenario: &ScenarioDefinition) -> String {
    scenario.pathologies.described(true).join("; ")
}

fn as_json(scenario: &ScenarioDefinition) -> Value {
    json!({
        "scenario": scenario.name, "question": scenario.question,
        "analysis": scenario.analysis, "reference": scenario.reference,
        "paths": scenario.paths, "endpoints": endpoints(scenario),
        "concurrency": scenario.concurrency,
        "rates": rates(scenario), "keep_alive": scenario.keep_alive,
        "placement": scenario.placements,
        "duration_ms": scenario.duration_ms, "warm_up_ms": scenario.warm_up_ms,
        "blocks": scenario.blocks, "control": scenario.control,
        "requests_per_load": scenario.requests, "loads": scenario.loads(),
        "think_time_ms": scenario.think_time_ms, "timeout_ms": scenario.timeout_ms,
        "cold": scenario.is_cold, "recovery": scenario.recovery,
        "pathologies": scenario.pathologies,
    })
}
