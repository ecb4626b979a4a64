//! `hopbench doctor`

mod profile;

use std::process::ExitCode;

use serde_json::json;

use super::{Context, columns};
use crate::{
    catalog::{CONCURRENCY_MAX, PathDefinition},
    cmd::{cli, exit},
    observe::{machine, neighbours},
    run::measure,
};

/// The result of one check.
struct Finding {
    what: String,
    state: State,
    note: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing can be measured.
    Broken,
    Fine,
    /// Some paths can't be run.
    Missing,
    /// Metrics will be doubtful.
    Warning,
}

pub(super) fn run(context: &Context, options: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let hardware = profile::findings(options)?;
    let mut findings = programs(context);
    findings.extend(paths(context, &options.paths)?);
    findings.extend(conditions());
    findings.extend(neighbours());
    findings.extend(hardware);
    let broken = findings
        .iter()
        .any(|finding| finding.state == State::Broken);
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            vec![
                finding.state.name().to_owned(),
                finding.what.clone(),
                finding.note.clone(),
            ]
        })
        .collect();
    context.print(&columns(&rows), || {
        let findings = findings.iter().map(|finding| {
            json!({"what": finding.what, "state": finding.state.name(), "note": finding.note})
        });
        json!(findings.collect::<Vec<_>>())
    })?;
    Ok(ExitCode::from(if broken { exit::ENVIRONMENT } else { 0 }))
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Broken => "BROKEN",
            Self::Fine => "ok",
            Self::Missing => "missing",
            Self::Warning => "warning",
        }
    }
}

fn programs(context: &Context) -> Vec<Finding> {
    let name = "hopbench-load";
    let (state, note) = match context.toolbox.bin(name) {
        Ok(file) => (State::Fine, file.display().to_string()),
        Err(error) => (State::Broken, error.to_string()),
    };
    vec![Finding {
        what: format!("program {name}"),
        state,
        note,
    }]
}

/// Looks for the programs of these paths, or of all.
fn paths(context: &Context, asked: &[String]) -> anyhow::Result<Vec<Finding>> {
    let asked_for = asked.iter().map(|asked| context.catalog.paths(asked));
    let asked_for: Vec<Vec<PathDefinition>> = asked_for.collect::<Result<_, _>>()?;
    let all = match asked {
        [] => context.catalog.paths.clone(),
        _ => asked_for.concat(),
    };
    let found = all.iter().map(|path| {
        let missing = context.toolbox.missing(path);
        // Whoever asks for a path needs it.
        let is_needed = path.describe.is_some() || !asked.is_empty();
        let state = match (missing.is_empty(), is_needed) {
            (true, _) => State::Fine,
            (false, true) => State::Broken,
            (false, false) => State::Missing,
        };
        Finding {
            what: format!("path {}", path.name),
            state,
            note: missing.join("; "),
        }
    });
    Ok(found.collect())
}

fn conditions() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: &str, state, note: String| {
        findings.push(Finding {
            what: what.to_owned(),
            state,
            note,
        });
    };
    for (what, warning) in machine::doubts() {
        let state = if warning.is_some() {
            State::Warning
        } else {
            State::Fine
        };
        add(what, state, warning.unwrap_or_default());
    }
    // It is no sign of a neighbour: a build that has ended is in it for minutes.
    if let Some(load) = machine::load_average_per_core() {
        let note = format!("{load:.1} per core, over the last minute");
        add("load average", State::Fine, note);
    }
    let limit = machine::open_files_max();
    let needed = machine::open_files_needed(CONCURRENCY_MAX);
    let state = if limit < needed {
        State::Warning
    } else {
        State::Fine
    };
    add(
        "open files",
        state,
        format!("at most {limit} per process; c={CONCURRENCY_MAX} needs {needed}"),
    );
    let (state, note) = match shared_memory() {
        Ok(()) => (State::Fine, String::new()),
        Err(note) => (State::Warning, note),
    };
    add("shared memory", state, note);
    let (state, note) = match measure::check_surroundings() {
        Ok(()) => (State::Fine, tempfile::env::temp_dir().display().to_string()),
        Err(error) => (State::Broken, format!("{error:#}")),
    };
    add("temporary directory", state, note);
    findings
}

/// Looks for others that use this machine.
fn neighbours() -> impl Iterator<Item = Finding> {
    neighbours::signs().into_iter().map(|sign| Finding {
        what: sign.what.to_owned(),
        state: match sign.is_noisy {
            true => State::Warning,
            false => State::Fine,
        },
        note: sign.note,
    })
}

fn shared_memory() -> Result<(), String> {
    rustix::fs::memfd_create("doctor", rustix::fs::MemfdFlags::CLOEXEC)
        .map(drop)
        .map_err(|error| format!("no memfd: {error}; the shm transport can't run"))
}
