//! CPU quotas of control groups.

use std::{fs, path::Path};

/// Returns in how many periods a CPU quota has stopped this process's control group or one above
/// it. `None` if no group counts that.
pub(super) fn stops() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    stops_of(&groups, Path::new("/sys/fs/cgroup"))
}

fn stops_of(groups: &str, root: &Path) -> Option<u64> {
    let mut stops = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        if !controllers.is_empty() && !controllers.split(',').any(|it| it == "cpu") {
            continue;
        }
        let root = root.join(controllers);
        let group = Path::new(group.trim_start_matches('/'));
        for group in group.ancestors() {
            let usage = fs::read_to_string(root.join(group).join("cpu.stat"));
            let counted = usage.ok().and_then(|usage| count(&usage, "nr_throttled"));
            stops = counted.map_or(stops, |more| Some(stops.unwrap_or(0) + more));
        }
    }
    stops
}

/// Returns a count of a group's `cpu.stat`.
pub(super) fn count(usage: &str, name: &str) -> Option<u64> {
    let mut fields = usage.lines().filter_map(|line| line.split_once(' '));
    let (_, count) = fields.find(|(field, _)| *field == name)?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_of_a_group_and_of_those_above_it_count() {
        let root = tempfile::TempDir::new().expect("a directory");
        let stat = |group: &str, stops: u32| {
            let group = root.path().join(group);
            fs::create_dir_all(&group).expect("writable");
            let text = format!("nr_periods 100\nnr_throttled {stops}\n");
            fs::write(group.join("cpu.stat"), text).expect("writable");
        };
        assert_eq!(stops_of("0::/a/b\n", root.path()), None);
        stat("a", 3);
        stat("a/b", 50);
        stat("cpu,cpuacct/a", 2);
        assert_eq!(stops_of("0::/a/b\n", root.path()), Some(53));
        assert_eq!(
            stops_of("4:memory:/a\n3:cpu,cpuacct:/a\n", root.path()),
            Some(2)
        );
    }
}
