//! `hopbench describe`

mod scenario;
mod schema;

use std::{collections::BTreeMap, process::ExitCode};

use hopbench_analysis::gate::Policy;
use serde_json::json;

use super::{Context, columns};
use crate::{
    catalog::{
        CatalogError, Conservation, Counters, PathDefinition, ProbeDefinition, ProcessDefinition,
        Take, Target, Template,
    },
    cmd::cli,
    plan::{
        commands::receipts,
        selection::{Overrides, Selection},
    },
};

pub(super) fn run(context: &Context, options: &cli::Describe) -> anyhow::Result<ExitCode> {
    if let Some(kind) = options.fields {
        let fields = kind.schema();
        context.print(&schema::text(&fields), || fields.to_value())?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = options.name.as_deref().unwrap_or_default();
    let file = name.ends_with(".toml");
    if name.starts_with('/') && !file {
        return endpoint(context, name);
    }
    // A file is taken for whichever kind it can be parsed as. A name belongs to one kind only.
    let catalog = &context.catalog;
    if catalog.is_probe(name) {
        probe(context, &catalog.probe(name)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    match (
        catalog.paths(name),
        catalog.scenario(name),
        catalog.gate(name),
    ) {
        (Ok(paths), ..) => {
            for definition in paths {
                path(context, &definition)?;
            }
        }
        (_, Ok(definition), _) => scenario::describe(context, &definition)?,
        (.., Ok(policy)) => gate(context, &policy)?,
        (Err(error), Err(CatalogError::Unknown { .. }), _) if !file => {
            return Err(unknown(context, name, &error).into());
        }
        (Err(of_path), Err(of_scenario), Err(of_gate)) => {
            // A file with limits was probably meant as a gate, one with a question as a scenario.
            let text = std::fs::read_to_string(name).unwrap_or_default();
            let has = |word| text.contains(word);
            let is_gate = ["[[relative]]", "[[absolute]]", "[[invariant]]"].map(has);
            return Err(match (is_gate.contains(&true), has("question")) {
                (true, _) => of_gate.into(),
                (_, true) => of_scenario.into(),
                _ => of_path.into(),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn probe(context: &Context, definition: &ProbeDefinition) -> anyhow::Result<()> {
    let rules = definition.rules.iter().map(|rule| {
        let over = rule.over.as_ref();
        let over = over.map_or_else(String::new, |over| format!(" more than '{over}'"));
        vec![
            format!("  {}", rule.subject),
            format!("{} of {}", rule.statistic.name(), rule.measure),
            format!("at most {}{over}", rule.max),
            rule.why.clone(),
        ]
    });
    let rules: Vec<Vec<String>> = rules.collect();
    let subjects = probe_subjects(definition);
    let sizes = definition.sizes.iter().map(u32::to_string);
    let facts = [
        ("observes", subjects.join(", ")),
        ("sizes", sizes.collect::<Vec<_>>().join(", ")),
        ("cycles", definition.cycles.to_string()),
        ("cycles with --quick", definition.quick_cycles.to_string()),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    let facts = facts.map(|(name, value)| vec![format!("  {name}"), value]);
    let text = format!(
        "{}: {}\n\n{}\n\n{}\nrules\n{}",
        definition.name,
        definition.question,
        definition.analysis.trim(),
        columns(&facts.collect::<Vec<_>>()),
        columns(&rules)
    );
    context.print(&text, || {
        json!({
            "probe": definition.name, "question": definition.question,
            "analysis": definition.analysis.trim(),
            "cycles": definition.cycles, "observes": subjects, "sizes": definition.sizes,
            "rules": definition.rules,
        })
    })
}

/// Returns what a probe observes, as '--only' names it.
fn probe_subjects(definition: &ProbeDefinition) -> Vec<String> {
    let commands = definition.commands.iter().map(|it| it.name.clone());
    let hops = definition.hops.iter().map(|it| it.name.clone());
    commands
        .chain(definition.paths.iter().cloned())
        .chain(hops)
        .collect()
}

/// Returns the error for an unknown name, with a hint from all kinds of definitions.
fn unknown(context: &Context, name: &str, error: &CatalogError) -> CatalogError {
    if name.starts_with("tag:") {
        return CatalogError::Invalid {
            file: name.to_owned(),
            message: error.to_string(),
        };
    }
    let paths = context.catalog.paths.iter().map(|path| path.name.as_str());
    let probes = context.catalog.probes.iter().map(|it| it.name.as_str());
    let scenarios = context
        .catalog
        .scenarios
        .iter()
        .map(|scenario| scenario.name.as_str());
    let gates = context.catalog.gates.iter().map(|gate| gate.name.as_str());
    let known: Vec<&str> = paths.chain(scenarios).chain(gates).chain(probes).collect();
    CatalogError::Unknown {
        kind: "path, scenario, gate or probe",
        name: name.to_owned(),
        nearest: crate::catalog::nearest(name, known.iter().copied()),
        known: known.join(", "),
    }
}

fn path(context: &Context, path: &PathDefinition) -> anyhow::Result<()> {
    let missing = context.toolbox.missing(path);
    let receipts = match missing.is_empty() {
        true => receipts(&context.toolbox, path)?.lines,
        false => Default::default(),
    };
    let mut text = format!("path {}\n\n{}\n", path.name, path.summary.trim());
    let files: Vec<&str> = path.files.iter().map(|file| file.name.as_str()).collect();
    let parameters = path.parameters.iter();
    let parameters = parameters.map(|(name, value)| format!("{name}={value}"));
    let rows = [
        ("tags", path.tags.join(", ")),
        ("parameters", parameters.collect::<Vec<_>>().join(", ")),
        (
            "front",
            format!("{}{}", path.front, path.front.protocol.after_path()),
        ),
        (
            "query",
            path.query
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        ("ready", path.ready.clone()),
        (
            "start-timeout-ms",
            path.start_timeout.as_millis().to_string(),
        ),
        ("files", files.join(", ")),
    ];
    text += &format!("{}\n{}", path.analysis, fields(rows));
    for process in &path.processes {
        let receipt = receipts.get(&process.name).cloned().unwrap_or_default();
        text += &format!(
            "\nprocess {}\n\n{}",
            process.name,
            of_process(process, receipt)
        );
    }
    for (name, answer) in &path.expect {
        text += &format!("\nexpect {name}\n\n  {answer}\n");
    }
    text += &of_counters(&path.counters);
    for reason in &missing {
        text += &format!("\ncan't be run here: {reason}\n");
    }
    context.print(&text, || {
        json!({
            "path": path.name, "summary": path.summary, "analysis": path.analysis,
            "tags": path.tags, "parameters": path.parameters,
            "receipts": receipts, "missing": missing,
            "front": path.front.to_string(), "tls": path.front.protocol.tls,
            "protocol": path.front.protocol.protocol, "ready": path.ready, "files": files,
            "start_timeout_ms": path.start_timeout.as_millis(),
            "query": path.query.as_ref().map(ToString::to_string),
            "expect": path.expect.iter().map(|(name, answer)| (name, answer.to_string()))
                .collect::<BTreeMap<_, _>>(),
            "counters": path.counters.shown, "conservation": conservation(&path.counters),
            "processes": path.processes.iter().map(process_json).collect::<Vec<_>>(),
        })
    })
}

/// Lists what a path file says of a process, and the version that its program prints.
fn of_process(process: &ProcessDefinition, receipt: String) -> String {
    let thread_roles = process.thread_roles.iter();
    let thread_roles = thread_roles.map(|(prefix, role)| format!("{prefix}… as {role}"));
    let env = process.env.iter();
    let env = env.map(|(name, value)| format!("{name}={value}"));
    let text = |template: &Option<Template>| {
        let template = template.as_ref();
        template.map(Template::to_string).unwrap_or_default()
    };
    fields([
        ("role", process.role.clone()),
        ("command", words(&process.command).join(" ")),
        ("version", receipt),
        ("env", env.collect::<Vec<_>>().join(" ")),
        ("cwd", text(&process.cwd)),
        ("admin", text(&process.admin)),
        ("stops-with-stdin", process.stops_with_stdin.to_string()),
        ("takes-faults", process.takes_faults.to_string()),
        ("thread-roles", thread_roles.collect::<Vec<_>>().join(", ")),
    ])
}

/// Lists the declared counters, and the rules that they must keep.
fn of_counters(counters: &Counters) -> String {
    let mut text = String::new();
    for counter in &counters.shown {
        let per = serde_json::to_value(&counter.per).unwrap_or_default();
        let per = per
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it.as_str());
        let rows = [
            ("label", counter.label.clone()),
            ("unit", counter.unit.clone()),
            ("per", per.collect::<Vec<_>>().join(", ")),
            ("help", counter.help.clone()),
        ];
        text += &format!("\ncounter {}\n\n{}", counter.name, fields(rows));
    }
    if !counters.rules.is_empty() {
        let rules = conservation(counters);
        text += &format!("\nconservation\n\n  {}\n", rules.join("\n  "));
    }
    text
}

/// Returns each rule as a sentence.
fn conservation(counters: &Counters) -> Vec<String> {
    let sentence = |rule: &Conservation| {
        let take = match rule.take {
            Take::Largest => "the largest of",
            Take::Sum => "the sum of",
        };
        let who = rule.role.as_ref().map_or_else(
            || "all processes".to_owned(),
            |role| format!("the processes of role '{role}'"),
        );
        let at_most = rule
            .at_most
            .map(|factor| format!(", and at most {factor} × what was exchanged, heads included"));
        format!(
            "{take} {} over {who}: at least the body bytes that the client received{}",
            rule.counters.join(", "),
            at_most.unwrap_or_default()
        )
    };
    counters.rules.iter().map(sentence).collect()
}

fn process_json(process: &ProcessDefinition) -> serde_json::Value {
    json!({
        "name": process.name, "role": process.role, "command": words(&process.command),
        "admin": process.admin.as_ref().map(Template::to_string),
        "stops_with_stdin": process.stops_with_stdin, "takes_faults": process.takes_faults,
        "thread_roles": process.thread_roles,
        "env": process.env.iter().map(|(name, value)| (name, value.to_string()))
            .collect::<BTreeMap<_, _>>(),
        "cwd": process.cwd.as_ref().map(Template::to_string),
    })
}

fn words(command: &[Template]) -> Vec<String> {
    command.iter().map(Template::to_string).collect()
}

/// Lists the fields that have a value.
fn fields<const N: usize>(rows: [(&str, String); N]) -> String {
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let rows: Vec<_> = rows
        .map(|(name, value)| vec![format!("  {name}"), value])
        .collect();
    columns(&rows)
}

fn gate(context: &Context, gate: &Policy) -> anyhow::Result<()> {
    let guardrails = || gate.guardrails.iter().map(ToString::to_string);
    let lines: Vec<String> = guardrails().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "gate {}\n\n{}\n\n{}",
        gate.name,
        gate.question,
        lines.concat()
    );
    context.print(&text, || {
        json!({
            "gate": gate.name, "question": gate.question,
            "guardrails": guardrails().collect::<Vec<_>>(),
        })
    })
}

/// Describes an endpoint. Asks the reference of the first scenario, as a run would.
fn endpoint(context: &Context, name: &str) -> anyhow::Result<ExitCode> {
    let target: Target = name.parse().map_err(|message| CatalogError::Invalid {
        file: name.to_owned(),
        message,
    })?;
    let first = context
        .catalog
        .scenarios
        .first()
        .map(|scenario| scenario.name.clone());
    let overrides = Overrides {
        endpoints: vec![target],
        ..Overrides::default()
    };
    let names: Vec<String> = first.into_iter().collect();
    let selection = Selection::new(&context.catalog, &context.toolbox, &names, &overrides)?;
    for work in selection.work.values() {
        for request in &work.requests {
            let answer = &request.expect[0];
            let length_bytes = answer.length_bytes.unwrap_or_default();
            let sha256 = answer.sha256.clone().unwrap_or_default();
            let rows = [
                ("method", request.method.clone()),
                ("status", answer.status.to_string()),
                ("length", format!("{length_bytes} bytes")),
                ("sha256", sha256.clone()),
            ];
            let text = format!("endpoint {}\n\n{}", request.name, fields(rows));
            context.print(&text, || {
                json!({
                    "target": request.name, "method": request.method, "status": answer.status,
                    "length_bytes": length_bytes, "sha256": sha256,
                })
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
