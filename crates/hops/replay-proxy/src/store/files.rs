//! Long bodies as files. A file has its name, which is its digest, only once it is complete, and is
//! never changed from then on: it may be mapped.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    known::{Known, Tagger},
    rows::Digest,
};

/// The directory of long bodies.
#[derive(Clone, Debug)]
pub struct Files(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bodies: PathBuf,
    unfinished: PathBuf,
    /// Whether files must survive a loss of power.
    is_synced: bool,
    next: AtomicU64,
    known: Known,
}

/// A file that has no name yet. It is deleted unless it is finished.
#[derive(Debug)]
pub struct Unfinished {
    files: Files,
    file: File,
    path: PathBuf,
}

impl Files {
    /// Opens the directories below `store`, and makes them if they aren't there.
    pub(crate) fn open(store: &Path, is_synced: bool) -> io::Result<Self> {
        let (bodies, unfinished) = (store.join("bodies"), store.join("unfinished"));
        fs::create_dir_all(&bodies)?;
        fs::create_dir_all(&unfinished)?;
        let mut key = [0; 16];
        // The operating system's generator; fastrand's would be guessable.
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self(Arc::new(Shared {
            bodies,
            unfinished,
            is_synced,
            next: AtomicU64::new(0),
            known: Known::new(key),
        })))
    }

    /// Deletes what was never finished. Returns how many files that were.
    pub(crate) fn drop_unfinished(&self) -> io::Result<usize> {
        let mut dropped = 0;
        for entry in fs::read_dir(&self.0.unfinished)? {
            fs::remove_file(entry?.path())?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Returns the path of a body.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = blake3::Hash::from_bytes(*digest).to_hex();
        // Directories of a million files are slow to list.
        self.0.bodies.join(&name[..2]).join(name.as_str())
    }

    /// Returns whether a body is there, with this length.
    pub fn has(&self, digest: &Digest, length: u64) -> bool {
        let found = fs::metadata(self.path(digest));
        found.is_ok_and(|found| found.len() == length)
    }

    /// Maps a body, or reads it if it can't be mapped.
    ///
    /// # Errors
    /// If it can't be read, or isn't what its name says.
    pub fn read(&self, digest: &Digest) -> io::Result<Bytes> {
        let path = self.path(digest);
        let bytes = match shm_ring::file::map(&File::open(&path)?) {
            Ok(bytes) => bytes,
            Err(_) => fs::read(&path)?.into(),
        };
        if *blake3::hash(&bytes).as_bytes() != *digest {
            return Err(io::Error::other("its digest isn't its name"));
        }
        Ok(bytes)
    }

    /// Begins to find out whether a body came before.
    pub(crate) fn tagger(&self) -> Tagger {
        self.0.known.tagger()
    }

    /// Returns the digest of a body. If it didn't come before, `digest` finds it out.
    pub(crate) fn digest_of(&self, tagger: Tagger, digest: impl FnOnce() -> Digest) -> Digest {
        self.0.known.digest_of(tagger, digest)
    }

    /// Begins a file.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn begin(&self) -> io::Result<Unfinished> {
        let name = self.0.next.fetch_add(1, Relaxed).to_string();
        let path = self.0.unfinished.join(name);
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        Ok(Unfinished {
            files: self.clone(),
            file,
            path,
        })
    }

    /// Deletes a body. Whoever has mapped it keeps it.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Calls `each` with the digest of every body that is there.
    pub(crate) fn each(&self, mut each: impl FnMut(Digest)) -> io::Result<()> {
        for directory in fs::read_dir(&self.0.bodies)? {
            let directory = directory?.path();
            if !directory.is_dir() {
                continue;
            }
            for entry in fs::read_dir(directory)? {
                let name = entry?.file_name();
                if let Ok(digest) = blake3::Hash::from_hex(name.to_string_lossy().as_bytes()) {
                    each(*digest.as_bytes());
                }
            }
        }
        Ok(())
    }
}

impl Unfinished {
    /// Adds bytes.
    ///
    /// # Errors
    /// If the disk is full, or fails.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Returns the file, for reading what was written.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If the disk is full, or fails.
    pub fn finish(self, digest: &Digest) -> io::Result<()> {
        let path = self.files.path(digest);
        let directory = path.parent().unwrap_or(&self.files.0.bodies);
        fs::create_dir_all(directory)?;
        if self.files.0.is_synced {
            self.file.sync_all()?;
        }
        fs::rename(&self.path, &path)?;
        if self.files.0.is_synced {
            File::open(directory)?.sync_all()?;
            File::open(&self.files.0.bodies)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone if it was finished.
        fs::remove_file(&self.path).ok();
    }
}
