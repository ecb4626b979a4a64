//! A scenario, with everything that its file says or leaves to a default.

use serde_json::{Value, json};

use super::{Context, fields};
use crate::catalog::{
    Asks, Body, ExpectedAnswer, Prepare, RequestDefinition, ScenarioDefinition, Stage, Target,
};

pub(super) fn describe(context: &Context, scenario: &ScenarioDefinition) -> anyhow::Result<()> {
    let mut text = format!(
        "scenario {}\n\n{}\n{}\n{}",
        scenario.name,
        scenario.question.trim(),
        scenario.analysis,
        general(scenario)
    );
    if let Asks::Mix(requests) = &scenario.asks {
        text.extend(requests.iter().map(request));
    }
    text.extend(scenario.prepare.iter().map(prepare));
    text.extend(
        scenario
            .stages
            .iter()
            .enumerate()
            .map(|(at, it)| stage(at, it)),
    );
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
            "{} good second(s) with a p95 of at most {} times that of stage '{}'",
            rule.seconds, rule.p95_factor, rule.baseline
        )
    });
    fields([
        ("reference", scenario.reference.clone()),
        ("paths", scenario.paths.join(", ")),
        ("endpoints", endpoints(scenario).join(", ")),
        ("concurrency", format!("{:?}", scenario.concurrency)),
        ("rates", rates(scenario)),
        ("keep-alive", scenario.keep_alive.to_string()),
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

fn endpoints(scenario: &ScenarioDefinition) -> Vec<String> {
    match &scenario.asks {
        Asks::AllEndpoints => vec!["*".to_owned()],
        Asks::Endpoints(targets) => targets.iter().map(Target::to_string).collect(),
        Asks::Mix(_) => Vec::new(),
    }
}

fn pathologies(scenario: &ScenarioDefinition) -> String {
    let rules = &scenario.pathologies;
    let p99 = rules.p99_over_reference;
    let p99 = p99.map(|limit| format!("p99 over {limit} times the reference's"));
    let collapse = rules.rps_collapse;
    let collapse = collapse.map(|limit| format!("RPS below {limit} of that at fewer connections"));
    let slower = rules.slower.iter();
    let slower = slower.map(|rule| format!("'{}' slower than '{}'", rule.path, rule.than));
    let all = p99.into_iter().chain(collapse).chain(slower);
    all.collect::<Vec<_>>().join("; ")
}

fn request(request: &RequestDefinition) -> String {
    let [first, .., last] = request.targets.as_slice() else {
        return request_with(request, request.targets.join(""));
    };
    let count = request.targets.len();
    let order = if request.once { "once each" } else { "in turn" };
    request_with(request, format!("{count} {order}: {first} … {last}"))
}

fn request_with(request: &RequestDefinition, target: String) -> String {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {value}"));
    let body = match &request.body {
        None => String::new(),
        Some(Body::Generated { length_bytes }) => format!("{length_bytes} bytes of numbers"),
        Some(Body::Given(bytes)) => format!("{} bytes", bytes.len()),
    };
    let what = [
        (
            "method",
            request
                .method
                .clone()
                .unwrap_or_else(|| "what the reference takes".to_owned()),
        ),
        ("target", target),
        ("headers", headers.collect::<Vec<_>>().join("; ")),
        ("body", body),
        ("weight", request.weight.to_string()),
        (
            "expect",
            request.expect.as_ref().map_or_else(
                || "what the reference says".to_owned(),
                ExpectedAnswer::to_string,
            ),
        ),
    ];
    format!("\nrequest {}\n\n{}", request.name, fields(what))
}

fn prepare(prepare: &Prepare) -> String {
    let at_least = prepare.counters_at_least.iter();
    let at_least = at_least.map(|(name, count)| format!("{name} {count}"));
    let of = match prepare.of.is_empty() {
        true => "all".to_owned(),
        false => prepare.of.join(", "),
    };
    let rows = [
        ("requests", prepare.requests.to_string()),
        ("of", of),
        ("concurrency", prepare.concurrency.to_string()),
        ("counters-at-least", at_least.collect::<Vec<_>>().join(", ")),
    ];
    format!("\nprepare {}\n\n{}", prepare.name, fields(rows))
}

fn stage(index: usize, stage: &Stage) -> String {
    let name = stage
        .name
        .clone()
        .unwrap_or_else(|| (index + 1).to_string());
    let rows = [
        ("duration", format!("{} ms", stage.duration_ms)),
        ("to", format!("{} ({})", stage.level(), stage.unit())),
        ("change", format!("{:?}", stage.change).to_lowercase()),
    ];
    format!("\nstage {name}\n\n{}", fields(rows))
}

fn as_json(scenario: &ScenarioDefinition) -> Value {
    let requests = match &scenario.asks {
        Asks::Mix(requests) => requests.as_slice(),
        Asks::AllEndpoints | Asks::Endpoints(_) => &[],
    };
    let requests = requests.iter().map(|it| {
        json!({
            "name": it.name, "method": it.method, "targets": it.targets.len(), "once": it.once,
            "headers": it.headers, "weight": it.weight,
            "expect": it.expect.as_ref().map(ExpectedAnswer::to_string),
        })
    });
    let stages = scenario.stages.iter().map(|it| {
        json!({
            "name": it.name, "duration_ms": it.duration_ms, "unit": it.unit(), "to": it.level(),
            "change": format!("{:?}", it.change).to_lowercase(),
        })
    });
    let prepare = scenario.prepare.iter().map(|it| {
        json!({
            "name": it.name, "requests": it.requests, "concurrency": it.concurrency, "of": it.of,
            "counters_at_least": it.counters_at_least,
        })
    });
    json!({
        "scenario": scenario.name, "question": scenario.question,
        "analysis": scenario.analysis, "reference": scenario.reference,
        "paths": scenario.paths, "endpoints": endpoints(scenario),
        "concurrency": scenario.concurrency,
        "rates": rates(scenario), "keep_alive": scenario.keep_alive,
        "duration_ms": scenario.duration_ms, "warm_up_ms": scenario.warm_up_ms,
        "blocks": scenario.blocks, "control": scenario.control,
        "requests_per_load": scenario.requests, "requests": requests.collect::<Vec<_>>(),
        "stages": stages.collect::<Vec<_>>(), "prepare": prepare.collect::<Vec<_>>(),
        "think_time_ms": scenario.think_time_ms, "timeout_ms": scenario.timeout_ms,
        "cold": scenario.is_cold, "recovery": scenario.recovery,
        "pathologies": scenario.pathologies,
    })
}
