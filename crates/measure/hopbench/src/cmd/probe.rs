//! `hopbench probe`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use hopbench_analysis::{
    probe::{
        PROBE_SCHEMA, ProbeInfo, Probed, Unit,
        distribution::Distribution,
        rule::{Outcome, judge},
    },
    report::probe as report,
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    catalog::{CYCLES_MAX, ProbeDefinition, ProbeKind},
    cmd::{cli::Parameters, exit, number::within},
    console::say,
    observe::machine,
    probe::{self, Fault, ProbeDir, Settings, is_probe},
    process::{EXIT_INTERRUPTED, Interrupt},
    run::measure,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Name or file of a probe, or the directory of an earlier one, to show it again
    name: String,
    /// Observe everything this often instead
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = within::<u32>(1, u64::from(CYCLES_MAX)))]
    cycles: Option<u32>,
    /// Observe few times, and little: good for a first look
    #[arg(long)]
    quick: bool,
    /// Observe only these paths, hops or commands
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Use these numbers of routes, files or connections instead
    #[arg(long = "size", value_name = "N", value_delimiter = ',',
        allow_negative_numbers = true, value_parser = within::<u32>(1, 100_000_u64))]
    sizes: Vec<u32>,
    /// Inject a fault, to see that a rule finds it
    #[arg(long, value_enum, value_name = "FAULT")]
    inject: Option<Fault>,
    #[command(flatten)]
    parameters: Parameters,
    /// Seed of the random order [default: taken from the clock, and recorded]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Directory below which to write the results
    #[arg(long, value_name = "DIR", default_value = "bench_results")]
    out: PathBuf,
}

pub(super) fn run(context: &Context, options: &Options) -> anyhow::Result<ExitCode> {
    let earlier = Path::new(&options.name);
    if is_probe(earlier) {
        let probed = ProbeDir::read(earlier)?;
        show(context, &probed, earlier)?;
        return Ok(code(&probed));
    }
    let definition = context.catalog.probe(&options.name)?;
    let settings = settings(context, options);
    probe::check(&definition, &settings)?;
    measure::check_surroundings()?;
    // A process of several threads can't enter a namespace, and in it the lock would be another.
    let is_apart = definition.kind == ProbeKind::Network;
    let early = is_apart.then(|| measure::lock(&options.out)).transpose()?;
    let entered = if is_apart { probe::enter() } else { Ok(()) };
    let interrupt = Interrupt::catch()?;
    let prepared = probe::prepare(&context.toolbox, &context.catalog, &definition, &settings)?;
    let _lock = early.map_or_else(|| measure::lock(&options.out), Ok)?;
    let info = info(context, &definition, &settings, &options.out);
    let directory = ProbeDir::create(&options.out, &info)?;
    let place = directory.path().to_owned();
    if !settings.silent {
        say(&format!("{}: into {}", definition.name, place.display()));
        info.notes
            .iter()
            .for_each(|note| say(&format!("warning: {note}")));
    }
    let subject = probe::Subject {
        toolbox: &context.toolbox,
        catalog: &context.catalog,
        definition: &definition,
        prepared: &prepared,
    };
    let probed = probe::probe(subject, &settings, &interrupt, directory, info, &entered)?;
    show(context, &probed, &place)?;
    Ok(match interrupt.is_requested() {
        true => ExitCode::from(EXIT_INTERRUPTED),
        false => code(&probed),
    })
}

fn settings(context: &Context, options: &Options) -> Settings {
    Settings {
        cycles: options.cycles,
        is_quick: options.quick,
        only: options.only.clone(),
        sizes: options.sizes.clone(),
        fault: options.inject,
        parameters: options.parameters.values(),
        seed: options.seed.unwrap_or_else(measure::seed_from_clock),
        silent: context.format != super::Format::Human,
    }
}

fn info(
    context: &Context,
    definition: &ProbeDefinition,
    settings: &Settings,
    out: &Path,
) -> ProbeInfo {
    let doubts = machine::doubts_of_a_run();
    let (git, unversioned) = machine::git(context.toolbox.bin_dir());
    ProbeInfo {
        schema: PROBE_SCHEMA,
        hopbench: env!("CARGO_PKG_VERSION").to_owned(),
        probe: definition.name.clone(),
        question: definition.question.clone(),
        started: jiff::Timestamp::now().to_string(),
        command_line: measure::command_line(),
        seed: settings.seed,
        git,
        machine: machine::describe(out),
        injected: settings.fault.map(Fault::name),
        notes: doubts.chain(unversioned).collect(),
        subjects: Vec::new(),
        is_finished: false,
        rules: definition.rules.clone(),
    }
}

/// Prints the tables and the verdicts, and writes them beside the records.
fn show(context: &Context, probed: &Probed, place: &Path) -> anyhow::Result<()> {
    let info = &probed.info;
    let written = ProbeDir::write_report(place, &report::markdown(probed));
    let text = format!(
        "{}: {}\n{}\n{}",
        info.probe,
        info.question,
        report::terminal(probed),
        report::summary(probed)
    );
    context.print(&text, || as_json(probed, place))?;
    written
}

fn as_json(probed: &Probed, place: &Path) -> Value {
    let series = probed
        .series()
        .into_iter()
        .filter_map(|(subject, measure)| {
            let values = Distribution::of(probed.values(subject, measure))?;
            let percentile = |percent| values.percentile(percent).value;
            Some(json!({
                "subject": subject, "measure": measure, "n": values.count(),
                "min": values.min(), "max": values.max(), "p50": percentile(50),
                "p95": percentile(95), "p99": percentile(99),
                "sum": (Unit::of(measure) == Unit::Count).then(|| values.sum()),
            }))
        });
    json!({
        "directory": place.to_string_lossy(),
        "probe": probed.info,
        "series": series.collect::<Vec<_>>(),
        "verdicts": judge(probed),
    })
}

fn code(probed: &Probed) -> ExitCode {
    let verdicts = judge(probed);
    let has = |outcome| verdicts.iter().any(|verdict| verdict.outcome == outcome);
    ExitCode::from(if has(Outcome::Failed) {
        exit::FAILED
    } else if has(Outcome::Inconclusive) || !probed.info.is_finished {
        exit::INCONCLUSIVE
    } else {
        0
    })
}
