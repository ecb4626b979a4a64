//! `hopbench run`

use std::{
    fs::{self, File},
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use hopbench_analysis::record::{Manifest, PathInfo, Plan, SCHEMA, ScenarioInfo, Trial};

use super::{
    Context,
    doctor::{doubts, open_files_needed},
    report,
};
use crate::{
    catalog::Target,
    cli::{self, Format},
    exit, machine,
    plan::Planner,
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    progress::{Progress, say},
    run_dir::RunDir,
    runner,
    selection::{Selection, receipts},
    trial::Live,
    until::Until,
};

pub(super) fn run(context: &Context, options: &cli::Run) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let selection = context.select(&options.choice);
    // A program that was asked something is interrupted by the same Ctrl-C.
    let selection = selection.map_err(|error| match interrupt.is_requested() {
        true => Interrupted.into(),
        false => error,
    })?;
    machine::raise_open_files_limit();
    check_open_files(&selection)?;
    context.toolbox.bin("hopbench-load")?;
    check_temporary_directory()?;
    let _lock = lock(&options.out)?;

    let seed = options.seed.unwrap_or_else(seed_from_clock);
    let mut planner = Planner::new(&selection, seed);
    let plan = planner.plan();
    let git = machine::git(context.toolbox.bin_dir());
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let revision = git.revision.get(..8).unwrap_or("unversioned");
    RunDir::check_space(&options.out, plan.trials.len())?;
    let run_dir = RunDir::create(&options.out, &format!("{stamp}-{revision}"))?;
    let mut manifest = Manifest {
        git,
        ..manifest(context, &selection, seed, run_dir.path())?
    };
    run_dir.write_manifest(&manifest)?;
    run_dir.write_plan(&plan)?;
    let silent = context.format != Format::Human;
    if !silent {
        announce(&manifest, &plan, &run_dir);
        if let Some(goal) = options.until.goal() {
            say(planner.prospect(goal).trim_end());
        }
    }

    let mut live = Live::new(&context.toolbox, &selection, &interrupt, run_dir.raw())?;
    live.load_threads = options.load_threads.map(usize::from);
    live.request_timeout = Duration::from_millis(options.request_timeout_ms);
    let mut progress = Progress::new(&plan, silent);
    let goal = options.until.goal();
    let mut until = goal.map(|goal| Until::new(goal, planner, &manifest, silent));
    let more = |trials: &[Trial]| match &mut until {
        Some(until) => until.more(trials),
        None => Ok(Vec::new()),
    };
    let ended = runner::run(plan, more, &mut live, &run_dir, &mut progress, &interrupt)?;
    let missed = until.map_or(Ok(Vec::new()), |until| until.missed(&ended))?;
    if !missed.is_empty() {
        if !silent {
            missed
                .iter()
                .for_each(|one| say(&format!("warning: {one}")));
        }
        manifest.warnings.extend(missed);
        run_dir.write_manifest(&manifest)?;
    }
    if ended.interrupted && !silent {
        say("interrupted; what is finished is kept");
    }

    report::write(&run_dir, &manifest, &ended.trials)?;
    report::show(context, &run_dir, &manifest, &ended.trials)?;
    Ok(ExitCode::from(match ended.interrupted {
        true => EXIT_INTERRUPTED,
        false if ended.trials.iter().all(is_clean) => 0,
        false => exit::FAILED,
    }))
}

/// Whether every request of the trial was answered rightly.
fn is_clean(trial: &Trial) -> bool {
    trial.measured().is_some_and(|load| load.failed() == 0)
}

fn check_open_files(selection: &Selection) -> anyhow::Result<()> {
    let concurrency = selection
        .scenarios
        .iter()
        .flat_map(|scenario| scenario.definition.concurrency.iter().copied())
        .max()
        .unwrap_or_default();
    let (needed, limit) = (open_files_needed(concurrency), machine::open_files_max());
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
    let directory = std::env::temp_dir();
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

/// Keeps two runs from measuring each other. Released when the file is closed, however that
/// happens.
fn lock(root: &Path) -> anyhow::Result<File> {
    let describe = || {
        format!(
            "could not write results below '{}'; use --out with another directory",
            root.display()
        )
    };
    fs::create_dir_all(root).with_context(describe)?;
    let file = File::create(root.join(".lock")).with_context(describe)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another run writes below '{}': two at a time would measure each other; wait for it \
             ('hopbench status')",
            root.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(describe),
    }
}

fn seed_from_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Nothing that reads better is lost: the seed only has to differ from run to run.
    since.as_secs() ^ u64::from(since.subsec_nanos())
}

fn manifest(
    context: &Context,
    selection: &Selection,
    seed: u64,
    directory: &Path,
) -> anyhow::Result<Manifest> {
    let mut paths = Vec::new();
    for path in &selection.paths {
        let receipts = match path.skipped {
            // No receipt, no trial.
            None => receipts(&context.toolbox, &path.definition)?,
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
    let warnings = doubts()
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
    })
}

/// As typed, without the directories of this machine.
fn command_line() -> Vec<String> {
    let mut words: Vec<String> = std::env::args_os()
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
        crate::progress::seconds(plan.estimate_ms as f64 / 1e3),
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
