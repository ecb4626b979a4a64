//! The storage below a directory, for the manifest.

use std::{fs, path::Path};

use crate::process::table;

/// The storage that holds a directory. Properties that are not known are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Storage {
    /// File system and device.
    pub(super) mount: String,
    /// Kind of the device.
    pub(super) kind: String,
}

/// File systems that keep files in memory.
const IN_MEMORY: [&str; 2] = ["ramfs", "tmpfs"];

/// File systems whose files are on another machine.
const REMOTE: [&str; 5] = ["9p", "ceph", "cifs", "nfs", "nfs4"];

/// Beginnings of the names of disks that a hypervisor or the kernel makes up. What such a disk says
/// of its rotation is a default.
const MADE_UP: [&str; 5] = ["loop", "nbd", "vd", "xvd", "zram"];

impl Storage {
    /// Looks for the mount that holds `directory`.
    pub(super) fn of(directory: &Path) -> Self {
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let mounts = table::text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        match Mount::holding(&directory, &mounts) {
            None => Self::default(),
            Some(mount) => Self {
                mount: format!("{} on {}", mount.file_system, mount.source),
                kind: kind(&mount, Path::new("/sys/dev/block")),
            },
        }
    }
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    /// Major and minor number of the device, with a colon between.
    device: &'a str,
    mounted_at: &'a str,
    file_system: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (device, _, mounted_at) = (before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        Some(Self {
            device,
            mounted_at,
            file_system: after.next()?,
            source: after.next()?,
        })
    }

    /// Finds the innermost mount. Of two at one place, the later one hides the other.
    fn holding(directory: &Path, mounts: &'a str) -> Option<Self> {
        let mounts = mounts.lines().filter_map(Self::parse);
        mounts
            .filter(|mount| directory.starts_with(mount.mounted_at))
            .max_by_key(|mount| mount.mounted_at.len())
    }
}

/// Returns the kind of a mount's device; empty if it is not known.
fn kind(mount: &Mount<'_>, devices: &Path) -> String {
    let is_in = |names: &[&str]| names.contains(&mount.file_system);
    if is_in(&IN_MEMORY) {
        return "memory".to_owned();
    }
    if is_in(&REMOTE) {
        return "another machine".to_owned();
    }
    // The file of a device leads to its directory, and a partition's directory is in the disk's.
    let Ok(directory) = fs::canonicalize(devices.join(mount.device)) else {
        return String::new();
    };
    let disk = match (directory.join("queue").is_dir(), directory.parent()) {
        (false, Some(parent)) => parent.to_owned(),
        (true, _) | (false, None) => directory,
    };
    kind_of_disk(&disk).to_owned()
}

fn kind_of_disk(disk: &Path) -> &'static str {
    let is_made_up = |disk: &Path| {
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        MADE_UP.iter().any(|prefix| name.starts_with(prefix))
    };
    // A volume or an array names the disks that it is made of.
    let below = fs::read_dir(disk.join("slaves")).into_iter().flatten();
    let mut below = below.filter_map(|entry| Some(entry.ok()?.path()));
    if is_made_up(disk) || below.any(|disk| is_made_up(&disk)) {
        return "virtual disk";
    }
    let rotational = fs::read_to_string(disk.join("queue/rotational")).unwrap_or_default();
    match rotational.trim() {
        "0" => "disk without rotation",
        "1" => "rotating disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use super::*;

    const MOUNTS: &str = "\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        28 27 8:2 / /srv rw shared:1 - ext4 /dev/sda2 rw\n\
        29 27 0:5 / /srv/fast rw - tmpfs tmpfs rw\n\
        30 27 0:6 / /net rw - nfs4 host:/files rw\n\
        broken\n";

    fn mount(directory: &str) -> Mount<'static> {
        Mount::holding(Path::new(directory), MOUNTS).expect("there is a root")
    }

    #[test]
    fn the_innermost_mount_holds_a_directory() {
        assert_eq!(mount("/srv/fast/x").file_system, "tmpfs");
        assert_eq!(mount("/srv/faster").source, "/dev/sda2");
        assert_eq!(mount("/other").device, "254:0");
        assert_eq!(Mount::holding(Path::new("/"), ""), None);
    }

    #[test]
    fn disks_say_what_they_are() {
        let root = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(root.path()).expect("there");
        let devices = root.join("dev");
        fs::create_dir(&devices).expect("made");
        for (number, disk, partition, rotational) in [
            ("254:0", "pci0/virtio1/block/vda", "", "1"),
            ("8:2", "pci0/ata1/block/sda", "/sda2", "1"),
            ("259:0", "pci0/nvme0/nvme0n1", "", "0"),
            ("253:0", "virtual/block/dm-0", "", "0"),
            ("253:1", "virtual/block/dm-1", "", "1"),
            ("1:1", "pci0/odd", "", "?"),
        ] {
            let disk = root.join(disk);
            fs::create_dir_all(disk.join("queue")).expect("made");
            fs::write(disk.join("queue/rotational"), rotational).expect("written");
            let own = PathBuf::from(format!("{}{partition}", disk.display()));
            fs::create_dir_all(&own).expect("made");
            symlink(own, devices.join(number)).expect("made");
        }
        fs::create_dir_all(root.join("virtual/block/dm-1/slaves/vda2")).expect("made");
        for (device, file_system, expected) in [
            ("254:0", "ext4", "virtual disk"),
            ("8:2", "ext4", "rotating disk"),
            ("259:0", "xfs", "disk without rotation"),
            ("253:0", "ext4", "disk without rotation"),
            ("253:1", "ext4", "virtual disk"),
            ("1:1", "ext4", ""),
            ("0:40", "overlay", ""),
            ("0:5", "tmpfs", "memory"),
            ("0:6", "nfs4", "another machine"),
        ] {
            let mount = Mount {
                device,
                mounted_at: "/",
                file_system,
                source: "source",
            };
            assert_eq!(kind(&mount, &devices), expected, "{device} {file_system}");
        }
    }
}
