//! The command line.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use service::{ServerArgs, args, process, server};

use crate::{
    config::{Config, EXAMPLE},
    routes::Table,
    start,
    waf::{self, Rules, Settings, Waf},
};

/// Stands between the clients of a site and its origin: routes, a WAF, limits and a cache
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients
    Serve(Box<ServeArgs>),
    /// Check a configuration, and print what it does
    Check(ConfigArgs),
    /// Judge requests, one JSON object a line, and print a line for each
    Waf(WafArgs),
    /// Print a configuration to begin with
    GenerateConfig,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// Number of threads that serve [default: one per core that the process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file. It is read again at SIGHUP
    #[arg(long = "config", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct WafArgs {
    /// The rules that count: those of this level and of the ones below
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = paranoia())]
    paranoia: u8,
    /// Further files of rules
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// The file of requests
    file: PathBuf,
}

fn paranoia() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..=4)
}

/// Exit code for an invalid configuration, as for invalid arguments.
const EXIT_CONFIG: u8 = 2;

impl Options {
    /// Does what the command line says.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => serve(&args),
            Command::Check(args) => match check(&args) {
                Ok(said) => process::exit_code(process::print(&said)),
                Err(error) => invalid(error),
            },
            Command::Waf(args) => match prepared(&args) {
                Ok(waf) => process::exit_code(judge(&waf, &args)),
                Err(error) => invalid(error),
            },
            Command::GenerateConfig => process::exit_code(process::print(EXAMPLE.trim_end())),
        }
    }
}

fn invalid(error: anyhow::Error) -> ExitCode {
    process::exit_code(Err(error));
    ExitCode::from(EXIT_CONFIG)
}

fn serve(args: &ServeArgs) -> ExitCode {
    // It is read before anything else, so that mistakes in it have an exit code of their own.
    let config = match Config::read(&args.config.file) {
        Ok(config) => config,
        Err(error) => return invalid(error),
    };
    // One thread accepts; the workers serve.
    let one = Some(NonZeroUsize::MIN);
    server::run("accept", one, &args.server.process, async |server| {
        start::serve(
            server,
            &args.server,
            args.threads,
            &args.config.file,
            config,
        )
        .await
    })
}

/// Reads a configuration, and says what it does.
fn check(args: &ConfigArgs) -> anyhow::Result<String> {
    let config = Config::read(&args.file)?;
    let (upstreams, limits) = (config.upstreams.len(), config.limits.len());
    let routes = config.table.as_ref().map_or(0, Table::len);
    let waf = match &config.waf {
        None => "no WAF".to_owned(),
        Some(waf) => format!("a WAF at paranoia {}", waf.settings().paranoia),
    };
    let tokens = match &config.tokens {
        None => String::new(),
        Some(tokens) => format!("; tokens: {}", tokens.count()),
    };
    let cache = match config.cache {
        Some(_) => "a cache",
        None => "no cache",
    };
    let peers = config.cluster.map_or(0, |cluster| cluster.peers.len());
    Ok(format!(
        "upstreams: {upstreams}; routes: {routes}; limits: {limits}{tokens}; {waf}; {cache}; \
         peers: {peers}"
    ))
}

fn prepared(args: &WafArgs) -> anyhow::Result<Waf> {
    let mut rules = Rules::builtin()?;
    for file in &args.rules {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("'{name}'"))?;
        rules.add(&name, &text)?;
    }
    let settings = Settings {
        paranoia: args.paranoia,
        complete: true,
        ..Settings::default()
    };
    Ok(Waf::new(settings, rules)?)
}

fn judge(waf: &Waf, args: &WafArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("'{name}'"))?;
    let out = BufWriter::new(std::io::stdout().lock());
    let tally = waf::file::judge(waf, BufReader::new(file), out);
    let tally = tally.with_context(|| format!("'{name}'"))?;
    tracing::info!(
        "{} of {} requests would be refused",
        tally.blocked,
        tally.requests
    );
    Ok(())
}
