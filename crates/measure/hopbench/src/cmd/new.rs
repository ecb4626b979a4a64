//! `hopbench new`

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::json;

use super::{Context, check_place};
use crate::{
    catalog::{self, NAME_BYTES_MAX},
    cmd::cli::{self, Kind},
    mistake::Mistake,
};

pub(super) fn run(context: &Context, options: &cli::New) -> anyhow::Result<ExitCode> {
    let created = NewFile::check(&options.name)?;
    let file = created.name();
    let name = Path::new(file).file_stem().unwrap_or_default();
    let name = name.to_string_lossy();
    let (template, next) = match options.kind {
        Kind::Gate => (
            include_str!("../../templates/gate.toml"),
            format!("hopbench describe {file}"),
        ),
        Kind::Path => (
            include_str!("../../templates/path.toml"),
            format!("hopbench verify {file}"),
        ),
        Kind::Probe => (
            include_str!("../../templates/probe.toml"),
            match file.contains('/') {
                true => format!("hopbench probe {file} --quick"),
                false => format!("hopbench probe ./{file} --quick"),
            },
        ),
        Kind::Scenario => (
            include_str!("../../templates/scenario.toml"),
            match file.contains('/') {
                true => format!("hopbench plan {file}"),
                false => format!("hopbench plan ./{file}"),
            },
        ),
    };
    let text = template.replace("NAME", &name);
    created.write(&text)?;
    let edit = match options.kind {
        Kind::Path => what_to_edit(&text),
        Kind::Gate | Kind::Probe | Kind::Scenario => "edit it".to_owned(),
    };
    let said = format!("wrote '{file}'; {edit}, then run '{next}'\n");
    context.print(&said, || json!({"file": file, "next": next}))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what to change in a new path file: the lines with the program of the hop, which may be
/// no installed one.
fn what_to_edit(text: &str) -> String {
    let lines = text.lines().zip(1..);
    let mut of_hop = lines.filter(|(line, _)| !line.starts_with('#') && line.contains(PROGRAM));
    match (of_hop.next(), of_hop.next()) {
        (Some((_, command)), Some((_, version))) => format!(
            "write your hop's command in line {command}, and how it prints its version in line \
             {version}"
        ),
        _ => "edit it".to_owned(),
    }
}

/// Place of the hop's program in a new path file.
const PROGRAM: &str = "{{program:";

/// A file of a definition that isn't there yet.
#[derive(Debug)]
pub(super) struct NewFile(String);

impl NewFile {
    /// Adds the ending to a name, if it has none, and checks that such a file can be written.
    pub(super) fn check(name: &str) -> anyhow::Result<Self> {
        let file = match name.strip_suffix(".toml") {
            Some(_) => name.to_owned(),
            None => format!("{name}.toml"),
        };
        let stem = Path::new(&file).file_stem().unwrap_or_default();
        check_name(&stem.to_string_lossy())
            .map_err(|message| Mistake(format!("'{file}': {message}")))?;
        check_place(Path::new(&file))?;
        let file = Self(file);
        match Path::new(&file.0).symlink_metadata() {
            Ok(_) => Err(file.is_there().into()),
            Err(_) => Ok(file),
        }
    }

    /// Returns its name, with its ending.
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Writes it, unless it is there by now.
    pub(super) fn write(&self, text: &str) -> anyhow::Result<()> {
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.0);
        match created.and_then(|mut file| file.write_all(text.as_bytes())) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(self.is_there().into()),
            other => other.with_context(|| format!("could not write '{}'", self.0)),
        }
    }

    fn is_there(&self) -> Mistake {
        Mistake(format!(
            "'{}': the file already exists; use another name, or remove it",
            self.0
        ))
    }
}

/// Checks a name from which a file is named, and which is written in tables.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    match catalog::is_plain_name(name) && !name.contains(' ') && !name.starts_with('.') {
        true if name.len() > NAME_BYTES_MAX => Err(format!(
            "expected a name of at most {NAME_BYTES_MAX} bytes, found {}",
            name.len()
        )),
        true => Ok(()),
        false => Err("expected a name of letters, digits, '-', '_', '.' and '+'".to_owned()),
    }
}
