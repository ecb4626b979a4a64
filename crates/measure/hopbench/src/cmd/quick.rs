//! `hopbench quick`

mod hop;
mod wrapper;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use hopbench_analysis::record::{FrontProtocol, Protocol};

use self::hop::Hop;
use super::{
    Context,
    new::{NewFile, check_name},
    number::within,
    run::{self, publish},
    verify::verify,
};
use crate::{
    catalog::{Catalog, CatalogError, PathDefinition, START_TIMEOUT_MS_MAX, is_file},
    cmd::cli::{How, Length, Parameters},
    console::{say, seconds},
    mistake::Mistake,
    plan::{
        planner::Planner,
        selection::{Overrides, Selection},
        variants,
    },
    process::Interrupt,
    run::measure::measure,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Command line of the hop, in quotes. Clients connect to '{{port:front}}', and the hop to
    /// '{{port:origin}}'. It runs in this directory. '{{parameter:NAME}}' has the value of '--set'.
    /// Words such as NAME=value before the program are its environment
    #[arg(value_name = "COMMAND")]
    command: String,
    /// Name of the path, of 64 bytes at most [default: that of the program]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Also write a path file that says the same, once the hop answers
    #[arg(long, value_name = "FILE")]
    save: Option<String>,
    #[command(flatten)]
    length: Length,
    /// Wait so many milliseconds for its first answer [default: 10000]
    #[arg(long, value_name = "MS", value_parser = within::<u64>(1, START_TIMEOUT_MS_MAX),
        allow_negative_numbers = true)]
    start_timeout_ms: Option<u64>,
    /// Ask the hop over TLS. It gets its certificate from '{{tls:certificate}}' and '{{tls:key}}',
    /// or from '{{tls:pem}}' for both in one file
    #[arg(long)]
    tls: bool,
    /// Protocol by which to ask the hop, 'http1' or 'h2'; without --tls, HTTP/2 begins at once, by
    /// prior knowledge
    #[arg(long, value_name = "PROTOCOL", value_parser = protocols(),
        default_value = Protocol::default().name(), hide_default_value = true)]
    protocol: Protocol,
    #[command(flatten)]
    parameters: Parameters,
    #[command(flatten)]
    how: How,
}

fn protocols() -> impl TypedValueParser<Value = Protocol> {
    let names = PossibleValuesParser::new(Protocol::ALL.map(Protocol::name));
    names.map(|name| {
        let mut all = Protocol::ALL.into_iter();
        // clap refuses other names.
        all.find(|it| it.name() == name).unwrap_or_default()
    })
}

/// Milliseconds of each load and each warm-up: with them, the scenario takes less than a minute.
const DURATION_MS: u64 = 250;
const WARM_UP_MS: u64 = 50;

/// Adds the hop to the catalog.
fn with(catalog: Catalog, path: PathDefinition) -> anyhow::Result<Catalog> {
    let name = path.name.clone();
    catalog.with(path).map_err(|error| match error {
        CatalogError::SameName { .. } => Mistake(format!(
            "'{name}' is the name of the path that all others are compared with: expected another \
             one; give it with '--name'"
        ))
        .into(),
        other => other.into(),
    })
}

/// Returns swept parameters as they are typed, with a space before each. Those that are set are
/// defaults in the saved file.
fn sweeps(parameters: &variants::Parameters) -> anyhow::Result<String> {
    let sweeps = parameters.sweep.iter().map(|sweep| {
        let sweep = sweep.to_string();
        let typed = shlex::try_quote(&sweep).context("a value can't be typed")?;
        Ok(format!(" --sweep {typed}"))
    });
    sweeps.collect()
}

/// Returns the command that measures the saved hop again, and how long that takes.
fn next_command(
    context: &Context,
    measured: &Selection,
    overrides: &Overrides,
    file: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let selector = match is_file(file) && file.contains('/') {
        true => file.to_owned(),
        false => format!("./{file}"),
    };
    let scenarios = measured.scenarios.iter();
    let scenarios: Vec<String> = scenarios.map(|it| it.definition.name.clone()).collect();
    let next = Overrides {
        paths: overrides.paths.clone(),
        parameters: overrides.parameters.clone(),
        ..Overrides::default()
    };
    let next = run::select(context, &scenarios, &next, interrupt)?;
    let estimate_ms = |selection| {
        let mut planner = Planner::new(selection, 0, false, None);
        planner.plan().estimate_ms
    };
    let takes_ms = estimate_ms(&next);
    let again = match takes_ms > estimate_ms(measured) {
        true => "for longer",
        false => "again",
    };
    Ok(format!(
        "to measure it {again}, about {}: hopbench run {} --path {selector}{}",
        seconds(takes_ms as f64 / 1e3),
        scenarios.join(" "),
        sweeps(&overrides.parameters)?,
    ))
}

pub(super) fn run(context: &Context, options: &Options) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    if let Some(name) = &options.name {
        check_name(name).map_err(|message| Mistake(format!("'--name': '{name}': {message}")))?;
    }
    let save = options.save.as_deref().map(NewFile::check).transpose()?;
    let parameters = options.parameters.values();
    let hop = Hop::parse(&options.command, options.name.as_deref(), &parameters)?;
    let front = FrontProtocol {
        tls: options.tls,
        protocol: options.protocol,
    };
    let mut file = hop.path_file(&context.toolbox, front)?;
    if let Some(given_ms) = options.start_timeout_ms {
        file = format!("start-timeout-ms = {given_ms}\n{file}");
    }
    let path = PathDefinition::parse(&hop.name, &file).map_err(Mistake)?;
    let context = Context {
        catalog: with(Catalog::built_in()?, path)?,
        toolbox: context.toolbox.clone(),
        format: context.format,
    };
    let scenario = context.catalog.scenario_of_a_first_look();
    let scenario = scenario.context("no built-in scenario is for a first look")?;
    let scenario = scenario.name.clone();
    let overrides = Overrides {
        paths: vec![hop.name],
        duration_ms: options.length.duration_ms.or(Some(DURATION_MS)),
        warm_up_ms: options.length.warm_up_ms.or(Some(WARM_UP_MS)),
        blocks: options.length.blocks,
        parameters,
        ..Overrides::default()
    };
    let mut selection = run::select(&context, &[scenario], &overrides, &interrupt)?;
    // A hop that doesn't start would take its time in every trial.
    let verified = verify(&context, &selection, &interrupt)?;
    if verified.has_failed() {
        return verified.publish(&context);
    }
    if let Some(save) = save {
        save.write(&file)?;
        let next = next_command(&context, &selection, &overrides, save.name(), &interrupt)?;
        say(&format!("wrote '{}'; {next}", save.name()));
    }
    let settings = run::settings(&context, &options.how);
    let measured = measure(
        &context.toolbox,
        &mut selection,
        None,
        &settings,
        &interrupt,
    )?;
    publish(&context, &measured)
}
