//! A project for k6: arrival rates, or connections of a closed loop, with thresholds.

use hopbench_analysis::{
    gate::{
        Policy,
        policy::{Absolute, AbsoluteMetric, Guardrail, Limit},
    },
    record::Stage,
};
use serde_json::{Map, Value, json};

use super::{
    Load, ProjectFile,
    target::EngineTarget,
    template::{comments, fill, javascript, plain},
};

/// Returns the files of a project.
pub(super) fn project(
    load: &Load,
    target: &EngineTarget,
    policy: &Policy,
) -> anyhow::Result<Vec<ProjectFile>> {
    let head = [
        &*format!(
            "Made by 'hopbench export k6 {}'; make it again rather than edit it.",
            load.scenario
        ),
        &load.question,
    ];
    let (thresholds, explanation) = thresholds(load, policy);
    let think_s = load.think_time_ms as f64 / 1e3;
    let (import, think) = match load.think_time_ms {
        0 => (String::new(), String::new()),
        _ => (
            "import { sleep } from 'k6';\n".to_owned(),
            format!("  sleep({think_s});\n"),
        ),
    };
    let string = |text: &str| Value::from(text).to_string();
    let values = [
        ("HEAD", comments("//", &head)),
        ("IMPORT", import),
        ("OPTIONS", javascript(&options(load, thresholds))),
        ("REQUESTS", javascript(&load.requests())),
        ("TIMEOUT", load.timeout_ms.to_string()),
        ("THINK", think),
        ("SCENARIO", load.scenario.clone()),
        ("SCENARIO_JSON", string(&load.scenario)),
        ("QUESTION", plain(&load.question)),
        ("SUMMARY", plain(&load.summary())),
        ("TARGET", target.to_string()),
        ("TARGET_JSON", string(&target.to_string())),
        ("K8S_NAME", kubernetes_name(&load.scenario)),
        ("THRESHOLDS", explanation),
        ("LOOP", open_or_closed(load)),
    ];
    let script = include_str!("../../templates/export/script.js");
    let manifest = include_str!("../../templates/export/k6-operator.yaml");
    let readme = include_str!("../../templates/export/k6.md");
    Ok(vec![
        ("script.js", fill(script, &values)),
        ("k6-operator.yaml", fill(manifest, &values)),
        ("README.md", fill(readme, &values)),
    ])
}

fn options(load: &Load, thresholds: Value) -> Value {
    let mut options = json!({
        "scenarios": {"load": executor(load)},
        "summaryTrendStats": ["avg", "min", "p(50)", "p(90)", "p(95)", "p(99)", "max"],
        "thresholds": thresholds,
    });
    if !load.keep_alive {
        options["noConnectionReuse"] = true.into();
    }
    options
}

/// Returns the executor that makes the load.
fn executor(load: &Load) -> Value {
    let is_constant = |stage: &Stage| stage.from.to_bits() == stage.to.to_bits();
    let mut executor = match (load.rate_rps, load.stages.as_slice()) {
        (Some(_), [stage]) if is_constant(stage) => {
            let unit = unit(&load.stages);
            json!({
                "executor": "constant-arrival-rate", "rate": scaled(stage.to, unit),
                "timeUnit": format!("{unit}s"), "duration": duration(stage.duration_ms),
            })
        }
        (Some(_), stages) => {
            let unit = unit(stages);
            json!({
                "executor": "ramping-arrival-rate", "startRate": scaled(stages[0].from, unit),
                "timeUnit": format!("{unit}s"), "stages": steps(stages, unit),
            })
        }
        (None, [stage]) if is_constant(stage) => json!({
            "executor": "constant-vus", "vus": scaled(stage.to, 1),
            "duration": duration(stage.duration_ms),
        }),
        (None, stages) => json!({
            "executor": "ramping-vus", "startVUs": scaled(stages[0].from, 1),
            "stages": steps(stages, 1), "gracefulRampDown": "0s",
        }),
    };
    if load.rate_rps.is_some() {
        executor["preAllocatedVUs"] = load.users.into();
        executor["maxVUs"] = load.users.into();
    }
    executor["gracefulStop"] = duration(load.timeout_ms).into();
    executor
}

/// Returns the stages of k6, which always ramp: a step is a ramp that takes no time.
fn steps(stages: &[Stage], unit: u32) -> Value {
    let mut level = stages[0].from;
    let mut steps = Vec::new();
    for stage in stages {
        if stage.from.to_bits() != level.to_bits() {
            steps.push(json!({"target": scaled(stage.from, unit), "duration": "0s"}));
        }
        let target = scaled(stage.to, unit);
        steps.push(json!({"target": target, "duration": duration(stage.duration_ms)}));
        level = stage.to;
    }
    steps.into()
}

/// Returns the number of seconds for which rates are given. k6 wants whole numbers.
fn unit(stages: &[Stage]) -> u32 {
    let mut levels = stages.iter().flat_map(|stage| [stage.from, stage.to]);
    match levels.all(|level| level.fract() == 0.0) {
        true => 1,
        false => 1_000,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the largest rate, over a thousand seconds"
)]
fn scaled(level: f64, unit: u32) -> u64 {
    (level * f64::from(unit)).round() as u64
}

fn duration(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// Returns the thresholds that a policy has for this load, and an explanation of them.
fn thresholds(load: &Load, policy: &Policy) -> (Value, String) {
    let mut thresholds: Map<String, Value> = Map::new();
    let (mut added, mut left_out) = (0, 0);
    for guardrail in &policy.guardrails {
        let of_load = match guardrail {
            Guardrail::Absolute(absolute) if absolute.filter.matches(&load.cell()) => {
                threshold(absolute)
            }
            Guardrail::Absolute(_) | Guardrail::Relative(_) | Guardrail::Invariant(_) => Vec::new(),
        };
        match of_load.is_empty() {
            true => left_out += 1,
            false => added += 1,
        }
        for (metric, rule) in of_load {
            let rules = thresholds.entry(metric).or_insert_with(|| json!([]));
            if let Some(rules) = rules.as_array_mut() {
                rules.push(rule.into());
            }
        }
    }
    let explanation = format!(
        "{added} of the guardrails of the policy '{}' are thresholds here: limits of errors, of \
         rates and\nof latencies. {left_out} are not: those that compare two runs or two paths, \
         that limit the CPU time or\nthe memory of servers, or that don't apply to this load. With \
         several generators, each is held\nto the thresholds by itself.",
        policy.name
    );
    (Value::Object(thresholds), explanation)
}

/// Returns a guardrail as rules for metrics; none if k6 doesn't measure it.
fn threshold(absolute: &Absolute) -> Vec<(String, String)> {
    let is = |aggregate: &str| match absolute.limit {
        Limit::AtLeast(limit) => format!("{aggregate}>={limit}"),
        Limit::AtMost(limit) => format!("{aggregate}<={limit}"),
    };
    let latency =
        |percentile: u32| vec![("right_answers".to_owned(), is(&format!("p({percentile})")))];
    match absolute.metric {
        AbsoluteMetric::Errors => vec![
            ("failures".to_owned(), is("count")),
            ("dropped_iterations".to_owned(), is("count")),
        ],
        AbsoluteMetric::Rps => vec![("right".to_owned(), is("rate"))],
        AbsoluteMetric::P50Ms => latency(50),
        AbsoluteMetric::P95Ms => latency(95),
        AbsoluteMetric::P99Ms => latency(99),
        AbsoluteMetric::CpuUsPerRequest
        | AbsoluteMetric::RssPeakMib
        | AbsoluteMetric::RssGrowthMib => Vec::new(),
    }
}

/// Returns a name that Kubernetes accepts.
fn kubernetes_name(scenario: &str) -> String {
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    };
    let name: String = scenario.chars().map(plain).take(50).collect();
    format!("hopbench-{}", name.trim_matches('-'))
        .trim_end_matches('-')
        .to_owned()
}

fn open_or_closed(load: &Load) -> String {
    match load.rate_rps {
        Some(_) => format!(
            "The rate doesn't depend on the answers. A request that is due while all {}\n  \
             connections wait is dropped, and counted.",
            load.users
        ),
        None => "The loop is closed: a connection asks again once it has its answer.".to_owned(),
    }
}
