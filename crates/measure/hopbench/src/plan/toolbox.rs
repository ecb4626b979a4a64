//! Finds programs: those of this workspace beside hopbench itself, others where they are installed.

use std::{
    collections::BTreeSet,
    env, fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    catalog::{PathDefinition, nearest},
    mistake::Mistake,
};

#[derive(Clone, Debug)]
pub(crate) struct Toolbox {
    bin_directory: PathBuf,
}

/// Directories searched besides `PATH`: servers are often installed where only root looks.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

const ELSEWHERE: &str = "; if it is not on PATH, write its full path instead of '{{program:…}}'";

impl Toolbox {
    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin_directory
    }

    /// Finds this workspace's programs in `bin_directory`, by default beside hopbench.
    pub(crate) fn new(bin_directory: Option<PathBuf>) -> anyhow::Result<Self> {
        let bin_directory = match bin_directory {
            Some(directory) => {
                let mistake = || {
                    Mistake(format!(
                        "'--bin-dir': expected a directory with built programs, such as \
                         'target/release', found '{}'",
                        directory.display()
                    ))
                };
                match fs::canonicalize(&directory) {
                    Ok(found) if found.is_dir() => found,
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                        return Err(error).with_context(|| mistake().to_string());
                    }
                    Ok(_) | Err(_) => return Err(mistake().into()),
                }
            }
            None => {
                let own = env::current_exe().context("could not find hopbench's own executable")?;
                own.parent()
                    .context("hopbench's executable has no directory")?
                    .to_owned()
            }
        };
        Ok(Self { bin_directory })
    }

    /// Finds a program of this workspace.
    pub(crate) fn bin(&self, name: &str) -> anyhow::Result<PathBuf> {
        let file = self.bin_directory.join(name);
        if !is_program(&file) {
            let known = self.programs();
            let nearest = nearest(name, known.iter().map(String::as_str));
            bail!(
                "'{name}' is not in '{}'{nearest}; build it with 'cargo build --release --locked'",
                self.bin_directory.display()
            );
        }
        Ok(file)
    }

    /// Returns the names of the programs in the directory.
    fn programs(&self) -> Vec<String> {
        // Only for a hint, so errors are ignored.
        let entries = fs::read_dir(&self.bin_directory).into_iter().flatten();
        let programs = entries.flatten().filter(|entry| is_program(&entry.path()));
        let names = programs.map(|program| program.file_name().into_string());
        names.flatten().collect()
    }

    /// Finds an installed program.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
            .map(|directory| directory.join(name))
            .find(|file| is_program(file))
    }

    /// Returns what the path needs and the machine lacks, each with a way to get it.
    pub(crate) fn missing(&self, path: &PathDefinition) -> Vec<String> {
        let install = |name: &str| {
            let command = path.install.get(name)?;
            Some(format!("; install it with '{command}'"))
        };
        let bins = path
            .bins()
            .into_iter()
            .filter_map(|name| self.bin(name).err());
        let bins = bins.map(|error| error.to_string());
        let programs = path
            .programs()
            .into_iter()
            .filter(|name| self.program(name).is_none());
        let programs = programs.map(|name| {
            let hint = install(name).unwrap_or_else(|| ELSEWHERE.to_owned());
            format!("'{name}' is not installed{hint}")
        });
        let files = path.requires_files.iter().filter(|file| !file.exists());
        let files = files.map(|file| {
            let name = file.display().to_string();
            format!(
                "'{name}' does not exist{}",
                install(&name).unwrap_or_default()
            )
        });
        let literal = path.literal_programs().into_iter();
        let literal = literal.filter_map(|program| {
            let trouble = self.trouble_with(program)?;
            Some(format!("{trouble}{}", install(program).unwrap_or_default()))
        });
        let directories = path.directories().into_iter();
        let directories = directories.filter(|directory| !directory.is_dir());
        let directories = directories
            .map(|directory| format!("'cwd': there is no directory '{}'", directory.display()));
        let all = bins.chain(programs).chain(files).chain(literal);
        all.chain(directories).collect()
    }

    /// Returns whether a path file names a program that can't be meant: a full path that leads
    /// nowhere, or a misspelt program of this workspace.
    pub(crate) fn is_misspelt(&self, path: &PathDefinition, of_workspace: &BTreeSet<&str>) -> bool {
        let known = self.programs();
        let is_similar = |name: &str| !nearest(name, known.iter().map(String::as_str)).is_empty();
        let bins = path.bins().into_iter();
        let mut unknown = bins.filter(|name| !of_workspace.contains(name));
        let mut literal = path.literal_programs().into_iter();
        unknown.any(|name| self.bin(name).is_err() && is_similar(name))
            || literal.any(|file| file.starts_with('/') && !Path::new(file).exists())
    }

    /// Returns why a program that is written as a name or a file can't be run, if it can't. A file
    /// relative to a trial's directory can't be checked, since it is not there yet.
    fn trouble_with(&self, program: &str) -> Option<String> {
        let file = Path::new(program);
        if !program.contains('/') {
            let is_installed = self.program(program).is_some();
            return (!is_installed).then(|| format!("'{program}' is not installed"));
        }
        if file.is_relative() || is_program(file) {
            return None;
        }
        Some(match file.is_file() {
            true => format!("'{program}' is not executable; try 'chmod +x {program}'"),
            false => format!("'{program}' does not exist"),
        })
    }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
