//! For fuzzing: what is read of files and of the load generator.

use crate::{catalog, trial};

/// Reads a definition; the first byte says of what. Whether it was taken.
///
/// # Panics
/// If reading does.
pub fn read_definition(bytes: &[u8]) -> bool {
    let Some((kind, text)) = bytes.split_first() else {
        return false;
    };
    catalog::read_definition(*kind, &String::from_utf8_lossy(text))
}

/// Reads what the load generator prints, and looks for what is wrong with it. Whether it was taken.
///
/// # Panics
/// If reading or looking does.
pub fn read_load(bytes: &[u8]) -> bool {
    trial::read_load(&String::from_utf8_lossy(bytes))
}
