//! Two builds of this workspace, or two files of a path, to be measured against each other.
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
use hopbench_analysis::record::{Build, BuildInfo, Git, PathInfo};

use crate::{
    catalog::PathDefinition,
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

/// One of two files of a path, in place of a build.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// File, as the user named it.
    pub(crate) asked: String,
    pub(crate) definition: PathDefinition,
    /// Name of the path that is measured with both files.
    pub(crate) stands_for: String,
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
    /// The file of a path that makes this build, if it isn't made of programs.
    version: Option<Version>,
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

    /// Returns two files of a path as builds, with the programs beside this hopbench.
    pub(crate) fn of_versions(toolbox: &Toolbox, versions: [Version; 2]) -> Self {
        let [a, b] = versions.map(|version| Built {
            asked: version.asked.clone(),
            version: Some(version),
            ..Built::own(toolbox)
        });
        Self { a, b }
    }

    pub(crate) fn of(&self, build: Build) -> &Built {
        match build {
            Build::A => &self.a,
            Build::B => &self.b,
        }
    }

    /// Describes both builds for the manifest. `describe` describes the path of a file.
    pub(crate) fn infos(
        &self,
        describe: impl Fn(&PathDefinition) -> anyhow::Result<PathInfo>,
    ) -> anyhow::Result<Vec<BuildInfo>> {
        let info = |build| {
            let Built {
                asked,
                git,
                version,
                ..
            } = self.of(build);
            let path = version.as_ref();
            let path = path.map(|version| describe(&version.definition));
            Ok(BuildInfo {
                build,
                asked: asked.clone(),
                git: git.clone(),
                path: path.transpose()?,
            })
        };
        [Build::A, Build::B].into_iter().map(info).collect()
    }

    /// Returns whether these are the builds that a run has recorded.
    pub(crate) fn are(&self, recorded: &[BuildInfo]) -> bool {
        let is = |info: &BuildInfo| {
            let Built { git, version, .. } = self.of(info.build);
            let path = info.path.as_ref();
            let path = path.map(|path| (&path.definition, &path.parameters));
            let version = version.as_ref().map(|version| &version.definition);
            let version = version.map(|path| (&path.text, &path.parameters));
            (&git.revision, git.dirty) == (&info.git.revision, info.git.dirty) && path == version
        };
        recorded.iter().all(is)
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
                let built = self.of(build);
                let missing = built.toolbox.missing(built.definition(&path.definition));
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
    /// Returns what this build makes of a path.
    pub(crate) fn definition<'p>(&'p self, path: &'p PathDefinition) -> &'p PathDefinition {
        let version = self.version.as_ref();
        let version = version.filter(|version| version.stands_for == path.name);
        version.map_or(path, |version| &version.definition)
    }

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
            version: None,
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
            version: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_knows_the_files_that_were_measured() {
        let text = |word: &str| {
            format!(
                "summary = '{word}'\nfront = '127.0.0.1:{{{{port:a}}}}'\n\
                 [parameters]\nw = 1\n[[process]]\nname = 'a'\nrole = 'x'\nversion = ['a']\n\
                 command = ['a', '{{{{port:a}}}}', '{{{{parameter:w}}}}']\n"
            )
        };
        let toolbox = Toolbox::new(None).expect("a directory");
        let builds = |word: &str, value: &str| {
            let parameters = [("w".to_owned(), value.to_owned())].into();
            let versions = ["v1", word].map(|word| Version {
                asked: format!("{word}.toml"),
                definition: PathDefinition::parse(word, &text(word))
                    .and_then(|path| path.with(word, &parameters))
                    .expect("valid"),
                stands_for: "both".to_owned(),
            });
            Builds::of_versions(&toolbox, versions)
        };
        let describe = |path: &PathDefinition| {
            Ok(PathInfo {
                name: path.name.clone(),
                summary: String::new(),
                analysis: String::new(),
                receipts: Default::default(),
                version_outputs: Default::default(),
                definition: path.text.clone(),
                parameters: path.parameters.clone(),
                front: Default::default(),
                skipped: None,
                counters: None,
                expect: Default::default(),
            })
        };
        let recorded = builds("v2", "1").infos(describe).expect("described");
        assert!(builds("v2", "1").are(&recorded));
        assert!(!builds("v3", "1").are(&recorded));
        assert!(!builds("v2", "2").are(&recorded));
    }

    #[test]
    fn a_build_of_programs_leaves_paths_as_they_are() {
        let toolbox = Toolbox::new(None).expect("a directory");
        let text = "summary = 's'\nfront = '127.0.0.1:{{port:a}}'\n[[process]]\nname = 'a'\n\
                    role = 'x'\nversion = ['a']\ncommand = ['a', '{{port:a}}']\n";
        let path = |name: &str| PathDefinition::parse(name, text).expect("valid");
        assert_eq!(Built::own(&toolbox).definition(&path("own")).name, "own");
        let version = |name: &str| Version {
            asked: format!("{name}.toml"),
            definition: path(name),
            stands_for: "both".to_owned(),
        };
        let Builds { a, b } = Builds::of_versions(&toolbox, ["v1", "v2"].map(version));
        let (both, other) = (path("both"), path("other"));
        let names = [&a, &b].map(|it| it.definition(&both).name.as_str());
        assert_eq!(names, ["v1", "v2"]);
        assert_eq!(b.definition(&other).name, "other");
    }
}
