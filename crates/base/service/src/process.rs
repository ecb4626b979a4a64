//! The log, the process's limits, signals and exit codes.

use std::{
    io::{self, IsTerminal, Read, Write},
    num::NonZeroUsize,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{io::Errno, process::Signal};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Exit code for an environment error: a port in use, no peer, no permission.
pub const EXIT_ENVIRONMENT: u8 = 4;

/// Sends the log to stderr. `filter` is a level or a `tracing` filter such as `tunnel=debug`.
///
/// # Errors
/// If the filter can't be parsed.
pub fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("--log '{filter}': {error}; try 'info' or 'debug'"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "tokio-console")]
    let registry = registry.with(console_subscriber::spawn());
    registry.init();
    Ok(())
}

/// Raises the soft limit of open files to the hard one: a connection takes up to two.
pub fn raise_open_files_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit on open files");
    }
}

/// Builds a runtime whose threads are named `name`, so that their CPU time can be told apart. With
/// 1 in `threads` it runs on the calling thread alone, otherwise on that many workers, one per core
/// by default.
///
/// # Errors
/// If threads can't be started.
pub fn runtime(name: &str, threads: Option<NonZeroUsize>) -> io::Result<Runtime> {
    let threads = match threads {
        Some(threads) => threads,
        None => thread::available_parallelism()?,
    };
    let mut builder = match threads.get() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(threads.get())
        .thread_name(name)
        .enable_all()
        .build()
}

/// Returns a future that resolves at SIGTERM or SIGINT, or, if `with_stdin`, at the end of stdin.
/// Stdin ends when whoever started the process has ended, in whatever way.
///
/// # Errors
/// If the signals can't be caught.
pub fn stop_requested(with_stdin: bool) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A memory file that exceeds the limit of a file's size raises SIGXFSZ, which ends the process.
    // If the signal is caught, the call fails like any other.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    let (closing, closed) = tokio::sync::oneshot::channel();
    if with_stdin {
        // This read needs a thread of its own: the runtime would wait for it when it shuts down.
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let mut buffer = [0; 256];
                while matches!(io::stdin().read(&mut buffer), Ok(n) if n > 0) {}
                // Fails only if the process is already stopping.
                let _ = closing.send(());
            })?;
    } else {
        // The sender lives in a future that never resolves.
        std::mem::forget(closing);
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            _ = closed => tracing::info!("stopping: end of stdin"),
        }
    })
}

/// Prints a line on stdout. A server goes on when nobody listens any more, or when whoever listens
/// has stopped reading.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    let (written, result) = mpsc::sync_channel(1);
    let write = move || {
        let mut stdout = io::stdout().lock();
        let done = stdout.write_all(line.as_bytes());
        // Nobody waits for it any more if it took too long.
        written.send(done.and_then(|()| stdout.flush())).ok();
    };
    let thread = thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(write);
    let result = thread.map(|_| result.recv_timeout(SAY_MAX));
    if !matches!(result, Ok(Ok(Ok(())))) {
        tracing::debug!(?result, "could not write to stdout");
    }
}

/// Prints a result on stdout, for a command that ends with it. A reader that closes the pipe early
/// (`| head`) is not an error.
///
/// # Errors
/// If the result can't be written, as on a full disk.
pub fn print(result: &str) -> anyhow::Result<()> {
    print_on(&mut io::stdout().lock(), format!("{result}\n").as_bytes())
}

/// Writes a result to stdout, like [`print()`], byte by byte.
///
/// # Errors
/// The same.
pub fn print_on(stdout: &mut impl Write, result: &[u8]) -> anyhow::Result<()> {
    match stdout.write_all(result).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("could not write to stdout"),
    }
}

/// Longest wait for whoever reads a server's stdout.
const SAY_MAX: Duration = Duration::from_secs(1);

/// Returns an error with its causes, and with a remedy if a limit of this process is too low.
pub fn with_remedy(error: &anyhow::Error) -> String {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let remedy = causes.find_map(|cause| match Errno::from_raw_os_error(cause) {
        Errno::MFILE | Errno::NFILE | Errno::TOOMANYREFS => {
            Some("; raise the limit on open files with 'ulimit -n'")
        }
        Errno::NOMEM => Some("; raise the limit on memory with 'ulimit -v', or ask for less"),
        Errno::FBIG => Some("; raise the limit on file sizes with 'ulimit -f'"),
        _ => None,
    });
    format!("{error:#}{}", remedy.unwrap_or_default())
}

/// Prints an error with its causes on one line, and returns the exit code.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a stderr, only the exit code tells.
            let _ = writeln!(io::stderr(), "error: {}", with_remedy(&error));
            ExitCode::from(EXIT_ENVIRONMENT)
        }
    }
}
