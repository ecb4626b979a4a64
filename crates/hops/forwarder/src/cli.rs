//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use http_proxy::Place;
use service::{ProcessArgs, args, process, server};

use crate::{
    config::{Config, Overrides},
    start,
};

/// Forwards TCP and HTTP ports to other addresses
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// Number of threads that relay [default: one per core that the process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Read the configuration again whenever the file changes, not only at SIGHUP
    #[arg(long)]
    pub(crate) watch: bool,
    /// Log more: the same as --log=info
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file
    #[arg(long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Port of the main route, in place of the file's
    #[arg(long, value_name = "PORT")]
    listen_port: Option<u16>,
    /// Port of the main route's target, in place of the file's
    #[arg(long, value_name = "PORT")]
    target_port: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward (the default)
    Start(Box<StartArgs>),
    /// Check the configuration and print the routes
    Check(ConfigArgs),
    /// Print a configuration to begin with
    GenerateConfig,
}

/// Exit code for an invalid configuration, as for invalid arguments.
const EXIT_CONFIG: u8 = 2;

impl Options {
    /// Does what the command line says.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            None => start(self.start),
            Some(Command::Start(args)) => start(*args),
            Some(Command::GenerateConfig) => {
                let example = include_str!("../examples/01-basic-tcp.toml");
                process::exit_code(process::print(example.trim_end()))
            }
            Some(Command::Check(args)) => match args.read() {
                Ok(config) => process::exit_code(check(&config)),
                Err(error) => invalid(error),
            },
        }
    }
}

impl ConfigArgs {
    pub(crate) fn read(&self) -> anyhow::Result<Config> {
        let overrides = Overrides {
            listen_port: self.listen_port,
            target_port: self.target_port,
        };
        Config::read(self.file.as_deref(), overrides)
    }
}

fn start(options: StartArgs) -> ExitCode {
    // It is read before anything else, so that mistakes in it have an exit code of their own.
    let config = match options.config.read() {
        Ok(config) => config,
        Err(error) => return invalid(error),
    };
    let mut process = options.process.clone();
    if options.verbose && process.log == "warn" {
        "info".clone_into(&mut process.log);
    }
    // One thread accepts; the workers relay.
    let one = Some(NonZeroUsize::MIN);
    server::run("accept", one, &process, async |server| {
        start::serve(server, options, config).await
    })
}

fn invalid(error: anyhow::Error) -> ExitCode {
    process::exit_code(Err(error));
    ExitCode::from(EXIT_CONFIG)
}

fn check(config: &Config) -> anyhow::Result<()> {
    for route in &config.routes {
        let targets: Vec<_> = route.targets.iter().map(Place::to_string).collect();
        let targets = match targets.as_slice() {
            [] => "where the request says".to_owned(),
            targets => targets.join(", "),
        };
        let mode = match &route.http {
            None => "TCP".to_owned(),
            Some(http) => match &http.host {
                None => "HTTP".to_owned(),
                Some(host) => format!("HTTP for '{host}'"),
            },
        };
        let (name, listen) = (&route.name, route.listen);
        process::print(&format!("{name}: {mode} at {listen} to {targets}"))?;
    }
    Ok(())
}
