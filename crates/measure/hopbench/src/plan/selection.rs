//! The subject of a command: scenarios with the command line's overrides, their paths, and the
//! answer that every endpoint must give.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use hopbench_analysis::record::{Request, Stage};

use crate::{
    catalog::{
        Asks, Catalog, CatalogError, Change, Fill, PathDefinition, RATE_RPS_MAX, Rates,
        ScenarioDefinition, Target, nearest, rate_min,
    },
    mistake::Mistake,
    plan::{
        toolbox::Toolbox,
        work::{Description, Work},
    },
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
    /// Requests of the loads, by scenario and by the name that stands for it in a cell.
    pub(crate) work: BTreeMap<(String, String), Work>,
}

#[derive(Debug)]
pub(crate) struct SelectedScenario {
    pub(crate) definition: ScenarioDefinition,
    /// Name of the path that the others are compared with.
    pub(crate) reference: String,
    /// Names of the paths that can be run, the reference first.
    pub(crate) paths: Vec<String>,
    /// Names of what its loads ask for, as they stand in a cell.
    pub(crate) endpoints: Vec<String>,
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
            if scenario.requests.is_none() && scenario.stages.is_empty() {
                scenario.duration_ms = scenario.duration_ms.min(QUICK_DURATION_MS);
            }
            scenario.warm_up_ms = scenario.warm_up_ms.min(QUICK_WARM_UP_MS);
            scenario.blocks = 1;
            scenario.control = false;
        }
        if !self.paths.is_empty() {
            scenario.paths.clone_from(&self.paths);
        }
        if !self.endpoints.is_empty() {
            scenario.asks = Asks::Endpoints(self.endpoints.clone());
        }
        if !self.concurrency.is_empty() {
            scenario.concurrency.clone_from(&self.concurrency);
        }
        let levels = [self.concurrency.is_empty(), self.rates.is_empty()];
        if !scenario.stages.is_empty() && (levels.contains(&false) || self.duration_ms.is_some()) {
            return Err(
                "it has stages, which say how long and how much; change them in a file of your own"
                    .to_owned(),
            );
        }
        if scenario.requests.is_some() && self.duration_ms.is_some() {
            return Err(
                "it has a number of requests, and no duration; change it in a file of your own"
                    .to_owned(),
            );
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
        let of = |endpoint: &String| {
            let concurrency = self.definition.concurrency.iter();
            let loads = concurrency.map(|concurrency| (endpoint.clone(), *concurrency));
            loads.collect::<Vec<_>>()
        };
        self.endpoints.iter().flat_map(of).collect()
    }

    /// Returns the rates of the cells with this target and concurrency; `None` is a closed loop.
    /// Empty if the rates depend on a knee that has not been found.
    pub(crate) fn rates(&self, endpoint: &str, concurrency: u32) -> Vec<Option<u32>> {
        if !self.definition.stages.is_empty() && self.definition.is_open_loop() {
            let stages = self.stages(endpoint, concurrency);
            let levels = stages.iter().flatten().flat_map(|it| [it.from, it.to]);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most the largest rate"
            )]
            let peak = levels.fold(0.0, f64::max).ceil() as u32;
            return stages.map(|_| Some(peak.max(1))).into_iter().collect();
        }
        match &self.definition.rates {
            Rates::ClosedLoop => vec![None],
            Rates::Fixed(rates) => rates.iter().copied().map(Some).collect(),
            Rates::OfKnee { percent, .. } => {
                let Some(knee) = self.knees.get(&(endpoint.to_owned(), concurrency)) else {
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

    /// Returns the stages of the load with this endpoint and concurrency; empty for a load that
    /// stays the same, and `None` if they depend on a knee that has not been found.
    pub(crate) fn stages(&self, endpoint: &str, concurrency: u32) -> Option<Vec<Stage>> {
        let knee = self.knees.get(&(endpoint.to_owned(), concurrency));
        let mut from = 0.0;
        let stages = self.definition.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| {
            let to = match stage.is_of_knee() {
                true => f64::from(*knee?) * stage.level() / 100.0,
                false => stage.level(),
            };
            let begin = match stage.change {
                Change::Ramp => from,
                Change::Step => to,
            };
            from = to;
            let name = stage.name.clone();
            Some(Stage {
                name: name.unwrap_or_else(|| (index + 1).to_string()),
                duration_ms: stage.duration_ms,
                from: begin,
                to,
            })
        });
        stages.collect()
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
            work: BTreeMap::new(),
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
        check_prepared_counters(&definition, &chosen)?;
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
        let endpoints = self.add_work(toolbox, &reference, &definition)?;
        let (reference, paths) = (reference.name, names);
        self.scenarios.push(SelectedScenario {
            definition,
            reference,
            paths,
            endpoints,
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

    /// Asks the reference what the answers must be; returns the names of what loads ask for.
    fn add_work(
        &mut self,
        toolbox: &Toolbox,
        reference: &PathDefinition,
        definition: &ScenarioDefinition,
    ) -> anyhow::Result<Vec<String>> {
        let work = match &definition.asks {
            Asks::AllEndpoints => {
                let described = describe(toolbox, reference, None)?;
                let endpoint = |entry: Description| {
                    let (path, body_bytes) = (entry.target.clone(), None);
                    named(Work::endpoint(&entry, Target { path, body_bytes })?)
                };
                let work = described.into_iter().map(endpoint);
                work.collect::<anyhow::Result<Vec<_>>>()?
            }
            Asks::Endpoints(targets) => {
                let paths: Vec<&str> = targets.iter().map(|target| target.path.as_str()).collect();
                let described = describe_each(toolbox, reference, &paths)?;
                let endpoint = |target: &Target| {
                    let entry = described.get(&target.path).with_context(|| {
                        format!("'describe' printed nothing for '{}'", target.path)
                    })?;
                    named(Work::endpoint(entry, target.clone())?)
                };
                let work = targets.iter().map(endpoint);
                work.collect::<anyhow::Result<Vec<_>>>()?
            }
            Asks::Mix(requests) => {
                let open = requests.iter().filter(|request| request.expect.is_none());
                let open: Vec<&str> = open
                    .flat_map(|request| &request.targets)
                    .map(String::as_str)
                    .collect();
                let described = match open.is_empty() {
                    true => BTreeMap::new(),
                    false => describe_each(toolbox, reference, &open)?,
                };
                let names: Vec<&str> = requests.iter().map(|it| it.name.as_str()).collect();
                vec![(names.join("+"), Work::mix(requests, &described)?)]
            }
        };
        let names = work.iter().map(|(name, _)| name.clone()).collect();
        for (name, work) in work {
            self.work.insert((definition.name.clone(), name), work);
        }
        Ok(names)
    }
}

/// Fails if a preparation names a counter that no path declares: it would be checked nowhere.
fn check_prepared_counters(
    definition: &ScenarioDefinition,
    paths: &[PathDefinition],
) -> anyhow::Result<()> {
    let declared = paths.iter().flat_map(|path| &path.counters.shown);
    let declared: Vec<&str> = declared.map(|counter| counter.name.as_str()).collect();
    for prepare in &definition.prepare {
        let mut names = prepare.counters_at_least.keys();
        if let Some(name) = names.find(|name| !declared.contains(&name.as_str())) {
            let nearest = nearest(name, declared.iter().copied());
            return Err(Mistake(format!(
                "scenario '{}': [[prepare]] '{}': no path declares the counter '{name}'{nearest}; \
                 expected a [[counter]] in the file of a path",
                definition.name, prepare.name
            ))
            .into());
        }
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the end of a chain of results")]
fn named((work, target): (Work, Target)) -> anyhow::Result<(String, Work)> {
    Ok((target.to_string(), work))
}

/// Maximum number of targets in one command line, whose length the system limits.
const DESCRIBED_AT_ONCE: usize = 1_000;

/// Asks the reference how it answers these targets.
fn describe_each(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: &[&str],
) -> anyhow::Result<BTreeMap<String, Description>> {
    let mut described = BTreeMap::new();
    for targets in targets.chunks(DESCRIBED_AT_ONCE) {
        let entries = describe(toolbox, reference, Some(targets))?.into_iter();
        described.extend(entries.map(|entry| (entry.target.clone(), entry)));
    }
    Ok(described)
}

/// Runs the reference's describing command.
fn describe(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: Option<&[&str]>,
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
            .map(|target| (*target).to_owned()),
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
