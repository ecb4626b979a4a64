//! `hopbench gate`

use std::{fs, process::ExitCode};

use hopbench_analysis::{
    gate::{self, Unjudged},
    record::{Manifest, PlannedTrial, Trial},
};
use serde_json::json;

use super::{
    Context,
    repeat::repeat,
    report::{planned, read},
    verdict::{check, policy, show},
};
use crate::{
    cmd::{cli, exit},
    console::say,
    mistake::Mistake,
    run::run_dir::RunDir,
};

/// The records of a run that a gate needs.
struct Records {
    manifest: Manifest,
    trials: Vec<Trial>,
    planned: Vec<PlannedTrial>,
}

pub(super) fn run(context: &Context, options: &cli::Gate) -> anyhow::Result<ExitCode> {
    check(&options.output)?;
    let policy = policy(context, options.policy.as_deref())?;
    let run_dir = match &options.run {
        Some(path) => RunDir::open(path)?,
        None => RunDir::latest(&options.out)?,
    };
    let base_dir = options.base.as_deref().map(RunDir::open).transpose()?;
    if let Some(base) = &base_dir
        && fs::canonicalize(base.path())? == fs::canonicalize(run_dir.path())?
    {
        let message = format!(
            "'{}' is both the run and its base; name another run with --base",
            base.path().display()
        );
        return Err(Mistake(message).into());
    }
    let records = Records::read(&run_dir)?;
    let base = base_dir.as_ref().map(Records::read).transpose()?;
    let result = gate::judge(&policy, records.run(), base.as_ref().map(Records::run));
    let mut result = match result {
        Ok(result) => result,
        Err(Unjudged::Incomparable(incomparable)) => {
            say(&incomparable.to_string());
            return Ok(ExitCode::from(exit::INCONCLUSIVE));
        }
        Err(error @ (Unjudged::OneSide { .. } | Unjudged::ThreeSides)) => {
            return Err(Mistake(error.to_string()).into());
        }
        Err(error @ Unjudged::Histogram(_)) => return Err(error.into()),
    };
    let other = match options.confirm {
        true => {
            let directory = repeat(context, &run_dir, &records.manifest, &policy, &mut result)?;
            (
                "repeat",
                json!(directory.map(|it| it.to_string_lossy().into_owned())),
            )
        }
        false => (
            "base",
            json!(base_dir.as_ref().map(|it| it.path().to_string_lossy())),
        ),
    };
    show(context, &options.output, &result, &run_dir, other)
}

impl Records {
    fn read(run_dir: &RunDir) -> anyhow::Result<Self> {
        let (manifest, trials) = read(run_dir)?;
        Ok(Self {
            manifest,
            planned: planned(run_dir, &trials)?,
            trials,
        })
    }

    fn run(&self) -> gate::Run<'_> {
        gate::Run {
            manifest: &self.manifest,
            trials: &self.trials,
            planned: &self.planned,
        }
    }
}
