//! What this process spent on the load itself.
//!
//! When the load is over, oha sorts and stores its records, which takes CPU time that has nothing
//! to do with the load. So the usage is read at the moment when oha's last worker thread ends:
//! workers inherit the name of the thread that starts them, which is how they are found. Whoever
//! started this process hears of that moment by an empty line, before the result.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

/// Usage of this process during the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_us: f64,
    pub(crate) peak_rss_kib: u64,
    pub(crate) context_switches: u64,
    /// Sockets that were open in the middle of the load; `None` if it ended before.
    pub(crate) connections: Option<usize>,
}

/// The thread that runs oha, and so its workers.
const LOAD_THREAD: &str = "load";

/// How often to look whether the workers have begun, and whether they have ended, once they should:
/// a thousandth of a load that lasts half a second.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// Of `/proc/net/unix`, as in proc_pid_net(5).
const UNIX_INODE_COLUMN: usize = 6;

/// Runs `load`, which is going to take about `duration`, and measures it.
pub(crate) fn measure(
    duration: Duration,
    load: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<Usage> {
    let before = Usage::until_now()?;
    let (finished, finish) = mpsc::channel::<()>();
    let after = thread::scope(|scope| {
        let load = thread::Builder::new()
            .name(LOAD_THREAD.to_owned())
            .spawn_scoped(scope, || {
                let result = load();
                drop(finished);
                result
            })?;
        // Each wait ends early only if the load has. On a busy machine it may be late to begin.
        let goes_on = |time| finish.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        while workers()? == 0 && goes_on(LOOK_INTERVAL) {}
        let connections = connections_after(duration / 2, &finish)?;
        let _ = goes_on(duration - duration / 2);
        while workers()? > 0 && goes_on(LOOK_INTERVAL) {}
        let after = Usage {
            connections,
            ..Usage::until_now()?
        };
        say_over()?;
        load.join().map_err(|_| anyhow::anyhow!("oha panicked"))??;
        anyhow::Ok(after)
    })?;
    Ok(after.since(before))
}

/// Says that the last request has ended, by the empty line with which the output begins.
pub(crate) fn say_over() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// How many connections are open after that time, unless the load is over by then.
pub(crate) fn connections_after(
    time: Duration,
    finish: &Receiver<()>,
) -> anyhow::Result<Option<usize>> {
    if finish.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
        return Ok(None);
    }
    let socket = |file: fs::DirEntry| {
        // A file may be closed while it is looked at.
        let link = fs::read_link(file.path()).ok()?.into_os_string();
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    };
    let files = fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    let sockets: HashSet<String> = files.filter_map(socket).collect();
    // Those of tokio's signal handling, not of the load.
    let unix = fs::read_to_string("/proc/self/net/unix")?;
    let unix = unix
        .lines()
        .filter_map(|line| line.split_whitespace().nth(UNIX_INODE_COLUMN));
    let own = unix.filter(|inode| sockets.contains(*inode)).count();
    Ok(Some(sockets.len() - own))
}

/// oha's worker threads that are running.
fn workers() -> io::Result<usize> {
    let mut threads = 0;
    for entry in fs::read_dir("/proc/self/task")? {
        // A thread may end while it is looked at.
        let name = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        threads += usize::from(name.trim_end() == LOAD_THREAD);
    }
    // Less the one that waits for them.
    Ok(threads.saturating_sub(1))
}

impl Usage {
    /// Since this process began.
    pub(crate) fn until_now() -> anyhow::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let cpu = usage.user_time() + usage.system_time();
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Ok(Self {
            cpu_us: cpu.num_microseconds() as f64,
            peak_rss_kib: usage.max_rss().try_into()?,
            context_switches: switches.try_into()?,
            connections: None,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us - before.cpu_us,
            peak_rss_kib: self.peak_rss_kib,
            context_switches: self.context_switches - before.context_switches,
            connections: self.connections,
        }
    }
}
