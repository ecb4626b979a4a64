//! Signs that a processor was slowed down while it worked, where the kernel reports them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Directory in which the kernel describes the processors.
pub(super) const CPUS: &str = "/sys/devices/system/cpu";

/// Returns the clock of the slowest core and its possible maximum, in MHz. `None` on most virtual
/// machines.
pub(super) fn frequency_mhz(cpus: &Path) -> Option<(f64, f64)> {
    let of_core = |core: &Path| {
        let mhz = |name: &str| {
            let khz: f64 = number(&core.join("cpufreq").join(name))?;
            Some(khz / 1e3)
        };
        Some((mhz("scaling_cur_freq")?, mhz("cpuinfo_max_freq")?))
    };
    let clocks = cores(cpus).into_iter().filter_map(|core| of_core(&core));
    clocks.min_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)))
}

/// Returns how often cores or packages were throttled because of heat, in total.
pub(super) fn throttled(cpus: &Path) -> Option<u64> {
    let of_core = |core: &Path| {
        let count = |name: &str| number::<u64>(&core.join("thermal_throttle").join(name));
        let package = count("package_throttle_count").unwrap_or_default();
        Some(count("core_throttle_count")? + package)
    };
    let counts = cores(cpus).into_iter().filter_map(|core| of_core(&core));
    counts.reduce(|sum, count| sum + count)
}

fn cores(cpus: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
    let is_core = |name: &str| {
        let digits = name.strip_prefix("cpu").unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    entries
        .filter(|entry| is_core(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

fn number<T: std::str::FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_core_counts_and_throttling_adds_up() {
        let cpus = tempfile::tempdir().expect("a directory");
        for (core, khz, throttled) in [("cpu0", 3_000_000, 2), ("cpu1", 1_500_000, 5)] {
            for (file, value) in [
                ("cpufreq/scaling_cur_freq", khz),
                ("cpufreq/cpuinfo_max_freq", 3_000_000),
                ("thermal_throttle/core_throttle_count", throttled),
                ("thermal_throttle/package_throttle_count", 1),
            ] {
                let file = cpus.path().join(core).join(file);
                fs::create_dir_all(file.parent().expect("below a core")).expect("made");
                fs::write(file, format!("{value}\n")).expect("written");
            }
        }
        fs::create_dir(cpus.path().join("cpufreq")).expect("made");
        assert_eq!(frequency_mhz(cpus.path()), Some((1_500.0, 3_000.0)));
        assert_eq!(throttled(cpus.path()), Some(9));
        let nothing = tempfile::tempdir().expect("a directory");
        assert_eq!(frequency_mhz(nothing.path()), None);
        assert_eq!(throttled(nothing.path()), None);
    }
}
