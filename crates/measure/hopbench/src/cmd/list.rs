//! `hopbench list`

use std::process::ExitCode;

use serde_json::json;

use super::{Context, columns};

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let missing = |path| context.toolbox.missing(path);
    let paths: Vec<Vec<String>> = context
        .catalog
        .paths
        .iter()
        .map(|path| {
            let note = if missing(path).is_empty() {
                ""
            } else {
                " (can't be run here: doctor)"
            };
            vec![
                format!("  {}", path.name),
                path.tags.join(","),
                format!("{}{note}", path.summary.trim()),
            ]
        })
        .collect();
    let scenarios: Vec<Vec<String>> = context
        .catalog
        .scenarios
        .iter()
        .map(|scenario| {
            vec![
                format!("  {}", scenario.name),
                scenario.question.trim().to_owned(),
            ]
        })
        .collect();
    let gates = context.catalog.gates.iter();
    let gates: Vec<Vec<String>> = gates
        .map(|gate| vec![format!("  {}", gate.name), gate.question.clone()])
        .collect();
    let probes = context.catalog.probes.iter();
    let probes: Vec<Vec<String>> = probes
        .map(|probe| vec![format!("  {}", probe.name), probe.question.clone()])
        .collect();
    let text = format!(
        "paths\n{}\nscenarios\n{}\ngates\n{}\nprobes\n{}",
        columns(&paths),
        columns(&scenarios),
        columns(&gates),
        columns(&probes)
    );
    context.print(&text, || {
        let paths = context.catalog.paths.iter().map(|path| {
            json!({
                "name": path.name, "tags": path.tags, "summary": path.summary,
                "missing": missing(path),
            })
        });
        let scenarios = context
            .catalog
            .scenarios
            .iter()
            .map(|scenario| json!({"name": scenario.name, "question": scenario.question}));
        let probes = context.catalog.probes.iter();
        let probes = probes.map(|probe| json!({"name": probe.name, "question": probe.question}));
        let gates = context.catalog.gates.iter();
        let gates = gates.map(|gate| json!({"name": gate.name, "question": gate.question}));
        json!({
            "paths": paths.collect::<Vec<_>>(),
            "scenarios": scenarios.collect::<Vec<_>>(),
            "gates": gates.collect::<Vec<_>>(),
            "probes": probes.collect::<Vec<_>>(),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}
