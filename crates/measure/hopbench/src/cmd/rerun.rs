//! `hopbench rerun`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use hopbench_analysis::{
    compare::changed_versions,
    record::{Manifest, Request},
};

use super::{
    Context,
    run::{self, publish},
};
use crate::{
    catalog::{Catalog, PathDefinition, ScenarioDefinition, is_file},
    cmd::cli::{Format, Until},
    console::say,
    mistake::Mistake,
    plan::selection::Overrides,
    process::Interrupt,
    run::{
        measure::{Settings, measure},
        run_dir::RunDir,
    },
};

/// Arguments of `hopbench rerun`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory of the run. Paths and scenarios of the user's own are taken from its records
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    until: Until,
    /// Seed of the random order [default: taken from the clock, and recorded]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Directory below which to write the results [default: where the run is]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(context: &Context, options: &Options) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let manifest = RunDir::open(&options.run)?.manifest()?;
    let request = request(&options.run, &manifest)?;
    let catalog = recorded(Catalog::built_in()?, &manifest)?;
    let context = Context {
        catalog,
        toolbox: context.toolbox.clone(),
        format: context.format,
    };
    let scenarios = request
        .scenarios
        .iter()
        .map(|it| name_of(it))
        .collect::<Vec<_>>();
    let mut overrides = Overrides::of_request(request).map_err(Mistake)?;
    for selector in &mut overrides.paths {
        *selector = name_of(selector);
    }
    let mut selection = run::select(&context, &scenarios, &overrides, &interrupt)?;
    // The directory may be named by '.', which has no parent by its name.
    let run_dir = fs::canonicalize(&options.run)?;
    let beside = run_dir.parent().unwrap_or_else(|| Path::new("."));
    let settings = Settings {
        out: options.out.as_deref().unwrap_or(beside),
        seed: options.seed,
        load_threads: request.load_threads,
        request_timeout: Duration::from_millis(request.request_timeout_ms),
        goal: options.until.goal(),
        repeats_percent: options.until.repeat_disturbed,
        only_cells: None,
        only_knees: false,
        silent: context.format != Format::Human,
    };
    if !settings.silent {
        for changed in changed(&context.catalog, &manifest) {
            say(&format!(
                "{changed} has changed since; it is measured as it is now"
            ));
        }
    }
    let measured = measure(
        &context.toolbox,
        &mut selection,
        None,
        &settings,
        &interrupt,
    )?;
    for path in &measured.manifest.paths {
        for difference in changed_versions(&manifest, &measured.manifest, &path.name) {
            say(&format!(
                "warning: {difference}: what was measured is not what it was"
            ));
        }
    }
    publish(&context, &measured)
}

/// Returns what a run was asked to measure.
fn request<'a>(run: &Path, manifest: &'a Manifest) -> Result<&'a Request, Mistake> {
    let run = run.display();
    if !manifest.builds.is_empty() {
        return Err(Mistake(format!(
            "'{run}' compares two builds: expected a run of one; measure them with 'hopbench ab'"
        )));
    }
    manifest.request.as_ref().ok_or_else(|| {
        Mistake(format!(
            "'{run}' does not say what was asked for: expected a run that 'hopbench run' made; \
             runs of the oldest builds can't be repeated"
        ))
    })
}

/// Returns the catalog with the definitions that a run has and the catalog hasn't.
fn recorded(mut catalog: Catalog, manifest: &Manifest) -> anyhow::Result<Catalog> {
    for path in manifest.all_paths() {
        let name = base_name(&path.name);
        let is_built_in = catalog.paths.iter().any(|known| known.name == name);
        if !is_built_in && !path.definition.is_empty() {
            let parsed = PathDefinition::parse(name, &path.definition);
            catalog = catalog.with(parsed.map_err(|error| of_record("path", name, &error))?)?;
        }
    }
    for scenario in &manifest.scenarios {
        let name = &scenario.name;
        let is_built_in = catalog.scenarios.iter().any(|known| known.name == *name);
        if !is_built_in && !scenario.definition.is_empty() {
            let parsed = ScenarioDefinition::parse(name, &scenario.definition);
            let mut parsed = parsed.map_err(|error| of_record("scenario", name, &error))?;
            // Files beside it may be gone; what they defined is in the records.
            for selector in parsed.paths.iter_mut().chain([&mut parsed.reference]) {
                *selector = name_of(selector);
            }
            catalog = catalog.with_scenario(parsed);
        }
    }
    Ok(catalog)
}

fn of_record(kind: &str, name: &str, error: &str) -> Mistake {
    Mistake(format!("{kind} '{name}', as it was recorded: {error}"))
}

/// Returns the built-in definitions of a run that are others by now.
fn changed(catalog: &Catalog, manifest: &Manifest) -> Vec<String> {
    let paths = manifest.all_paths().filter_map(|path| {
        let known = catalog
            .paths
            .iter()
            .find(|known| known.name == base_name(&path.name))?;
        let is_other = !path.definition.is_empty() && path.definition != known.text;
        is_other.then(|| format!("path '{}'", path.name))
    });
    let scenarios = manifest.scenarios.iter().filter_map(|scenario| {
        let known = catalog
            .scenarios
            .iter()
            .find(|known| known.name == scenario.name)?;
        let is_other = !scenario.definition.is_empty() && scenario.definition != known.text;
        is_other.then(|| format!("scenario '{}'", scenario.name))
    });
    paths.chain(scenarios).collect()
}

/// Returns the name of what a selector stands for: a file's definition is named after it.
fn name_of(selector: &str) -> String {
    let stem = match is_file(selector) {
        true => Path::new(selector).file_stem(),
        false => None,
    };
    stem.map_or_else(
        || selector.to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// Returns the name of a path without the values that were swept, which follow in brackets.
fn base_name(name: &str) -> &str {
    name.split_once('[').map_or(name, |(base, _)| base)
}
