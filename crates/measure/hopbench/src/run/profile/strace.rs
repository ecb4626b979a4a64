//! Counts system calls with strace.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{ProfileTarget, TOOL_GRACE};
use crate::process::{Child, Command, Output, as_text, stop_all, wait};

/// Time limit for attaching, which takes milliseconds.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two checks whether strace has attached.
const ATTACH_PAUSE: Duration = Duration::from_millis(5);

/// One strace per process and role, because strace adds up all threads that it is attached to.
#[derive(Debug)]
pub(crate) struct Strace {
    children: Vec<Child>,
    roles: Vec<String>,
    files: Vec<PathBuf>,
}

impl Strace {
    /// Attaches to every thread of the targets. Threads that start later are not seen.
    pub(crate) fn start(
        program: &Path,
        targets: &[ProfileTarget],
        directory: &Path,
        label: &str,
    ) -> anyhow::Result<Self> {
        let mut strace = Self {
            children: Vec::new(),
            roles: Vec::new(),
            files: Vec::new(),
        };
        let mut all = Vec::new();
        for target in targets {
            for (role, threads) in target.threads() {
                let file = directory.join(format!("{label}.{}-{role}.strace", target.name));
                let words = ["-c", "-q", "-U", "calls,name", "-o"];
                let mut arguments = words.map(str::to_owned).to_vec();
                arguments.push(as_text(&file)?);
                arguments.extend(threads.iter().map(|thread| format!("--attach={thread}")));
                let command = Command {
                    program: program.to_owned(),
                    arguments,
                    ..Command::default()
                };
                let name = format!("strace of {}", target.name);
                strace
                    .children
                    .push(Child::start(&name, &command, Output::Keep)?);
                strace.roles.push(role.to_owned());
                strace.files.push(file);
                all.extend(threads);
            }
        }
        strace.wait_until_attached(&all)?;
        Ok(strace)
    }

    fn wait_until_attached(&mut self, threads: &[u32]) -> anyhow::Result<()> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while !threads.iter().all(|thread| is_traced(*thread)) {
            if let Some(trouble) = self.trouble() {
                bail!("{trouble}");
            }
            if Instant::now() > deadline {
                bail!("it did not attach within {} s", ATTACH_TIMEOUT.as_secs());
            }
            // The kernel doesn't report when strace attaches, but a strace that ends is noticed at
            // once.
            let children: Vec<&Child> = self.children.iter().collect();
            wait(&children, Instant::now() + ATTACH_PAUSE, None)?;
        }
        Ok(())
    }

    /// Returns why calls are not counted, if a strace has ended.
    fn trouble(&mut self) -> Option<String> {
        self.children.iter_mut().find_map(|child| {
            let ended = child.exit_status().ok().flatten();
            ended.map(|_| child.last_lines().join(" / "))
        })
    }

    /// Detaches and reads the calls of each role.
    pub(crate) fn finish(self) -> anyhow::Result<BTreeMap<String, BTreeMap<String, u64>>> {
        let unstoppable = stop_all(self.children, TOOL_GRACE);
        if let Some(name) = unstoppable.first() {
            bail!("'{name}' did not end in time");
        }
        let mut roles: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (role, file) in self.roles.into_iter().zip(self.files) {
            let describe = || format!("could not read '{}'", file.display());
            let text = fs::read_to_string(&file).with_context(describe)?;
            let calls = roles.entry(role).or_default();
            for (name, count) in counts(&text) {
                *calls.entry(name).or_default() += count;
            }
        }
        if roles.values().all(BTreeMap::is_empty) {
            bail!("it counted nothing");
        }
        Ok(roles)
    }
}

/// Returns whether a thread has a tracer, or has ended and needs none.
fn is_traced(thread: u32) -> bool {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => !status.contains("\nTracerPid:\t0\n"),
        Err(_) => true,
    }
}

/// Parses lines of a count and a name, between a heading and a total.
fn counts(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let count: u64 = words.next()?.parse().ok()?;
        let name = words.next()?;
        (name != "total").then(|| (name.to_owned(), count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_without_their_sum() {
        let text = "\
    calls syscall
--------- ----------------
     1000 sendto
       12 epoll_wait
--------- ----------------
     1012 total
";
        let counts: Vec<(String, u64)> = counts(text).collect();
        assert_eq!(
            counts,
            [("sendto".to_owned(), 1_000), ("epoll_wait".to_owned(), 12)]
        );
    }
}
