//! `hopbench import`

use std::{path::Path, process::ExitCode};

use hopbench_analysis::{external::External, report::external};
use serde_json::json;

use super::Context;
use crate::{catalog, cmd::cli, mistake::Mistake, run::run_dir::RunDir};

/// Maximum length of a file with figures, in bytes. Those of Locust have a line for each name.
const FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn run(context: &Context, options: &cli::Import) -> anyhow::Result<ExitCode> {
    let file = options.file.display();
    let mistake = |message: String| Mistake(format!("'{file}': {message}"));
    let text = catalog::read_text_within(&options.file, FILE_BYTES_MAX);
    let text = text.map_err(|error| mistake(error.to_string()))?;
    let name = options
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let figures = External::read(&name, &text).map_err(|error| mistake(error.to_string()))?;
    let mut text = external::terminal(std::slice::from_ref(&figures));
    if let Some(run) = &options.run {
        let run_dir = RunDir::open(run)?;
        let mut kept = run_dir.external()?;
        if kept.contains(&figures) {
            let message = format!("the same figures are already in '{}'", run.display());
            return Err(mistake(message).into());
        }
        kept.push(figures.clone());
        run_dir.write_external(&kept)?;
        let run = run.display();
        text += &format!("\nkept in '{run}'; 'hopbench report {run}' shows it\n");
    }
    context.print(
        &text,
        || json!({"external": figures, "run": options.run.as_deref().map(Path::to_string_lossy)}),
    )?;
    Ok(ExitCode::SUCCESS)
}
