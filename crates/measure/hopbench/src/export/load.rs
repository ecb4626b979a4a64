//! The one load of a scenario that a project makes, in the terms of no engine.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hopbench_analysis::record::{Cell, Placement, Stage};
use serde_json::{Value, json};

use crate::{
    catalog::{PathDefinition, ScenarioDefinition},
    mistake::Mistake,
    plan::{
        selection::{SelectedScenario, Selection},
        work::{PlannedRequest, Work},
    },
};

/// A load that another engine can make.
#[derive(Debug)]
pub(crate) struct Load {
    pub(super) scenario: String,
    pub(super) question: String,
    pub(super) endpoint: String,
    /// Name of the path whose answers are expected, if it isn't the reference.
    path: Option<String>,
    work: Work,
    /// Number of connections.
    pub(super) users: u32,
    /// The highest rate, in requests per second. `None`: a closed loop.
    pub(super) rate_rps: Option<u32>,
    /// At least one. Levels are rates, or connections in a closed loop.
    pub(super) stages: Vec<Stage>,
    is_staged: bool,
    pub(super) keep_alive: bool,
    pub(super) think_time_ms: u64,
    pub(super) timeout_ms: u64,
}

/// Time limit of a request, in milliseconds, unless the scenario has one.
const TIMEOUT_MS: u64 = 5_000;

/// Maximum length of a project's requests as text, in bytes. A ConfigMap holds 1 MiB.
const REQUESTS_BYTES_MAX: usize = 900 << 10;

impl Load {
    /// Returns the only load of a selection, with the answers that a path gives, or else those of
    /// the reference.
    ///
    /// # Errors
    /// If there are several loads, or if the load is none that another engine can make.
    pub(crate) fn new(
        selection: &Selection,
        path: Option<&PathDefinition>,
    ) -> Result<Self, Mistake> {
        let [scenario] = selection.scenarios.as_slice() else {
            return Err(Mistake("expected one scenario".to_owned()));
        };
        let definition = &scenario.definition;
        let of = |message: &str| Mistake(format!("scenario '{}' {message}", definition.name));
        check(definition, scenario.knees.is_empty()).map_err(of)?;
        let (endpoint, users, rate_rps) = only(scenario).map_err(|message| of(&message))?;
        let key = (definition.name.clone(), endpoint);
        let work = selection
            .work
            .get(&key)
            .ok_or_else(|| of("has no requests"))?;
        let work = path.map_or_else(|| work.clone(), |path| work.on(path));
        let endpoint = key.1;
        let mut stages = scenario.stages(&endpoint, users).unwrap_or_default();
        if stages.is_empty() {
            let level = f64::from(rate_rps.unwrap_or(users));
            stages.push(Stage {
                name: "load".to_owned(),
                duration_ms: definition.duration_ms,
                from: level,
                to: level,
            });
        }
        let load = Self {
            scenario: definition.name.clone(),
            question: definition.question.trim().to_owned(),
            endpoint,
            path: path.map(|path| path.name.clone()),
            work,
            users,
            rate_rps,
            stages,
            is_staged: !definition.stages.is_empty(),
            keep_alive: definition.keep_alive,
            think_time_ms: definition.think_time_ms,
            timeout_ms: definition.timeout_ms.unwrap_or(TIMEOUT_MS),
        };
        let bytes = load.requests().to_string().len();
        if bytes > REQUESTS_BYTES_MAX {
            return Err(of(&format!(
                "has requests of {} KiB: expected at most {} KiB, which a ConfigMap can hold; use \
                 fewer targets or a shorter body",
                bytes >> 10,
                REQUESTS_BYTES_MAX >> 10
            )));
        }
        Ok(load)
    }

    /// Returns the name of the scenario.
    pub(crate) fn name(&self) -> &str {
        &self.scenario
    }

    /// Returns the cell that a guardrail of a policy would be about.
    pub(super) fn cell(&self) -> Cell {
        Cell {
            scenario: self.scenario.clone(),
            endpoint: self.endpoint.clone(),
            path: self.path.clone().unwrap_or_default(),
            concurrency: self.users,
            keep_alive: self.keep_alive,
            rate_rps: self.rate_rps,
            staged: self.is_staged,
            placement: Placement::Free,
            build: None,
        }
    }

    /// Describes the load in a phrase.
    pub(crate) fn summary(&self) -> String {
        let seconds = self.stages.iter().map(|it| it.duration_ms).sum::<u64>() as f64 / 1e3;
        let what = &self.endpoint;
        let up_to = if self.is_staged { "up to " } else { "" };
        match self.rate_rps {
            Some(rate) => format!(
                "'{what}' at {up_to}{rate} requests per second for {seconds} s, over at most {} \
                 connections",
                self.users
            ),
            None => format!(
                "'{what}' over {up_to}{} connections for {seconds} s",
                self.users
            ),
        }
    }

    /// Returns the kinds of requests as data.
    pub(super) fn requests(&self) -> Value {
        self.work
            .requests
            .iter()
            .map(|it| self.request(it))
            .collect()
    }

    fn request(&self, request: &PlannedRequest) -> Value {
        // Their own figures would count compressed bodies in different ways.
        let mut headers: BTreeMap<String, String> = [
            ("accept".to_owned(), "*/*".to_owned()),
            ("accept-encoding".to_owned(), "identity".to_owned()),
        ]
        .into();
        if !self.keep_alive {
            headers.insert("connection".to_owned(), "close".to_owned());
        }
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &request.headers {
            let values = given.entry(name.to_ascii_lowercase()).or_default();
            // A field with several values is the same as one with a list.
            if !values.is_empty() {
                values.push_str(", ");
            }
            values.push_str(value);
        }
        headers.extend(given);
        let text = request.body.as_ref().map(|body| std::str::from_utf8(body));
        let base64 = match &text {
            Some(Err(_)) => request.body.as_ref().map(|body| STANDARD.encode(body)),
            _ => None,
        };
        let expect = request
            .expect
            .iter()
            .map(|answer| json!({"status": answer.status, "length_bytes": answer.length_bytes}));
        json!({
            "name": request.name, "method": request.method, "targets": request.targets,
            "headers": headers, "body": text.and_then(Result::ok), "body_base64": base64,
            "weight": request.weight, "expect": expect.collect::<Vec<_>>(),
        })
    }
}

/// Returns why another engine can't make a scenario's loads, if it can't.
fn check(definition: &ScenarioDefinition, has_no_knees: bool) -> Result<(), &'static str> {
    if definition.rates.depend_on_knee() && has_no_knees {
        return Err(
            "has rates that are shares of a knee, which only a run finds: expected rates in \
             requests per second; give one with --rate, or name another scenario",
        );
    }
    if definition.requests.is_some() {
        return Err(
            "has a number of requests, which several generators can't share: expected \
             'duration-ms'; name another scenario",
        );
    }
    if !definition.prepare.is_empty() {
        return Err(
            "has [[prepare]] loads, which other engines don't make: expected none; name another \
             scenario",
        );
    }
    Ok(())
}

/// Returns endpoint, connections and rate of a scenario's only load.
fn only(scenario: &SelectedScenario) -> Result<(String, u32, Option<u32>), String> {
    let loads = scenario
        .loads()
        .into_iter()
        .flat_map(|(endpoint, concurrency)| {
            let rates = scenario.rates(&endpoint, concurrency).into_iter();
            let loads = rates.map(move |rate| (endpoint.clone(), concurrency, rate));
            loads.collect::<Vec<_>>()
        });
    let mut loads: Vec<_> = loads.collect();
    match (loads.len(), loads.pop()) {
        (1, Some(load)) => Ok(load),
        (count, _) => Err(format!(
            "has {count} loads: expected one; choose it with --endpoint, --concurrency and --rate"
        )),
    }
}
