//! Who holds the machine's lock: for a message, as far as the kernel tells.

use std::{fs, path::Path};

use crate::{console::shortened, process::table};

/// Maximum length of a command line in a message, in characters.
const COMMAND_CHARS_MAX: usize = 120;

/// Returns the process that has an abstract socket of this name, such as
/// ` (process 12: 'hopbench run x')`. It is empty if that can't be found out, as for the processes
/// of other users.
pub(super) fn describe(name: &[u8]) -> String {
    let holder = socket(&String::from_utf8_lossy(name)).and_then(|inode| process(&inode));
    holder.map_or_else(String::new, |pid| {
        let command = command_line(pid).map(|line| format!(": '{line}'"));
        format!(" (process {pid}{})", command.unwrap_or_default())
    })
}

/// Returns the number by which the kernel knows the socket.
fn socket(name: &str) -> Option<String> {
    let sockets = table::text(Path::new("/proc/net/unix")).ok()?;
    let ending = format!(" @{name}");
    let line = sockets.lines().find(|line| line.ends_with(&ending))?;
    // Num RefCount Protocol Flags Type St Inode Path
    line.split_whitespace().nth(6).map(str::to_owned)
}

/// Returns the process that has a socket open.
fn process(inode: &str) -> Option<u32> {
    let link = format!("socket:[{inode}]");
    let has_it = |process: &table::Process| {
        let files = fs::read_dir(format!("/proc/{}/fd", process.pid));
        let links = files.into_iter().flatten().flatten();
        let mut links = links.filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|it| it.as_os_str() == link.as_str())
    };
    let found = table::all().ok()?.into_iter().find(has_it)?;
    Some(found.pid)
}

fn command_line(pid: u32) -> Option<String> {
    let line = table::text(Path::new(&format!("/proc/{pid}/cmdline"))).ok()?;
    let words: Vec<&str> = line.split_terminator('\0').collect();
    let (program, arguments) = words.split_first()?;
    let program = program.rsplit('/').next()?;
    let line = [&[program], arguments].concat().join(" ");
    Some(shortened(&line, COMMAND_CHARS_MAX).into_owned())
}
