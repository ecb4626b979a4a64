//! CPU time, memory and context switches of this process during the load.
//!
//! After the load, oha sorts and stores its records. That CPU time is not part of the load, so the
//! usage is read when oha's last worker thread ends. Workers are found by name: they inherit the
//! name of the thread that starts them. An empty line on stdout, before the result, tells the
//! parent process of that moment.

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

/// Resource usage of this process during the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_us: f64,
    pub(crate) peak_rss_kib: u64,
    pub(crate) context_switches: u64,
    /// Number of sockets open halfway through the load; `None` if it ended before.
    pub(crate) connections: Option<usize>,
}

/// Name of the thread that runs oha. oha's workers inherit it.
const LOAD_THREAD: &str = "load";

/// Interval at which to check whether the workers have started, and whether they have ended: a
/// thousandth of a load that lasts half a second.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// Column of the inode in `/proc/net/unix`; see proc_pid_net(5).
const UNIX_INODE_COLUMN: usize = 6;

/// Runs `load`, which takes about `duration`, and measures its resource usage.
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
        // Each wait ends early only if the load has ended. On a busy machine the load may start
        // late.
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

/// Prints the empty line that precedes the result. It means that the last request has ended.
pub(crate) fn say_over() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Waits for `time`, then counts the open connections; `None` if the load ends before that.
pub(crate) fn connections_after(
    time: Duration,
    finish: &Receiver<()>,
) -> anyhow::Result<Option<usize>> {
    if finish.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
        return Ok(None);
    }
    let socket = |file: fs::DirEntry| {
        // A descriptor may be closed while the directory is read.
        let link = fs::read_link(file.path()).ok()?.into_os_string();
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    };
    let files = fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    let sockets: HashSet<String> = files.filter_map(socket).collect();
    // Unix sockets belong to tokio's signal handling, not to the load.
    let unix = fs::read_to_string("/proc/self/net/unix")?;
    let unix = unix
        .lines()
        .filter_map(|line| line.split_whitespace().nth(UNIX_INODE_COLUMN));
    let own = unix.filter(|inode| sockets.contains(*inode)).count();
    Ok(Some(sockets.len() - own))
}

/// Counts oha's running worker threads.
fn workers() -> io::Result<usize> {
    let mut threads = 0;
    for entry in fs::read_dir("/proc/self/task")? {
        // A thread may end while the directory is read.
        let name = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        threads += usize::from(name.trim_end() == LOAD_THREAD);
    }
    // The thread that waits for the workers has the same name.
    Ok(threads.saturating_sub(1))
}

impl Usage {
    /// Returns the usage since this process started.
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
