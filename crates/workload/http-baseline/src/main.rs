//! The origin on a TCP or Unix listener: the direct path.
#![forbid(unsafe_code)]

mod inject;

use std::{num::NonZeroUsize, process::ExitCode};

use clap::Parser;
use service::{
    AdminAddress, Listener, Server, ServerArgs, admin::Program, args, connections::Acceptor, http,
    process, server,
};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Serves the origin directly, for comparison with a hop"
)]
struct Options {
    #[command(flatten)]
    server: ServerArgs,
    /// Number of threads that serve [default: one per core]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<NonZeroUsize>,
    /// Print, as JSON, how all endpoints (or just these targets) answer, and exit
    #[arg(long, num_args = 0.., value_name = "TARGET")]
    describe: Option<Vec<String>>,
    #[command(flatten)]
    inject: inject::Inject,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(targets) = options.describe {
        return process::exit_code(describe(&targets));
    }
    let process = options.server.process.clone();
    server::run("origin", options.threads, &process, async |server| {
        serve(server, options).await
    })
}

fn describe(targets: &[String]) -> anyhow::Result<()> {
    let expectations = origin::describe_all(targets)?;
    process::print(&serde_json::to_string_pretty(&expectations)?)
}

async fn serve(server: Server, options: Options) -> anyhow::Result<()> {
    let listener = Listener::bind(&options.server.listen)?;
    process::say(&format!("listening on {}", listener.address()?));
    let acceptor = Acceptor::new(listener, options.server.max_connections, &server.registry);
    let program = Program::new("http_baseline", env!("CARGO_PKG_VERSION"));
    server.serve_admin(program, AdminAddress::Nowhere)?;
    let router = options.inject.announced().add_to(origin::router());
    http::serve(acceptor, router, server.stop, server.drain).await?;
    Ok(())
}
