//! Notices when a file changes.
//!
//! The kernel says so (inotify) for the file's directory, since a file that is replaced is another
//! one afterwards. It says nothing of files that another machine changes, and of those that a link
//! into another directory leads to. So the file is looked at from time to time as well.

use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

/// Waits for changes of a file.
#[derive(Debug)]
pub(crate) struct Watch {
    file: PathBuf,
    seen: Marks,
    /// Set for an event that is about the file itself.
    events: Option<mpsc::Receiver<bool>>,
    looks: Interval,
}

/// The marks by which a file is known to have changed: its time, its size, and its number.
type Marks = Option<(SystemTime, u64, u64)>;

/// Interval at which a file is looked at although the kernel tells of changes.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// Interval at which a file is looked at if the kernel can't tell.
const LOOK_ALONE: Duration = Duration::from_millis(200);

/// Events that may wait to be taken. The kernel keeps more.
const EVENTS_MAX: usize = 16;

impl Watch {
    /// Begins to watch a file, which is also looked at every so often.
    pub(crate) fn new(file: PathBuf, look: Duration) -> Self {
        let events = events(&file).inspect_err(|error| {
            let name = file.display();
            tracing::info!("'{name}' is looked at every {LOOK_ALONE:?}, without inotify: {error}");
        });
        let events = events.ok();
        let mut looks = interval(if events.is_some() { look } else { LOOK_ALONE });
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            seen: marks(&file),
            file,
            events,
            looks,
        }
    }

    /// Waits until the file has changed. May be cancelled.
    pub(crate) async fn changed(&mut self) {
        loop {
            let is_told = match &mut self.events {
                Some(events) => tokio::select! {
                    told = events.recv() => told,
                    _ = self.looks.tick() => Some(false),
                },
                None => {
                    self.looks.tick().await;
                    Some(false)
                }
            };
            let is_told = is_told.unwrap_or_else(|| {
                self.events = None;
                self.looks = interval(LOOK_ALONE);
                false
            });
            let now = marks(&self.file);
            let has_changed = now != self.seen;
            self.seen = now;
            // A file that was written twice within the resolution of its time has the same marks.
            if has_changed || is_told {
                return;
            }
        }
    }
}

/// Has the kernel tell of files that were written and closed, or put in place, beside this one.
fn events(file: &Path) -> io::Result<mpsc::Receiver<bool>> {
    let directory = match file.parent() {
        None => Path::new("/"),
        Some(here) if here.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    let name = file.file_name().unwrap_or_default().to_owned();
    let events = inotify::init(CreateFlags::CLOEXEC)?;
    let kinds = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
    inotify::add_watch(&events, directory, kinds)?;
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    // It waits for the kernel, and ends with the process: tokio can't wait for such descriptors
    // without unsafe code.
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            if let Err(error) = tell(events, &name, &sender) {
                tracing::warn!("the directory of the configuration: inotify: {error}");
            }
        })?;
    Ok(receiver)
}

/// Sends on what the kernel tells. Returns if nobody listens any more.
fn tell(events: OwnedFd, name: &OsStr, listener: &mpsc::Sender<bool>) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(events, &mut buffer);
    loop {
        let event = match reader.next() {
            Err(rustix::io::Errno::INTR) => continue,
            event => event?,
        };
        let is_of_file = event
            .file_name()
            .is_some_and(|of| of.to_bytes() == name.as_bytes());
        // A new file is empty until it is written. A new link shows by other marks.
        let is_told = is_of_file && !event.events().contains(ReadFlags::CREATE);
        if listener.blocking_send(is_told).is_err() {
            return Ok(());
        }
    }
}

fn marks(file: &Path) -> Marks {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    /// So long that no look takes part, nor the watchdog.
    const HOUR: Duration = Duration::from_secs(3600);

    async fn noticed(watch: &mut Watch) {
        let noticed = timeout(Duration::from_secs(60), watch.changed()).await;
        noticed.expect("the kernel tells");
    }

    /// Lets the first look pass, which is at once.
    async fn watch(file: &Path) -> Watch {
        let mut watch = Watch::new(file.to_owned(), HOUR);
        assert!(watch.events.is_some(), "without inotify");
        watch.looks.tick().await;
        watch
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_that_is_written_or_replaced_has_changed() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "one").expect("written");
        let mut watch = watch(&file).await;
        for text in ["two", "six", "six"] {
            fs::write(&file, text).expect("written");
            noticed(&mut watch).await;
        }
        let beside = directory.path().join("beside");
        fs::write(&beside, "ten").expect("written");
        fs::rename(&beside, &file).expect("renamed");
        noticed(&mut watch).await;
        fs::write(&beside, "another").expect("written");
        fs::remove_file(&file).expect("removed");
        fs::write(&file, "new").expect("written");
        noticed(&mut watch).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_link_beside_the_file_may_change_it() {
        let directory = TempDir::new().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("file"), version).expect("written");
        }
        symlink("one", at("now")).expect("linked");
        symlink("now/file", at("file")).expect("linked");
        let mut watch = watch(&at("file")).await;
        symlink("two", at("next")).expect("linked");
        fs::rename(at("next"), at("now")).expect("renamed");
        noticed(&mut watch).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_nobody_tells_of_is_seen() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "one").expect("written");
        let mut watch = Watch::new(file.clone(), LOOK);
        watch.events = None;
        fs::write(&file, "longer").expect("written");
        watch.changed().await;
    }
}
