//! `hopbench ab`

use std::process::ExitCode;

use anyhow::Context as _;
use hopbench_analysis::gate::{self, Policy};
use serde_json::json;

use super::{
    Context,
    repeat::{confirm, judge, select, settings},
    report::Report,
    run as runs,
    verdict::{check, policy, show},
    versions::is_path_file,
};
use crate::{
    cmd::{cli, exit},
    console::say,
    mistake::Mistake,
    plan::{planner::Planner, selection::Selection},
    process::{EXIT_INTERRUPTED, Interrupt},
    run::measure::{Settings, measure},
};

pub(super) fn run(context: &Context, options: &cli::Ab) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    check(&options.output)?;
    // Read the policy first: an unreadable one must not be noticed after an hour.
    let policy = match options.gate {
        true => Some(policy(context, options.policy.as_deref())?),
        false => None,
    };
    let settings = settings(context, options);
    let overrides = options.choice.overrides();
    let sides = [options.a.as_str(), options.b.as_str()];
    let scenarios = match options.choice.scenarios.as_slice() {
        [] => vec![of_a_first_look(context, sides)?],
        named => named.to_vec(),
    };
    let subject = (scenarios.as_slice(), &overrides, sides);
    let (mut selection, builds) = select(context, subject, settings.silent, &interrupt)?;
    if let Some(policy) = &policy
        && !settings.silent
        && settings.goal.is_none()
    {
        announce_shortfall(policy, &selection);
    }
    let toolbox = &context.toolbox;
    let mut measure = |settings: &Settings<'_>| {
        measure(toolbox, &mut selection, Some(&builds), settings, &interrupt)
    };
    let measured = measure(&settings)?;
    let (manifest, trials) = (&measured.manifest, &measured.ended.trials);
    let report = Report::new(&measured.run_dir, manifest, trials)?;
    if measured.ended.interrupted {
        report.publish(context)?;
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let Some(policy) = policy else {
        report.publish(context)?;
        let clean = !trials.is_empty() && runs::is_all_clean(trials, manifest);
        return Ok(ExitCode::from(if clean { 0 } else { exit::FAILED }));
    };

    report.write_or_warn();

    let mut result = judge(&policy, &measured)?;
    let mut repeat = None;
    if options.confirm {
        repeat = confirm(&policy, &mut result, &settings, measure)?;
    }
    let repeat = (
        "repeat",
        json!(repeat.map(|it| it.to_string_lossy().into_owned())),
    );
    show(context, &options.output, &result, &measured.run_dir, repeat)
}

/// Returns the scenario for two files of a path, if none is named. Of builds it can't be told which
/// of their paths are meant.
fn of_a_first_look(context: &Context, sides: [&str; 2]) -> anyhow::Result<String> {
    let scenario = context.catalog.scenario_of_a_first_look();
    let scenario = scenario.context("no built-in scenario is for a first look")?;
    match sides.into_iter().any(is_path_file) {
        true => Ok(scenario.name.clone()),
        false => Err(Mistake(format!(
            "expected a scenario, such as 'hopbench ab {} …': only two files of a path need none",
            scenario.name
        ))
        .into()),
    }
}

/// Warns beforehand if the planned blocks are too few for a verdict.
fn announce_shortfall(policy: &Policy, selection: &Selection) {
    let planned = Planner::new(selection, 0, true, None).plan().trials;
    // With two builds, the reference is judged like any other path.
    let needed = gate::blocks_needed(policy, |_| false, &planned);
    let blocks = planned.iter().map(|trial| trial.block).max().unwrap_or(0);
    if (blocks as usize) < needed.paired {
        say(&format!(
            "warning: '{}' judges {} cells: detecting a single regression takes {} blocks, but \
             {blocks} are planned; use --blocks {}, or fewer cells",
            policy.name, needed.cells, needed.paired, needed.paired
        ));
    }
}
