//! The subject of a command: scenarios with the command line's overrides, their paths, and the
//! answer that every endpoint must give.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use hopbench_analysis::record::Request;
use serde::Deserialize;

use crate::{
    catalog::{
        Catalog, CatalogError, Fill, PathDefinition, RATE_RPS_MAX, Rates, ScenarioDefinition,
        Target, rate_min,
    },
    mistake::Mistake,
    plan::toolbox::Toolbox,
    process::{Command, capture},
};

/// Overrides of a scenario from the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) paths: Vec<String>,
    pub(crate) endpoints: Vec<Target>,
    pub(crate) concurrency: Vec<u32>,
    pub(crate) rates: Vec<u32>,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) warm_up_ms: Option<u64>,
    pub(crate) blocks: Option<u32>,
    pub(crate) quick: bool,
}

/// Scenarios, ready to be planned.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Scenarios and overrides that were asked for; the settings are filled in later.
    pub(crate) request: Request,
    pub(crate) scenarios: Vec<SelectedScenario>,
    /// The paths of all scenarios, each once.
    pub(crate) paths: Vec<SelectedPath>,
    /// Expected answers by target.
    pub(crate) answers: BTreeMap<String, ExpectedAnswer>,
}

#[derive(Debug)]
pub(crate) struct SelectedScenario {
    pub(crate) definition: ScenarioDefinition,
    /// Name of the path that the others are compared with.
    pub(crate) reference: String,
    /// Names of the paths that can be run, the reference first.
    pub(crate) paths: Vec<String>,
    pub(crate) targets: Vec<Target>,
    /// Rate that the slowest path holds, in requests per second, by target and concurrency. Filled
    /// once it has been found, for a scenario whose rates depend on it.
    pub(crate) knees: BTreeMap<(String, u32), u32>,
}

#[derive(Debug)]
pub(crate) struct SelectedPath {
    pub(crate) definition: PathDefinition,
    /// Why it can't be run on this machine, if it can't.
    pub(crate) skipped: Option<String>,
}

/// The answer that a request must get.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedAnswer {
    pub(crate) target: Target,
    pub(crate) method: String,
    pub(crate) status: u16,
    pub(crate) length_bytes: u64,
    pub(crate) sha256: String,
}

/// An item of the list that a describing command prints.
#[derive(Clone, Debug, Deserialize)]
struct Description {
    target: String,
    method: String,
    status: u16,
    /// `None`: the length of the request's body.
    length_bytes: Option<u64>,
    sha256: Option<String>,
}

/// Default length of a request body, in bytes, for an endpoint that takes one.
const BODY_BYTES: u64 = 1024;

/// With `--quick`, everything runs once and briefly: enough to fill the tables, too little to
/// compare.
const QUICK_DURATION_MS: u64 = 250;
const QUICK_WARM_UP_MS: u64 = 50;

impl Overrides {
    /// Returns them as they are recorded.
    fn request(&self, scenarios: &[String]) -> Request {
        Request {
            scenarios: scenarios.to_vec(),
            paths: self.paths.clone(),
            endpoints: self.endpoints.iter().map(Target::to_string).collect(),
            concurrency: self.concurrency.clone(),
            rates_rps: self.rates.clone(),
            duration_ms: self.duration_ms,
            warm_up_ms: self.warm_up_ms,
            blocks: self.blocks,
            quick: self.quick,
            ..Request::default()
        }
    }

    /// Returns those of a recorded request.
    pub(crate) fn of_request(request: &Request) -> Result<Self, String> {
        let endpoints = request.endpoints.iter().map(|target| target.parse());
        Ok(Self {
            paths: request.paths.clone(),
            endpoints: endpoints.collect::<Result<_, _>>()?,
            concurrency: request.concurrency.clone(),
            rates: request.rates_rps.clone(),
            duration_ms: request.duration_ms,
            warm_up_ms: request.warm_up_ms,
            blocks: request.blocks,
            quick: request.quick,
        })
    }

    fn apply(&self, scenario: &mut ScenarioDefinition) -> Result<(), String> {
        if self.quick {
            scenario.duration_ms = scenario.duration_ms.min(QUICK_DURATION_MS);
            scenario.warm_up_ms = scenario.warm_up_ms.min(QUICK_WARM_UP_MS);
            scenario.blocks = 1;
            scenario.control = false;
        }
        if !self.paths.is_empty() {
            scenario.paths.clone_from(&self.paths);
        }
        if !self.endpoints.is_empty() {
            scenario.endpoints = Some(self.endpoints.clone());
        }
        if !self.concurrency.is_empty() {
            scenario.concurrency.clone_from(&self.concurrency);
        }
        if !self.rates.is_empty() {
            scenario.rates = Rates::Fixed(self.rates.clone());
        }
        scenario.duration_ms = self.duration_ms.unwrap_or(scenario.duration_ms);
        scenario.warm_up_ms = self.warm_up_ms.unwrap_or(scenario.warm_up_ms);
        scenario.blocks = self.blocks.unwrap_or(scenario.blocks);
        scenario.check()
    }
}

impl SelectedScenario {
    /// Returns every target with every concurrency.
    pub(crate) fn loads(&self) -> Vec<(String, u32)> {
        let of = |target: &Target| {
            let concurrency = self.definition.concurrency.iter();
            let loads = concurrency.map(|concurrency| (target.to_string(), *concurrency));
            loads.collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(of).collect()
    }

    /// Returns the rates of the cells with this target and concurrency; `None` is a closed loop.
    /// Empty if the rates depend on a knee that has not been found.
    pub(crate) fn rates(&self, target: &Target, concurrency: u32) -> Vec<Option<u32>> {
        match &self.definition.rates {
            Rates::ClosedLoop => vec![None],
            Rates::Fixed(rates) => rates.iter().copied().map(Some).collect(),
            Rates::OfKnee { percent, .. } => {
                let Some(knee) = self.knees.get(&(target.to_string(), concurrency)) else {
                    return Vec::new();
                };
                let least = rate_min(self.definition.duration_ms);
                let rates = percent
                    .iter()
                    .map(|percent| share(*knee, *percent).max(least));
                let mut rates: Vec<Option<u32>> = rates.map(Some).collect();
                // With a low knee, several shares may be the same rate.
                rates.sort_unstable();
                rates.dedup();
                rates
            }
        }
    }
}

/// Returns a share of a rate, with two significant digits: no knee is more precise.
fn share(rate_rps: u32, percent: u32) -> u32 {
    let exact = f64::from(rate_rps) * f64::from(percent) / 100.0;
    let unit = 10_f64.powf(exact.max(1.0).log10().floor() - 1.0).max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the largest rate"
    )]
    let rounded = ((exact / unit).round() * unit) as u32;
    rounded.clamp(1, RATE_RPS_MAX)
}

impl Selection {
    /// Returns whether some rates depend on knees that are not known yet.
    pub(crate) fn needs_knees(&self) -> bool {
        let mut scenarios = self.scenarios.iter();
        scenarios
            .any(|scenario| scenario.definition.rates.depend_on_knee() && scenario.knees.is_empty())
    }

    /// Finds the scenarios by name or file, and everything that they need.
    pub(crate) fn new(
        catalog: &Catalog,
        toolbox: &Toolbox,
        names: &[String],
        overrides: &Overrides,
    ) -> anyhow::Result<Self> {
        let mut selection = Self {
            request: overrides.request(names),
            scenarios: Vec::new(),
            paths: Vec::new(),
            answers: BTreeMap::new(),
        };
        for name in names {
            let mut definition = catalog.scenario(name)?;
            overrides
                .apply(&mut definition)
                .map_err(|message| CatalogError::Invalid {
                    file: format!("scenario '{}'", definition.name),
                    message,
                })?;
            if selection
                .scenarios
                .iter()
                .any(|other| other.definition.name == definition.name)
            {
                continue;
            }
            selection.add(catalog, toolbox, definition, !overrides.paths.is_empty())?;
        }
        Ok(selection)
    }

    fn add(
        &mut self,
        catalog: &Catalog,
        toolbox: &Toolbox,
        definition: ScenarioDefinition,
        paths_from_command_line: bool,
    ) -> anyhow::Result<()> {
        let mut chosen = catalog.paths(&definition.reference)?;
        if chosen.len() != 1 {
            bail!(
                "scenario '{}': 'reference': expected one path, '{}' names {}",
                definition.name,
                definition.reference,
                chosen.len()
            );
        }
        let reference = chosen[0].clone();
        for selector in &definition.paths {
            // A path named on the command line must be there. Of many, one may be missing.
            let one = paths_from_command_line && selector != "*" && !selector.starts_with("tag:");
            for path in catalog.paths(selector)? {
                let missing = toolbox.missing(&path);
                if one && !missing.is_empty() {
                    bail!("path '{}' can't be run: {}", path.name, missing.join("; "));
                }
                chosen.push(path);
            }
        }
        let mut names = Vec::new();
        for path in chosen {
            let skipped = self.add_path(toolbox, path.clone())?;
            if skipped.is_none() && !names.contains(&path.name) {
                names.push(path.name);
            }
        }
        if !names.contains(&reference.name) {
            bail!(
                "the reference '{}' can't be run: {}",
                reference.name,
                toolbox.missing(&reference).join("; ")
            );
        }
        let targets = self.add_answers(toolbox, &reference, definition.endpoints.as_deref())?;
        let (reference, paths) = (reference.name, names);
        self.scenarios.push(SelectedScenario {
            definition,
            reference,
            paths,
            targets,
            knees: BTreeMap::new(),
        });
        Ok(())
    }

    /// Adds a path; returns why it can't be run, if it can't.
    fn add_path(
        &mut self,
        toolbox: &Toolbox,
        path: PathDefinition,
    ) -> anyhow::Result<Option<String>> {
        if let Some(known) = self
            .paths
            .iter()
            .find(|known| known.definition.name == path.name)
        {
            if !known.definition.is_same(&path) {
                let name = path.name;
                return Err(CatalogError::SameName { name }.into());
            }
            return Ok(known.skipped.clone());
        }
        let missing = toolbox.missing(&path);
        let skipped = (!missing.is_empty()).then(|| missing.join("; "));
        self.paths.push(SelectedPath {
            definition: path,
            skipped: skipped.clone(),
        });
        Ok(skipped)
    }

    /// Asks the reference for the answers of `targets`, or of all its endpoints.
    fn add_answers(
        &mut self,
        toolbox: &Toolbox,
        reference: &PathDefinition,
        targets: Option<&[Target]>,
    ) -> anyhow::Result<Vec<Target>> {
        let described = describe(toolbox, reference, targets)?;
        let mut answers = Vec::new();
        if let Some(targets) = targets {
            for target in targets {
                let entry = described.iter().find(|entry| entry.target == target.path);
                let entry = entry
                    .with_context(|| format!("'describe' printed nothing for '{}'", target.path))?;
                answers.push(entry.clone().expect(target.clone())?);
            }
        } else {
            for entry in described {
                let (path, body_bytes) = (entry.target.clone(), None);
                answers.push(entry.expect(Target { path, body_bytes })?);
            }
        }
        let targets = answers.iter().map(|answer| answer.target.clone()).collect();
        for answer in answers {
            self.answers.insert(answer.target.to_string(), answer);
        }
        Ok(targets)
    }
}

/// Runs the reference's describing command.
fn describe(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: Option<&[Target]>,
) -> anyhow::Result<Vec<Description>> {
    let name = &reference.name;
    let Some(describe) = &reference.describe else {
        bail!(
            "path '{name}' is a reference: expected 'describe', a command that prints what its \
             endpoints answer"
        );
    };
    let mut fill = OnlyPrograms(toolbox);
    let mut words = Vec::new();
    for template in describe {
        words.push(template.fill(&mut fill)?);
    }
    words.extend(
        targets
            .into_iter()
            .flatten()
            .map(|target| target.path.clone()),
    );
    let mut words = words.into_iter();
    let program = words.next().context("'describe': expected a program")?;
    let output = capture(&Command {
        program: program.into(),
        arguments: words.collect(),
        directory: None,
        stops_with_stdin: true,
    });
    // The command runs without targets, so what it says is about the targets.
    let output = output.map_err(|error| match targets.is_some() {
        true => Mistake(last_line(&error)).into(),
        false => error,
    })?;
    serde_json::from_str(&output)
        .with_context(|| format!("path '{name}': 'describe' printed something unexpected"))
}

/// Returns what a program said last, without how it was run.
fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().last().unwrap_or_default();
    let said = line.rsplit_once("error: ").map_or(line, |(_, said)| said);
    said.to_owned()
}

impl Description {
    fn expect(self, mut target: Target) -> anyhow::Result<ExpectedAnswer> {
        let takes_body = self.length_bytes.is_none() || self.sha256.is_none();
        if takes_body {
            target.body_bytes = target.body_bytes.or(Some(BODY_BYTES));
        } else if target.body_bytes.is_some() {
            let message = format!("endpoint '{target}': '{}' takes no body", target.path);
            return Err(Mistake(message).into());
        }
        let body = request_body(target.body_bytes);
        Ok(ExpectedAnswer {
            method: self.method,
            status: self.status,
            length_bytes: self.length_bytes.unwrap_or(body.len() as u64),
            sha256: self
                .sha256
                .unwrap_or_else(|| crate::observe::http::sha256_hex(&body)),
            target,
        })
    }
}

/// Returns the body of a request with this length: numbers, so that a piece that is lost or
/// repeated on the way changes the digest.
pub(crate) fn request_body(length_bytes: Option<u64>) -> Vec<u8> {
    let length = usize::try_from(length_bytes.unwrap_or_default()).expect("bounded by the parser");
    let mut body = Vec::with_capacity(length + 8);
    let mut number = 0_u64;
    while body.len() < length {
        body.extend_from_slice(&number.to_be_bytes());
        number += 1;
    }
    body.truncate(length);
    body
}

/// Fills in commands outside of a trial, where only programs can be filled in.
struct OnlyPrograms<'a>(&'a Toolbox);

impl Fill for OnlyPrograms<'_> {
    fn bin(&mut self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        self.0.bin(name)
    }

    fn directory(&mut self) -> &std::path::Path {
        std::path::Path::new(".")
    }

    fn port(&mut self, name: &str) -> anyhow::Result<u16> {
        bail!("'{{{{port:{name}}}}}': there are no ports outside a trial")
    }

    fn program(&mut self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        self.0
            .program(name)
            .with_context(|| format!("'{name}' is not installed"))
    }
}

/// Returns the receipts of a path's programs, by process.
pub(crate) fn receipts(
    toolbox: &Toolbox,
    path: &PathDefinition,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut fill = OnlyPrograms(toolbox);
    let mut receipts = BTreeMap::new();
    for process in &path.processes {
        let words: Vec<String> = process
            .version
            .iter()
            .map(|template| template.fill(&mut fill))
            .collect::<anyhow::Result<_>>()?;
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default().into();
        let command = Command {
            program,
            arguments: words.collect(),
            directory: None,
            stops_with_stdin: true,
        };
        let version = capture(&command).with_context(|| {
            format!(
                "path '{}': process '{}' did not report its version",
                path.name, process.name
            )
        })?;
        let first_line = version.lines().next().unwrap_or_default().trim().to_owned();
        receipts.insert(process.name.clone(), first_line);
    }
    Ok(receipts)
}
