//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use http_proxy::Place;
use service::{AdminAddress, Server, ServerArgs, args, process, server};

use crate::{
    commands,
    respond::ReplayTiming,
    rules::Rules,
    start::{self, Settings},
    state::{Freshness, Miss, Mode},
    store::Durability,
};

/// Records HTTP traffic, replays it, and caches what passes
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the recordings of a session as a HAR file
    Export(ExportArgs),
    /// Add the entries of a HAR file to a session
    Import(ImportArgs),
    /// List what is stored
    List(StoreArgs),
    /// Delete recordings but for the last ones of each request
    Prune(PruneArgs),
    /// Delete what is stored for targets that begin with a prefix
    Purge(PurgeArgs),
    /// Serve clients
    Serve(Box<ServeArgs>),
    /// Print a stored exchange
    Show(ShowArgs),
    /// Compare everything with its digest
    Verify(StoreArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The session
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) session: String,
    /// The file to write
    pub(crate) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The session, which is made if there is none of this name
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) session: String,
    /// File that says how requests are matched, and what is redacted
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// The file to read
    pub(crate) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Recordings of each request that stay
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) keep: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The beginning of the targets, such as '/images/'
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Its number in the list
    pub(crate) id: u64,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The mode to begin with
    #[arg(long, value_enum)]
    mode: Mode,
    /// Where requests are sent: HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "PLACE", value_parser = Place::parse)]
    upstream: Option<Place>,
    #[command(flatten)]
    store: StoreArgs,
    /// The session that is recorded and replayed
    #[arg(long, default_value = "default", value_name = "NAME")]
    session: String,
    /// File that says how requests are matched, and what is redacted
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// In passthrough-cache: how long an answer may be used
    #[arg(long, value_enum, default_value_t)]
    freshness: Freshness,
    /// In replay: what becomes of a request that has no recording
    #[arg(long, value_enum, default_value_t)]
    miss: Miss,
    /// When the pieces of a recorded body that came in chunks are sent
    #[arg(long, value_enum, default_value_t)]
    timing: ReplayTiming,
    /// The events that stored answers must survive
    #[arg(long, value_enum, default_value_t)]
    durability: Durability,
    /// Most MiB of recordings in memory, mapped bodies left out
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    memory_mib: usize,
    /// Most MiB of answers that are cached
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    cache_mib: u64,
    /// Longest body that is stored, in MiB. A longer one is only passed on
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    body_max_mib: u64,
    /// Seconds that the upstream may take to answer, or to go on
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    upstream_timeout_seconds: u64,
    /// Number of threads that serve [default: one per core that the process may use]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// Directory of the store
    #[arg(long = "store", value_name = "DIR")]
    pub(crate) path: PathBuf,
}

/// Exit code for an invalid configuration, as for invalid arguments.
const EXIT_CONFIG: u8 = 2;

impl Options {
    /// Does what the command line says.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Export(args) => process::exit_code(commands::export(&args)),
            Command::Import(args) => process::exit_code(commands::import(&args)),
            Command::List(args) => process::exit_code(commands::list(&args.path)),
            Command::Prune(args) => process::exit_code(commands::prune(&args)),
            Command::Purge(args) => process::exit_code(commands::purge(&args)),
            Command::Serve(args) => serve(*args),
            Command::Show(args) => process::exit_code(commands::show(&args)),
            Command::Verify(args) => match commands::verify(&args.path) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => process::exit_code(Err(error)),
            },
        }
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    let rules = args.rules.as_deref().map(Rules::read).transpose();
    let rules = match rules {
        Ok(rules) => rules.unwrap_or_default(),
        Err(error) => {
            process::exit_code(Err(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // One thread accepts; the workers serve.
    let one = Some(NonZeroUsize::MIN);
    let process = args.server.process.clone();
    server::run("accept", one, &process, async |server| {
        run(server, args, rules).await
    })
}

async fn run(mut server: Server, args: ServeArgs, rules: Rules) -> anyhow::Result<()> {
    let settings = Settings {
        upstream: args.upstream,
        session: args.session,
        rules,
        freshness: args.freshness,
        miss: args.miss,
        timing: args.timing,
        durability: args.durability,
        memory_bytes_max: args.memory_mib.saturating_mul(1 << 20),
        cache_bytes_max: args.cache_mib.saturating_mul(1 << 20),
        body_bytes_max: args.body_max_mib.saturating_mul(1 << 20),
        upstream_timeout: Duration::from_secs(args.upstream_timeout_seconds),
        threads: args.threads,
        connections_max: args.server.max_connections,
        ..Settings::new(args.mode, args.store.path)
    };
    let running = start::start(settings, &args.server.listen, &server.registry).await?;
    let admin = args.server.process.admin.unwrap_or(AdminAddress::Nowhere);
    running.serve_admin(&admin, &server.registry)?;
    process::say(&format!("listening on {}", running.address));
    (&mut server.stop).await;
    running.stop(server.drain).await;
    Ok(())
}
