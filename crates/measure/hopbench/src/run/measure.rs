//! One run, from a selection to its records.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use hopbench_analysis::{
    record::{Cell, Knee, Manifest, PathInfo, Plan, Request, SCHEMA, ScenarioInfo, Trial},
    repeats::counted,
    report::plural,
};

use crate::{
    catalog::PathDefinition,
    console::{say, seconds},
    observe::machine,
    plan::{
        commands::receipts, goal::Goal, planner::Planner, selection::Selection, toolbox::Toolbox,
    },
    process::{Interrupt, Interrupted, temporary_directory},
    run::{
        builds::Builds,
        holder, knee,
        progress::{self, Progress},
        repeats,
        run_dir::{Phase, RunDir},
        runner::{self, Ended},
        trial::Live,
        until::Until,
    },
};

/// How to measure, independently of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// Directory below which results are written.
    pub(crate) out: &'a Path,
    /// Seed of the order; from the clock if `None`.
    pub(crate) seed: Option<u64>,
    pub(crate) load_threads: Option<u16>,
    pub(crate) request_timeout: Duration,
    /// When to stop adding blocks.
    pub(crate) goal: Option<Goal>,
    /// How many trials may be added for each planned one, to repeat disturbed blocks: in per cent.
    pub(crate) repeats_percent: u8,
    /// If `Some`, the only cells to measure. They have no build.
    pub(crate) only_cells: Option<&'a [Cell]>,
    /// Whether to find knees and nothing else.
    pub(crate) only_knees: bool,
    pub(crate) silent: bool,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) run_dir: RunDir,
    pub(crate) manifest: Manifest,
    pub(crate) ended: Ended,
}

/// Measures a selection, with two builds if there are any. Knees that it needs are found first.
pub(crate) fn measure(
    toolbox: &Toolbox,
    selection: &mut Selection,
    builds: Option<&Builds>,
    settings: &Settings<'_>,
    interrupt: &Interrupt,
) -> anyhow::Result<Measured> {
    machine::raise_open_files_limit();
    check_open_files(selection)?;
    toolbox.bin("hopbench-load")?;
    check_surroundings()?;
    let _lock = lock(settings.out)?;

    let seed = settings.seed.unwrap_or_else(seed_from_clock);
    let start = Start {
        toolbox,
        builds,
        settings,
        seed,
        interrupt,
    };
    match settings.only_knees || selection.needs_knees() {
        true => start.measure_after_knees(selection),
        false => {
            let mut planner = start.planner(selection);
            let plan = planner.plan();
            let (run_dir, manifest) = start.begin(selection, &plan)?;
            let live = start.live(selection, &run_dir)?;
            run_blocks(planner, plan, settings, live, run_dir, manifest)
        }
    }
}

/// Everything that a run starts from, but for its selection.
#[derive(Clone, Copy)]
struct Start<'a> {
    toolbox: &'a Toolbox,
    builds: Option<&'a Builds>,
    settings: &'a Settings<'a>,
    seed: u64,
    interrupt: &'a Interrupt,
}

impl<'a> Start<'a> {
    fn planner<'s>(&self, selection: &'s Selection) -> Planner<'s>
    where
        'a: 's,
    {
        let of_builds = self.builds.is_some();
        Planner::new(selection, self.seed, of_builds, self.settings.only_cells)
    }

    fn live(&self, selection: &Selection, run_dir: &RunDir) -> anyhow::Result<Live<'a>> {
        let raw = run_dir.raw();
        let mut live = Live::new(self.toolbox, self.builds, selection, self.interrupt, raw)?;
        live.load_threads = self.settings.load_threads.map(usize::from);
        live.request_timeout = self.settings.request_timeout;
        Ok(live)
    }

    /// Finds the knees first: they decide the rates, without which nothing can be planned.
    fn measure_after_knees(self, selection: &mut Selection) -> anyhow::Result<Measured> {
        let settings = self.settings;
        let (run_dir, mut manifest) = self.begin(selection, &Plan::default())?;
        let mut live = self.live(selection, &run_dir)?;
        let found = find_knees(selection, &mut live, &run_dir, settings)?;
        let Some(knees) = found else {
            return interrupted(run_dir, manifest, settings.silent);
        };
        manifest.knees = knees;
        manifest.warnings.extend(without_knee(selection));
        run_dir.write_manifest(&manifest)?;
        let mut planner = self.planner(selection);
        let plan = match settings.only_knees {
            true => Plan::default(),
            false => planner.plan(),
        };
        run_dir.write_plan(&plan)?;
        run_blocks(planner, plan, settings, live, run_dir, manifest)
    }

    /// Makes the run directory, with everything that is known before anything is measured.
    fn begin(&self, selection: &Selection, plan: &Plan) -> anyhow::Result<(RunDir, Manifest)> {
        let Self {
            toolbox, settings, ..
        } = self;
        // Without a version of each program there is no run, and no directory of one.
        let paths = path_infos(toolbox, selection)?;
        let describe = |definition: &PathDefinition| path_info(toolbox, definition, None);
        let builds = self.builds.map(|builds| builds.infos(describe));
        let builds = builds.transpose()?.unwrap_or_default();
        let (git, unversioned) = machine::git(toolbox.bin_dir());
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let revision = git.revision.get(..8).unwrap_or("unversioned");
        RunDir::check_space(settings.out, plan.trials.len())?;
        let run_dir = RunDir::create(settings.out, &format!("{stamp}-{revision}"))?;
        let mut manifest = Manifest {
            git,
            builds,
            request: Some(Request {
                load_threads: settings.load_threads,
                request_timeout_ms: millis(settings.request_timeout),
                ..selection.request.clone()
            }),
            ..manifest(paths, selection, self.seed, run_dir.path())
        };
        manifest.warnings.extend(unversioned);
        manifest
            .warnings
            .extend(self.builds.into_iter().flat_map(Builds::unversioned));
        run_dir.write_manifest(&manifest)?;
        run_dir.write_plan(plan)?;
        Ok((run_dir, manifest))
    }
}

/// Runs the planned blocks, and more of them until the goal is reached, if there is one.
fn run_blocks(
    mut planner: Planner<'_>,
    plan: Plan,
    settings: &Settings<'_>,
    mut live: Live<'_>,
    run_dir: RunDir,
    mut manifest: Manifest,
) -> anyhow::Result<Measured> {
    if !settings.silent && !settings.only_knees {
        announce(&manifest, &plan, &run_dir);
        if let Some(goal) = settings.goal {
            say(planner.prospect(goal).trim_end());
        }
    }
    let mut progress = Progress::new(&plan, settings.silent || settings.only_knees);
    let until = settings.goal.map(|goal| Until::new(goal, &manifest));
    let more = |trials: &[Trial]| {
        let repeats = repeats::more(&mut planner, settings.repeats_percent, trials);
        match &until {
            Some(until) if repeats.trials.is_empty() => {
                until.more(&mut planner, &counted(trials.to_vec()))
            }
            _ => Ok(repeats),
        }
    };
    let interrupt = live.interrupt;
    let ended = runner::run(plan, more, &mut live, &run_dir, &mut progress, interrupt);
    let mut ended = ended.with_context(|| {
        let directory = run_dir.path().display();
        format!("the run ended early; 'hopbench report {directory}' shows its finished trials")
    })?;
    ended.trials = counted(ended.trials);
    let missed = until.map_or(Ok(Vec::new()), |until| until.missed(&planner, &ended))?;
    if !missed.is_empty() {
        if !settings.silent {
            missed
                .iter()
                .for_each(|one| say(&format!("warning: {one}")));
        }
        manifest.warnings.extend(missed);
        run_dir.write_manifest(&manifest)?;
    }
    if ended.interrupted && !settings.silent {
        say(INTERRUPTED);
    }
    Ok(Measured {
        run_dir,
        manifest,
        ended,
    })
}

/// Returns a warning for each load that can't be planned, since no path holds any rate there.
fn without_knee(selection: &Selection) -> Vec<String> {
    let scenarios = selection.scenarios.iter();
    let dependent = scenarios.filter(|scenario| scenario.definition.rates.depend_on_knee());
    let loads = dependent.flat_map(|scenario| {
        let loads = scenario.loads().into_iter();
        let missing = loads.filter(|load| !scenario.knees.contains_key(load));
        missing.map(|(target, concurrency)| {
            format!(
                "{} {target} c={concurrency}: no path has a knee, so nothing is measured; see \
                 'calibration.jsonl'",
                scenario.definition.name
            )
        })
    });
    loads.collect()
}

pub(crate) const INTERRUPTED: &str = "interrupted; finished trials are kept";

/// Ends a run that was interrupted before its first trial.
fn interrupted(run_dir: RunDir, manifest: Manifest, silent: bool) -> anyhow::Result<Measured> {
    run_dir.write_plan(&Plan::default())?;
    run_dir.write_phase(Phase::Interrupted)?;
    if !silent {
        say(INTERRUPTED);
    }
    let ended = Ended {
        trials: Vec::new(),
        interrupted: true,
    };
    Ok(Measured {
        run_dir,
        manifest,
        ended,
    })
}

/// Finds the knees; `None` if the user interrupts.
fn find_knees(
    selection: &mut Selection,
    live: &mut Live<'_>,
    run_dir: &RunDir,
    settings: &Settings<'_>,
) -> anyhow::Result<Option<Vec<Knee>>> {
    let estimate = knee::estimate(selection, !settings.only_knees);
    let mut writer = run_dir.calibration_writer()?;
    if !settings.silent {
        say(&format!(
            "finding the knees, about {}",
            seconds(estimate.as_secs_f64())
        ));
    }
    run_dir.write_phase(Phase::Running)?;
    let keep = |trial: &Trial, said: Option<&str>| {
        if !settings.silent {
            let said = said.map_or_else(String::new, |said| format!("; {said}"));
            say(&format!("{}{said}", progress::line(trial)));
        }
        writer.append(trial)
    };
    match knee::calibrate(selection, !settings.only_knees, live, keep) {
        Ok(knees) => Ok(Some(knees)),
        Err(error) if error.is::<Interrupted>() => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_open_files(selection: &Selection) -> anyhow::Result<()> {
    let concurrency = selection
        .scenarios
        .iter()
        .flat_map(|scenario| scenario.definition.concurrency.iter().copied())
        .max()
        .unwrap_or_default();
    let (needed, limit) = (
        machine::open_files_needed(concurrency),
        machine::open_files_max(),
    );
    if limit < needed {
        bail!(
            "concurrency {concurrency} needs up to {needed} open files per process, but the limit \
             is {limit}; raise it with 'ulimit -Hn {needed}', or lower --concurrency"
        );
    }
    Ok(())
}

/// Checks the clock, and the temporary directory, in which every trial has its sockets.
pub(crate) fn check_surroundings() -> anyhow::Result<()> {
    machine::check_clock(SystemTime::now())?;
    let directory = tempfile::env::temp_dir();
    let describe = || {
        format!(
            "could not use the temporary directory '{}'; set TMPDIR to another",
            directory.display()
        )
    };
    let probe = temporary_directory().with_context(describe)?;
    if probe.path().to_str().is_none() {
        bail!(
            "{}: its name is not UTF-8, which configuration files are",
            describe()
        );
    }
    // As long as the catalog's longest socket name, with room to spare.
    let length = probe.path().as_os_str().len() + "/plugin-admin.socket".len();
    if length > SOCKET_PATH_BYTES_MAX {
        bail!(
            "{}: the paths of sockets in it would be too long",
            describe()
        );
    }
    Ok(())
}

/// Maximum length of a socket's path, in bytes: that of `sun_path` without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Keeps two runs from measuring each other, wherever they write. The lock ends when file and
/// socket are closed, however that happens.
pub(crate) fn lock(root: &Path) -> anyhow::Result<(File, UnixListener)> {
    let describe = || {
        format!(
            "could not write results below '{}'; use --out with another directory",
            root.display()
        )
    };
    fs::create_dir_all(root).with_context(describe)?;
    let file = File::create(root.join(".lock")).with_context(describe)?;
    match file.try_lock() {
        Ok(()) => Ok((file, lock_machine()?)),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another run{} is writing below '{}': two at a time would disturb each other; wait \
             until it has finished ('hopbench status')",
            holder::describe(&lock_name()),
            root.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(describe),
    }
}

/// Variable with the name of a lock for a test, so that tests can run side by side.
const TEST_LOCK: &str = "HOPBENCH_TEST_LOCK";

/// Returns the variable with the name of a test's lock, for a hopbench that this one starts.
pub(crate) fn test_lock() -> Vec<(OsString, OsString)> {
    let name = env::var_os(TEST_LOCK);
    name.map(|name| (TEST_LOCK.into(), name))
        .into_iter()
        .collect()
}

/// Returns the name of the machine's lock.
fn lock_name() -> Vec<u8> {
    let mut name = b"hopbench".to_vec();
    for (_, test) in test_lock() {
        name.extend([b" ", test.as_bytes()].concat());
    }
    name
}

/// Binds an abstract socket: only one can have the name, and it leaves no file. All users of the
/// machine have the same names, whatever their directories.
pub(crate) fn lock_machine() -> anyhow::Result<UnixListener> {
    let name = lock_name();
    let address = SocketAddr::from_abstract_name(&name)?;
    match UnixListener::bind_addr(&address) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "another run is under way on this machine{}: two at a time would disturb each other; \
             wait until it has finished",
            holder::describe(&name)
        ),
        Err(error) => Err(error).context("could not look for other runs"),
    }
}

pub(crate) fn seed_from_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Need not be readable: the seed only has to differ from run to run.
    since.as_secs() ^ u64::from(since.subsec_nanos())
}

fn path_infos(toolbox: &Toolbox, selection: &Selection) -> anyhow::Result<Vec<PathInfo>> {
    let paths = selection.paths.iter();
    let infos = paths.map(|path| path_info(toolbox, &path.definition, path.skipped.as_deref()));
    infos.collect()
}

/// Describes a path for the manifest.
fn path_info(
    toolbox: &Toolbox,
    path: &PathDefinition,
    skipped: Option<&str>,
) -> anyhow::Result<PathInfo> {
    let receipts = match skipped {
        // Without a receipt there is no trial. What stands for two files has those of the files.
        None if !path.text.is_empty() => receipts(toolbox, path)?,
        _ => Default::default(),
    };
    let expect = path.expect.iter();
    Ok(PathInfo {
        name: path.name.clone(),
        summary: path.summary.clone(),
        analysis: path.analysis.clone(),
        receipts: receipts.lines,
        version_outputs: receipts.outputs,
        definition: path.text.clone(),
        parameters: path.parameters.clone(),
        front: path.front.protocol,
        skipped: skipped.map(str::to_owned),
        counters: Some(path.counters.shown.clone()),
        expect: expect
            .map(|(name, answer)| (name.clone(), answer.to_string()))
            .collect(),
    })
}

fn manifest(paths: Vec<PathInfo>, selection: &Selection, seed: u64, directory: &Path) -> Manifest {
    let scenarios = selection.scenarios.iter().map(|scenario| ScenarioInfo {
        name: scenario.definition.name.clone(),
        question: scenario.definition.question.clone(),
        analysis: scenario.definition.analysis.clone(),
        definition: scenario.definition.text.clone(),
        reference: scenario.reference.clone(),
        endpoints: scenario.endpoints.clone(),
        blocks: scenario.definition.blocks,
        pathologies: scenario.definition.pathologies.clone(),
        recovery: scenario.definition.recovery.clone(),
        loads: scenario.definition.loads(),
    });
    let capped = selection.scenarios.iter().filter_map(|scenario| {
        let definition = &scenario.definition;
        let highest = definition.concurrency.iter().max()?;
        let rate_rps = definition.rate_cap_rps(*highest)?;
        Some(format!(
            "scenario '{}': with a think time of {} ms, {} can't send more than {rate_rps:.0} \
             requests per second, whatever the path could do",
            definition.name,
            definition.think_time_ms,
            plural(*highest as usize, "connection")
        ))
    });
    let warnings = machine::doubts_of_a_run();
    Manifest {
        schema: SCHEMA,
        hopbench: env!("CARGO_PKG_VERSION").to_owned(),
        started: jiff::Timestamp::now().to_string(),
        command_line: command_line(),
        request: None,
        seed,
        git: Default::default(),
        machine: machine::describe(directory),
        toolchain: machine::toolchain(),
        profile: machine::profile().to_owned(),
        scenarios: scenarios.collect(),
        paths,
        warnings: warnings.chain(capped).collect(),
        builds: Vec::new(),
        knees: Vec::new(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the command line as typed, without the directory of hopbench.
pub(crate) fn command_line() -> Vec<String> {
    let mut words: Vec<String> = env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = words.first_mut() {
        *program = "hopbench".to_owned();
    }
    words
}

fn announce(manifest: &Manifest, plan: &Plan, run_dir: &RunDir) {
    say(&format!(
        "{} trials, about {}, seed {}, into {}",
        plan.trials.len(),
        seconds(plan.estimate_ms as f64 / 1e3),
        manifest.seed,
        run_dir.path().display()
    ));
    for warning in &manifest.warnings {
        say(&format!("warning: {warning}"));
    }
    for path in &manifest.paths {
        if let Some(reason) = &path.skipped {
            say(&format!("skipped: {}: {reason}", path.name));
        }
    }
}
