//! What the program ends with, 0 being fine.

use crate::{
    catalog::CatalogError,
    process::{EXIT_INTERRUPTED, Interrupted},
};

/// Trials failed, requests got no right answer, or a gate found a regression.
pub(crate) const FAILED: u8 = 1;
/// A mistake on the command line or in a file it names.
pub(crate) const USAGE: u8 = 2;
/// There is nothing to say: two runs are not comparable, or a gate has not enough to go by.
pub(crate) const INCONCLUSIVE: u8 = 3;
/// Something about the machine: a program is missing, a directory can't be written.
pub(crate) const ENVIRONMENT: u8 = 4;

/// What was asked for can't be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Mistake(pub(crate) String);

/// The code for an error, at whatever depth its cause was found.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Interrupted>()) {
        EXIT_INTERRUPTED
    } else if error
        .chain()
        .any(|cause| cause.is::<CatalogError>() || cause.is::<Mistake>())
    {
        USAGE
    } else {
        ENVIRONMENT
    }
}
