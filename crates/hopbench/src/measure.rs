//! One run: from what is to be measured to its records.

use std::{
    env,
    fs::{self, File},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use hopbench_analysis::record::{
    Cell, Knee, Manifest, PathInfo, Plan, SCHEMA, ScenarioInfo, Trial,
};

use crate::{
    builds::Builds,
    catalog::Target,
    knee, machine,
    plan::Planner,
    process::{Interrupt, Interrupted},
    progress::{self, Progress, say, seconds},
    run_dir::{Phase, RunDir},
    runner::{self, Ended},
    selection::{Selection, receipts},
    toolbox::Toolbox,
    trial::Live,
    until::{Goal, Until},
};

/// How to measure, whatever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// Below which directory to write.
    pub(crate) out: &'a Path,
    /// Of the order; from the clock if `None`.
    pub(crate) seed: Option<u64>,
    pub(crate) load_threads: Option<u16>,
    pub(crate) request_timeout: Duration,
    /// Until when to add blocks.
    pub(crate) goal: Option<Goal>,
    /// Of all cells only these, which are of no build.
    pub(crate) only_cells: Option<&'a [Cell]>,
    /// Only look for knees.
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

/// Measures a selection, with two builds if there are any. Knees that it needs and that are not
/// known are found first.
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
    check_temporary_directory()?;
    let _lock = lock(settings.out)?;

    let seed = settings.seed.unwrap_or_else(seed_from_clock);
    let (run_dir, mut manifest) = begin(toolbox, selection, builds, settings, seed)?;
    let mut live = Live::new(toolbox, builds, selection, interrupt, run_dir.raw())?;
    live.load_threads = settings.load_threads.map(usize::from);
    live.request_timeout = settings.request_timeout;
    if settings.only_knees || selection.needs_knees() {
        let found = find_knees(selection, &mut live, &run_dir, settings)?;
        let Some(knees) = found else {
            return interrupted(run_dir, manifest, settings.silent);
        };
        manifest.knees = knees;
        manifest.warnings.extend(without_knee(selection));
        run_dir.write_manifest(&manifest)?;
    }
    let ended = run_blocks(
        selection,
        seed,
        settings,
        &mut live,
        &run_dir,
        &mut manifest,
    )?;
    Ok(Measured {
        run_dir,
        manifest,
        ended,
    })
}

/// Makes the run directory, with all that is known before anything is measured.
fn begin(
    toolbox: &Toolbox,
    selection: &Selection,
    builds: Option<&Builds>,
    settings: &Settings<'_>,
    seed: u64,
) -> anyhow::Result<(RunDir, Manifest)> {
    let git = machine::git(toolbox.bin_dir());
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let revision = git.revision.get(..8).unwrap_or("unversioned");
    let planned = Planner::new(selection, seed, builds.is_some(), settings.only_cells).plan();
    RunDir::check_space(settings.out, planned.trials.len())?;
    let run_dir = RunDir::create(settings.out, &format!("{stamp}-{revision}"))?;
    let manifest = Manifest {
        git,
        builds: builds.map_or_else(Vec::new, Builds::infos),
        ..manifest(toolbox, selection, seed, run_dir.path())?
    };
    run_dir.write_manifest(&manifest)?;
    run_dir.write_plan(&planned)?;
    Ok((run_dir, manifest))
}

/// Plans all blocks and runs them, and more of them until the goal is reached, if there is one.
fn run_blocks(
    selection: &Selection,
    seed: u64,
    settings: &Settings<'_>,
    live: &mut Live<'_>,
    run_dir: &RunDir,
    manifest: &mut Manifest,
) -> anyhow::Result<Ended> {
    let of_builds = live.builds.is_some();
    let mut planner = Planner::new(selection, seed, of_builds, settings.only_cells);
    let plan = match settings.only_knees {
        true => Plan::default(),
        false => planner.plan(),
    };
    run_dir.write_plan(&plan)?;
    if !settings.silent && !settings.only_knees {
        announce(manifest, &plan, run_dir);
        if let Some(goal) = settings.goal {
            say(planner.prospect(goal).trim_end());
        }
    }
    let mut progress = Progress::new(&plan, settings.silent || settings.only_knees);
    let mut until = settings
        .goal
        .map(|goal| Until::new(goal, planner, manifest));
    let more = |trials: &[Trial]| match &mut until {
        Some(until) => until.more(trials),
        None => Ok(runner::Added::default()),
    };
    let interrupt = live.interrupt;
    let ended = runner::run(plan, more, live, run_dir, &mut progress, interrupt)?;
    let missed = until.map_or(Ok(Vec::new()), |until| until.missed(&ended))?;
    if !missed.is_empty() {
        if !settings.silent {
            missed
                .iter()
                .for_each(|one| say(&format!("warning: {one}")));
        }
        manifest.warnings.extend(missed);
        run_dir.write_manifest(manifest)?;
    }
    if ended.interrupted && !settings.silent {
        say(INTERRUPTED);
    }
    Ok(ended)
}

/// Loads that can't be planned since no path holds any rate there.
fn without_knee(selection: &Selection) -> Vec<String> {
    let scenarios = selection.scenarios.iter();
    let dependent = scenarios.filter(|scenario| scenario.definition.rates.depend_on_knee());
    let loads = dependent.flat_map(|scenario| {
        let loads = scenario.loads().into_iter();
        let missing = loads.filter(|load| !scenario.knees.contains_key(load));
        missing.map(|(target, concurrency)| {
            format!(
                "{} {target} c={concurrency}: no path holds any rate, so nothing is measured; see \
                 'calibration.jsonl'",
                scenario.definition.name
            )
        })
    });
    loads.collect()
}

pub(crate) const INTERRUPTED: &str = "interrupted; what is finished is kept";

/// A run that was interrupted before its first trial.
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

/// `None` if somebody wanted the end.
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
            "looking for the rates that are held, about {}",
            seconds(estimate.as_secs_f64())
        ));
    }
    run_dir.write_phase(Phase::Running)?;
    let keep = |trial: &Trial| {
        if !settings.silent {
            say(&progress::line(trial));
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
            "concurrency {concurrency} takes up to {needed} open files per process, the limit is \
             {limit}; raise it with 'ulimit -Hn {needed}', or use --concurrency"
        );
    }
    Ok(())
}

/// Every trial has its sockets there.
fn check_temporary_directory() -> anyhow::Result<()> {
    let directory = env::temp_dir();
    let describe = || {
        format!(
            "could not use the temporary directory '{}'; set TMPDIR to another",
            directory.display()
        )
    };
    let probe = tempfile::Builder::new().prefix("hopbench-").tempdir();
    let probe = probe.with_context(describe)?;
    // The longest name of a socket that the catalog has, with room to spare.
    let length = probe.path().as_os_str().len() + "/plugin-admin.socket".len();
    if length > SOCKET_PATH_BYTES_MAX {
        bail!("{}: sockets' paths would be too long", describe());
    }
    Ok(())
}

/// What `sun_path` holds, without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Keeps two runs from measuring each other, wherever they write. Released when both are closed,
/// however that happens.
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
            "another run writes below '{}': two at a time would measure each other; wait for it \
             ('hopbench status')",
            root.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(describe),
    }
}

/// An abstract socket, of which there can be one of a name, and which leaves no file. Who sets
/// another temporary directory has another, so that tests can run side by side.
pub(crate) fn lock_machine() -> anyhow::Result<UnixListener> {
    let temporary = fs::metadata(env::temp_dir()).context("no temporary directory")?;
    let name = format!("hopbench {}:{}", temporary.dev(), temporary.ino());
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixListener::bind_addr(&address) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "another run is under way on this machine: two at a time would measure each other; \
             wait for it"
        ),
        Err(error) => Err(error).context("could not look for other runs"),
    }
}

pub(crate) fn seed_from_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Nothing that reads better is lost: the seed only has to differ from run to run.
    since.as_secs() ^ u64::from(since.subsec_nanos())
}

fn manifest(
    toolbox: &Toolbox,
    selection: &Selection,
    seed: u64,
    directory: &Path,
) -> anyhow::Result<Manifest> {
    let mut paths = Vec::new();
    for path in &selection.paths {
        let receipts = match path.skipped {
            // No receipt, no trial.
            None => receipts(toolbox, &path.definition)?,
            Some(_) => Default::default(),
        };
        paths.push(PathInfo {
            name: path.definition.name.clone(),
            summary: path.definition.summary.clone(),
            analysis: path.definition.analysis.clone(),
            receipts,
            skipped: path.skipped.clone(),
        });
    }
    let scenarios = selection.scenarios.iter().map(|scenario| ScenarioInfo {
        name: scenario.definition.name.clone(),
        question: scenario.definition.question.clone(),
        analysis: scenario.definition.analysis.clone(),
        reference: scenario.reference.clone(),
        endpoints: scenario.targets.iter().map(Target::to_string).collect(),
        blocks: scenario.definition.blocks,
        pathologies: scenario.definition.pathologies.clone(),
    });
    let warnings = machine::doubts()
        .into_iter()
        .filter_map(|(what, doubt)| doubt.map(|doubt| format!("{what}: {doubt}")));
    Ok(Manifest {
        schema: SCHEMA,
        hopbench: env!("CARGO_PKG_VERSION").to_owned(),
        started: jiff::Timestamp::now().to_string(),
        command_line: command_line(),
        seed,
        git: Default::default(),
        machine: machine::describe(directory),
        toolchain: machine::toolchain(),
        profile: machine::profile().to_owned(),
        scenarios: scenarios.collect(),
        paths,
        warnings: warnings.collect(),
        builds: Vec::new(),
        knees: Vec::new(),
    })
}

/// As typed, without the directories of this machine.
fn command_line() -> Vec<String> {
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
