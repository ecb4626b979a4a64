//! Samples stacks with perf.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, bail};

use super::{ProfileTarget, Roles, TOOL_GRACE};
use crate::process::{
    Child, Command, Interrupt, Interrupted, Output, Waited, as_text, describe_exit, wait,
};

/// A recording under way.
#[derive(Debug)]
pub(crate) struct Perf {
    child: Child,
    program: String,
    file: String,
}

/// Role of a process that was not there when the recording began.
const LATE_ROLE: &str = "other";

/// Maximum frequency of samples per core. It is not a round number, so as not to be in step with
/// anything.
const FREQUENCY_HZ_MAX: u32 = 997;

/// Maximum number of samples: more say no more, and take long to read.
const SAMPLES_MAX: f64 = 20_000.0;

/// Returns how many samples to take per second of CPU time, for this many cores and seconds.
pub(crate) fn frequency_hz(cores: usize, seconds: f64) -> u32 {
    let most = SAMPLES_MAX / (cores.max(1) as f64 * seconds.max(0.1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bounds"
    )]
    let hz = most.clamp(1.0, FREQUENCY_HZ_MAX.into()) as u32;
    hz
}

/// Length of the stack kept with each sample, in bytes. Programs are built without frame pointers,
/// so the callers are found afterwards.
const STACK_BYTES: u32 = 16_384;

impl Perf {
    /// Attaches to the targets for as long as a load takes.
    pub(crate) fn start(
        program: &Path,
        targets: &[ProfileTarget],
        seconds: f64,
        hz: u32,
        file: &Path,
    ) -> anyhow::Result<Self> {
        let pids: Vec<String> = pids(targets).map(|pid| pid.to_string()).collect();
        let program = as_text(program)?;
        let file = as_text(file)?;
        let command = Command {
            program: program.clone().into(),
            arguments: [
                "record",
                "--quiet",
                "--event=cpu-clock",
                &format!("--freq={hz}"),
                &format!("--call-graph=dwarf,{STACK_BYTES}"),
                &format!("--pid={}", pids.join(",")),
                &format!("--output={file}"),
                "--",
                "sleep",
                &format!("{seconds:.3}"),
            ]
            .map(str::to_owned)
            .into(),
            ..Command::default()
        };
        let child = Child::start("perf", &command, Output::Keep)?;
        Ok(Self {
            child,
            program,
            file,
        })
    }

    /// Waits for the end of the recording and reads it.
    pub(crate) fn finish(
        self,
        targets: &[ProfileTarget],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Roles> {
        let deadline = || Instant::now() + TOOL_GRACE;
        let (said, _) = run_to_end(self.child, deadline(), interrupt)?;
        let script = Command {
            program: self.program.into(),
            arguments: [
                "script",
                "--no-inline",
                "--fields=comm,pid,ip,sym",
                "--input",
                &self.file,
            ]
            .map(str::to_owned)
            .into(),
            ..Command::default()
        };
        let script = Child::start("perf script", &script, Output::Keep)?;
        let (_, text) =
            run_to_end(script, deadline(), interrupt).context("could not read what it recorded")?;
        let roles = fold(&text, targets);
        if roles.is_empty() {
            bail!("it recorded nothing: {}", said.join(" / "));
        }
        Ok(roles)
    }
}

/// Waits for the end of a tool. Returns what it logged and what it printed.
fn run_to_end(
    mut child: Child,
    deadline: Instant,
    interrupt: &Interrupt,
) -> anyhow::Result<(Vec<String>, String)> {
    match wait(&[&child], deadline, Some(interrupt))? {
        Waited::Happened(_) => {}
        Waited::Interrupted => return Err(Interrupted.into()),
        Waited::TimedOut => bail!("'{}' did not end in time", child.name()),
    }
    let (status, text) = child.take_output()?;
    let said = child.last_lines();
    if !status.success() {
        bail!("it {}: {}", describe_exit(status), said.join(" / "));
    }
    Ok((said, text))
}

fn pids(targets: &[ProfileTarget]) -> impl Iterator<Item = u32> {
    targets
        .iter()
        .flat_map(|target| target.pids.iter().copied())
}

/// Counts stacks in the output of `perf script`. Each sample is a line with thread and process, a
/// line with an address and a function for each call, the innermost first, and an empty line.
fn fold(text: &str, targets: &[ProfileTarget]) -> Roles {
    let mut roles = Roles::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some((thread, pid)) = lines.next().and_then(heading) else {
            continue;
        };
        let target = targets.iter().find(|target| target.pids.contains(&pid));
        let mut stack: Vec<String> = lines.filter_map(function).collect();
        stack.push(thread.replace(';', ":"));
        stack.reverse();
        // The process may have been started meanwhile.
        let role = target.map_or(LATE_ROLE, |target| target.role_of(thread));
        let role = roles.entry(role.to_owned()).or_default();
        *role.stacks.entry(stack.join(";")).or_default() += 1;
    }
    roles
}

/// Parses `name with spaces 1234`.
fn heading(line: &str) -> Option<(&str, u32)> {
    let (thread, pid) = line.trim().rsplit_once(char::is_whitespace)?;
    Some((thread.trim(), pid.trim_end_matches(':').parse().ok()?))
}

/// Parses ` 7f00 name`. Addresses in the upper half are the kernel's.
fn function(line: &str) -> Option<String> {
    let (address, name) = line.trim().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let kernel = if address >> 63 == 1 { "_[k]" } else { "" };
    Some(format!("{}{kernel}", plain(name.trim())))
}

/// Removes the hash that the compiler adds to each name, and what separates functions.
fn plain(name: &str) -> String {
    let is_hash = |end: &str| {
        end.strip_prefix('h')
            .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit()))
    };
    let name = match name.rsplit_once("::") {
        Some((before, end)) if is_hash(end) => before,
        _ => name,
    };
    name.replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_folded_by_role() {
        let text = "\
tokio-rt-worker   11
\tffffffff81000010 __x64_sys_sendto
\t    55d000001234 tunnel::host::serve::h0123456789abcdef
\t    55d000000034 [unknown]

origin thread   11
\t    55d000000034 a;b

tokio-rt-worker   11
\tffffffff81000010 __x64_sys_sendto
\t    55d000001234 tunnel::host::serve::h0123456789abcdef
\t    55d000000034 [unknown]

broken
";
        let target = ProfileTarget {
            name: "plugin".to_owned(),
            pids: vec![11],
            role: "plugin".to_owned(),
            thread_roles: [("origin".to_owned(), "origin".to_owned())].into(),
        };
        let roles = fold(text, &[target]);
        let stacks = &roles["plugin"].stacks;
        let stack = "tokio-rt-worker;[unknown];tunnel::host::serve;__x64_sys_sendto_[k]";
        assert_eq!(stacks.iter().collect::<Vec<_>>(), [(&stack.to_owned(), &2)]);
        assert_eq!(roles["origin"].stacks["origin thread;a:b"], 1);
        assert!(fold("", &[]).is_empty());
    }
}
