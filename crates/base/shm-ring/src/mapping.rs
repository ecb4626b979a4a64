//! Memory files and their mappings.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

/// A mapped memory file whose size can't change any more.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
    writable: bool,
}

/// Seals that keep a memory file from growing, from shrinking, and from getting more seals.
const SIZE_SEALS: SealFlags = SealFlags::GROW
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);

/// Seals a memory file's size.
///
/// # Errors
/// If the file was not created with sealing allowed.
pub fn seal_size(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, SIZE_SEALS)?)
}

/// Checks that the size of the peer's memory file is sealed. Otherwise the peer could cut off a
/// mapped page, and an access to it would raise SIGBUS.
///
/// # Errors
/// If the size is not sealed, or this is no memory file.
pub fn check_size_sealed(file: impl AsFd) -> io::Result<()> {
    let seals = rustix::fs::fcntl_get_seals(file)?;
    for (seal, name) in [
        (SealFlags::SHRINK, "shrinking"),
        (SealFlags::GROW, "growing"),
    ] {
        if !seals.contains(seal) {
            let message = format!("the memory file is not sealed against {name}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    Ok(())
}

/// Reason why a file from the peer is not mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the memory file has {found} bytes, expected {expected}")]
    Size { found: u64, expected: u64 },
}

impl Mapping {
    /// Makes a memory file of `bytes` zeros and maps it. With `ours_alone` nobody else will be able
    /// to write to it. The file's size is sealed.
    pub(crate) fn create(
        name: &str,
        bytes: usize,
        ours_alone: bool,
    ) -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(name, flags)?;
        rustix::fs::ftruncate(&file, bytes as u64)?;
        let raw = MmapOptions::new().len(bytes).map_raw(&file)?;
        if ours_alone {
            // The existing mapping stays writable. New mappings can't be.
            rustix::fs::fcntl_add_seals(&file, SealFlags::FUTURE_WRITE)?;
        }
        seal_size(&file)?;
        Ok((
            Self {
                raw,
                writable: true,
            },
            file,
        ))
    }

    /// Maps a file that the peer has made: read-only if only the peer may write to it.
    pub(crate) fn open(
        file: impl AsFd,
        bytes: usize,
        theirs_alone: bool,
    ) -> Result<Self, MappingError> {
        let file = file.as_fd();
        check_size_sealed(file)?;
        let stat = rustix::fs::fstat(file).map_err(io::Error::from)?;
        let (found, expected) = (stat.st_size.unsigned_abs(), bytes as u64);
        if found != expected {
            return Err(MappingError::Size { found, expected });
        }
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
        let mut options = MmapOptions::new();
        let raw = if theirs_alone {
            options.len(bytes).map_raw_read_only(descriptor)?
        } else {
            options.len(bytes).map_raw(descriptor)?
        };
        Ok(Self {
            raw,
            writable: !theirs_alone,
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }
}
