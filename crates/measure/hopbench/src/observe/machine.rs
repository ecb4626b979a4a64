//! The machine, for the manifest. Fields that can't be determined stay empty.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::OnceLock,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use hopbench_analysis::record::{Git, Machine};

use super::{neighbours, storage::Storage};
use crate::process::{Command, capture, describe_environment};

pub(crate) fn describe(directory: &Path) -> Machine {
    let system = rustix::system::uname();
    let storage = Storage::of(directory);
    let (environment, umask) = describe_environment();
    Machine {
        cpu_model: field("/proc/cpuinfo", "model name"),
        cores: thread::available_parallelism().map_or(0, usize::from),
        memory_kib: field("/proc/meminfo", "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or_default(),
        kernel: system.release().to_string_lossy().into_owned(),
        operating_system: operating_system(),
        virtualization: virtualization(),
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        cgroup: cgroup_limits(),
        storage: storage.mount,
        storage_kind: storage.kind,
        network: network(),
        open_files_max: open_files_max(),
        irq_time_accounted: irq_time_accounted(),
        environment,
        umask,
    }
}

/// Returns the revision of the checkout that `directory` is in, from which its programs were built,
/// or why it is not known although there is a repository.
pub(crate) fn git(directory: &Path) -> (Git, Option<String>) {
    if repository(directory).is_none() {
        return (Git::default(), None);
    }
    match revision(directory) {
        Ok(git) => (git, None),
        Err(error) => {
            let doubt = format!("revision: it is not known and not recorded: {error:#}");
            (Git::default(), Some(doubt))
        }
    }
}

/// Returns the top of the checkout that a directory is in.
pub(crate) fn repository(directory: &Path) -> Option<&Path> {
    let mut above = directory.ancestors();
    above.find(|directory| directory.join(".git").exists())
}

fn revision(directory: &Path) -> anyhow::Result<Git> {
    let git = |arguments: &[&str]| {
        capture(&Command {
            program: "git".into(),
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
            directory: Some(directory.to_owned()),
            stops_with_stdin: true,
            ..Command::default()
        })
    };
    let revision = git(&["rev-parse", "HEAD"])?;
    let status = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(Git {
        revision: revision.trim().to_owned(),
        dirty: !status.trim().is_empty(),
    })
}

/// Returns the version of the compiler that the working directory's toolchain file selects, and the
/// flags with which this binary was built.
pub(crate) fn toolchain() -> String {
    let rustc = Command {
        program: "rustc".into(),
        arguments: vec!["--version".to_owned()],
        stops_with_stdin: true,
        ..Command::default()
    };
    let version = capture(&rustc).unwrap_or_default();
    match (version.trim(), env!("HOPBENCH_RUSTFLAGS")) {
        (version, "") => version.to_owned(),
        (version, flags) => format!("{version} with {flags}"),
    }
}

/// Returns the profile of this binary. The other programs are built in the same one.
pub(crate) fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    }
}

/// Returns whether the kernel counts time in interrupts for no process
/// (`CONFIG_IRQ_TIME_ACCOUNTING`); `None` if its configuration can't be read.
pub(crate) fn irq_time_accounted() -> Option<bool> {
    static ACCOUNTED: OnceLock<Option<bool>> = OnceLock::new();
    *ACCOUNTED.get_or_init(|| {
        let configuration = kernel_configuration()?;
        Some(accounts_irq_time(&configuration, &read("/proc/cmdline")))
    })
}

/// Looks at the kernel's configuration, and at its command line, which can switch this off.
fn accounts_irq_time(configuration: &str, command_line: &str) -> bool {
    let is_set = |line: &str| line == "CONFIG_IRQ_TIME_ACCOUNTING=y";
    let is_off = command_line.split(' ').any(|word| word == "tsc=noirqtime");
    configuration.lines().any(is_set) && !is_off
}

fn kernel_configuration() -> Option<String> {
    let system = rustix::system::uname();
    let file = format!("/boot/config-{}", system.release().to_string_lossy());
    if let Ok(configuration) = fs::read_to_string(file) {
        return Some(configuration);
    }
    let compressed = "/proc/config.gz";
    let unpack = Command {
        program: "gzip".into(),
        arguments: vec!["-dc".to_owned(), compressed.to_owned()],
        stops_with_stdin: true,
        ..Command::default()
    };
    Path::new(compressed)
        .exists()
        .then(|| capture(&unpack).ok())?
}

/// Checks that the clock has a time that HTTP and records can write. Servers can't serve with
/// another.
pub(crate) fn check_clock(now: SystemTime) -> anyhow::Result<()> {
    let since = now.duration_since(UNIX_EPOCH);
    if since.is_ok_and(|since| since < YEAR_10_000) {
        return Ok(());
    }
    bail!(
        "the clock of this machine is not in the years 1970 to 9999, which the dates of HTTP need; \
         set it, for example with 'date --set'"
    )
}

/// Time from 1970 to the year 10,000.
const YEAR_10_000: Duration = Duration::from_secs(253_402_300_800);

/// Returns the hard limit, to which every child raises its own.
pub(crate) fn open_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// Raises hopbench's own limit, which its children inherit.
pub(crate) fn raise_open_files_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // Fails only where the limit can't be changed. The plan is checked against it.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

/// Returns the load average of the last minute, per core.
pub(crate) fn load_average_per_core() -> Option<f64> {
    let load: f64 = read("/proc/loadavg").split(' ').next()?.parse().ok()?;
    Some(load / thread::available_parallelism().ok()?.get() as f64)
}

fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn virtualization() -> String {
    let product = read("/sys/class/dmi/id/product_name");
    let hypervisor = field("/proc/cpuinfo", "flags")
        .split(' ')
        .any(|flag| flag == "hypervisor");
    match (product.as_str(), hypervisor) {
        ("", true) => "virtual machine".to_owned(),
        ("", false) => "none detected".to_owned(),
        (_, _) => product,
    }
}

/// Returns the limits of this process's own control group, under either hierarchy.
fn cgroup_limits() -> BTreeMap<String, String> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut limits = BTreeMap::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let group = group.trim_start_matches('/');
        let (root, files): (String, &[&str]) = match controllers {
            "" => (
                "/sys/fs/cgroup".to_owned(),
                &["cpu.max", "memory.max", "cpuset.cpus.effective"],
            ),
            _ if controllers.split(',').any(|controller| controller == "cpu") => (
                format!("/sys/fs/cgroup/{controllers}"),
                &["cpu.cfs_quota_us", "cpu.shares"],
            ),
            "memory" => (
                "/sys/fs/cgroup/memory".to_owned(),
                &["memory.limit_in_bytes"],
            ),
            _ => continue,
        };
        for file in files {
            let limit = read(Path::new(&root).join(group).join(file));
            if !limit.is_empty() {
                limits.insert((*file).to_owned(), limit);
            }
        }
    }
    limits
}

/// Clock sources that can't be read without a system call.
const SLOW_CLOCKS: [&str; 3] = ["acpi_pm", "hpet", "jiffies"];

/// Returns the conditions that may make metrics doubtful: what was checked, and what is wrong with
/// it. Watches the cores for a moment.
pub(crate) fn doubts() -> [(&'static str, Option<String>); 4] {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let Machine {
        governor,
        clock_source,
        ..
    } = describe(Path::new("."));
    [
        (
            "build",
            (profile() != "release")
                .then(|| "built without optimisation: use 'cargo build --release'".to_owned()),
        ),
        (
            "cores",
            (cores < 2).then(|| "the load generator and the servers share one core".to_owned()),
        ),
        (
            "clock source",
            SLOW_CLOCKS.contains(&clock_source.as_str()).then(|| {
                format!(
                    "'{clock_source}': reading the time is a system call, which the load \
                     generator makes twice per request; 'tsc' needs none"
                )
            }),
        ),
        (
            "governor",
            (!governor.is_empty() && governor != "performance").then(|| {
                format!("'{governor}': the clock rate follows the load; 'performance' fixes it")
            }),
        ),
    ]
}

/// Returns what makes the figures of a run doubtful before it begins: the machine's own conditions,
/// and busy cores. Takes a moment to watch them.
pub(crate) fn doubts_of_a_run() -> impl Iterator<Item = String> {
    let busy = neighbours::busy_cores();
    let busy = (busy.what, busy.is_noisy.then_some(busy.note));
    let all = doubts().into_iter().chain([busy]);
    all.filter_map(|(what, doubt)| Some(format!("{what}: {}", doubt?)))
}

/// Returns how many files one process of a path may have open at a concurrency. A connection takes
/// three in a plugin with the built-in origin, and two in a proxy. Some dozens are open without any
/// connection.
pub(crate) fn open_files_needed(concurrency: u32) -> u64 {
    u64::from(concurrency) * 3 + 128
}

fn network() -> Vec<String> {
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut names: Vec<String> = interfaces
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            let speed = read(path.join("speed"));
            let known = !speed.is_empty() && speed != "-1";
            Some(if known {
                format!("{name} ({speed} Mbit/s)")
            } else {
                name
            })
        })
        .collect();
    names.sort();
    names
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_default()
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_no_date_can_write_is_refused() {
        let year = Duration::from_secs(365 * 24 * 3_600);
        check_clock(UNIX_EPOCH).expect("1970");
        check_clock(UNIX_EPOCH + year * 8_000).expect("9964");
        for wrong in [UNIX_EPOCH - year, UNIX_EPOCH + year * 10_030] {
            let error = check_clock(wrong).expect_err("no date").to_string();
            assert!(error.contains("1970 to 9999"), "{error}");
        }
    }

    #[test]
    fn the_configuration_says_whether_interrupts_are_apart() {
        let set = "CONFIG_HZ=250\nCONFIG_IRQ_TIME_ACCOUNTING=y\n";
        assert!(accounts_irq_time(set, "quiet"));
        assert!(!accounts_irq_time(set, "quiet tsc=noirqtime"));
        let not_set = "# CONFIG_IRQ_TIME_ACCOUNTING is not set\n";
        assert!(!accounts_irq_time(not_set, ""));
        assert!(!accounts_irq_time(
            "CONFIG_HAVE_IRQ_TIME_ACCOUNTING=y\n",
            ""
        ));
    }
}
