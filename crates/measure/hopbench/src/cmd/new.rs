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
    catalog,
    cmd::cli::{self, Kind},
    mistake::Mistake,
};

pub(super) fn run(context: &Context, options: &cli::New) -> anyhow::Result<ExitCode> {
    let file = match options.name.strip_suffix(".toml") {
        Some(_) => options.name.clone(),
        None => format!("{}.toml", options.name),
    };
    let name = Path::new(&file).file_stem().unwrap_or_default();
    let name = name.to_string_lossy();
    let mistake = |message: &str| Mistake(format!("'{file}': {message}"));
    if !catalog::is_plain_name(&name) || name.contains(' ') || name.starts_with('.') {
        let message = "expected a name of letters, digits, '-', '_', '.' and '+'";
        return Err(mistake(message).into());
    }
    check_place(Path::new(&file))?;
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
    let created = OpenOptions::new().write(true).create_new(true).open(&file);
    let written =
        created.and_then(|mut it| it.write_all(template.replace("NAME", &name).as_bytes()));
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = "the file already exists; use another name, or remove it";
            return Err(mistake(message).into());
        }
        other => other.with_context(|| format!("could not write '{file}'"))?,
    }
    let text = format!("wrote '{file}'; edit it, then run '{next}'\n");
    context.print(&text, || json!({"file": file, "next": next}))?;
    Ok(ExitCode::SUCCESS)
}
