//! `hopbench history`

use std::{fs::OpenOptions, path::Path, process::ExitCode};

use anyhow::Context as _;
use hopbench_analysis::{history::Row, report::history, summary::Summary};

use super::{Context, check_place, report::read_whole};
use crate::{
    catalog::read_text_within,
    cmd::cli,
    mistake::Mistake,
    run::run_dir::{append_line, is_absent},
};

pub(super) fn run(context: &Context, options: &cli::History) -> anyhow::Result<ExitCode> {
    if let Some(run) = &options.add {
        let row = row(run)?;
        check_place(&options.file)?;
        append(&options.file, &row)?;
    }
    let rows = rows(&options.file)?;
    context.print(&history::terminal(&rows), || history::json(&rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Largest history: a row has some kilobytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Returns the row that a run adds to a history.
fn row(run: &Path) -> anyhow::Result<Row> {
    let (manifest, trials) = read_whole(run)?;
    let row = Row::of(&Summary::new(&manifest, &trials)?, &trials);
    row.map_err(|unfit| Mistake(format!("'{}' {unfit}", run.display())).into())
}

/// Appends a row as a whole line. Fails if the file has a row of that run already.
fn append(file: &Path, row: &Row) -> anyhow::Result<()> {
    let describe = || format!("could not write '{}'", file.display());
    let known = match file.exists() {
        true => rows(file)?,
        false => Vec::new(),
    };
    if known.iter().any(|other| other.started == row.started) {
        let message = format!(
            "the run of {} is already in '{}'; name another run with --add",
            row.started,
            file.display()
        );
        return Err(Mistake(message).into());
    }
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let mut file = opened.with_context(describe)?;
    append_line(&mut file, &line).with_context(describe)
}

fn rows(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text = match read_text_within(file, FILE_BYTES_MAX) {
        Err(error) if is_absent(&error) => {
            let message = format!(
                "there is no history in '{}' yet; start one with --add and a run directory",
                file.display()
            );
            return Err(Mistake(message).into());
        }
        other => other.with_context(|| format!("could not read '{}'", file.display()))?,
    };
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| {
            let place = || format!("'{}', line {}", file.display(), index + 1);
            Row::read(line).with_context(place)
        })
        .collect()
}
