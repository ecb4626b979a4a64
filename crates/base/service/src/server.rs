//! The life of a server: start, serve, drain, print its counters.

use std::{num::NonZeroUsize, pin::Pin, process::ExitCode, time::Duration};

use crate::{
    AdminAddress, ProcessArgs, Registry,
    admin::{self, Program},
    process,
};

/// A server process that has started.
pub struct Server {
    /// The process's counters. The admin endpoint serves them, and they are printed at the end.
    pub registry: Registry,
    /// Resolves when the process is told to stop.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How long open connections may take to finish after that.
    pub drain: Duration,
    admin: Option<AdminAddress>,
}

impl Server {
    /// Serves the counters in the background, where `--admin` says, or else at `default`.
    ///
    /// # Errors
    /// If the address is in use or not permitted.
    pub fn serve_admin(&self, program: Program, default: AdminAddress) -> anyhow::Result<()> {
        let address = self.admin.clone().unwrap_or(default);
        admin::start(&address, program, self.registry.clone())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut server = f.debug_struct("Server");
        let server = server.field("registry", &self.registry);
        server.field("drain", &self.drain).finish_non_exhaustive()
    }
}

/// Runs a server process from its start to its end: logs to stderr, raises the limit of open files,
/// runs `serve` on threads that are named `name`, and prints the counters as one line of JSON.
///
/// `threads` is the number of threads: 1 is the calling thread alone, more are that many workers,
/// and `None` is one per core.
pub fn run(
    name: &str,
    threads: Option<NonZeroUsize>,
    args: &ProcessArgs,
    serve: impl AsyncFnOnce(Server) -> anyhow::Result<()>,
) -> ExitCode {
    let running = || {
        process::log_to_stderr(&args.log)?;
        process::raise_open_files_limit();
        process::runtime(name, threads)?.block_on(async {
            let server = Server {
                registry: Registry::default(),
                stop: Box::pin(process::stop_requested(args.exit_with_stdin)?),
                drain: args.drain(),
                admin: args.admin.clone(),
            };
            let registry = server.registry.clone();
            serve(server).await?;
            process::say(&registry.to_json().to_string());
            Ok(())
        })
    };
    process::exit_code(running())
}
