//! Files that are read as memory.

use std::{fs::File, io};

use bytes::Bytes;
use memmap2::Mmap;

/// Maps a whole file for reading. The pages are the kernel's: reading costs no copy, and they are
/// no memory of the process's own.
///
/// The file must never be shortened or overwritten while it is mapped: its owner writes it
/// under another name, renames it once it is whole, and later only unlinks it.
///
/// # Errors
/// If the file can't be mapped, such as when there are too many mappings.
pub fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the caller's files are complete before they have their name, and are only unlinked
    // from then on, so the bytes neither change nor go away. A stranger with the owner's rights
    // could do otherwise, but could as well write to the process's memory.
    let map = unsafe { Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_read_as_memory_also_after_it_is_unlinked() {
        let path = std::env::temp_dir().join(format!("shm-ring-file-{}", std::process::id()));
        let mut file = File::create_new(&path).expect("a new file");
        file.write_all(b"some bytes").expect("written");
        let file = File::open(&path).expect("it is there");
        let bytes = map(&file).expect("mapped");
        std::fs::remove_file(&path).expect("ours");
        drop(file);
        assert_eq!(bytes.slice(5..), b"bytes".as_slice());
    }
}
