//! The run directory, written line by line during a run and read by reports.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use hopbench_analysis::{
    external::External,
    record::{Manifest, Plan, Profile, SCHEMA, Trial},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{catalog::Catalog, mistake::Mistake};

/// The directory of a run's records.
#[derive(Clone, Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

/// The records of a run's trials.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) trials: Vec<Trial>,
    /// Number of the last line if it is cut off. It is left out.
    pub(crate) cut: Option<usize>,
}

/// Appends trials, each flushed before the next one begins.
#[derive(Debug)]
pub(crate) struct TrialWriter {
    file: File,
    path: PathBuf,
}

/// The content of `state.json`, for `hopbench status` in another terminal.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct State {
    pub(crate) pid: u32,
    pub(crate) phase: Phase,
    /// Number of the trial that is running.
    pub(crate) trial: u32,
    /// Index of the stage of its load.
    #[serde(default)]
    pub(crate) stage: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    Finished,
    Interrupted,
    Running,
}

const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.json";
const STATE: &str = "state.json";
const TRIALS: &str = "trials.jsonl";
const PROFILES: &str = "profiles.json";
const EXTERNAL: &str = "external.json";
const CALIBRATION: &str = "calibration.jsonl";

/// Approximate size of a record with its logs, in bytes, for the check before the first trial.
const TRIAL_BYTES: u64 = 64 * 1024;

impl RunDir {
    /// Creates a new directory below `root`. Nothing is ever overwritten.
    pub(crate) fn create(root: &Path, name: &str) -> anyhow::Result<Self> {
        let describe = || format!("could not write results below '{}'", root.display());
        fs::create_dir_all(root).with_context(describe)?;
        // Two runs may start within a second.
        for attempt in 1..100 {
            let name = if attempt == 1 {
                name.to_owned()
            } else {
                format!("{name}-{attempt}")
            };
            let path = root.join(name);
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::create_dir(path.join("raw")).with_context(describe)?;
                    return Ok(Self { path });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(describe),
            }
        }
        bail!(
            "{}: a hundred runs were started within a second",
            describe()
        )
    }

    /// Opens the directory of an earlier run.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.join(MANIFEST).is_file() {
            let message = format!(
                "'{}' is not a run: expected a directory with a '{MANIFEST}'; runs are below \
                 'bench_results', unless --out named another directory",
                path.display()
            );
            return Err(Mistake(message).into());
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Opens the run that was started last below `root`.
    pub(crate) fn latest(root: &Path) -> anyhow::Result<Self> {
        let mut runs = Self::all(root)?;
        match runs.pop() {
            Some(path) => Ok(Self { path }),
            None => Err(no_runs(root)),
        }
    }

    /// Returns the directories of the runs below `root`, in the order of their start; at least one.
    pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(root) {
            Err(error) if is_absent(&error) => return Err(no_runs(root)),
            other => other.with_context(|| format!("could not read '{}'", root.display()))?,
        };
        let runs = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join(MANIFEST).is_file().then_some(path)
        });
        // Names begin with the start time.
        let mut runs: Vec<PathBuf> = runs.collect();
        runs.sort_unstable();
        match runs.is_empty() {
            true => Err(no_runs(root)),
            false => Ok(runs),
        }
    }

    /// Checks before the first trial that there is enough space below `root`, so that a run doesn't
    /// fail after hours.
    pub(crate) fn check_space(root: &Path, trials: usize) -> anyhow::Result<()> {
        let needed = trials as u64 * TRIAL_BYTES + (1 << 20);
        let system = rustix::fs::statvfs(root)
            .with_context(|| format!("could not check the free space at '{}'", root.display()))?;
        let free = system.f_bavail * system.f_frsize;
        if free < needed {
            bail!(
                "'{}': {} MiB are free, {trials} trials may need {}; use --out with another disk",
                root.display(),
                free >> 20,
                needed.div_ceil(1 << 20),
            );
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of the trials' logs.
    pub(crate) fn raw(&self) -> PathBuf {
        self.path.join("raw")
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        self.write_json(MANIFEST, manifest)
    }

    pub(crate) fn manifest(&self) -> anyhow::Result<Manifest> {
        let mut manifest: Manifest = self.read_json(MANIFEST)?;
        if !(1..=SCHEMA).contains(&manifest.schema) {
            bail!(
                "'{}' has schema {}, this hopbench reads 1 to {SCHEMA}; use the hopbench that \
                 wrote it ({})",
                self.path.display(),
                manifest.schema,
                manifest.hopbench
            );
        }
        // Older builds knew the counters of the built-in paths without a declaration.
        let built_in = Catalog::built_in()?;
        for path in manifest.paths.iter_mut().filter(|it| it.counters.is_none()) {
            let same = built_in.paths.iter().find(|it| it.name == path.name);
            path.counters = same.map(|it| it.counters.shown.clone());
        }
        Ok(manifest)
    }

    pub(crate) fn write_plan(&self, plan: &Plan) -> anyhow::Result<()> {
        self.write_json(PLAN, plan)
    }

    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        self.read_json(PLAN)
    }

    pub(crate) fn write_profiles(&self, profiles: &[Profile]) -> anyhow::Result<()> {
        self.write_json(PROFILES, &profiles)
    }

    /// Reads the profiles; there are none unless somebody made them.
    pub(crate) fn profiles(&self) -> anyhow::Result<Vec<Profile>> {
        match self.path.join(PROFILES).exists() {
            true => self.read_json(PROFILES),
            false => Ok(Vec::new()),
        }
    }

    /// Reads the figures of other engines; there are none unless somebody imported them.
    pub(crate) fn external(&self) -> anyhow::Result<Vec<External>> {
        let path = self.path.join(EXTERNAL);
        let describe = || format!("could not read '{}'", path.display());
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => External::read_kept(&other.with_context(describe)?).with_context(describe),
        }
    }

    pub(crate) fn write_external(&self, figures: &[External]) -> anyhow::Result<()> {
        self.write_json(EXTERNAL, &figures)
    }

    pub(crate) fn write_state(&self, state: &State) -> anyhow::Result<()> {
        self.write(STATE, &serde_json::to_vec(state)?)
    }

    pub(crate) fn state(&self) -> anyhow::Result<State> {
        self.read_json(STATE)
    }

    pub(crate) fn write_phase(&self, phase: Phase) -> anyhow::Result<()> {
        self.write_state(&State {
            pid: std::process::id(),
            phase,
            trial: 0,
            stage: 0,
        })
    }

    /// Creates the file for the trials that search for knees.
    pub(crate) fn calibration_writer(&self) -> anyhow::Result<TrialWriter> {
        self.writer(CALIBRATION)
    }

    pub(crate) fn trial_writer(&self) -> anyhow::Result<TrialWriter> {
        self.writer(TRIALS)
    }

    fn writer(&self, name: &str) -> anyhow::Result<TrialWriter> {
        let path = self.path.join(name);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.with_context(|| format!("could not create '{}'", path.display()))?;
        Ok(TrialWriter { file, path })
    }

    /// Reads the trials so far. A last line that is still being written is left out.
    pub(crate) fn trials(&self) -> anyhow::Result<Vec<Trial>> {
        Ok(self.records()?.trials)
    }

    /// Reads the trials so far, and says which line it left out.
    pub(crate) fn records(&self) -> anyhow::Result<Records> {
        let path = self.path.join(TRIALS);
        let describe = || format!("could not read '{}'", path.display());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::default()),
            other => other.with_context(describe)?,
        };
        let mut records = Records::default();
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = || format!("{}, line {}", describe(), index + 1);
            match std::str::from_utf8(line).map(Trial::read) {
                Ok(Ok(trial)) => records.trials.push(trial),
                // A record ends with its line. This line is the last one, and only begun.
                _ if !line.ends_with(b"\n") => records.cut = Some(index + 1),
                Ok(Err(error)) => return Err(error).with_context(place),
                Err(error) => return Err(error).with_context(place),
            }
        }
        Ok(records)
    }

    /// Returns whether trials have ended whose records are not there, according to `state.json`.
    pub(crate) fn has_lost_all(&self, planned: usize) -> bool {
        let Ok(state) = self.state() else {
            return false;
        };
        planned > 0
            && match state.phase {
                Phase::Finished => true,
                // The file is made before the first trial, which may have been interrupted.
                Phase::Interrupted => !self.path.join(TRIALS).exists(),
                Phase::Running => state.trial > 1,
            }
    }

    /// Writes a file as a whole: a reader finds the old file or the new one, even if the disk is
    /// full.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        write_whole(&self.path.join(name), bytes)
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.write(name, &serde_json::to_vec_pretty(value)?)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<T> {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("could not read '{}'", path.display()))?;
        serde_json::from_str(&text).map_err(|error| {
            let path = path.display();
            Mistake(format!(
                "could not read '{path}': {error}; restore the file, or measure again"
            ))
            .into()
        })
    }
}

fn no_runs(root: &Path) -> anyhow::Error {
    let message = format!(
        "there are no runs below '{}' yet; make one with 'hopbench run'",
        root.display()
    );
    Mistake(message).into()
}

impl TrialWriter {
    pub(crate) fn append(&mut self, trial: &Trial) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(trial)?;
        line.push(b'\n');
        append_line(&mut self.file, &line)
            .with_context(|| format!("could not write '{}'", self.path.display()))
    }
}

/// Writes a file as a whole: a reader finds the old file or the new one, even if the disk is full.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let written = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    written.with_context(|| {
        // Remove the half-written file. The error is reported in any case.
        let _ = fs::remove_file(&fresh);
        format!("could not write '{}'", path.display())
    })
}

/// Returns whether nothing has this name, which somebody has mistyped.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotADirectory | NotFound)
}

/// Appends a line to a file, as a whole or not at all, even if the disk is full.
pub(crate) fn append_line(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(line);
    if written.is_err() {
        // Half a line is not a record. The error is reported in any case.
        let _ = file.set_len(before);
    }
    written
}
