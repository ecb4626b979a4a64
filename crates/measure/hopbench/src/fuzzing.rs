//! Entry points for fuzzing: parsers of files and of the load generator's output.

use crate::{catalog, run::trial};

/// Parses a definition, whose first byte selects its kind. Returns whether it is valid.
///
/// # Panics
/// Panics if the parser does.
pub fn read_definition(bytes: &[u8]) -> bool {
    let Some((kind, text)) = bytes.split_first() else {
        return false;
    };
    catalog::read_definition(*kind, &String::from_utf8_lossy(text))
}

/// Parses the load generator's output and checks it. Returns whether it is sound.
///
/// # Panics
/// Panics if parsing or checking does.
pub fn read_load(bytes: &[u8]) -> bool {
    trial::read_load(&String::from_utf8_lossy(bytes))
}
