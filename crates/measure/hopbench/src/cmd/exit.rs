//! Exit codes other than 0, which means success.

use crate::{
    catalog::CatalogError,
    mistake::Mistake,
    process::{EXIT_INTERRUPTED, Interrupted},
};

/// Trials failed, requests got no correct answer, or a gate found a regression.
pub(crate) const FAILED: u8 = 1;
/// A mistake on the command line or in a file it names.
pub(crate) const USAGE: u8 = 2;
/// There is no verdict: two runs are not comparable, or a gate has too little data.
pub(crate) const INCONCLUSIVE: u8 = 3;
/// The environment is at fault: a program is missing, or a directory can't be written.
pub(crate) const ENVIRONMENT: u8 = 4;

/// Returns the exit code for an error, at whatever depth its cause is.
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
