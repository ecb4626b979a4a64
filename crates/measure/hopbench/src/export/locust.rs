//! A project for Locust: users that each send their share of the rate, in stages.

use serde_json::{Value, json};

use super::{
    Load, ProjectFile,
    target::EngineTarget,
    template::{comments, fill, plain, python},
};

/// Returns the files of a project.
pub(super) fn project(load: &Load, target: &EngineTarget) -> anyhow::Result<Vec<ProjectFile>> {
    let head = [
        &*format!(
            "Made by 'hopbench export locust {}'; make it again rather than edit it.",
            load.scenario
        ),
        &load.question,
        "",
    ];
    let values = [
        ("HEAD", comments("#", &head)),
        ("LOAD", python(&described(load, target))?),
        ("SCENARIO", load.scenario.clone()),
        ("QUESTION", plain(&load.question)),
        ("SUMMARY", plain(&load.summary())),
        ("TARGET", target.to_string()),
        ("PACING", pacing(load)),
    ];
    let file = include_str!("../../templates/export/locustfile.py");
    let readme = include_str!("../../templates/export/locust.md");
    let requirements = include_str!("../../templates/export/requirements.txt");
    Ok(vec![
        ("locustfile.py", fill(file, &values)),
        ("requirements.txt", requirements.to_owned()),
        ("README.md", fill(readme, &values)),
    ])
}

fn described(load: &Load, target: &EngineTarget) -> Value {
    let per_user_rps = per_user_rps(load);
    let users = |level: f64| level / per_user_rps.unwrap_or(1.0);
    let stages = load.stages.iter().map(|stage| {
        json!({
            "name": stage.name, "duration_s": stage.duration_ms as f64 / 1e3,
            "from_users": users(stage.from), "to_users": users(stage.to),
        })
    });
    json!({
        "scenario": load.scenario,
        "target": target.to_string(),
        "users": load.users,
        "per_user_rps": per_user_rps,
        "think_time_s": load.think_time_ms as f64 / 1e3,
        "timeout_s": load.timeout_ms as f64 / 1e3,
        "stages": stages.collect::<Vec<_>>(),
        "requests": load.requests(),
    })
}

/// Returns the share of a user in the rate: all of them together send the highest one.
fn per_user_rps(load: &Load) -> Option<f64> {
    let rate = load.rate_rps?;
    // A user sends at least one request per second, or stages would begin late.
    let users = load.users.min(rate).max(1);
    Some(f64::from(rate) / f64::from(users))
}

fn pacing(load: &Load) -> String {
    match per_user_rps(load) {
        Some(rate) => format!(
            "Each user\n  sends {rate:.3} requests per second, if its answers come in time. If \
             they don't, Locust asks\n  for less, and shows latencies that are too short: below \
             the rate that was asked for, its\n  figures say nothing."
        ),
        None => "So is the scenario's: the rate\n  is what comes out.".to_owned(),
    }
}
