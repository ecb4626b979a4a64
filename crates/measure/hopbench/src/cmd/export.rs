//! `hopbench export`

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use hopbench_analysis::gate::Policy;
use serde_json::json;

use super::{Context, check_place, verdict::policy};
use crate::{
    catalog::PathDefinition,
    cmd::cli::{self, Engine},
    export::{self, Load, ProjectFile},
    mistake::Mistake,
    plan::selection::Selection,
};

pub(super) fn run(context: &Context, options: &cli::Export) -> anyhow::Result<ExitCode> {
    if options.engine == Engine::Locust && options.gate.is_some() {
        let message = "'--gate' is only for k6: Locust has no thresholds; leave it out";
        return Err(Mistake(message.to_owned()).into());
    }
    let path = options.path.as_deref().map(|name| path(context, name));
    let path = path.transpose()?;
    let names = [options.scenario.clone()];
    let (catalog, toolbox) = (&context.catalog, &context.toolbox);
    let selection = Selection::new(catalog, toolbox, &names, &options.overrides())?;
    let load = Load::new(&selection, path.as_ref())?;
    let policy: Policy = policy(context, options.gate.as_deref())?;
    let (engine, files) = match options.engine {
        Engine::Locust => ("locust", export::locust(&load, &options.target)?),
        Engine::K6 => ("k6", export::k6(&load, &options.target, &policy)?),
    };
    let directory = match &options.out {
        Some(directory) => directory.clone(),
        None => PathBuf::from(format!("{}-{engine}", load.name())),
    };
    write(&directory, &files)?;
    let place = directory.display();
    let text = format!(
        "wrote '{place}': {}; '{place}/README.md' says how to run it\n",
        load.summary()
    );
    context.print(&text, || {
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        json!({"engine": engine, "directory": directory.to_string_lossy(), "files": names})
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the one path with this name, or in this file.
fn path(context: &Context, name: &str) -> anyhow::Result<PathDefinition> {
    let mut paths = context.catalog.paths(name)?;
    match (paths.len(), paths.pop()) {
        (1, Some(path)) if !path.front.protocol.is_plain() => Err(Mistake(format!(
            "'--path': '{name}' is asked by {}: expected a path that is asked by HTTP/1.1 without \
             TLS, since other engines have neither the certificates of a run nor its choice of \
             protocol; leave '--path' out, and set both in the project",
            path.front.protocol
        ))
        .into()),
        (1, Some(path)) => Ok(path),
        (count, _) => Err(Mistake(format!(
            "'--path': expected one path, '{name}' names {count}; name one of 'hopbench list'"
        ))
        .into()),
    }
}

/// Writes a project into a directory that is new or empty: nothing is ever overwritten.
fn write(directory: &Path, files: &[ProjectFile]) -> anyhow::Result<()> {
    let describe = || format!("could not write '{}'", directory.display());
    check_place(directory)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut entries = match directory.is_dir() {
                true => fs::read_dir(directory).with_context(describe)?,
                false => return Err(occupied(directory, "is not a directory")),
            };
            if entries.next().is_some() {
                return Err(occupied(directory, "is not empty"));
            }
        }
        other => other.with_context(describe)?,
    }
    for (name, text) in files {
        let file = directory.join(name);
        let created = OpenOptions::new().write(true).create_new(true).open(&file);
        created
            .and_then(|mut it| it.write_all(text.as_bytes()))
            .with_context(|| format!("could not write '{}'", file.display()))?;
    }
    Ok(())
}

fn occupied(directory: &Path, why: &str) -> anyhow::Error {
    Mistake(format!(
        "'{}' {why}: expected a new or an empty directory; name another with --out",
        directory.display()
    ))
    .into()
}
