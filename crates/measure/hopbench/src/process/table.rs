//! The machine's processes, as the kernel lists them.

use std::{fs, io, path::Path};

/// A process, as `/proc/PID/stat` describes it (proc_pid_stat(5)).
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The program's name, cut off by the kernel after 15 bytes.
    pub(crate) name: String,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Whether it has ended and nobody has waited for it yet.
    pub(crate) has_ended: bool,
    /// CPU time of the children that it has waited for, in microseconds.
    pub(crate) reaped_us: f64,
}

/// Unit of CPU time in `/proc/stat` and `/proc/PID/stat`, in microseconds: a hundredth of a second
/// on every Linux.
pub(crate) const TICK_US: u64 = 10_000;

/// Reads a file of the kernel. The names of processes and of places in it may be any bytes.
pub(crate) fn text(file: &Path) -> io::Result<String> {
    let bytes = fs::read(file)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns all visible processes. One that ends meanwhile is left out.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if let Ok(pid) = entry.file_name().to_string_lossy().parse()
            && let Ok(stat) = text(&entry.path().join("stat"))
        {
            processes.extend(Process::parse(pid, &stat));
        }
    }
    Ok(processes)
}

impl Process {
    /// Parses `pid (name) state ppid pgrp session …`. The name may contain anything, even brackets.
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let (before, fields) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // For system processes, parent and group are 0.
        let number = |index: usize| fields.get(index)?.parse().ok();
        // `cutime` and `cstime`, fields 16 and 17, in ticks.
        let ticks = fields.iter().skip(13).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some(Self {
            pid,
            name: name.to_owned(),
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            has_ended: fields.first() == Some(&"Z"),
            reaped_us: (ticks * TICK_US) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_read() {
        let stat = "12 (a) (b c) S 3 12 11 0 -1 4 1 2 3 4 5 6 7 8 20 0";
        let process = Process::parse(12, stat).expect("well-formed");
        assert_eq!(process.name, "a) (b c");
        assert_eq!((process.parent, process.group), (3, 12));
        assert_eq!(process.session, 11);
        assert_eq!(process.reaped_us, (7 + 8) as f64 * TICK_US as f64);
        for damaged in ["", "12 (a", "12 (a) S", "12 (a) S x y"] {
            assert!(Process::parse(12, damaged).is_none(), "{damaged}");
        }
    }

    #[test]
    fn this_process_is_among_them() {
        let all = all().expect("Linux");
        let me = all.iter().find(|it| it.pid == std::process::id());
        assert!(me.is_some_and(|me| me.parent > 0));
    }
}
