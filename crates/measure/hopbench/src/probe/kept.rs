//! The directory of a probe's records.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use hopbench_analysis::probe::{Observation, ProbeInfo, Probed, read};

use crate::{
    catalog::read_text_within,
    console::visible,
    run::run_dir::{RunDir, append_line, write_whole},
};

const INFO: &str = "probe.json";
const OBSERVATIONS: &str = "observations.jsonl";
const REPORT: &str = "report.md";

/// Largest file of records: millions of observations.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The directory of a probe's records.
#[derive(Debug)]
pub(crate) struct ProbeDir {
    directory: RunDir,
    observations: File,
}

/// Returns whether a directory has the records of a probe.
pub(crate) fn is_probe(directory: &Path) -> bool {
    directory.join(INFO).is_file()
}

impl ProbeDir {
    /// Creates a new directory below `root`. Nothing is ever overwritten.
    pub(crate) fn create(root: &Path, info: &ProbeInfo) -> anyhow::Result<Self> {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let revision = info.git.revision.get(..8).unwrap_or("unversioned");
        let directory = RunDir::create(root, &format!("{stamp}-{revision}-{}", info.probe))?;
        let path = directory.path().join(OBSERVATIONS);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let observations =
            file.with_context(|| format!("could not create '{}'", path.display()))?;
        let created = Self {
            directory,
            observations,
        };
        created.write_info(info)?;
        Ok(created)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the directory of the logs.
    pub(crate) fn raw(&self) -> PathBuf {
        self.directory.raw()
    }

    pub(crate) fn write_info(&self, info: &ProbeInfo) -> anyhow::Result<()> {
        self.directory
            .write(INFO, &serde_json::to_vec_pretty(info)?)
    }

    /// Writes the report beside the records of a probe.
    pub(crate) fn write_report(directory: &Path, text: &str) -> anyhow::Result<()> {
        let path = directory.join(REPORT);
        write_whole(&path, visible(text).as_bytes())
    }

    pub(crate) fn append(&mut self, observation: &Observation) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(observation)?;
        line.push(b'\n');
        append_line(&mut self.observations, &line).with_context(|| {
            let path = self.directory.path().join(OBSERVATIONS);
            format!("could not write '{}'", path.display())
        })
    }

    /// Returns the directories of all probes below `root`, in the order of their names.
    pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(root);
        let entries = entries.with_context(|| format!("could not read '{}'", root.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| is_probe(path));
        paths.sort();
        Ok(paths)
    }

    /// Reads the records of an earlier probe.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Probed> {
        let text = |name: &str| {
            let path = directory.join(name);
            read_text_within(&path, FILE_BYTES_MAX)
                .with_context(|| format!("could not read '{}'", path.display()))
        };
        read(&text(INFO)?, &text(OBSERVATIONS)?)
            .with_context(|| format!("could not read '{}'", directory.display()))
    }
}
