//! The subject of a command: scenarios with the command line's overrides, their paths, and the
//! answer that every endpoint must give.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use hopbench_analysis::record::{Placement, Request, Stage};

use crate::{
    catalog::{
        self, Asks, Catalog, CatalogError, Change, PathDefinition, RATE_RPS_MAX, Rates,
        ScenarioDefinition, Target, may_select, nearest, rate_min,
    },
    mistake::Mistake,
    plan::{
        commands::{describe, describe_each},
        toolbox::Toolbox,
        variants::{Parameters, Setting, Sweep, check_known},
        work::{Description, Work},
    },
    process::allowed_cores,
};

/// Overrides of a scenario from the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) paths: Vec<String>,
    pub(crate) endpoints: Vec<Target>,
    pub(crate) concurrency: Vec<u32>,
    pub(crate) rates: Vec<u32>,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) placements: Vec<Placement>,
    pub(crate) warm_up_ms: Option<u64>,
    pub(crate) blocks: Option<u32>,
    pub(crate) quick: bool,
    /// Values for parameters of the paths' files.
    pub(crate) parameters: Parameters,
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
            placements: self.placements.clone(),
            duration_ms: self.duration_ms,
            warm_up_ms: self.warm_up_ms,
            blocks: self.blocks,
            quick: self.quick,
            set: self.parameters.set.iter().map(Setting::to_string).collect(),
            sweep: self.parameters.sweep.iter().map(Sweep::to_string).collect(),
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
            placements: request.placements.clone(),
            duration_ms: request.duration_ms,
            warm_up_ms: request.warm_up_ms,
            blocks: request.blocks,
            quick: request.quick,
            parameters: Parameters::of_request(request)?,
        })
    }

    /// Returns the error for a scenario that is invalid with these overrides. The options are named
    /// if they are at fault, since the scenario itself is valid.
    fn mistake(&self, scenario: &str, mut message: String) -> Mistake {
        let options = [
            ("blocks", "--blocks", self.blocks.is_some()),
            ("concurrency", "--concurrency", !self.concurrency.is_empty()),
            ("duration-ms", "--duration-ms", self.duration_ms.is_some()),
            ("endpoints", "--endpoint", !self.endpoints.is_empty()),
            ("paths", "--path", !self.paths.is_empty()),
            ("placement", "--placement", !self.placements.is_empty()),
            ("rates", "--rate", !self.rates.is_empty()),
            ("warm-up-ms", "--warm-up-ms", self.warm_up_ms.is_some()),
        ];
        let mut is_of_scenario = false;
        for (field, option, is_given) in options {
            let field = format!("'{field}'");
            match is_given {
                true => message = message.replace(&field, &format!("'{option}'")),
                false => is_of_scenario |= message.contains(&field),
            }
        }
        match message.starts_with("'--") && !is_of_scenario {
            true => Mistake(message),
            false => Mistake(format!("scenario '{scenario}': {message}")),
        }
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
            self.prepare_only_chosen(scenario);
            scenario.paths.clone_from(&self.paths);
        }
        if !self.endpoints.is_empty() {
            scenario.asks = Asks::Endpoints(self.endpoints.clone());
        }
        if !self.placements.is_empty() {
            scenario.placements.clone_from(&self.placements);
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

    /// Leaves out the preparation of paths that are not measured.
    fn prepare_only_chosen(&self, scenario: &mut ScenarioDefinition) {
        scenario.prepare.retain_mut(|prepare| {
            let is_for_all = prepare.paths.is_empty();
            prepare.paths.retain(|name| may_select(&self.paths, name));
            is_for_all || !prepare.paths.is_empty()
        });
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

/// Fewest cores of which the client can have one to itself.
const CORES_OF_SPLIT: usize = 2;

/// Returns an error if hopbench may use too few cores for a placement.
pub(crate) fn check_cores(placements: &[Placement]) -> anyhow::Result<()> {
    let count = allowed_cores()?.len();
    if placements.contains(&Placement::Split) && count < CORES_OF_SPLIT {
        bail!(
            "placement '{}' needs {CORES_OF_SPLIT} cores, and hopbench may use {count}; use \
             another '--placement'",
            Placement::Split
        );
    }
    Ok(())
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
        overrides.parameters.check_names()?;
        for name in names {
            let mut definition = catalog.scenario(name)?;
            let applied = overrides.apply(&mut definition);
            applied.map_err(|message| overrides.mistake(&definition.name, message))?;
            check_cores(&definition.placements)?;
            if selection
                .scenarios
                .iter()
                .any(|other| other.definition.name == definition.name)
            {
                continue;
            }
            let source = Source {
                file: catalog::is_file(name).then_some(name),
                overrides,
            };
            selection.add(catalog, toolbox, definition, source)?;
        }
        let paths = selection.paths.iter().map(|path| &path.definition);
        overrides.parameters.check_known(paths)?;
        Ok(selection)
    }

    fn add(
        &mut self,
        catalog: &Catalog,
        toolbox: &Toolbox,
        mut definition: ScenarioDefinition,
        source: Source<'_>,
    ) -> anyhow::Result<()> {
        let parameters = source.overrides.parameters.with_sweeps(&definition.sweep);
        let reference = reference(catalog, &definition).map_err(|error| source.of_file(error))?;
        let reference = parameters.set_on(&reference)?;
        let mut chosen = vec![reference.clone()];
        for selector in &definition.paths {
            let paths = catalog.paths(selector);
            let paths = paths.map_err(|error| source.of_paths(error.into()))?;
            // A path named on the command line must be there. Of many, one may be missing.
            let is_one = selector != "*" && !selector.starts_with("tag:");
            for path in paths {
                let variants = parameters.variants(&path)?;
                if is_one && !source.overrides.paths.is_empty() {
                    variants
                        .iter()
                        .try_for_each(|path| check_programs(catalog, toolbox, path))?;
                }
                for prepare in &mut definition.prepare {
                    prepare.name_variants(&path.name, &variants);
                }
                chosen.extend(variants);
            }
        }
        if source.overrides.paths.is_empty() {
            let swept = definition.sweep.keys().map(|name| ("sweep", name));
            check_known(swept, &chosen).map_err(|error| source.of_file(error.into()))?;
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
        let endpoints = self.add_work(toolbox, &reference, &definition);
        let endpoints = endpoints.map_err(|error| source.of_endpoints(error))?;
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

/// Where a scenario's names of paths and endpoints come from, for errors about them.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// The scenario's file, if it isn't a built-in one.
    file: Option<&'a String>,
    overrides: &'a Overrides,
}

impl Source<'_> {
    /// Returns the error with the file, if the user's file is at fault.
    fn of_file(self, error: anyhow::Error) -> anyhow::Error {
        let is_mistake = error
            .chain()
            .any(|cause| cause.is::<CatalogError>() || cause.is::<Mistake>());
        match self.file {
            Some(file) if is_mistake => error.context(file.clone()),
            _ => error,
        }
    }

    fn of_paths(self, error: anyhow::Error) -> anyhow::Error {
        match self.overrides.paths.is_empty() {
            true => self.of_file(error),
            false => error,
        }
    }

    fn of_endpoints(self, error: anyhow::Error) -> anyhow::Error {
        match self.overrides.endpoints.is_empty() {
            true => self.of_file(error),
            false => error,
        }
    }
}

/// Returns the path that a scenario's other paths are compared with.
fn reference(catalog: &Catalog, scenario: &ScenarioDefinition) -> anyhow::Result<PathDefinition> {
    let mut named = catalog.paths(&scenario.reference).context("'reference'")?;
    if named.len() != 1 {
        let message = format!(
            "'reference': expected one path, '{}' names {}",
            scenario.reference,
            named.len()
        );
        return Err(Mistake(message).into());
    }
    Ok(named.remove(0))
}

/// Checks that the programs of a path are there. What its file misspells is a mistake; anything
/// else is missing on this machine.
fn check_programs(
    catalog: &Catalog,
    toolbox: &Toolbox,
    path: &PathDefinition,
) -> anyhow::Result<()> {
    let missing = toolbox.missing(path);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("path '{}' can't be run: {}", path.name, missing.join("; "));
    let of_workspace = catalog.paths.iter().flat_map(PathDefinition::bins);
    let of_workspace: BTreeSet<&str> = of_workspace.collect();
    match toolbox.is_misspelt(path, &of_workspace) {
        true => Err(Mistake(message).into()),
        false => bail!(message),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the end of a chain of results")]
fn named((work, target): (Work, Target)) -> anyhow::Result<(String, Work)> {
    Ok((target.to_string(), work))
}
