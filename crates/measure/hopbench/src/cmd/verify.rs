//! `hopbench verify`

use std::{collections::BTreeSet, path::Path, process::ExitCode};

use hopbench_analysis::record::{Failure, FailureKind, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Context, columns};
use crate::{
    catalog::{self, Catalog, CatalogError},
    cmd::{cli, exit},
    console::say,
    mistake::Mistake,
    plan::{commands::receipts, selection::Selection},
    process::Interrupt,
    run::{
        measure,
        trial::{Live, Verified},
    },
};

pub(super) fn run(context: &Context, options: &cli::Verify) -> anyhow::Result<ExitCode> {
    let selection = select(context, &options.choice)?;
    let interrupt = Interrupt::catch()?;
    let checked = verify(context, &selection, &interrupt)?;
    checked.publish(context)
}

/// The answers of all paths of a selection.
#[derive(Debug, Default)]
pub(super) struct Checked {
    rows: Vec<Vec<String>>,
    results: Vec<Value>,
    /// Paths that have failed.
    failed: BTreeSet<String>,
}

/// Starts every path of a selection and sends each kind of request once.
pub(super) fn verify(
    context: &Context,
    selection: &Selection,
    interrupt: &Interrupt,
) -> anyhow::Result<Checked> {
    measure::check_surroundings()?;
    // The lock is released at once, so a run that starts meanwhile is not refused.
    if let Err(error) = measure::lock_machine() {
        say(&format!("warning: {error:#}"));
    }
    let logs = TempDir::new()?;
    let logs = logs.path().to_owned();
    let mut live = Live::new(&context.toolbox, None, selection, interrupt, logs)?;
    let mut asked: Vec<(String, String)> = Vec::new();
    for scenario in &selection.scenarios {
        for endpoint in &scenario.endpoints {
            // What two scenarios ask for may have the same name, but an endpoint is one.
            let is_known = |(_, known): &(String, String)| known == endpoint;
            if !(endpoint.starts_with('/') && asked.iter().any(is_known)) {
                asked.push((scenario.definition.name.clone(), endpoint.clone()));
            }
        }
    }
    let mut checked = Checked::default();
    for path in &selection.paths {
        let name = &path.definition.name;
        if let Some(reason) = &path.skipped {
            checked.skip(name, reason);
            continue;
        }
        // A run is refused without the versions of what it measures.
        let version = receipts(&context.toolbox, &path.definition)
            .err()
            .map(unversioned);
        let answers = live.verify(name, &asked)?;
        for verified in version.into_iter().chain(answers) {
            checked.add(name, verified);
        }
    }
    Ok(checked)
}

impl Checked {
    fn skip(&mut self, path: &str, reason: &str) {
        let said = format!("skipped: {reason}");
        self.rows.push(vec![path.to_owned(), "-".to_owned(), said]);
        self.results.push(json!({"path": path, "skipped": reason}));
    }

    fn add(&mut self, path: &str, Verified { asked, failure }: Verified) {
        self.failed
            .extend(failure.is_some().then(|| path.to_owned()));
        let text = match &failure {
            None => "ok".to_owned(),
            Some(failure) => format!("FAILED: {}: {}", failure.kind, failure.cause),
        };
        self.results
            .push(json!({"path": path, "endpoint": asked, "failure": failure}));
        self.rows.push(vec![path.to_owned(), asked, text]);
    }

    /// Prints them; returns the exit code.
    pub(super) fn publish(&self, context: &Context) -> anyhow::Result<ExitCode> {
        context.print(&columns(&self.rows), || json!(self.results))?;
        if self.failed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let failed = self.failed.iter().map(|path| format!("'{path}'"));
        let failed: Vec<String> = failed.collect();
        say(&format!(
            "error: {} did not answer as expected; stdout says why",
            failed.join(", ")
        ));
        Ok(ExitCode::from(exit::FAILED))
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

/// Returns the error for a name that is unknown.
fn neither(known: &Catalog, name: &str) -> Mistake {
    let scenarios = known.scenarios.iter().map(|it| it.name.as_str());
    let paths = known.paths.iter().map(|it| it.name.as_str());
    let nearest = catalog::nearest_or_file(name, scenarios.chain(paths));
    Mistake(format!(
        "'{name}' is neither a scenario nor a path{nearest}; see 'hopbench list'"
    ))
}

/// Returns what is wrong with a path whose programs don't all print their versions.
fn unversioned(error: anyhow::Error) -> Verified {
    Verified {
        asked: "version".to_owned(),
        failure: Some(Failure {
            source: Source::Subject,
            kind: FailureKind::Start,
            cause: format!("{error:#}"),
            log: Vec::new(),
        }),
    }
}

/// A path may be named in place of a scenario. Then every endpoint is checked.
fn select(context: &Context, choice: &cli::Choice) -> anyhow::Result<Selection> {
    let known = &context.catalog;
    let mut overrides = choice.overrides();
    let mut scenarios = Vec::new();
    for name in &choice.scenarios {
        match (known.scenario(name), known.paths(name)) {
            (Ok(_), _) => scenarios.push(name.clone()),
            (Err(_), Ok(_)) => overrides.paths.push(name.clone()),
            (Err(of_scenario), Err(of_path)) => {
                let text = catalog::read_text(Path::new(name));
                let is_tag = name.starts_with("tag:");
                return Err(match (of_path, text) {
                    (CatalogError::Unknown { .. }, _) if !is_tag => neither(known, name).into(),
                    // A file with a question was meant as a scenario, any other as a path.
                    (_, Ok(text)) if text.contains("question") => of_scenario.into(),
                    (of_path, _) => of_path.into(),
                });
            }
        }
    }
    if scenarios.is_empty() {
        scenarios.extend(context.scenario_of_everything());
    }
    Selection::new(known, &context.toolbox, &scenarios, &overrides)
}
