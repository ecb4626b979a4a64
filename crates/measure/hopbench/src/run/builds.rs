//! Two builds of this workspace, to be measured against each other.
//!
//! Each is named by a directory of built programs, by a checkout, or by a revision. A checkout is
//! built in place. A revision is built in its own clone below `target/ab/`, which is kept, so that
//! it is built once. Both builds are measured with the load generator of this hopbench.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hopbench_analysis::record::{Build, BuildInfo, Git};

use crate::{
    console::say,
    mistake::Mistake,
    observe::machine,
    plan::{selection::Selection, toolbox::Toolbox},
    process::{
        Child, Command, Interrupt, Interrupted, Output, Waited, as_text, capture, of_cargo, wait,
    },
};

#[derive(Clone, Debug)]
pub(crate) struct Builds {
    pub(crate) a: Built,
    pub(crate) b: Built,
}

/// One of the two builds.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) toolbox: Toolbox,
    asked: String,
    git: Git,
    /// Why the revision is not known, although there is a repository.
    unversioned: Option<String>,
    /// Arguments added to the command of each process whose role is that of an origin.
    pub(crate) injected: Vec<String>,
}

/// Time limit of a build: everything from scratch, on a slow machine.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Packages that are left out: they measure, are not measured, and take longest to build.
const NOT_BUILT: [&str; 3] = ["hopbench", "hopbench-analysis", "hopbench-load"];

/// Number of digits of a revision that name its clone.
const REVISION_DIGITS: usize = 12;

impl Builds {
    /// Finds both builds, and builds what has to be built.
    pub(crate) fn prepare(
        a: &str,
        b: &str,
        silent: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let prepare = |asked: &str, option: &str| {
            Built::prepare(asked, silent, interrupt).with_context(|| format!("{option}={asked}"))
        };
        Ok(Self {
            a: prepare(a, "--a")?,
            b: prepare(b, "--b")?,
        })
    }

    pub(crate) fn of(&self, build: Build) -> &Built {
        match build {
            Build::A => &self.a,
            Build::B => &self.b,
        }
    }

    /// Describes both builds for the manifest.
    pub(crate) fn infos(&self) -> Vec<BuildInfo> {
        let info = |build| {
            let Built { asked, git, .. } = self.of(build);
            BuildInfo {
                build,
                asked: asked.clone(),
                git: git.clone(),
            }
        };
        [Build::A, Build::B].map(info).into()
    }

    /// Returns the builds whose revision is not known, each with the reason.
    pub(crate) fn unversioned(&self) -> impl Iterator<Item = String> {
        let of = |build| {
            let reason = self.of(build).unversioned.as_ref()?;
            Some(format!("build {build}: {reason}"))
        };
        [Build::A, Build::B].into_iter().filter_map(of)
    }

    /// Checks that both builds have what the selected paths need.
    pub(crate) fn check(&self, selection: &Selection) -> anyhow::Result<()> {
        let paths = selection.paths.iter().filter(|path| path.skipped.is_none());
        for path in paths {
            for build in [Build::A, Build::B] {
                let missing = self.of(build).toolbox.missing(&path.definition);
                if !missing.is_empty() {
                    bail!(
                        "path '{}' can't be run with build {build}: {}; leave it out with --path",
                        path.definition.name,
                        missing.join("; ")
                    );
                }
            }
        }
        Ok(())
    }
}

impl Built {
    /// Returns this build with arguments added to its origin's command.
    pub(crate) fn with(&self, injected: Vec<String>) -> Self {
        let asked = match injected.is_empty() {
            true => self.asked.clone(),
            false => format!("{} with {}", self.asked, injected.join(" ")),
        };
        Self {
            asked,
            injected,
            ..self.clone()
        }
    }

    /// Returns the programs beside this hopbench as a build.
    pub(crate) fn own(toolbox: &Toolbox) -> Self {
        let (git, unversioned) = machine::git(toolbox.bin_dir());
        Self {
            toolbox: toolbox.clone(),
            asked: "this build".to_owned(),
            git,
            unversioned,
            injected: Vec::new(),
        }
    }

    fn prepare(asked: &str, silent: bool, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let directory = Path::new(asked);
        let programs = match directory.is_dir() {
            true if !directory.join("Cargo.toml").is_file() => directory.to_owned(),
            true => build(&fs::canonicalize(directory)?, silent, interrupt)?,
            false => build(&check_out(asked)?, silent, interrupt)?,
        };
        let toolbox = Toolbox::new(Some(programs))?;
        let (git, unversioned) = machine::git(toolbox.bin_dir());
        Ok(Self {
            git,
            unversioned,
            toolbox,
            asked: asked.to_owned(),
            injected: Vec::new(),
        })
    }
}

/// Returns a clone in which the revision is checked out.
fn check_out(revision: &str) -> anyhow::Result<PathBuf> {
    let here = env::current_dir().context("there is no working directory")?;
    // Without git, the machine is at fault. Otherwise nobody named a build.
    git(&here, &["--version"])?;
    let Some(top) = machine::repository(&here) else {
        let message = format!(
            "'{revision}': expected a directory or a revision; it is no directory, and the \
             working directory is in no repository"
        );
        return Err(Mistake(message).into());
    };
    // If git refuses to read the repository, it says why.
    git(&here, &["rev-parse", "--git-dir"])?;
    let commit = format!("{revision}^{{commit}}");
    let Ok(commit) = git(&here, &["rev-parse", "--verify", "--quiet", &commit]) else {
        let top = top.display();
        let message =
            format!("'{revision}': expected a directory or a revision of '{top}'; it is neither");
        return Err(Mistake(message).into());
    };
    let name = &commit[..commit.len().min(REVISION_DIGITS)];
    let clones = top.join("target/ab");
    let clone = clones.join(name);
    if !clone.is_dir() {
        // The clone is there as a whole or not at all, however this ends.
        fs::create_dir_all(&clones)
            .with_context(|| format!("could not create '{}'", clones.display()))?;
        let fresh = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&clones)?;
        let from = as_text(top)?;
        git(
            fresh.path(),
            &["clone", "--quiet", "--no-checkout", &from, "."],
        )?;
        git(fresh.path(), &["checkout", "--quiet", "--detach", &commit])?;
        fs::rename(fresh.keep(), &clone)?;
    }
    Ok(clone)
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = capture(&Command {
        program: "git".into(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        directory: Some(directory.to_owned()),
        stops_with_stdin: true,
        ..Command::default()
    })?;
    Ok(output.trim().to_owned())
}

/// Builds a checkout; returns the directory of its programs.
fn build(checkout: &Path, silent: bool, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let target = checkout.join("target");
    fs::create_dir_all(&target)
        .with_context(|| format!("could not create '{}'", target.display()))?;
    let mut arguments: Vec<String> = ["build", "--release", "--locked", "--workspace"]
        .map(str::to_owned)
        .into();
    arguments.extend(NOT_BUILT.map(|package| format!("--exclude={package}")));
    // Below the checkout, in which cargo runs.
    arguments.push("--target-dir=target".to_owned());
    let command = Command {
        program: "cargo".into(),
        arguments,
        directory: Some(checkout.to_owned()),
        // cargo doesn't watch its stdin, so the kernel must kill it if hopbench is killed.
        environment: of_cargo(),
        ..Command::default()
    };
    if !silent {
        say(&format!("building '{}'", checkout.display()));
    }
    let log = Output::Log(target.join("ab-build.log"));
    let mut cargo = Child::start("cargo", &command, log)?;
    match wait(&[&cargo], Instant::now() + BUILD_TIMEOUT, Some(interrupt))? {
        Waited::Interrupted => return Err(Interrupted.into()),
        Waited::TimedOut => bail!("{command}: did not finish within an hour"),
        Waited::Happened(_) => {}
    }
    let succeeded = cargo.exit_status()?.is_some_and(|status| status.success());
    if !succeeded {
        bail!("{command}: {}", cargo.last_lines().join(" / "));
    }
    Ok(target.join("release"))
}
